//! The tables, in Markdown.
//!
//! Meaning, default and range of a row come from one text, the help of a flag or the comment of a
//! field: `Meaning. Default: VALUE. Range: VALUES.`

use clap::builder::PossibleValue;
use clap::{Arg, Command, CommandFactory as _};
use cless_control_plane::program::Program as ControlPlane;
use cless_data_plane::metrics::Metrics;
use cless_data_plane::program::Program as DataPlane;
use cless_proto::variables;
use prost::Message as _;
use prost_types::{FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// Defaults that differ from machine to machine.
const OF_THE_MACHINE: [(&str, &str); 3] = [
    ("node", "the host name"),
    ("starts-at-once", "two per core"),
    ("workers", "one per core"),
];

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
        let text = text.replace("; by default, ", " [default: ");
        let text = match text.split_once(" [default: ") {
            Some((meaning, default)) => {
                format!(
                    "{meaning}. Default: {}",
                    default.trim_end_matches([']', '.'])
                )
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

/// `--flag` with its values; their name only where it says more than the flag does.
fn flag(arg: &Arg) -> Option<String> {
    let long = arg.get_long()?;
    if ["help", "version"].contains(&long) {
        return None;
    }
    let names = [long, arg.get_id().as_str()].map(|name| name.to_uppercase().replace('-', "_"));
    let values = arg.get_possible_values();
    let values: Vec<_> = values.iter().map(PossibleValue::get_name).collect();
    let value = arg.get_value_names().and_then(|names| names.first());
    let value = match value.filter(|_| arg.get_action().takes_values()) {
        Some(value) if values.is_empty() && !names.contains(&value.to_string()) => {
            format!(" {value}")
        }
        Some(_) if !values.is_empty() => format!(" {}", values.join("|")),
        _ => String::new(),
    };
    Some(format!("`--{long}{value}`"))
}

fn default(arg: &Arg, text: &Text) -> String {
    let known = OF_THE_MACHINE
        .iter()
        .find(|(flag, _)| arg.get_long() == Some(flag));
    if let Some((_, default)) = known {
        return (*default).to_owned();
    }
    let given = arg.get_default_values().iter();
    let given: Vec<_> = given
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    match &text.default {
        Some(default) => default.clone(),
        None if !arg.get_action().takes_values() => "off".to_owned(),
        None if given.is_empty() => "none".to_owned(),
        None => given.join(" "),
    }
}

/// The flags of a plane; asserts that each has its variable, as the pages say.
fn flags(command: &Command, prefix: &str) -> String {
    let rows = command.get_arguments().filter_map(|arg| {
        let name = flag(arg)?;
        let variable = arg.get_env().and_then(|name| name.to_str());
        let expected = variables::name(prefix, arg.get_long()?);
        assert_eq!(variable, Some(&*expected), "{name}");
        let text = help(arg);
        Some(vec![name, default(arg, &text), text.meaning])
    });
    table(&["flag", "default", ""], rows)
}

/// The commands of a program, a row for each group; with the flags that the program itself lacks.
fn commands(command: &Command, flags: bool) -> String {
    let known: Vec<_> = command.get_arguments().map(Arg::get_id).collect();
    let rows = command.get_subcommands().map(|sub| {
        let mut words = vec![sub.get_name().to_owned()];
        let parts: Vec<_> = sub.get_subcommands().map(Command::get_name).collect();
        words.extend((!parts.is_empty()).then(|| parts.join("|")));
        let own = sub
            .get_arguments()
            .filter(|arg| flags && !known.contains(&arg.get_id()));
        words.extend(
            own.filter_map(flag)
                .map(|flag| flag.trim_matches('`').to_owned()),
        );
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        vec![format!("`{}`", words.join(" ")), about]
    });
    table(&["command", ""], rows)
}

pub(crate) fn control_plane_flags() -> String {
    flags(&ControlPlane::command(), variables::CONTROL_PLANE)
}

pub(crate) fn control_plane_commands() -> String {
    commands(&ControlPlane::command(), true)
}

pub(crate) fn data_plane_flags() -> String {
    flags(&DataPlane::command(), variables::NODE)
}

pub(crate) fn cli_commands() -> String {
    commands(&cless_cli::command(), false)
}

/// The flags of `deploy` for each field of a version and its probe; those of a setting have its name.
const FLAGS: [(&str, &[&str]); 29] = [
    ("image", &["image"]),
    ("port", &["port"]),
    ("env", &["env", "env_file"]),
    ("command", &["command"]),
    ("args", &["arg"]),
    ("cpu_millis", &["cpu"]),
    ("memory_bytes", &["memory"]),
    ("pull_policy", &["pull"]),
    ("pids_limit", &["pids"]),
    ("read_only_root", &["read_only"]),
    ("tmpfs", &["tmpfs"]),
    ("tmpfs_exec", &["tmpfs"]),
    ("user", &["user"]),
    ("stop_signal", &["stop_signal"]),
    ("stop_grace", &["stop_grace"]),
    ("protocol", &["protocol"]),
    ("no_init", &["no_init"]),
    ("cap_add", &["cap_add"]),
    ("shm_bytes", &["shm_size"]),
    ("ulimits", &["ulimit"]),
    ("extra_hosts", &["add_host"]),
    ("dns", &["dns"]),
    ("egress", &["egress"]),
    (
        "readiness.http",
        &["health_path", "health_status", "health_host"],
    ),
    ("readiness.grpc", &["health_grpc"]),
    ("readiness.healthcheck", &["health_check"]),
    ("readiness.period", &["health_interval"]),
    ("readiness.timeout", &["health_timeout"]),
    ("readiness.initial_delay", &["health_delay"]),
];

/// The flags of `deploy` that say how to deploy: those of settings and fields are in `proto/README.md`.
pub(crate) fn deploy_flags() -> String {
    let command = cless_cli::command();
    let deploy = command.find_subcommand("deploy").expect("a command");
    let settings = message("ServiceSettings");
    let rows = deploy.get_arguments().filter_map(|arg| {
        let id = arg.get_id().as_str();
        let setting = settings.fields().any(|(setting, _)| setting.name() == id);
        let field = FLAGS.iter().any(|(_, flags)| flags.contains(&id));
        let name = flag(arg).filter(|_| !setting && !field)?;
        let text = help(arg);
        Some(vec![name, default(arg, &text), text.meaning])
    });
    table(&["flag", "default", ""], rows)
}

/// The flags of `deploy` for a field.
fn field_flags(field: &str) -> String {
    let command = cless_cli::command();
    let deploy = command.find_subcommand("deploy").expect("a command");
    let ids = FLAGS.iter().find(|(of, _)| *of == field);
    let ids = ids.map_or(&[][..], |(_, ids)| ids).iter();
    let args = ids.map(|id| {
        let mut args = deploy.get_arguments();
        args.find(|arg| arg.get_id() == id)
            .unwrap_or_else(|| panic!("deploy has no {id}"))
    });
    args.filter_map(flag).collect::<Vec<_>>().join(" ")
}

/// A message of `resources.proto`, with the comments of the file.
struct Message {
    file: FileDescriptorProto,
    index: usize,
}

fn message(name: &str) -> Message {
    let set = FileDescriptorSet::decode(cless_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let mut files = set.file.into_iter();
    let file = files
        .find(|file| file.name().ends_with("resources.proto"))
        .expect("a file");
    let index = position(&file, name).expect("a message");
    Message { file, index }
}

fn position(file: &FileDescriptorProto, name: &str) -> Option<usize> {
    file.message_type
        .iter()
        .position(|message| message.name() == name)
}

/// The comment before a declaration; a path is that of `SourceCodeInfo.Location` (descriptor.proto).
fn comment(file: &FileDescriptorProto, path: &[usize]) -> Option<String> {
    let mut places = file.source_code_info.iter().flat_map(|info| &info.location);
    let same = |at: &[i32]| {
        at.iter()
            .map(|&at| usize::try_from(at).ok())
            .eq(path.iter().copied().map(Some))
    };
    places
        .find(|place| same(&place.path))?
        .leading_comments
        .clone()
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
            (
                field,
                Text::parse(&own.or_else(of_type).unwrap_or_default()),
            )
        })
    }

    /// Rows of name, default, range, meaning; a message of timings and kinds adds its own below its field.
    fn rows(&self, prefix: &str) -> Vec<[String; 4]> {
        let rows = self.fields().flat_map(|(field, text)| {
            let name = format!("{prefix}{}", field.name());
            let [default, range] = [text.default, text.range].map(Option::unwrap_or_default);
            let below = match field.name() {
                "readiness" => message("ReadinessProbe").rows("readiness."),
                _ => Vec::new(),
            };
            [[name, default, range, text.meaning]]
                .into_iter()
                .chain(below)
        });
        rows.collect()
    }
}

pub(crate) fn settings() -> String {
    let rows = message("ServiceSettings").rows("").into_iter();
    let rows = rows.map(|[name, rest @ ..]| [vec![format!("`{name}`")], rest.to_vec()].concat());
    table(&["field", "default", "range", ""], rows)
}

pub(crate) fn version_spec() -> String {
    let rows = message("VersionSpec").rows("").into_iter();
    let rows = rows.map(|[name, rest @ ..]| {
        let own = vec![format!("`{name}`"), field_flags(&name)];
        [own, rest.to_vec()].concat()
    });
    table(&["field", "flag", "default", "range", ""], rows)
}

/// The metrics of a node, read from a scrape that has one sample of each.
pub(crate) fn metrics() -> String {
    let scrape = Metrics::example();
    let about = |line: &'static str| {
        let lines = scrape
            .lines()
            .filter_map(move |text| text.strip_prefix(line));
        lines.filter_map(|text| text.split_once(' '))
    };
    let rows = about("# HELP ").map(|(name, help)| {
        let kind = about("# TYPE ")
            .find(|(of, _)| *of == name)
            .map(|(_, kind)| kind);
        let kind = kind.unwrap_or_default();
        let shown = if kind == "counter" {
            format!("{name}_total")
        } else {
            name.to_owned()
        };
        let sample = scrape
            .lines()
            .find_map(|text| text.strip_prefix(name)?.split_once('{'));
        let labels = sample
            .and_then(|(_, rest)| rest.split_once('}'))
            .map_or("", |(labels, _)| labels);
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        let labels = labels
            .map(|(label, _)| label)
            .filter(|label| *label != "le");
        let labels: Vec<_> = labels.map(|label| format!("`{label}`")).collect();
        let text = help.trim_end_matches('.').to_owned();
        vec![
            format!("`{shown}`"),
            kind.to_owned(),
            labels.join(", "),
            text,
        ]
    });
    table(&["metric", "type", "labels", ""], rows)
}
