//! Each class of error with its exit code and output streams.

use std::process::Stdio;

use tonic::Code;

use crate::failing_server::FailingServer;
use crate::plane::{Plane, assert_session, output};

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
    ! hint: if it has another address, set --server or CLESS_SERVER
    ");
}

#[tokio::test]
async fn invalid_server_address() {
    assert_session!("https://127.0.0.1:1", @r"
    $ cless service list
    exit: 2
    ! error: --server: `[SERVER]` does not start with http://
    ! hint: use the form http://127.0.0.1:7070
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

    $ cless deploy hello --image hello:1 -e FOO
    exit: 2
    ! error: invalid value 'FOO' for '--env <NAME=VALUE>': `FOO` has no `=`: write NAME=value
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
    ! hint: ask the operator of this control plane for access
    ");
    let server = FailingServer::start(Code::Unauthenticated).await;
    assert_session!(&server, @r"
    $ cless service create hello
    exit: 4
    ! error: create services/hello: not today
    ! hint: ask the operator of this control plane for access
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
    ! error: @latest: services/hello has no version
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
