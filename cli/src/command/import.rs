//! `import`: the services of a compose file as services with one new version each.
//!
//! No traffic moves: a file seldom says all that a service needs here. Everything is checked before
//! anything is created. Remarks about what a file says and cless cannot do go to stderr.

use std::path::{Path, PathBuf};

use clap::Args;
use cless_proto::v1 as pb;
use tonic::Code;

use super::deploy::{PreparedService, create_version};
use crate::args::DryRunArgs;
use crate::client::ApiClient;
use crate::compose::{self, Import, Sources};
use crate::error::Error;
use crate::file;
use crate::output::Printer;
use crate::text;

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(after_help = "\
Services that listen on no port are left out unless --service names them. Lines
that cannot be imported are listed on stderr, each with a remedy.

Examples:
  cless import compose.yaml --dry-run      Only check the file
  cless import compose.yaml --service web  One service
  cless import compose.yaml --service web --dry-run -o yaml > web.yaml")]
pub(crate) struct ImportArgs {
    /// Compose file; - for standard input. Variables come from the environment, then from .env beside it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Service of the file to import; may be repeated [default: those that listen on a port]
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

pub(crate) async fn run(
    args: ImportArgs,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    let shown = args.file.display().to_string();
    let plan = read(&args.file, &args.service).map_err(|problem| Error::File {
        lines: vec![format!("{shown}{problem}")],
    })?;
    for remark in &plan.remarks {
        printer.note(&text::clean(&format!("{shown}:{remark}")));
    }
    if plan.services.is_empty() {
        return Err(Error::Usage {
            message: format!("{shown}: no service can be imported"),
            hint: Some("name one with --service, and see the lines above".to_owned()),
        });
    }
    let located = |import: &Import, error: Error| located(&shown, import, error);
    let mut existing = Vec::new();
    for import in &plan.services {
        let checked = check(import, client).await;
        existing.push(checked.map_err(|error| located(import, error))?);
    }
    let mut versions = Vec::new();
    for (import, existing) in plan.services.iter().zip(existing) {
        versions.push(if args.dry_run.dry_run {
            pb::Version {
                name: format!("services/{}/versions/-", import.id),
                spec: Some(import.spec.clone()),
                ..Default::default()
            }
        } else {
            let created = create(import, existing, client, printer).await;
            created.map_err(|error| located(import, error))?
        });
    }
    show(&plan.services, &versions, printer)?;
    for (import, version) in plan.services.iter().zip(&versions) {
        let (id, number) = (&import.id, version.number);
        if !args.dry_run.dry_run {
            printer.note(&format!(
                "to send traffic: cless version verify {id} v{number}, then cless traffic set {id} v{number}=100"
            ));
        }
    }
    if args.dry_run.dry_run {
        printer.note("dry run: nothing was changed");
    }
    Ok(())
}

/// Reads a compose file with its `.env`.
///
/// # Errors
/// The problem, which begins with `:` and the line if it has one.
fn read(file: &Path, only: &[String]) -> Result<compose::Plan, String> {
    let is_stdin = file.as_os_str() == "-";
    let folder = match file.parent() {
        Some(folder) if !is_stdin => folder,
        _ => Path::new(""),
    };
    let text = if is_stdin {
        bounded(std::io::stdin().lock())
    } else {
        regular(file)
            .and_then(|file| file.map_or_else(|| Err("does not exist".to_owned()), bounded))
    };
    let text = text.map_err(|problem| format!(": {problem}"))?;
    let process = |name: &str| std::env::var(name).ok();
    let env_file = |path: &str| regular(&folder.join(path))?.map(bounded).transpose();
    let dotenv = env_file(".env").map_err(|problem| format!(": .env: {problem}"))?;
    let dotenv = compose::parse_dotenv(dotenv.as_deref().unwrap_or_default(), &process)
        .map_err(|(line, problem)| format!(": .env:{line}: {problem}"))?;
    let dotenv: std::collections::BTreeMap<String, String> = dotenv
        .into_iter()
        .filter_map(|variable| Some((variable.name, variable.value?)))
        .collect();
    let sources = Sources {
        variable: &|name| process(name).or_else(|| dotenv.get(name).cloned()),
        env_file: &env_file,
    };
    compose::read(&text, only, &sources).map_err(|remark| format!(":{remark}"))
}

/// Opens a regular file; `None` if it does not exist. A pipe or a device could block for ever.
fn regular(path: &Path) -> Result<Option<std::fs::File>, String> {
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err("is not a regular file: give a file".to_owned()),
        Ok(_) => std::fs::File::open(path)
            .map(Some)
            .map_err(|error| error.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn bounded(source: impl std::io::Read) -> Result<String, String> {
    file::read_text(source, compose::FILE_MAX)
}

/// Checks a service and its version without a change; returns the service if it exists.
async fn check(import: &Import, client: &ApiClient) -> Result<Option<pb::Service>, Error> {
    let id = &import.id;
    let is_missing = |error: &Error| error.code() == Some(Code::NotFound);
    let existing = match client.get_service(id).await {
        Ok(service) => Some(service),
        Err(error) if is_missing(&error) => None,
        Err(error) => return Err(error),
    };
    match &existing {
        Some(service) => update(import, service, client, true).await?,
        None => {
            client.create_service(id, new_service(import), true).await?;
        }
    }
    // The version of a new service is checked before the service is found missing.
    match client.create_version(id, import.spec.clone(), true).await {
        Err(error) if !(existing.is_none() && is_missing(&error)) => Err(error),
        _ => Ok(existing),
    }
}

async fn create(
    import: &Import,
    existing: Option<pb::Service>,
    client: &ApiClient,
    printer: &Printer,
) -> Result<pb::Version, Error> {
    let id = &import.id;
    let is_new = existing.is_none();
    let service = match existing {
        Some(service) => {
            update(import, &service, client, false).await?;
            service
        }
        None => {
            let created = client
                .create_service(id, new_service(import), false)
                .await?;
            printer.note(&format!("created services/{id}"));
            created
        }
    };
    let prepared = PreparedService { service, is_new };
    create_version(&prepared, import.spec.clone(), client, printer).await
}

fn new_service(import: &Import) -> pb::Service {
    pb::Service {
        settings: Some(import.settings.clone()),
        labels: import.labels.clone(),
        ..Default::default()
    }
}

/// Sets the settings and adds the labels of an import.
async fn update(
    import: &Import,
    service: &pb::Service,
    client: &ApiClient,
    validate_only: bool,
) -> Result<(), Error> {
    let settings = import.settings.clone();
    let mut labels = service.labels.clone();
    labels.extend(import.labels.clone());
    let fields = [
        ("settings.max_instances", settings.max_instances.is_some()),
        (
            "settings.cold_start_timeout",
            settings.cold_start_timeout.is_some(),
        ),
        ("labels", labels != service.labels),
    ];
    let given = fields.into_iter().filter(|(_, given)| *given);
    let mask: Vec<String> = given.map(|(name, _)| name.to_owned()).collect();
    if mask.is_empty() {
        return Ok(());
    }
    let change = pb::Service {
        name: service.name.clone(),
        // Labels are replaced as a whole.
        etag: service.etag.clone(),
        settings: Some(settings),
        labels,
        ..Default::default()
    };
    client.update_service(change, mask, validate_only).await?;
    Ok(())
}

/// The error with the lines of the file that set the refused fields.
fn located(file: &str, import: &Import, error: Error) -> Error {
    let violations = error.violations();
    if violations.is_empty() {
        return error;
    }
    let lines = violations.into_iter().map(|(field, reason)| {
        let mut place = import.origin(&field).clone();
        place.text = reason;
        format!("{file}:{place}")
    });
    Error::File {
        lines: lines.collect(),
    }
}

fn show(imports: &[Import], versions: &[pb::Version], printer: &Printer) -> Result<(), Error> {
    let rows = imports.iter().zip(versions).map(|(import, version)| {
        let number = match version.number {
            0 => "-".to_owned(),
            number => format!("v{number}"),
        };
        let port = match import.spec.port {
            0 => "-".to_owned(),
            port => port.to_string(),
        };
        vec![
            text::clean(&import.id),
            number,
            text::clean(&import.spec.image),
            port,
        ]
    });
    let columns = ["SERVICE", "VERSION", "IMAGE", "PORT"];
    printer.show_rows(versions, &columns, rows.collect())
}
