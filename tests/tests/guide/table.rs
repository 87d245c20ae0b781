//! The tables, in Markdown.
//!
//! Meaning, default and range of a row come from one text, the help of a flag or the comment of a
//! field: `Meaning. Default: VALUE. Range: VALUES.`

use clap::{Arg, Command};
use cless_data_plane::metrics::Metrics;
use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// A text of a flag or a field, taken apart.
#[derive(Debug, Default)]
struct Text {
    meaning: String,
    default: Option<String>,
    range: Option<String>,
}

impl Text {
    fn parse(text: &str) -> Self {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        // The command line has its defaults in brackets, as clap writes them.
        let text = text.replace(" [new service: ", " [default: ");
        let text = match text.split_once(" [default: ") {
            Some((meaning, default)) => {
                format!("{meaning}. Default: {}", default.trim_end_matches(']'))
            }
            None => text,
        };
        let (text, range) = cut(&text, "Range: ");
        let (meaning, default) = cut(text, "Default: ");
        Self {
            meaning: meaning.trim_end_matches('.').to_owned(),
            default,
            range,
        }
    }
}

/// The text before `label`, and the value after it.
fn cut<'a>(text: &'a str, label: &str) -> (&'a str, Option<String>) {
    match text.split_once(label) {
        Some((before, value)) => {
            let value = value.trim().trim_end_matches('.');
            (before.trim(), Some(value.to_owned()))
        }
        None => (text.trim(), None),
    }
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&head.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>());
    text.push_str(&format!("|{}\n", "---|".repeat(head.len())));
    for row in rows {
        // A bar in a cell would end it.
        let cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        text.push_str(&line(&cells));
    }
    text
}

fn help(arg: &Arg) -> Text {
    let help = arg.get_long_help().or_else(|| arg.get_help());
    Text::parse(&help.map(ToString::to_string).unwrap_or_default())
}

/// `--flag`, with the name of its value where that says more than the flag's own name.
fn flag(arg: &Arg) -> Option<String> {
    let long = arg.get_long().filter(|long| !["help", "version"].contains(long))?;
    let own = long.to_uppercase().replace('-', "_");
    let value = arg.get_value_names().and_then(|names| names.first());
    let value = value.filter(|value| arg.get_action().takes_values() && **value != *own);
    Some(match value {
        Some(value) => format!("`--{long} {value}`"),
        None => format!("`--{long}`"),
    })
}

fn default(arg: &Arg, text: &Text) -> String {
    let given = arg.get_default_values().iter();
    let given: Vec<_> = given.map(|value| format!("`{}`", value.to_string_lossy())).collect();
    match &text.default {
        Some(default) => default.clone(),
        None if !arg.get_action().takes_values() => "off".to_owned(),
        None if given.is_empty() => "none".to_owned(),
        None => given.join(" "),
    }
}

/// The flags of a plane; asserts that each has its variable, as the pages say.
fn flags(command: &Command) -> String {
    let rows = command.get_arguments().filter_map(|arg| {
        let name = flag(arg)?;
        let long = arg.get_long()?.to_uppercase().replace('-', "_");
        let variable = arg.get_env().and_then(|name| name.to_str());
        assert_eq!(variable, Some(&*format!("CLESS_{long}")), "{name}");
        let text = help(arg);
        Some(vec![name, default(arg, &text), text.meaning])
    });
    table(&["flag", "default", ""], rows)
}

/// The commands of a program, a row for each group; with the flags that the program itself lacks.
fn commands(command: &Command) -> String {
    let known: Vec<_> = command.get_arguments().map(Arg::get_id).collect();
    let rows = command.get_subcommands().map(|sub| {
        let parts: Vec<_> = sub.get_subcommands().map(Command::get_name).collect();
        let mut name = format!("{} {}", sub.get_name(), parts.join("|"));
        if sub.get_arguments().count() < 10 {
            let own = sub.get_arguments().filter(|arg| !known.contains(&arg.get_id()));
            let own = own.filter_map(flag).map(|flag| format!(" {}", flag.trim_matches('`')));
            name.extend(own);
        }
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        vec![format!("`{}`", name.trim()), about]
    });
    table(&["command", ""], rows)
}

pub(crate) fn control_plane_flags() -> String {
    flags(&cless_control_plane::command())
}

pub(crate) fn control_plane_commands() -> String {
    commands(&cless_control_plane::command())
}

pub(crate) fn data_plane_flags() -> String {
    flags(&cless_data_plane::command())
}

pub(crate) fn cli_commands() -> String {
    commands(&cless_cli::command())
}

/// The flags of `deploy`, less those of a service's settings: the API's names, said in `proto/README.md`.
pub(crate) fn deploy_flags() -> String {
    let command = cless_cli::command();
    let deploy = command.find_subcommand("deploy").expect("a command");
    let settings = message("ServiceSettings");
    let rows = deploy.get_arguments().filter_map(|arg| {
        let field = arg.get_id().as_str();
        let setting = settings.fields().any(|(setting, _)| setting.name() == field);
        let name = flag(arg).filter(|_| !setting)?;
        let text = help(arg);
        Some(vec![name, default(arg, &text), text.meaning])
    });
    table(&["flag", "default", ""], rows)
}

/// A message of `resources.proto`, with the comments of the file.
struct Message {
    file: FileDescriptorProto,
    index: usize,
}

fn message(name: &str) -> Message {
    let set = FileDescriptorSet::decode(cless_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let mut files = set.file.into_iter();
    let file = files.find(|file| file.name().ends_with("resources.proto")).expect("a file");
    let index = position(&file, name).expect("a message");
    Message { file, index }
}

fn position(file: &FileDescriptorProto, name: &str) -> Option<usize> {
    file.message_type.iter().position(|message| message.name() == name)
}

/// The comment before a declaration; a path is that of `SourceCodeInfo.Location` (descriptor.proto).
fn comment(file: &FileDescriptorProto, path: &[usize]) -> Option<String> {
    let mut places = file.source_code_info.iter().flat_map(|info| &info.location);
    let same = |at: &[i32]| at.iter().map(|&at| usize::try_from(at).ok()).eq(path.iter().copied().map(Some));
    places.find(|place| same(&place.path))?.leading_comments.clone()
}

impl Message {
    /// The fields, each with its comment; one without has that of its message.
    fn fields(&self) -> impl Iterator<Item = (&FieldDescriptorProto, Text)> {
        let fields = &self.file.message_type[self.index].field;
        fields.iter().enumerate().map(|(number, field)| {
            let own = comment(&self.file, &[4, self.index, 2, number]);
            let of_type = || {
                let name = field.type_name().rsplit('.').next()?;
                comment(&self.file, &[4, position(&self.file, name)?])
            };
            (field, Text::parse(&own.or_else(of_type).unwrap_or_default()))
        })
    }

    fn table(&self) -> String {
        let rows = self.fields().map(|(field, text)| {
            let default = text.default.or_else(|| {
                (field.r#type() == Type::Bool).then(|| "false".to_owned())
            });
            let cells = [default, text.range].map(Option::unwrap_or_default);
            let [default, range] = cells;
            vec![format!("`{}`", field.name()), default, range, text.meaning]
        });
        table(&["field", "default", "range", ""], rows)
    }
}

pub(crate) fn settings() -> String {
    message("ServiceSettings").table()
}

pub(crate) fn version_spec() -> String {
    message("VersionSpec").table()
}

pub(crate) fn readiness_probe() -> String {
    message("ReadinessProbe").table()
}

/// The metrics of a node, read from a scrape that has one sample of each.
pub(crate) fn metrics() -> String {
    let scrape = Metrics::example();
    let about = |line: &'static str| {
        let lines = scrape.lines().filter_map(move |text| text.strip_prefix(line));
        lines.filter_map(|text| text.split_once(' '))
    };
    let rows = about("# HELP ").map(|(name, help)| {
        let kind = about("# TYPE ").find(|(of, _)| *of == name).map(|(_, kind)| kind);
        let kind = kind.unwrap_or_default();
        let shown = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        let sample = scrape.lines().find_map(|text| text.strip_prefix(name)?.split_once('{'));
        let labels = sample.and_then(|(_, rest)| rest.split_once('}')).map_or("", |(labels, _)| labels);
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        let labels = labels.map(|(label, _)| label).filter(|label| *label != "le");
        let labels: Vec<_> = labels.map(|label| format!("`{label}`")).collect();
        let text = help.trim_end_matches('.').to_owned();
        vec![format!("`{shown}`"), kind.to_owned(), labels.join(", "), text]
    });
    table(&["metric", "type", "labels", ""], rows)
}
