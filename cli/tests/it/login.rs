//! `login`, `logout`, `context`, and which token goes where.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::plane::{assert_run, transcript};
use crate::secure_plane::{SecurePlane, TOKEN};

/// A user with a home directory.
struct User(tempfile::TempDir);

impl User {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn command(&self, words: &str, variables: &[(&str, &str)]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cless"));
        command
            .args(words.split(' '))
            .env_clear()
            .env("HOME", self.0.path())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `cless`; the transcript has names in place of the plane's address and fingerprint.
    async fn run(&self, plane: &SecurePlane, words: &str, variables: &[(&str, &str)]) -> String {
        let mut command = self.command(words, variables);
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let output = output.expect("no panic").expect("cless runs");
        let text = transcript(&plane.url, &output);
        let text = text.replace(&plane.authority.to_string(), "[AUTHORITY]");
        let text = text.replace(plane.url.trim_start_matches("https://"), "[ADDRESS]");
        text.replace(&self.0.path().display().to_string(), "[HOME]")
    }

    /// Logs in without a terminal.
    async fn log_in(&self, plane: &SecurePlane, flags: &str) -> String {
        let words = format!(
            "login {} --ca-fingerprint {}{flags}",
            plane.url, plane.authority
        );
        self.run(plane, &words, &[("CLESS_TOKEN", TOKEN)]).await
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join(".config/cless/config.toml")
    }
}

/// `cless` on a terminal.
struct Terminal {
    child: std::process::Child,
    master: std::fs::File,
    shown: String,
}

impl Terminal {
    fn start(mut command: std::process::Command) -> Self {
        let pty = openpty(None, None).expect("a terminal");
        let side = || Stdio::from(pty.slave.try_clone().expect("its other side"));
        command.stdin(side()).stdout(side()).stderr(side());
        let child = command.spawn().expect("cless starts");
        Self {
            child,
            master: pty.master.into(),
            shown: String::new(),
        }
    }

    /// Waits until the terminal shows the text.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.shown.contains(text) {
            assert!(Instant::now() < deadline, "no `{text}` in: {}", self.shown);
            let mut bytes = [0; 1024];
            // EIO: the program has ended.
            let read = self.master.read(&mut bytes).unwrap_or(0);
            assert!(read > 0, "no `{text}` in: {}", self.shown);
            self.shown += &String::from_utf8_lossy(&bytes[..read]);
        }
    }

    fn is_echoing(&self) -> bool {
        let settings = tcgetattr(&self.master).expect("a terminal");
        settings.local_flags.contains(LocalFlags::ECHO)
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.master, "{line}").expect("the terminal takes it");
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

#[tokio::test]
async fn a_login_is_stored_and_its_token_goes_with_each_call() {
    let (plane, user) = (SecurePlane::start().await, User::new());
    assert_run!(user.log_in(&plane, " --name prod").await, @"! logged in to [SERVER] with tokens/AbC (viewer); the context `prod` is current");
    let mode = std::os::unix::fs::MetadataExt::mode(&user.file().metadata().expect("a file"));
    assert_eq!(mode & 0o777, 0o600);
    assert_run!(user.run(&plane, "context list", &[]).await, @r"
    NAME  CURRENT  SERVER                   TOKEN
    prod  *        [SERVER]  tokens/AbC
    ");
    let json = user.run(&plane, "context list -o json", &[]).await;
    assert!(!json.contains("s3cret"), "{json}");
    assert_eq!(plane.seen(), [Some(format!("Bearer {TOKEN}"))]);
    assert_run!(user.run(&plane, "service list", &[]).await, @r"
    exit: 4
    ! error: list services: needs the role deployer
    ! hint: ask an administrator of this control plane for a token that permits it (`cless token create`)
    ");
    assert_eq!(plane.seen(), [Some(format!("Bearer {TOKEN}"))]);
    // The address is enough to find the context.
    let by_server = format!("service list --server {} -q", plane.url);
    user.run(&plane, &by_server, &[]).await;
    assert_eq!(plane.seen(), [Some(format!("Bearer {TOKEN}"))]);
    assert_run!(user.run(&plane, "logout", &[]).await, @"! logged out of `prod`; its token is valid until it expires or `cless token revoke AbC`");
    assert_run!(user.run(&plane, "service list", &[]).await, @r"
    exit: 4
    ! error: list services: the call has no token
    ! hint: log in with `cless login https://HOST:PORT`, or set CLESS_TOKEN to a valid token
    ");
    assert_eq!(plane.seen(), [None]);
    assert_run!(user.run(&plane, "context remove prod", &[]).await, @r"
    ! removed the context `prod`
    ! no context is current: choose one with `cless context use NAME`
    ");
    assert_run!(user.run(&plane, "context use prod", &[]).await, @r"
    exit: 2
    ! error: there is no context `prod`
    ! hint: list contexts with `cless context list`
    ");
    assert_run!(user.run(&plane, "context list", &[]).await, @"! no contexts: log in with `cless login https://HOST:PORT`");
}

#[tokio::test]
async fn a_token_goes_only_to_the_server_of_its_context() {
    let (plane, user) = (SecurePlane::start().await, User::new());
    user.log_in(&plane, "").await;
    plane.seen();
    let other = SecurePlane::start().await;
    let words = format!("service list --server {}", other.url);
    let pin = other.authority.to_string();
    let refused = user.run(&other, &words, &[]).await;
    assert_run!(refused, @r"
    exit: 2
    ! error: [SERVER] is not known: no fingerprint of its authority is stored
    ! hint: log in with `cless login [SERVER]`, or set CLESS_CA_FINGERPRINT
    ");
    let reached = user
        .run(&other, &words, &[("CLESS_CA_FINGERPRINT", &pin)])
        .await;
    assert_run!(reached, @r"
    exit: 4
    ! error: list services: the call has no token
    ! hint: log in with `cless login https://HOST:PORT`, or set CLESS_TOKEN to a valid token
    ");
    assert_eq!(other.seen(), [None]);
    // The token of CLESS_SERVER is not for another server.
    let ci = [
        ("CLESS_SERVER", plane.url.as_str()),
        ("CLESS_TOKEN", TOKEN),
        ("CLESS_CA_FINGERPRINT", &pin),
    ];
    let words = format!("service list --server {}", other.url);
    user.run(&other, &words, &ci).await;
    assert_eq!(other.seen(), []);
}

#[tokio::test]
async fn ci_needs_three_variables_and_no_home() {
    let (plane, user) = (SecurePlane::start().await, User::new());
    let pin = plane.authority.to_string();
    let ci = [
        ("CLESS_SERVER", plane.url.as_str()),
        ("CLESS_TOKEN", TOKEN),
        ("CLESS_CA_FINGERPRINT", &pin),
        ("HOME", ""),
    ];
    assert_run!(user.run(&plane, "service create hello", &ci).await, @r"
    exit: 4
    ! error: create services/hello: needs the role deployer
    ! hint: ask an administrator of this control plane for a token that permits it (`cless token create`)
    ");
    assert_eq!(plane.seen(), [Some(format!("Bearer {TOKEN}"))]);
    let wrong = [ci[0], ("CLESS_TOKEN", "cless_AbC_wrong"), ci[2], ci[3]];
    assert_run!(user.run(&plane, "service list", &wrong).await, @r"
    exit: 4
    ! error: list services: the token is not valid
    ! hint: log in with `cless login https://HOST:PORT`, or set CLESS_TOKEN to a valid token
    ");
    plane.seen();
    let malformed = [ci[0], ("CLESS_TOKEN", "wrong"), ci[2], ci[3]];
    assert_run!(user.run(&plane, "service list", &malformed).await, @r"
    exit: 2
    ! error: CLESS_TOKEN: is not a token: give `cless_ID_SECRET` as `cless token create` prints it, whole
    ");
    let liar = "sha256:".to_owned() + &"0".repeat(64);
    let untrusted = [ci[0], ci[1], ("CLESS_CA_FINGERPRINT", &liar), ci[3]];
    assert_run!(user.run(&plane, "service list", &untrusted).await, @r"
    exit: 1
    ! error: cannot reach the control plane at [SERVER]: [ADDRESS] is not the control plane of this cluster, or something between is listening: it presents the authority [AUTHORITY], and not sha256:0000000000000000000000000000000000000000000000000000000000000000
    ! hint: compare the fingerprint with the log of the control plane; if it changed on purpose: cless login [SERVER] --ca-fingerprint FINGERPRINT
    ");
    assert_eq!(plane.seen(), []);
}

#[tokio::test]
async fn a_login_that_fails_changes_nothing() {
    let (plane, user) = (SecurePlane::start().await, User::new());
    let login = format!("login {}", plane.url);
    let token = [("CLESS_TOKEN", TOKEN)];
    assert_run!(user.run(&plane, &login, &token).await, @r"
    exit: 2
    ! error: [SERVER] is not known, and there is no terminal to ask whether to trust it
    ! hint: give --ca-fingerprint or CLESS_CA_FINGERPRINT: the control plane logs it at its start
    ");
    let pinned = format!("{login} --ca-fingerprint {}", plane.authority);
    assert_run!(user.run(&plane, &pinned, &[("CLESS_TOKEN", "cless_a_b")]).await, @r"
    exit: 4
    ! error: check the token: the token is not valid
    ! hint: log in with `cless login https://HOST:PORT`, or set CLESS_TOKEN to a valid token
    ");
    assert_run!(user.run(&plane, &pinned, &[]).await, @r"
    exit: 2
    ! error: the token on stdin is empty: give a token of `cless token create`
    ");
    assert_run!(user.run(&plane, &format!("{pinned} --token-file /none"), &[]).await, @r"
    exit: 2
    ! error: --token-file: /none: No such file or directory (os error 2)
    ");
    assert_run!(user.run(&plane, "login http://127.0.0.1:7070", &token).await, @r"
    exit: 2
    ! error: http://127.0.0.1:7070 knows no tokens: http:// is for a control plane with --insecure
    ! hint: use it without a login, with --server http://127.0.0.1:7070
    ");
    assert_run!(user.run(&plane, "login http://plane:7070", &token).await, @r"
    exit: 2
    ! error: invalid value 'http://plane:7070' for '<URL>...': `http://plane:7070` is another machine, and http:// is neither encrypted nor authenticated: write https:// (http:// reaches a control plane with --insecure on this machine alone)
    !
    ! For more information, try '--help'.
    ");
    assert_run!(user.run(&plane, &format!("{login} --ca-fingerprint x"), &token).await, @r"
    exit: 2
    ! error: invalid value 'x' for '--ca-fingerprint <SHA256>': `x` is no fingerprint: give `sha256:` and 64 hexadecimal digits, as the control plane logs it at its start
    !
    ! For more information, try '--help'.
    ");
    assert!(!user.file().exists());
    user.log_in(&plane, " --name prod").await;
    let before = std::fs::read(user.file()).expect("a file");
    let other = SecurePlane::start().await;
    let taken = user.log_in(&other, " --name prod").await;
    assert_run!(taken.replace(&plane.url, "[PROD]"), @r"
    exit: 6
    ! error: the context `prod` is another control plane, [PROD]
    ! hint: give this one another name with --name
    ");
    assert_eq!(std::fs::read(user.file()).expect("a file"), before);
}

#[tokio::test]
async fn a_malformed_file_is_named_and_kept() {
    let (plane, user) = (SecurePlane::start().await, User::new());
    user.log_in(&plane, "").await;
    let mut text = std::fs::read_to_string(user.file()).expect("a file");
    text.push_str("colour = true\n");
    std::fs::write(user.file(), &text).expect("it is written");
    assert_run!(user.run(&plane, "service list", &[]).await, @r"
    exit: 2
    ! error: [HOME]/.config/cless/config.toml: line 9: colour: unknown field `colour`, expected one of `servers`, `ca-fingerprints`, `token`
    ");
    assert_run!(user.log_in(&plane, "").await, @r"
    exit: 2
    ! error: [HOME]/.config/cless/config.toml: line 9: colour: unknown field `colour`, expected one of `servers`, `ca-fingerprints`, `token`
    ");
    assert_eq!(std::fs::read_to_string(user.file()).expect("a file"), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_asked_for_trust_and_for_the_token_which_it_does_not_show() {
    let (plane, user) = (SecurePlane::start().await, User::new());
    let login = format!("login {}", plane.url);
    // No is the default.
    let mut terminal = Terminal::start(user.command(&login, &[]));
    terminal.wait_for("Trust it? [y/N] ");
    assert!(
        terminal.shown.contains(&plane.authority.to_string()),
        "{}",
        terminal.shown
    );
    terminal.type_line("");
    assert_eq!(terminal.exit_code(), Some(1));
    assert!(!user.file().exists() && plane.seen().is_empty());

    let mut terminal = Terminal::start(user.command(&login, &[]));
    terminal.wait_for("Trust it? [y/N] ");
    terminal.type_line("y");
    terminal.wait_for("Token: ");
    assert!(!terminal.is_echoing());
    terminal.type_line(TOKEN);
    terminal.wait_for("the context `local` is current");
    assert_eq!(terminal.exit_code(), Some(0));
    assert!(terminal.is_echoing());
    assert!(!terminal.shown.contains("s3cret"), "{}", terminal.shown);

    // Again it asks for the token alone.
    let mut terminal = Terminal::start(user.command(&login, &[]));
    terminal.wait_for("Token: ");
    assert!(!terminal.shown.contains("Trust"), "{}", terminal.shown);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(terminal.child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it is sent");
    assert_eq!(terminal.exit_code(), Some(130));
    assert!(terminal.is_echoing());
}

#[tokio::test]
async fn a_token_is_read_from_a_file_or_a_pipe() {
    let (plane, user) = (SecurePlane::start().await, User::new());
    let login = format!("login {} --ca-fingerprint {}", plane.url, plane.authority);
    let path = user.0.path().join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).expect("it is written");
    let from_file = format!("{login} --token-file {}", Path::new(&path).display());
    let text = user.run(&plane, &from_file, &[]).await;
    assert!(text.contains("logged in"), "{text}");
    let mut command = user.command(&login, &[]);
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.stdin(Stdio::piped()).spawn().expect("cless starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        writeln!(stdin, "{TOKEN}").expect("it reads");
        drop(stdin);
        child.wait_with_output().expect("it ends")
    });
    let output = output.await.expect("no panic");
    assert!(output.status.success(), "{output:?}");
}
