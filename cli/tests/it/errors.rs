//! Each class of error with its exit code and output streams.

use std::process::Stdio;

use tonic::Code;

use crate::failing_server::FailingServer;
use crate::plane::{Plane, assert_run, output, run};

#[tokio::test]
async fn connection_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = format!("http://{}", listener.local_addr().expect("its address"));
    drop(listener);
    assert_run!(run(&server, "service list").await, @r"
    exit: 1
    ----- stderr -----
    error: cannot reach the control plane at [SERVER]: Connection refused (os error 111)
    hint: is the control plane running? start one with `cless dev`
    hint: if it has another address, set --server or CLESS_SERVER
    ");
}

#[tokio::test]
async fn invalid_server_address() {
    assert_run!(run("https://127.0.0.1:1", "service list").await, @r"
    exit: 2
    ----- stderr -----
    error: --server: `[SERVER]` does not start with http://
    hint: use the form http://127.0.0.1:7070
    ");
}

#[tokio::test]
async fn usage_errors_name_the_flag() {
    assert_run!(run("http://127.0.0.1:1", "deploy hello --image hello:1 --memory 12Q").await, @r"
    exit: 2
    ----- stderr -----
    error: invalid value '12Q' for '--memory <SIZE>': `12Q` is not a size: write bytes or a number with a unit, as in 512Mi, 1Gi or 500M

    For more information, try '--help'.
    ");
    assert_run!(run("http://127.0.0.1:1", "deploy hello --image hello:1 -e FOO").await, @r"
    exit: 2
    ----- stderr -----
    error: invalid value 'FOO' for '--env <NAME=VALUE>': `FOO` has no `=`: write NAME=value

    For more information, try '--help'.
    ");
    assert_run!(run("http://127.0.0.1:1", "traffic set hello v3=ten").await, @r"
    exit: 2
    ----- stderr -----
    error: invalid value 'v3=ten' for '[TARGET]...': `v3=ten` is not a traffic target: `ten` is not a whole number from 0 to 100; write v3=10, v3 (takes the rest) or v3=10:canary

    For more information, try '--help'.
    ");
}

#[tokio::test]
async fn permission_denied() {
    let server = format!(
        "http://{}",
        FailingServer::start(Code::PermissionDenied).await
    );
    assert_run!(run(&server, "service get hello").await, @r"
    exit: 4
    ----- stderr -----
    error: get services/hello: not today
    hint: ask the operator of this control plane for access
    ");
    let server = format!(
        "http://{}",
        FailingServer::start(Code::Unauthenticated).await
    );
    assert_run!(run(&server, "service create hello").await, @r"
    exit: 4
    ----- stderr -----
    error: create services/hello: not today
    hint: ask the operator of this control plane for access
    ");
}

#[tokio::test]
async fn deadline_exceeded() {
    let server = format!(
        "http://{}",
        FailingServer::start(Code::DeadlineExceeded).await
    );
    assert_run!(run(&server, "service get hello").await, @r"
    exit: 1
    ----- stderr -----
    error: get services/hello: not today
    ");
    assert_run!(run(&server, "service create hello").await, @r"
    exit: 8
    ----- stderr -----
    error: create services/hello: not today
    hint: the change may have been applied: check before you retry
    ");
}

#[tokio::test]
async fn unavailable_and_internal() {
    let server = format!("http://{}", FailingServer::start(Code::Unavailable).await);
    assert_run!(run(&server, "service list").await, @r"
    exit: 1
    ----- stderr -----
    error: list services: not today
    hint: try again in a moment
    ");
    let server = format!("http://{}", FailingServer::start(Code::Internal).await);
    assert_run!(run(&server, "service list").await, @r"
    exit: 1
    ----- stderr -----
    error: list services: not today
    hint: internal error of the control plane: see its log
    ");
}

#[tokio::test]
async fn not_found() {
    let plane = Plane::start().await;
    assert_run!(plane.run("service get ghost").await, @r"
    exit: 5
    ----- stderr -----
    error: services/ghost does not exist
    hint: list services with `cless service list`
    ");
    assert_run!(plane.run("version get ghost").await, @r"
    exit: 5
    ----- stderr -----
    error: services/ghost does not exist
    hint: list services with `cless service list`
    ");
    assert_run!(plane.run("traffic get ghost").await, @r"
    exit: 5
    ----- stderr -----
    error: services/ghost does not exist
    hint: list services with `cless service list`
    ");
    assert_run!(plane.run("node get ghost").await, @r"
    exit: 5
    ----- stderr -----
    error: nodes/ghost does not exist
    hint: list nodes with `cless node list`
    ");
    plane.ok("service create hello").await;
    assert_run!(plane.run("version get hello v9").await, @r"
    exit: 5
    ----- stderr -----
    error: services/hello/versions/9 does not exist
    hint: list versions with `cless version list hello`
    ");
    assert_run!(plane.run("version get hello").await, @r"
    exit: 6
    ----- stderr -----
    error: @latest: services/hello has no version
    hint: create one with `cless deploy hello --image IMAGE`
    ");
}

#[tokio::test]
async fn a_delete_without_a_terminal_needs_yes() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    assert_run!(plane.run("service delete hello").await, @r"
    exit: 2
    ----- stderr -----
    error: Delete services/hello with its versions, traffic and history? There is no terminal to confirm it
    hint: confirm with --yes
    ");
    assert_run!(plane.run("service delete hello --yes").await, @r"
    exit: 0
    ----- stderr -----
    deleted services/hello
    ");
    assert_run!(plane.run("service delete hello --yes").await, @r"
    exit: 5
    ----- stderr -----
    error: services/hello does not exist
    hint: list services with `cless service list`
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

#[tokio::test]
async fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let done = output("http://127.0.0.1:1", &format!("completion {shell}")).await;
        assert!(done.status.success());
        assert!(
            String::from_utf8_lossy(&done.stdout).contains("rollback"),
            "{shell}"
        );
    }
}
