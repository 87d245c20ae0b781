//! Truncated HTTP/2 streams on either side: a reset never completes a message (RFC 9113 section
//! 8.1).

use bytes::Bytes;
use cless_proto::v1::version_spec::Protocol;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response, StatusCode};
use tokio::net::TcpStream;

use super::{HOST, OK, QUIET, Stage, Wire, get, spoken};
use crate::feed::plane::within;
use crate::raw::frames::{Connection, DATA, END_HEADERS, HEADERS, RST_STREAM, frame, request};

const RESETS: [Reason; 3] = [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR];

async fn client(stage: &Stage) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(stage.address).await.expect("it accepts");
    let shaken = within("a handshake", h2::client::handshake(stream)).await;
    let (sender, connection) = shaken.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

fn post(client: &mut SendRequest<Bytes>, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
    let request = Request::post(format!("http://{HOST}{path}"));
    let request = request.body(()).expect("a request");
    client.send_request(request, false).expect("it is taken")
}

/// Reads a body to its end; whether that was a clean end.
async fn is_whole(mut body: RecvStream) -> bool {
    while let Some(data) = within("the end", body.data()).await {
        let Ok(data) = data else { return false };
        let _ = body.flow_control().release_capacity(data.len());
    }
    within("trailers", body.trailers()).await.is_ok()
}

/// The instance's side of an HTTP/2 connection. Readiness probes send nothing and are skipped.
async fn speaks(stage: &mut Stage) -> h2::server::Connection<TcpStream, Bytes> {
    loop {
        let stream = within("a connection", stage.visitors.recv()).await;
        let shaken = h2::server::handshake(stream.expect("it is dialled"));
        if let Ok(connection) = within("a handshake", shaken).await {
            return connection;
        }
    }
}

#[tokio::test]
async fn rfc_9113_section_8_1_a_reset_upload_is_not_a_complete_request() {
    let mut stage = Stage::start().await;
    let mut client = client(&stage).await;
    for reason in RESETS {
        let (_response, mut upload) = post(&mut client, "/upload");
        let (mut instance, head) = stage.instance().await;
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        upload.send_data("part".into(), false).expect("it is taken");
        instance.until("part").await;
        upload.send_reset(reason);
        assert_eq!(instance.rest().await, "\r\n", "{reason:?}");
    }
    drop(client);
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9113_section_5_4_2_a_request_reset_at_once_is_not_forwarded() {
    let mut stage = Stage::start().await;
    let mut connection = Connection::open(stage.address).await;
    let head = |path| request("POST", path);
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &head("/left"));
    bytes.extend(frame(DATA, 0, 1, b"part"));
    bytes.extend(frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
    bytes.extend(frame(HEADERS, END_HEADERS, 3, &head("/stays")));
    connection.send(&bytes).await;
    let (_instance, head) = stage.instance().await;
    assert!(head.starts_with("post /stays "), "{head}");
    assert!(stage.visitors.try_recv().is_err(), "one request");
    drop(connection);
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9113_section_8_1_a_reset_response_is_not_complete() {
    // One worker, so that one connection carries the requests of both clients.
    let alone = |options: &mut cless_data_plane::Options| options.proxy.workers = 1;
    let mut stage = Stage::with(spoken(Protocol::H2c), alone).await;
    let mut client = client(&stage).await;
    let mut instance = None;
    for reason in RESETS {
        let mut old = stage.client(get("/old", "")).await;
        let (response, upload) = post(&mut client, "/new");
        if instance.is_none() {
            instance = Some(speaks(&mut stage).await);
        }
        let instance = instance.as_mut().expect("the instance is connected");
        let mut begun = Vec::new();
        while begun.len() < 2 {
            let (_, mut respond) = within("a request", instance.accept())
                .await
                .expect("more")
                .expect("whole");
            let mut body = respond
                .send_response(Response::new(()), false)
                .expect("sent");
            body.send_data("part".into(), false).expect("sent");
            begun.push(body);
        }
        let read = async {
            old.until("part").await;
            let response = response.await.expect("it is answered");
            let mut body = response.into_body();
            let first = body.data().await.expect("more").expect("whole");
            assert_eq!(first, "part");
            for body in &mut begun {
                body.send_reset(reason);
            }
            assert!(!is_whole(body).await, "{reason:?}");
            let rest = old.rest().await;
            assert_eq!(rest, "\r\n", "{reason:?}");
        };
        tokio::select! {
            () = within("both ends", read) => {}
            more = instance.accept() => panic!("one more request: {more:?}"),
        }
        drop(upload);
    }
    drop((client, instance));
    stage.stop().await;
}

#[tokio::test]
async fn an_upload_without_window_ends_with_its_client() {
    let mut stage = Stage::speaking(Protocol::H2c).await;
    let mut client = client(&stage).await;
    let (response, mut upload) = post(&mut client, "/upload");
    let mut instance = speaks(&mut stage).await;
    let (request, respond) = within("a request", instance.accept())
        .await
        .expect("more")
        .expect("whole");
    // More than the instance's window; the instance reads nothing.
    upload.reserve_capacity(1 << 20);
    upload
        .send_data(vec![b'x'; 1 << 20].into(), false)
        .expect("it is taken");
    let filled = tokio::time::timeout(QUIET * 2, instance.accept()).await;
    assert!(filled.is_err(), "no other request");
    drop((response, upload));
    let mut body = request.into_body();
    let taken = async {
        while let Some(data) = body.data().await {
            if data.is_err() {
                return;
            }
        }
        panic!("a clean end");
    };
    tokio::select! {
        () = within("the reset", taken) => {}
        more = instance.accept() => panic!("one more request: {more:?}"),
    }
    drop(respond);
    stage.until_measured("http_server_active_requests 0").await;
    drop((client, instance));
    stage.stop().await;
}

/// A response that closes an HTTP/1 connection ends only its stream here, and has no `Connection`.
#[tokio::test]
async fn rfc_9113_section_8_2_2_responses_of_cless_are_valid_on_a_stream() {
    let stage = Stage::start().await;
    let mut client = client(&stage).await;
    let many = (0..200).fold(Request::get(format!("http://{HOST}/")), |request, at| {
        request.header(format!("x-{at}"), "1")
    });
    let trace = Request::builder()
        .method("TRACE")
        .uri(format!("http://{HOST}/"));
    let two_hosts = Request::get(format!("http://{HOST}/")).header("host", "b.localhost");
    for (request, status) in [(many, 431), (trace, 405), (two_hosts, 400)] {
        let request = request.body(()).expect("a request");
        let (response, _) = client.send_request(request, true).expect("it is taken");
        let response = within("a response", response).await.expect("no reset");
        assert_eq!(response.status(), status);
        assert!(!response.headers().contains_key("connection"));
        assert!(is_whole(response.into_body()).await);
    }
    drop(client);
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9110_section_10_1_1_100_reaches_a_stream_when_the_instance_sends_it() {
    let mut stage = Stage::start().await;
    let mut client = client(&stage).await;
    let request = Request::post(format!("http://{HOST}/upload")).header("expect", "100-continue");
    let request = request.body(()).expect("a request");
    let (mut response, mut upload) = client.send_request(request, false).expect("it is taken");
    let (mut instance, head): (Wire, String) = stage.instance().await;
    assert!(head.contains("expect: 100-continue\r\n"), "{head}");
    let asked = std::future::poll_fn(|cx| response.poll_informational(cx));
    let mut asked = std::pin::pin!(asked);
    let early = tokio::time::timeout(QUIET, asked.as_mut()).await;
    assert!(
        early.is_err(),
        "no 100 before the instance sends it: {early:?}"
    );
    instance.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    let asked = within("the 100", asked).await.expect("one").expect("whole");
    assert_eq!(asked.status(), StatusCode::CONTINUE);
    upload.send_data("body".into(), true).expect("it is taken");
    instance.until("body").await;
    instance.send(OK).await;
    let response = within("a response", response)
        .await
        .expect("it is answered");
    assert_eq!(response.status(), 200);
    assert!(is_whole(response.into_body()).await);
    stage.stop().await;
}
