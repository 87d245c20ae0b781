//! `dev`: a control plane and a node in one process.
//!
//! The planes run the same code as the two programs and talk gRPC over TLS on loopback, with the
//! credentials of any other cluster ([`access`]). A signal shuts the
//! node down first, while the control plane still serves: requests in flight complete and containers
//! are removed. Then the control plane stops. A second signal ends the process immediately.

mod access;

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;
use cless_proto::endpoint::Endpoint;
use cless_proto::log::{EnvFilter, Log, LogFormat};

use crate::error::Error;
use crate::output::Printer;
use crate::parse;
use crate::signals::Signals;
use access::Access;

/// The name of the SQLite database in the directory of the state.
const DATABASE: &str = "cless.db";

/// The name of the only node.
const NODE: &str = "local";

/// Arguments of `dev`.
#[derive(Debug, Args)]
#[command(mut_args(|arg| arg.env(None::<&'static str>)))]
pub(crate) struct DevArgs {
    /// Address of the proxy
    #[arg(long, value_name = "ADDR")]
    #[arg(default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of the control plane API, which is stored as the context `dev`
    #[arg(long, value_name = "ADDR")]
    #[arg(default_value = "127.0.0.1:7070")]
    grpc: SocketAddr,
    /// Address of the node's metrics and health endpoints
    #[arg(long, value_name = "ADDR")]
    #[arg(default_value = "127.0.0.1:7071")]
    admin: SocketAddr,
    /// Container engine: unix:///... or tcp://... [default: $DOCKER_HOST, else the default socket]
    #[arg(long, value_name = "URL")]
    engine: Option<String>,
    /// Registry credentials in the format of `docker login`
    /// [default: $DOCKER_CONFIG/config.json, else ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    registry_config: Option<PathBuf>,
    /// Remove pulled images after this time without use [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse::positive_duration)]
    prune_images_after: Option<std::time::Duration>,
    /// OCI runtime of the containers: runc, runsc, ... [default: the engine's]
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// Capabilities that versions may add, such as NET_RAW [default: none]
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    #[arg(value_parser = parse::capability)]
    allow_capabilities: Vec<String>,
    /// Destinations on this machine that versions may reach [default: none]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    allow_egress: Vec<Endpoint>,
    /// Directory of the state [default: $XDG_DATA_HOME/cless, else ~/.local/share/cless]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Domain of the services, which are served at SERVICE.DOMAIN
    #[arg(long, value_name = "DOMAIN")]
    #[arg(default_value = "localhost")]
    domain: String,
    /// Keep containers running on exit; the next start adopts them
    #[arg(long)]
    keep_containers: bool,
    /// Filter of log lines on stderr: a level, or a filter such as info,cless_data_plane=debug
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info,sea_orm_migration=warn"
    )]
    log: String,
    /// Format of log lines
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    #[command(flatten, next_help_heading = "Proxy options, as of a node")]
    proxy: cless_data_plane::ProxyOptions,
    #[command(flatten, next_help_heading = "Trace options, as of a node")]
    trace: cless_data_plane::TraceOptions,
}

/// Runs until a signal.
pub(crate) async fn run(args: DevArgs, printer: &Printer) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    log(&args, printer)?;
    let dir = match &args.data_dir {
        Some(dir) => dir.clone(),
        None => default_dir(&|name| std::env::var_os(name).map(PathBuf::from))?,
    };
    let dir = std::path::absolute(&dir).map_err(|source| Error::Io {
        operation: format!("--data-dir: {}", dir.display()),
        source,
    })?;
    let planes = tokio::select! {
        planes = Box::pin(Planes::start(&args, &dir)) => planes?,
        () = signals.next() => return Err(Error::Interrupted { hints: Vec::new() }),
    };
    let (planes, access) = planes;
    let context = access.store(&dir, printer);
    print_addresses(&args, &planes, &dir, &context, printer);
    signals.next().await;
    let containers = if args.keep_containers {
        "keep running"
    } else {
        "are removed"
    };
    printer.note(&format!(
        "stopping: requests in flight complete first, containers {containers}; a second signal stops immediately"
    ));
    tokio::select! {
        () = Box::pin(planes.shutdown()) => Ok(()),
        () = signals.next() => Err(Error::Interrupted {
            hints: vec!["containers may be left: the next `cless dev` cleans them up".to_owned()],
        }),
    }
}

/// Both planes, running.
struct Planes {
    /// Keeps a second process off the same state.
    _lock: File,
    control: cless_control_plane::Running,
    node: cless_data_plane::Running,
}

impl Planes {
    async fn start(args: &DevArgs, dir: &Path) -> Result<(Self, Access), Error> {
        // Without an engine, nothing that a user deploys would start.
        cless_data_plane::check_engine(args.engine.as_deref())
            .await
            .map_err(|error| start_error("node", &error))?;
        let cache_dir = dir.join("node");
        let lock = lock_state(dir, &cache_dir)?;
        let control = cless_control_plane::start(cless_control_plane::Options {
            listen: args.grpc,
            database_url: database_url(&dir.join(DATABASE))?,
            domain: args.domain.clone(),
            data_dir: Some(dir.to_owned()),
            ..Default::default()
        })
        .await
        .map_err(|error| start_error("control plane", &error))?;
        match Self::start_node(args, dir, cache_dir, &control).await {
            Ok((node, access)) => {
                let planes = Self {
                    _lock: lock,
                    control,
                    node,
                };
                Ok((planes, access))
            }
            Err(error) => {
                control.shutdown().await;
                Err(error)
            }
        }
    }

    /// Starts the node, which joins the cluster of the control plane.
    async fn start_node(
        args: &DevArgs,
        dir: &Path,
        cache_dir: PathBuf,
        control: &cless_control_plane::Running,
    ) -> Result<(cless_data_plane::Running, Access), Error> {
        let url = format!("https://{}", connect_addr(control.addr()));
        let server = url.parse().map_err(|error| start_error("node", &error))?;
        let access = Access::open(control, server, dir).await?;
        let join_token = access.join_token(control, NODE, &cache_dir).await?;
        let uri = url
            .parse()
            .map_err(|error: tonic::codegen::http::uri::InvalidUri| start_error("node", &error))?;
        let node = cless_data_plane::start(cless_data_plane::Options {
            listen: args.listen,
            control_planes: vec![uri],
            node: NODE.to_owned(),
            join_token,
            cache_dir,
            admin: args.admin,
            engine: args.engine.clone(),
            registry_config: args.registry_config.clone(),
            prune_images_after: args.prune_images_after,
            runtime: args.runtime.clone(),
            allow_capabilities: args.allow_capabilities.clone(),
            allow_egress: args.allow_egress.clone(),
            keep_containers: args.keep_containers,
            proxy: args.proxy.clone(),
            trace: args.trace.clone(),
            ..Default::default()
        })
        .await;
        match node {
            Ok(node) => Ok((node, access)),
            Err(error) => Err(start_error("node", &error)),
        }
    }

    async fn shutdown(self) {
        self.node.shutdown().await;
        self.control.shutdown().await;
    }
}

/// Creates the directories of the state and locks them for this process.
fn lock_state(dir: &Path, cache_dir: &Path) -> Result<File, Error> {
    let failed = |operation: &str, path: &Path, source| Error::Io {
        operation: format!("--data-dir: {operation} {}", path.display()),
        source,
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.and_then(|()| close_to_others(dir))
        .map_err(|source| failed("create", dir, source))?;
    std::fs::create_dir_all(cache_dir).map_err(|source| failed("create", cache_dir, source))?;
    let path = dir.join("lock");
    let file = File::create(&path).map_err(|source| failed("open", &path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Dev {
            message: format!("another `cless dev` uses the state in {}", dir.display()),
            hint: Some("stop the other one, or set another --data-dir".to_owned()),
        }),
        Err(TryLockError::Error(source)) => Err(failed("lock", &path, source)),
    }
}

/// Closes the directory to other users if it is the state of an earlier release, or empty. The
/// control plane refuses any other that is open to them.
fn close_to_others(dir: &Path) -> io::Result<()> {
    const OTHERS: u32 = 0o077;
    let is_open = std::fs::metadata(dir)?.permissions().mode() & OTHERS != 0;
    let is_ours = dir.join(DATABASE).exists() || std::fs::read_dir(dir)?.next().is_none();
    match is_open && is_ours {
        true => std::fs::set_permissions(dir, Permissions::from_mode(0o700)),
        false => Ok(()),
    }
}

/// Joins the whole chain of causes, because the outermost is rarely the reason.
fn start_error(plane: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let mut message = format!("the {plane} failed to start: {error}");
    let mut hint = None;
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message.push_str(&format!(": {text}"));
        }
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::AddrInUse
        {
            hint = Some(
                "is another `cless dev` running? set other addresses with --listen, --grpc and --admin"
                    .to_owned(),
            );
        }
        cause = error.source();
    }
    Error::Dev { message, hint }
}

/// `context` is the flag that other commands need.
fn print_addresses(args: &DevArgs, planes: &Planes, dir: &Path, context: &str, printer: &Printer) {
    let proxy = connect_addr(planes.node.proxy_addr());
    let api = connect_addr(planes.control.addr());
    let admin = connect_addr(planes.node.admin_addr());
    let mut lines = vec![
        format!(
            "requests:       http://SERVICE.{}:{}",
            args.domain,
            proxy.port()
        ),
        format!("control plane:  https://{api}"),
        format!("metrics:        http://{admin}/metrics"),
        format!("database:       {}", dir.join(DATABASE).display()),
    ];
    if let Some(tls) = planes.node.tls_addr() {
        let port = connect_addr(tls).port();
        lines.insert(
            1,
            format!("encrypted:      https://SERVICE.{}:{port}", args.domain),
        );
    }
    let mut flags = context.to_owned();
    if proxy.port() != 8080 {
        flags.push_str(&format!(" --proxy http://{proxy}"));
    }
    lines.push(format!(
        "try:            cless{flags} deploy hello --image IMAGE"
    ));
    printer.note(&lines.join("\n"));
}

/// The address to connect to: loopback for an unspecified address.
fn connect_addr(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        ip if !ip.is_unspecified() => addr,
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, addr.port())),
        IpAddr::V6(_) => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, addr.port())),
    }
}

fn log(args: &DevArgs, printer: &Printer) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&args.log).map_err(|error| Error::Usage {
        message: format!("--log: {error}"),
        hint: Some("write a level, as in --log debug".to_owned()),
    })?;
    let log = Log {
        format: args.log_format,
        filter,
        color: printer.is_color(),
        flatten: false,
    };
    log.start().map_err(|error| Error::Dev {
        message: format!("cannot log: {error}"),
        hint: None,
    })
}

/// The default of `--data-dir` (XDG base directory specification).
fn default_dir(var: &dyn Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, Error> {
    // The specification declares relative paths invalid.
    let absolute = |name: &str| var(name).filter(|path| path.is_absolute());
    let home = || absolute("HOME").map(|home| home.join(".local/share"));
    absolute("XDG_DATA_HOME")
        .or_else(home)
        .map(|base| base.join("cless"))
        .ok_or_else(|| Error::Usage {
            message: "no directory for the state: HOME is not set".to_owned(),
            hint: Some("set --data-dir".to_owned()),
        })
}

/// The SQLite URL of a path.
fn database_url(path: &Path) -> Result<String, Error> {
    let text = path.to_str().ok_or_else(|| Error::Usage {
        message: format!("--data-dir: {} is not UTF-8", path.display()),
        hint: None,
    })?;
    let escaped = text
        .replace('%', "%25")
        .replace('?', "%3F")
        .replace('#', "%23");
    Ok(format!("sqlite://{escaped}?mode=rwc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_state_directory_follows_xdg() {
        let dir = |xdg: Option<&str>, home: Option<&str>| {
            let var = |name: &str| if name == "HOME" { home } else { xdg }.map(PathBuf::from);
            default_dir(&var).ok()
        };
        assert_eq!(dir(Some("/x"), Some("/h")), Some("/x/cless".into()));
        assert_eq!(
            dir(Some("relative"), Some("/h")),
            Some("/h/.local/share/cless".into())
        );
        assert_eq!(dir(None, None), None);
    }

    #[test]
    fn the_state_is_locked_by_one_process() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = lock_state(dir.path(), &dir.path().join("node"));
        assert!(first.is_ok());
        let second = lock_state(dir.path(), &dir.path().join("node"));
        let message = second.map(drop).expect_err("it is locked").to_string();
        assert!(message.starts_with("another `cless dev`"), "{message}");
        drop(first);
        assert!(lock_state(dir.path(), &dir.path().join("node")).is_ok());
    }

    #[test]
    fn the_state_of_an_earlier_release_is_closed_to_other_users() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mode = |path: &Path| {
            let about = std::fs::metadata(path).expect("it exists");
            about.permissions().mode() & 0o777
        };
        let open = |name: &str, file: Option<&str>| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).expect("it is new");
            if let Some(file) = file {
                std::fs::write(path.join(file), "").expect("it is written");
            }
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("it is ours");
            close_to_others(&path).expect("it is ours");
            mode(&path)
        };
        assert_eq!(open("earlier", Some(DATABASE)), 0o700);
        assert_eq!(open("empty", None), 0o700);
        assert_eq!(open("of-another-use", Some("x")), 0o755);
        let new = dir.path().join("new/state");
        assert!(lock_state(&new, &new.join("node")).is_ok());
        assert_eq!(mode(&new), 0o700);
    }

    #[test]
    fn a_path_is_escaped_in_the_database_url() {
        let url = database_url(Path::new("/a b/50%?#/cless.db"));
        assert_eq!(
            url.ok(),
            Some("sqlite:///a b/50%25%3F%23/cless.db?mode=rwc".to_owned())
        );
    }

    #[test]
    fn an_unspecified_address_becomes_loopback() {
        let connect = |text: &str| connect_addr(text.parse().expect("an address")).to_string();
        assert_eq!(connect("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(connect("[::]:80"), "[::1]:80");
        assert_eq!(connect("192.0.2.1:80"), "192.0.2.1:80");
    }
}
