//! A control plane on a temporary database, and runs of `cless` against it.

use std::fmt::Write as _;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Child;

/// Limit of one run of `cless`.
const RUN: Duration = Duration::from_secs(60);

/// A control plane that runs until dropped.
pub(crate) struct Plane {
    running: cless_control_plane::Running,
    _dir: tempfile::TempDir,
}

impl Plane {
    /// Starts a control plane on an ephemeral port.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let options = cless_control_plane::Options {
            listen: ([127, 0, 0, 1], 0).into(),
            database_url: format!(
                "sqlite://{}?mode=rwc",
                dir.path().join("cless.db").display()
            ),
            insecure: true,
            ..Default::default()
        };
        let running = cless_control_plane::start(options)
            .await
            .expect("the control plane starts");
        Self { running, _dir: dir }
    }

    /// The value for `--server`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.running.addr())
    }

    /// [`run`] against this control plane.
    pub(crate) async fn run(&self, command: &str) -> String {
        run(&self.url(), command).await
    }

    /// Runs a command that must succeed and returns its stdout.
    pub(crate) async fn ok(&self, command: &str) -> String {
        let output = output(&self.url(), command).await;
        assert!(
            output.status.success(),
            "{command}: {}",
            transcript(&self.url(), &output)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

/// Runs `cless` with arguments separated by blanks, and returns exit code, stdout and stderr.
pub(crate) async fn run(server: &str, command: &str) -> String {
    transcript(server, &output(server, command).await)
}

/// Runs `cless` and sends SIGINT once its stderr contains `until`.
pub(crate) async fn interrupted(server: &str, command: &str, until: &str) -> String {
    let mut child = spawn(server, command);
    let mut stderr = child.stderr.take().expect("stderr is piped");
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(until) {
            let read = stderr.read_buf(&mut seen).await.expect("stderr is read");
            assert!(
                read > 0,
                "it ended early: {}",
                String::from_utf8_lossy(&seen)
            );
        }
    };
    tokio::time::timeout(RUN, reading)
        .await
        .expect("cless prints it in time");
    let pid = i32::try_from(child.id().expect("it runs")).expect("a pid");
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("the signal is sent");
    let mut output = tokio::time::timeout(RUN, child.wait_with_output())
        .await
        .expect("cless ends in time")
        .expect("cless ran");
    stderr.read_to_end(&mut seen).await.expect("stderr is read");
    output.stderr = seen;
    transcript(server, &output)
}

/// Runs `cless` until its stdout contains `until`, then ends it; what it printed.
pub(crate) async fn interrupted_stdout(server: &str, command: &str, until: &str) -> String {
    let mut child = spawn(server, command);
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(until) {
            let read = stdout.read_buf(&mut seen).await.expect("stdout is read");
            assert!(
                read > 0,
                "it ended early: {}",
                String::from_utf8_lossy(&seen)
            );
        }
    };
    tokio::time::timeout(RUN, reading)
        .await
        .expect("cless prints it in time");
    child.kill().await.expect("it is ended");
    String::from_utf8_lossy(&seen).into_owned()
}

/// Runs `cless` in an empty environment.
pub(crate) async fn output(server: &str, command: &str) -> Output {
    tokio::time::timeout(RUN, spawn(server, command).wait_with_output())
        .await
        .expect("cless ends in time")
        .expect("cless ran")
}

fn spawn(server: &str, command: &str) -> Child {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_cless"))
        .args(["--actor", "ann@test"])
        .args(command.split(' ').filter(|word| !word.is_empty()))
        .env_clear()
        .env("CLESS_SERVER", server)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("cless starts")
}

/// Runs the commands of a session, which are its lines that begin with `$ cless`, and returns the
/// session as printed.
pub(crate) async fn session(server: &str, session: &str) -> String {
    let lines = session.lines().map(str::trim_start);
    let mut runs = Vec::new();
    for command in lines.filter_map(|line| line.strip_prefix("$ cless ")) {
        runs.push(format!("$ cless {command}\n{}", run(server, command).await));
    }
    assert!(!runs.is_empty(), "a session without a command");
    runs.join("\n")
}

/// The exit code unless it is 0, stdout, and stderr with `! ` before each line.
pub(crate) fn transcript(server: &str, output: &Output) -> String {
    let mut text = match output.status.code() {
        Some(0) => String::new(),
        code => format!("exit: {}\n", code.unwrap_or(-1)),
    };
    text += &String::from_utf8_lossy(&output.stdout);
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        let _ = writeln!(text, "{}", format!("! {line}").trim_end());
    }
    text.replace(server, "[SERVER]")
}

/// Compares a transcript after applying [`FILTERS`].
macro_rules! assert_run {
    ($text:expr, @$snapshot:literal) => {{
        let text = $text;
        insta::with_settings!({ filters => $crate::plane::FILTERS.to_vec() }, {
            insta::assert_snapshot!(text, @$snapshot);
        });
    }};
}
pub(crate) use assert_run;

/// Runs the commands of a snapshot and compares it with the session printed.
macro_rules! assert_session {
    ($server:expr, @$session:literal) => {
        $crate::plane::assert_run!(
            $crate::plane::session(&$server, $session).await,
            @$session
        )
    };
}
pub(crate) use assert_session;

/// Replacements of times, ages, etags and uids.
pub(crate) const FILTERS: [(&str, &str); 7] = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[TIME]"),
    // A table row: a word, two spaces, and the age in the last column.
    (r"(?m)^([a-zA-Z0-9]\S*  .*) \d+s$", "$1 [AGE]"),
    (r"offline for \d+s *", "offline for [AGE]  "),
    (r"its etag is [^)]+", "its etag is [ID]"),
    (r#""(etag|uid|id)": "[^"]+""#, r#""$1": "[ID]""#),
    (r"(?m)^( *(?:- )?)(etag|uid): \S+$", "$1$2: [ID]"),
    (r"(?m)^(Etag: +)\S+$", "$1[ID]"),
];
