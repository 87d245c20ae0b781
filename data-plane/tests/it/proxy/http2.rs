//! HTTP/2 with clients and instances, and gRPC (RFC 9113).

use bytes::Bytes;
use cless_proto::v1::version_spec::Protocol;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::{HOST, OK, Stage, Wire};
use crate::feed::plane::within;

pub(super) type Frames = StreamBody<ReceiverStream<Result<Frame<Bytes>, std::convert::Infallible>>>;

/// A client with prior knowledge.
pub(super) async fn client(stage: &Stage) -> SendRequest<Frames> {
    let stream = TcpStream::connect(stage.address).await.expect("it accepts");
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = within("a handshake", shaken).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// A request whose body is sent frame by frame.
pub(super) fn request(
    path: &str,
) -> (
    mpsc::Sender<Result<Frame<Bytes>, std::convert::Infallible>>,
    Request<Frames>,
) {
    let (feed, frames) = mpsc::channel(4);
    let body = StreamBody::new(ReceiverStream::new(frames));
    let request = Request::post(format!("http://{HOST}{path}"))
        .version(Version::HTTP_2)
        .body(body)
        .expect("a request");
    (feed, request)
}

fn add(request: &mut Request<Frames>, name: &'static str, value: &'static str) {
    let value = HeaderValue::from_static(value);
    request.headers_mut().append(name, value);
}

fn bare(path: &str) -> Request<Frames> {
    request(path).1
}

/// Sends a bodiless request and the instance's `reply`; returns the response head and the instance.
async fn exchange(
    stage: &mut Stage,
    client: &mut SendRequest<Frames>,
    path: &str,
    said: &str,
) -> (Response<Incoming>, Wire) {
    let answered = client.send_request(bare(path));
    let played = async {
        let (mut instance, head) = stage.instance().await;
        assert!(head.starts_with(&format!("post {path} ")), "{head}");
        instance.send(said).await;
        instance
    };
    let (response, instance) =
        within("a response", futures_util::future::join(answered, played)).await;
    (response.expect("it is answered"), instance)
}

pub(super) fn data(text: &'static str) -> Result<Frame<Bytes>, std::convert::Infallible> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// The next frame of a body that has not ended.
async fn frame_of(body: &mut Incoming) -> Frame<Bytes> {
    let frame = within("a frame", body.frame()).await;
    frame.expect("more").expect("whole")
}

fn status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static(code),
    )])
}

/// An HTTP/2 instance that echoes each frame and ends with a status in trailers. The channel yields
/// the request heads.
pub(super) fn echo(stage: &mut Stage) -> mpsc::UnboundedReceiver<http::request::Parts> {
    let mut visitors = stage.take_visitors();
    let (heads, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(stream) = visitors.recv().await {
            let heads = heads.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let (head, body) = request.into_parts();
                let _ = heads.send(head);
                let trailers = Frame::trailers(status("0"));
                let frames = body.into_data_stream().map(|data| data.map(Frame::data));
                let frames = frames.chain(tokio_stream::once(Ok(trailers)));
                async move {
                    let mut response = Response::new(StreamBody::new(frames));
                    let kind = HeaderValue::from_static("application/grpc");
                    response.headers_mut().insert("content-type", kind);
                    Ok::<_, hyper::Error>(response)
                }
            });
            let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(served);
        }
    });
    seen
}

async fn grpc_streams(stage: &mut Stage, content_type: &'static str) {
    let mut seen = echo(stage);
    let mut client = client(stage).await;
    let (feed, mut call) = request("/pkg.Service/Bidi");
    add(&mut call, "content-type", content_type);
    add(&mut call, "te", "trailers");
    // The response head arrives before the request body.
    let response = within("a response", client.send_request(call))
        .await
        .expect("it is answered");
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    for text in ["one", "two"] {
        feed.send(data(text)).await.expect("it is taken");
        let frame = frame_of(&mut body).await;
        assert_eq!(frame.into_data().expect("data"), text);
    }
    drop(feed);
    let frame = frame_of(&mut body).await;
    assert_eq!(frame.into_trailers().expect("trailers"), status("0"));
    let head = within("the head", seen.recv()).await.expect("it was seen");
    assert_eq!(head.version, Version::HTTP_2);
    assert_eq!(head.uri.authority().map(|host| host.as_str()), Some(HOST));
    assert_eq!(head.headers["te"], "trailers");
    assert_eq!(head.headers["via"], "2.0 cless");
}

#[tokio::test]
async fn grpc_streams_both_ways_with_trailers() {
    let mut stage = Stage::start().await;
    grpc_streams(&mut stage, "application/grpc+proto").await;
    stage.stop().await;
}

#[tokio::test]
async fn an_http2_version_receives_all_requests_over_http2() {
    let mut stage = Stage::speaking(Protocol::H2c).await;
    grpc_streams(&mut stage, "application/octet-stream").await;
    // Including those of HTTP/1.1 clients.
    let mut client = stage.client(super::get("/", "")).await;
    assert!(client.head().await.starts_with("http/1.1 200"));
    client.until("0\r\n\r\n").await;
    stage.stop().await;
}

#[tokio::test]
async fn responses_of_cless_to_grpc_carry_a_grpc_status() {
    let stage = Stage::start().await;
    let mut client = client(&stage).await;
    let (_feed, mut call) = request("/");
    *call.uri_mut() = "http://unknown.localhost/".parse().expect("a URI");
    add(&mut call, "content-type", "application/grpc");
    let response = within("a response", client.send_request(call))
        .await
        .expect("it is answered");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "12");
    assert_eq!(
        response.headers()["grpc-message"],
        "no service has this host"
    );
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9113_section_8_3_1_an_http1_instance_gets_host_and_origin_form() {
    let mut stage = Stage::speaking(Protocol::Http1).await;
    let mut client = client(&stage).await;
    let mut call = bare("/x?y");
    add(&mut call, "cookie", "a=1");
    add(&mut call, "cookie", "b=2");
    let answered = tokio::spawn(async move { client.send_request(call).await });
    let (mut instance, head) = stage.instance().await;
    assert!(head.starts_with("post /x?y http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {HOST}\r\n")), "{head}");
    assert!(head.contains("cookie: a=1; b=2\r\n"), "{head}");
    instance.send(OK).await;
    let response = within("a response", answered)
        .await
        .expect("no panic")
        .expect("answered");
    let body = within("a body", response.into_body().collect())
        .await
        .expect("whole");
    assert_eq!(body.to_bytes(), "ok");
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9113_section_8_1_a_truncated_response_resets_only_its_stream() {
    let mut stage = Stage::start().await;
    let mut client = client(&stage).await;
    let said = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart";
    let (response, instance) = exchange(&mut stage, &mut client, "/", said).await;
    let mut body = response.into_body();
    let first = frame_of(&mut body).await;
    assert_eq!(first.into_data().expect("data"), "part");
    drop(instance);
    let second = within("a frame", body.frame()).await.expect("no clean end");
    assert!(second.is_err(), "{second:?}");
    // The connection continues.
    let (response, _instance) = exchange(&mut stage, &mut client, "/", OK).await;
    assert_eq!(response.status(), 200);
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9113_section_5_4_2_a_reset_stream_cancels_only_its_request() {
    let mut stage = Stage::start().await;
    let mut client = client(&stage).await;
    let call = bare("/left");
    let left = client.send_request(call);
    let mut left = Box::pin(left);
    let (mut instance, _) = tokio::select! {
        _ = &mut left => panic!("it was answered"),
        taken = stage.instance() => taken,
    };
    drop(left);
    // At most the end of the request body, then the end of the connection.
    let rest = instance.rest().await;
    assert!(matches!(rest.as_str(), "" | "0\r\n\r\n"), "{rest:?}");
    let (response, _instance) = exchange(&mut stage, &mut client, "/next", OK).await;
    assert_eq!(response.status(), 200);
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9113_section_6_8_a_stopping_node_ends_connections_in_order() {
    let mut stage = Stage::start().await;
    let mut client = client(&stage).await;
    let call = bare("/");
    let answered = tokio::spawn(async move { (client.send_request(call).await, client) });
    let (mut instance, _) = stage.instance().await;
    let node = stage.node;
    let stopped = tokio::spawn(async move { node.shutdown().await });
    // GOAWAY comes first; the open stream still receives its response.
    tokio::time::sleep(super::QUIET).await;
    instance.send(OK).await;
    let (response, mut client) = within("a response", answered).await.expect("no panic");
    let body = response.expect("it is answered").into_body().collect();
    assert_eq!(
        within("a body", body).await.expect("whole").to_bytes(),
        "ok"
    );
    let call = bare("/");
    assert!(within("an end", client.send_request(call)).await.is_err());
    within("the node stops", stopped).await.expect("no panic");
}

#[tokio::test]
async fn an_unread_stream_does_not_block_others() {
    let mut stage = Stage::start().await;
    let mut client = client(&stage).await;
    let said = "HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
    let (stalled, mut large) = exchange(&mut stage, &mut client, "/large", said).await;
    // Fills the windows and the kernel's buffers.
    let filled = tokio::spawn(async move {
        let block = vec![b'x'; 1 << 16];
        let mut sent = 0_usize;
        while sent < 100_000_000 {
            let write = tokio::io::AsyncWriteExt::write(&mut large.stream, &block);
            match tokio::time::timeout(super::QUIET * 4, write).await {
                Ok(Ok(more)) => sent += more,
                _ => break,
            }
        }
        (large, sent)
    });
    let (_large, sent) = within("back-pressure", filled).await.expect("no panic");
    assert!(
        sent < 40_000_000,
        "{sent} bytes were accepted from a client that reads none"
    );
    let (response, _instance) = exchange(&mut stage, &mut client, "/small", OK).await;
    let body = response.into_body().collect();
    let body = within("a body", body).await.expect("whole").to_bytes();
    assert_eq!(body, "ok");
    drop(stalled);
    stage.stop().await;
}
