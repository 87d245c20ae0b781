//! TLS and the authority of a cluster, with `openssl` and `curl` as strangers.

use crate::database::{on_postgres, postgres};
use crate::harness::{SOON, options};
use cless_control_plane::{AuthError, Error, Options, Running, rotate_ca, rotate_keys, start};
use cless_proto::tls::{self, Fingerprint};
use cless_proto::v1::GetNodeRequest;
use cless_proto::v1::node_service_client::NodeServiceClient;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

fn with_tls(folder: &Path) -> Options {
    Options {
        insecure: false,
        data_dir: Some(state(folder)),
        ..options(folder)
    }
}

fn state(folder: &Path) -> PathBuf {
    folder.join("state")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

async fn check_serves(running: &Running) {
    let endpoint = tls::endpoint(&format!("https://{}", running.addr())).expect("a URL");
    let pin = running.fingerprint().expect("it serves TLS");
    let config = tls::client_config(vec![pin], None);
    let channel = tls::connect(endpoint, config, running.cluster()).await;
    let mut client = HealthClient::new(channel.expect("it is trusted"));
    let request = HealthCheckRequest::default();
    client.check(request).await.expect("it answers");
}

fn run(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    let command = command.args(args).stdin(Stdio::null());
    command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// The standard output of `openssl s_client`.
fn s_client(running: &Running, args: &[&str]) -> String {
    let addr = running.addr().to_string();
    let fixed = ["s_client", "-connect", &addr, "-alpn", "h2", "-showcerts"];
    let output = run("openssl", &[&fixed, args].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A certificate and key of an authority of the administrator's.
fn own_certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (cert, key) = (folder.join("own.crt"), folder.join("own.key"));
    let subject = format!("/CN={name}");
    let alternative = format!("subjectAltName=DNS:{name}");
    let output = run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
            "-subj",
            &subject,
            "-addext",
            &alternative,
            "-keyout",
            &key.display().to_string(),
            "-out",
            &cert.display().to_string(),
        ],
    );
    assert!(output.status.success(), "{output:?}");
    (cert, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_an_authority_that_stays() {
    let folder = folder();
    let first = start(with_tls(folder.path())).await.expect("it starts");
    check_serves(&first).await;
    let (pin, cluster) = (first.fingerprint(), first.cluster().map(str::to_owned));
    first.shutdown().await;
    let files = |name: &str| std::fs::read_to_string(state(folder.path()).join(name));
    let master = files("master-key").expect("a master key");
    let again = start(with_tls(folder.path()))
        .await
        .expect("it starts again");
    check_serves(&again).await;
    assert_eq!(again.fingerprint(), pin);
    assert_eq!(again.cluster().map(str::to_owned), cluster);
    again.shutdown().await;
    assert_eq!(files("master-key").expect("it is there"), master);
    let pem = files("ca.pem").expect("the authority");
    let der = run(
        "openssl",
        &[
            "x509",
            "-in",
            &state(folder.path()).join("ca.pem").display().to_string(),
            "-outform",
            "DER",
        ],
    );
    assert_eq!(Some(Fingerprint::of(&der.stdout)), pin, "{pem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_other_master_key_refuses_and_changes_nothing() {
    let folder = folder();
    start(with_tls(folder.path()))
        .await
        .expect("it starts")
        .shutdown()
        .await;
    let file = state(folder.path()).join("master-key");
    let key = std::fs::read_to_string(&file).expect("a key");
    std::fs::remove_file(&file).expect("removed");
    let refused = start(with_tls(folder.path())).await.err().expect("refused");
    assert!(
        matches!(refused, Error::Auth(AuthError::NoMasterKey { .. })),
        "{refused}"
    );
    assert!(refused.to_string().contains("copy the file"), "{refused}");
    assert!(!file.exists(), "a new key would be in the way");
    let other = format!("cless-master-key-v1:{}\n", "5a".repeat(32));
    for (contents, words) in [
        (other.as_str(), "copy the file"),
        ("nonsense", "it is no master key"),
    ] {
        write_secret(&file, contents);
        let refused = start(with_tls(folder.path())).await.err().expect("refused");
        assert!(refused.to_string().contains(words), "{refused}");
        assert_eq!(
            std::fs::read_to_string(&file).expect("it is there"),
            contents
        );
    }
    write_secret(&file, &key);
    let running = start(with_tls(folder.path())).await.expect("it starts");
    check_serves(&running).await;
    running.shutdown().await;
}

fn write_secret(file: &Path, contents: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(file, contents).expect("written");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("private");
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_that_cannot_be_used_are_named() {
    let folder = folder();
    let path = |name: &str| Some(folder.path().join(name));
    std::fs::write(folder.path().join("empty"), "").expect("written");
    let (cert, key) = own_certificate(folder.path(), "a.example");
    let other_key = folder.path().join("other.key");
    std::fs::rename(&key, &other_key).expect("moved");
    let (_, key) = own_certificate(folder.path(), "b.example");
    for (tls_cert, tls_key, words) in [
        (path("none"), None, "--tls-cert needs --tls-key"),
        (None, path("none"), "--tls-key needs --tls-cert"),
        (path("none"), path("none"), "none: No such file"),
        (
            path("empty"),
            Some(key.clone()),
            "--tls-cert holds no certificate",
        ),
        (
            Some(cert.clone()),
            path("empty"),
            "--tls-key holds no private key",
        ),
        (Some(cert), Some(other_key), "do not belong together"),
    ] {
        let options = Options {
            tls_cert,
            tls_key,
            ..with_tls(folder.path())
        };
        let refused = start(options).await.err().expect("refused");
        assert!(refused.to_string().contains(words), "{refused}");
    }
    assert!(!state(folder.path()).exists(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_verify_the_server_by_the_file_of_the_authority() {
    let folder = folder();
    let flags = Options {
        advertise: Some("plane.example.org:7070".parse().expect("an address")),
        ..with_tls(folder.path())
    };
    let running = start(flags).await.expect("it starts");
    let ca = state(folder.path()).join("ca.pem").display().to_string();
    let cluster = tls::server_name(running.cluster());
    for name in [
        "plane.cless.internal",
        &cluster,
        "localhost",
        "plane.example.org",
    ] {
        let verify = [
            "-CAfile",
            &ca,
            "-servername",
            name,
            "-verify_hostname",
            name,
        ];
        let shown = s_client(&running, &verify);
        assert!(
            shown.contains("Verify return code: 0 (ok)"),
            "{name}: {shown}"
        );
        assert!(shown.contains("ALPN protocol: h2"), "{name}: {shown}");
    }
    let other = ["-CAfile", &ca, "-verify_hostname", "example.org"];
    let shown = s_client(&running, &other);
    assert!(shown.contains("hostname mismatch"), "{shown}");
    // A gRPC server answers a request without its content type so.
    let url = format!("https://localhost:{}/", running.addr().port());
    let curl = ["-sS", "--http2", "--cacert", &ca, "--resolve"];
    let resolve = format!("localhost:{}:127.0.0.1", running.addr().port());
    let rest = [
        &*resolve,
        "-o",
        "/dev/null",
        "-w",
        "%{http_version} %{ssl_verify_result}",
        &url,
    ];
    let output = run("curl", &[&curl[..], &rest].concat());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 0", "{output:?}");
    running.shutdown().await;
}

/// Own certificates are for names outside the cluster, and are reloaded.
#[tokio::test(flavor = "multi_thread")]
async fn own_certificates_serve_other_names_and_are_reloaded() {
    let folder = folder();
    let (cert, key) = own_certificate(folder.path(), "first.example");
    let flags = Options {
        tls_cert: Some(cert.clone()),
        tls_key: Some(key.clone()),
        ..with_tls(folder.path())
    };
    let running = start(flags).await.expect("it starts");
    let subject = |args: &[&str]| {
        let shown = s_client(&running, args);
        let line = shown.lines().find(|line| line.starts_with("subject="));
        line.unwrap_or_default().to_owned()
    };
    assert!(subject(&["-servername", "api.example"]).ends_with("first.example"));
    assert!(subject(&["-noservername"]).ends_with("first.example"));
    let of_cluster = ["-servername", "plane.cless.internal"];
    assert!(subject(&of_cluster).ends_with("cless control plane"));
    check_serves(&running).await;
    let until = async |name: &str| {
        let deadline = Instant::now() + SOON;
        while !subject(&["-servername", "api.example"]).ends_with(name) {
            assert!(Instant::now() < deadline, "never {name}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    // A file that cannot be used changes nothing, and the next one is loaded.
    std::fs::write(&cert, "nonsense").expect("written");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(subject(&["-noservername"]).ends_with("first.example"));
    own_certificate(folder.path(), "second.example");
    until("second.example").await;
    check_serves(&running).await;
    running.shutdown().await;
}

/// 3 000 connections that say nothing end by themselves, and other clients are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_silent_connections_end() {
    let folder = folder();
    let running = start(with_tls(folder.path())).await.expect("it starts");
    let begun = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..3000 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind("127.0.0.3:0".parse().expect("an address"))
            .expect("bound");
        silent.push(socket.connect(running.addr()).await.expect("connected"));
    }
    check_serves(&running).await;
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "the machine is too slow for this test"
    );
    for stream in &mut silent {
        check_ends(stream).await;
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    check_serves(&running).await;
    running.shutdown().await;
}

async fn check_ends(stream: &mut TcpStream) {
    let ended = tokio::time::timeout(SOON, stream.read_u8()).await;
    assert!(ended.expect("it ends").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn planes_that_start_together_make_one_authority() {
    if !on_postgres() {
        return;
    }
    // With the same master key, copied ahead.
    let (one, two) = (folder(), folder());
    let url = postgres(one.path());
    let flags = |folder: &TempDir| Options {
        database_url: url.clone(),
        data_dir: Some(state(folder.path())),
        insecure: false,
        listen: ([127, 0, 0, 1], 0).into(),
        ..Options::default()
    };
    for folder in [&one, &two] {
        std::fs::create_dir(state(folder.path())).expect("made");
        use std::os::unix::fs::PermissionsExt as _;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(state(folder.path()), private).expect("private");
        let key = format!("cless-master-key-v1:{}\n", "a5".repeat(32));
        write_secret(&state(folder.path()).join("master-key"), &key);
    }
    let (first, second) = tokio::join!(Box::pin(start(flags(&one))), Box::pin(start(flags(&two))));
    let (first, second) = (first.expect("it starts"), second.expect("it starts"));
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert_eq!(first.cluster(), second.cluster());
    check_serves(&first).await;
    check_serves(&second).await;
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_planes_without_a_common_master_key_one_starts() {
    if !on_postgres() {
        return;
    }
    let (one, two) = (folder(), folder());
    let url = postgres(one.path());
    let flags = |folder: &TempDir| Options {
        database_url: url.clone(),
        data_dir: Some(state(folder.path())),
        insecure: false,
        listen: ([127, 0, 0, 1], 0).into(),
        ..Options::default()
    };
    let (first, second) = tokio::join!(Box::pin(start(flags(&one))), Box::pin(start(flags(&two))));
    let (running, refused, of_refused, of_running) = match (first, second) {
        (Ok(running), Err(refused)) => (running, refused, &two, &one),
        (Err(refused), Ok(running)) => (running, refused, &one, &two),
        (first, second) => panic!("{:?} {:?}", first.err(), second.err()),
    };
    assert!(refused.to_string().contains("copy the file"), "{refused}");
    let key = |folder: &TempDir| state(folder.path()).join("master-key");
    assert!(!key(of_refused).exists());
    // The remedy works.
    std::fs::copy(key(of_running), key(of_refused)).expect("copied");
    let second = start(flags(of_refused)).await.expect("it starts");
    assert_eq!(second.fingerprint(), running.fingerprint());
    second.shutdown().await;
    running.shutdown().await;
}

/// A change of authority reaches running planes, and a client that pins either one is served
/// throughout.
#[tokio::test(flavor = "multi_thread")]
async fn the_authority_changes_while_clients_are_served() {
    let folder = folder();
    let flags = with_tls(folder.path());
    let running = start(flags.clone()).await.expect("it starts");
    let old = running.fingerprint().expect("it serves TLS");
    let early = rotate_ca(&flags, true, false).await.err().expect("refused");
    assert!(early.to_string().contains("begin one"), "{early}");
    let new = rotate_ca(&flags, false, false).await.expect("begun");
    assert_ne!(old, new);
    check_eventually(&running, new, true).await;
    check_eventually(&running, old, true).await;
    let twice = rotate_ca(&flags, false, false)
        .await
        .err()
        .expect("refused");
    assert!(twice.to_string().contains("--finish"), "{twice}");
    let early = rotate_ca(&flags, true, false).await.err().expect("refused");
    assert!(early.to_string().contains("in 24 h"), "{early}");
    assert_eq!(rotate_ca(&flags, true, true).await.expect("ended"), new);
    check_eventually(&running, old, false).await;
    check_eventually(&running, new, true).await;
    running.shutdown().await;
    let again = start(flags).await.expect("it starts again");
    assert_eq!(again.fingerprint(), Some(new));
    again.shutdown().await;
}

/// Waits until a client that pins an authority is served, or no longer is.
async fn check_eventually(running: &Running, pin: Fingerprint, served: bool) {
    let deadline = Instant::now() + SOON;
    loop {
        let endpoint = tls::endpoint(&format!("https://{}", running.addr())).expect("a URL");
        let config = tls::client_config(vec![pin], None);
        let connected = tls::connect(endpoint, config, running.cluster()).await;
        if connected.is_ok() == served {
            return;
        }
        assert!(Instant::now() < deadline, "{pin}: {connected:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_key_changes_and_the_old_one_opens_nothing() {
    let folder = folder();
    let flags = with_tls(folder.path());
    let running = start(flags.clone()).await.expect("it starts");
    let file = state(folder.path()).join("master-key");
    let old = std::fs::read_to_string(&file).expect("a key");
    let id = rotate_keys(&flags).await.expect("changed");
    let new = std::fs::read_to_string(&file).expect("a key");
    assert_ne!(old, new);
    check_serves(&running).await;
    let pin = running.fingerprint();
    running.shutdown().await;
    write_secret(&file, &old);
    let refused = start(flags.clone()).await.err().expect("refused");
    assert!(refused.to_string().contains(&id), "{refused}");
    // As a crash between the database and the file leaves it.
    write_secret(&file.with_file_name("master-key.next"), &new);
    let again = start(flags).await.expect("it starts");
    assert_eq!(again.fingerprint(), pin);
    again.shutdown().await;
    assert_eq!(std::fs::read_to_string(&file).expect("a key"), new);
    assert!(!file.with_file_name("master-key.next").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_writes_the_token_of_an_administrator() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let running = start(with_tls(folder.path())).await.expect("it starts");
    let file = state(folder.path()).join("admin-token");
    let mode = std::fs::metadata(&file)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = std::fs::read_to_string(&file).expect("a token");
    let lost = cless_control_plane::new_admin_token(&with_tls(folder.path())).await;
    let lost = lost.expect("another token");
    assert_ne!(token.trim(), lost);
    for (token, code) in [
        (token.trim(), Code::NotFound),
        (lost.as_str(), Code::NotFound),
        ("cless_no_token", Code::Unauthenticated),
    ] {
        let deadline = Instant::now() + SOON;
        while call(&running, token).await != code {
            assert!(Instant::now() < deadline, "never {code}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    running.shutdown().await;
    std::fs::remove_file(&file).expect("removed");
    start(with_tls(folder.path()))
        .await
        .expect("it starts")
        .shutdown()
        .await;
    assert!(!file.exists(), "a second token was made");
}

/// The code of a call with a token.
async fn call(running: &Running, token: &str) -> Code {
    let endpoint = tls::endpoint(&format!("https://{}", running.addr())).expect("a URL");
    let config = tls::client_config(Vec::from_iter(running.fingerprint()), None);
    let channel = tls::connect(endpoint, config, running.cluster()).await;
    let mut client = NodeServiceClient::new(channel.expect("it is trusted"));
    let mut request = Request::new(GetNodeRequest {
        name: "nodes/none".to_owned(),
    });
    let header = format!("Bearer {token}").parse().expect("a header");
    request.metadata_mut().insert("authorization", header);
    client
        .get_node(request)
        .await
        .expect_err("no such node")
        .code()
}
