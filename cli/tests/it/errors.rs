//! Each class of error with its exit code and output streams.

use std::process::Stdio;

use tonic::Code;

use crate::failing_server::FailingServer;
use crate::plane::{Plane, assert_run, assert_session, output, run};

#[tokio::test]
async fn connection_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = format!("http://{}", listener.local_addr().expect("its address"));
    drop(listener);
    assert_session!(&server, @r"
    $ cless service list
    exit: 1
    ! error: cannot reach the control plane at [SERVER]: Connection refused (os error 111)
    ! hint: is the control plane running? start one with `cless dev`
    ! hint: if it has another address, set --server or --context
    ");
}

#[tokio::test]
async fn invalid_server_address() {
    assert_session!("ftp://127.0.0.1:1", @r"
    $ cless service list
    exit: 2
    ! error: CLESS_SERVER: `[SERVER]` has a scheme other than https:// and http://
    ");
    assert_session!("http://192.0.2.1:1", @r"
    $ cless service list
    exit: 2
    ! error: CLESS_SERVER: `[SERVER]` is another machine, and http:// is neither encrypted nor authenticated: write https:// (http:// reaches a control plane with --insecure on this machine alone)
    ");
}

#[tokio::test]
async fn usage_errors_name_the_flag() {
    assert_session!("http://127.0.0.1:1", @r"
    $ cless deploy hello --image hello:1 --memory 12Q
    exit: 2
    ! error: invalid value '12Q' for '--memory <SIZE>': `12Q` is not a size: write bytes or a number with a unit, as in 512Mi, 1Gi or 500M
    !
    ! For more information, try '--help'.

    $ cless deploy hello --image hello:1 -e -
    exit: 2
    ! error: invalid value '-' for '--env <NAME[=VALUE]>': `-` is not a variable: write NAME=value, NAME for the value that it has here, or NAME- to remove it
    !
    ! For more information, try '--help'.

    $ cless traffic set hello v3=ten
    exit: 2
    ! error: invalid value 'v3=ten' for '[TARGET]...': `v3=ten` is not a traffic target: `ten` is not a whole number from 0 to 100; write v3=10, v3 (takes the rest) or v3=10:canary
    !
    ! For more information, try '--help'.
    ");
}

#[tokio::test]
async fn permission_denied() {
    let server = FailingServer::start(Code::PermissionDenied).await;
    assert_session!(&server, @r"
    $ cless service get hello
    exit: 4
    ! error: get services/hello: not today
    ! hint: ask an administrator of this control plane for a token that permits it (`cless token create`)
    ");
    let server = FailingServer::start(Code::Unauthenticated).await;
    assert_session!(&server, @r"
    $ cless service create hello
    exit: 4
    ! error: create services/hello: not today
    ! hint: log in with `cless login https://HOST:PORT`, or set CLESS_TOKEN to a valid token
    ");
}

#[tokio::test]
async fn deadline_exceeded() {
    let server = FailingServer::start(Code::DeadlineExceeded).await;
    assert_session!(&server, @r"
    $ cless service get hello
    exit: 1
    ! error: get services/hello: not today

    $ cless service create hello
    exit: 8
    ! error: create services/hello: not today
    ! hint: the change may have been applied: check before you retry
    ");
}

#[tokio::test]
async fn unavailable_and_internal() {
    let server = FailingServer::start(Code::Unavailable).await;
    assert_session!(&server, @r"
    $ cless service list
    exit: 1
    ! error: list services: not today
    ! hint: try again in a moment
    ");
    let server = FailingServer::start(Code::Internal).await;
    assert_session!(&server, @r"
    $ cless service list
    exit: 1
    ! error: list services: not today
    ! hint: internal error of the control plane: see its log
    ");
}

#[tokio::test]
async fn not_found() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless service get ghost
    exit: 5
    ! error: services/ghost does not exist
    ! hint: list services with `cless service list`

    $ cless version get ghost
    exit: 5
    ! error: services/ghost does not exist
    ! hint: list services with `cless service list`

    $ cless traffic get ghost
    exit: 5
    ! error: services/ghost does not exist
    ! hint: list services with `cless service list`

    $ cless node get ghost
    exit: 5
    ! error: nodes/ghost does not exist
    ! hint: list nodes with `cless node list`
    ");
    plane.ok("service create hello").await;
    assert_session!(plane.url(), @r"
    $ cless version get hello v9
    exit: 5
    ! error: services/hello/versions/9 does not exist
    ! hint: list versions with `cless version list hello`

    $ cless version get hello
    exit: 6
    ! error: services/hello has no version
    ! hint: create one with `cless deploy hello --image IMAGE`
    ");
}

#[tokio::test]
async fn a_delete_without_a_terminal_needs_yes() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    assert_session!(plane.url(), @r"
    $ cless service delete hello
    exit: 2
    ! error: Delete services/hello with its versions, traffic and history? There is no terminal to confirm it
    ! hint: confirm with --yes

    $ cless service delete hello --yes
    ! deleted services/hello

    $ cless service delete hello --yes
    exit: 5
    ! error: services/hello does not exist
    ! hint: list services with `cless service list`
    ");
}

#[tokio::test]
async fn a_closed_pipe_is_not_a_failure() {
    let (read, write) = std::io::pipe().expect("a pipe");
    drop(read);
    let status = tokio::process::Command::new(env!("CARGO_BIN_EXE_cless"))
        .args(["completion", "bash"])
        .stdout(Stdio::from(write))
        .stderr(Stdio::piped())
        .output()
        .await
        .expect("cless runs");
    assert_eq!(status.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&status.stderr), "");
}

/// The completions of the last of the words.
async fn completed(server: &str, words: &[&str]) -> String {
    let done = tokio::process::Command::new(env!("CARGO_BIN_EXE_cless"))
        .args([&["--", "cless"], words].concat())
        .env_clear()
        .env("CLESS_SERVER", server)
        .env("COMPLETE", "fish")
        .output()
        .await
        .expect("cless runs");
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    String::from_utf8(done.stdout).expect("UTF-8")
}

#[tokio::test]
async fn completions_name_commands_and_live_names() {
    for shell in ["bash", "zsh", "fish"] {
        let done = output("http://127.0.0.1:1", &format!("completion {shell}")).await;
        assert!(done.status.success());
        let script = String::from_utf8_lossy(&done.stdout);
        assert!(script.contains("COMPLETE"), "{shell}: {script}");
    }
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    plane.ok("version create hello --image hello:1").await;
    let url = plane.url();
    assert!(completed(&url, &["roll"]).await.contains("rollback"));
    assert!(
        completed(&url, &["service", "get", "he"])
            .await
            .contains("hello")
    );
    assert!(
        completed(&url, &["rollback", "hello", "v"])
            .await
            .contains("v1")
    );
    let silent = completed("http://127.0.0.1:1", &["service", "get", "he"]).await;
    assert_eq!(silent.trim(), "");
}

#[tokio::test]
async fn a_missing_name_suggests_the_nearest_one() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    assert_session!(plane.url(), @r#"
    $ cless service get helo
    exit: 5
    ! error: services/helo does not exist
    ! hint: list services with `cless service list`
    ! hint: did you mean `hello`?

    $ cless deploy helo -e A=1
    exit: 5
    ! error: services/helo does not exist
    ! hint: list services with `cless service list`
    ! hint: to create it, add an image: cless deploy helo --image IMAGE
    ! hint: did you mean `hello`?

    $ cless servce list
    exit: 2
    ! error: unrecognized subcommand 'servce'
    !
    !   tip: a similar subcommand exists: 'service'
    !
    ! Usage: cless [OPTIONS] <COMMAND>
    !
    ! For more information, try '--help'.

    $ cless service get helo -o json
    exit: 5
    ! {"error":{"code":"NOT_FOUND","exitCode":5,"hints":["list services with `cless service list`","did you mean `hello`?"],"message":"services/helo does not exist","reason":"NOT_FOUND"}}

    $ cless service gte -o json
    exit: 2
    ! {"error":{"code":"INVALID_ARGUMENT","exitCode":2,"hints":[],"message":"unrecognized subcommand 'gte'","reason":"USAGE"}}
    "#);
}

#[tokio::test]
async fn short_forms_and_one_screen() {
    let plane = Plane::start().await;
    plane.ok("deploy hello --image hello:1 --no-wait").await;
    assert_session!(plane.url(), @r"
    $ cless status
    SERVICE  STATE     TRAFFIC  INSTANCES  URL
    hello    DEGRADED  v1=100   0          http://hello.localhost:8080
      hello: no node is connected: start a data plane

    no nodes

    $ cless status hello
    SERVICE  STATE     TRAFFIC  INSTANCES  URL
    hello    DEGRADED  v1=100   0          http://hello.localhost:8080
      hello: no node is connected: start a data plane

    VERSION  IMAGE    TRAFFIC  TAGS  VERIFICATION  AGE
    v1       hello:1  100%     -     -             [AGE]

    no nodes

    $ cless ls -o name
    services/hello

    $ cless ps
    ! no instances

    $ cless version ls hello -o name
    services/hello/versions/1

    $ cless rm hello --yes
    ! deleted services/hello
    ");
}

#[tokio::test]
async fn a_former_variable_is_refused_with_its_replacement() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cless"))
        .args(["service", "list"])
        .env_clear()
        .env("CLESS_CLEAR", "true")
        .output()
        .expect("cless runs");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: the variable CLESS_CLEAR is no longer read: use --clear, and unset CLESS_CLEAR\n"
    );
}

#[tokio::test]
async fn dev_without_an_engine_ends_at_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dev = format!(
        "dev --engine unix:///nowhere/docker.sock --listen 127.0.0.1:0 --grpc 127.0.0.1:0 \
         --admin 127.0.0.1:0 --data-dir {}",
        dir.path().display()
    );
    let text = run("http://127.0.0.1:1", &dev).await;
    assert!(text.contains("no container engine answers"), "{text}");
    assert!(text.contains("--engine"), "{text}");
}

#[tokio::test]
async fn a_list_of_servers_is_tried_in_order_and_a_wrong_one_is_named() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    let both = format!("http://127.0.0.1:1,{}", plane.url());
    assert_run!(run(&both, "service list -o name").await, @r"
    services/hello
    ");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let addr = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let answer = b"HTTP/1.1 404 Not Found\r\nproxy-status: cless; error=x\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(answer).await;
        }
    });
    let text = run(&format!("http://{addr}"), "service list").await;
    assert!(
        text.contains("the HTTP proxy of a node answers there"),
        "{text}"
    );
}

#[tokio::test]
async fn help_and_versions_from_files() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    plane
        .ok("version create hello --image hello:1 -e A=1 --memory 64Mi")
        .await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("v1.yaml");
    let printed = plane.ok("version get hello v1 -o yaml").await;
    std::fs::write(&file, &printed).expect("a file");
    let create = format!("version create hello -f {} -o yaml", file.display());
    let created = plane.ok(&create).await;
    let spec = |text: &str| {
        let from = text.find("spec:").expect("a spec");
        let to = text.find("imageDigest:").expect("its end");
        text[from..to].to_owned()
    };
    assert_eq!(spec(&created), spec(&printed));
    let help = plane.ok("help traffic set").await;
    assert!(
        help.contains("Usage: cless traffic set [OPTIONS] <SERVICE> [TARGET]..."),
        "{help}"
    );
}
