//! Instances that allow few streams on an HTTP/2 connection (RFC 9113 section 5.1.2).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cless_data_plane::Options;
use cless_proto::v1::version_spec::Protocol;
use h2::server::SendResponse;
use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{QUIET, Stage, Wire, get, spoken};
use crate::feed::plane::within;
use crate::raw::frames::{
    END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame,
};

const REQUESTS: usize = 20;
/// `:status: 200` (RFC 7541 appendix A).
const STATUS_200: u8 = 0x88;
const MAX_CONCURRENT_STREAMS: u8 = 3;
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

/// One worker, so that all requests share connections.
fn alone(options: &mut Options) {
    options.proxy.workers = 1;
}

/// A request at the instance, and the number of its connection.
type Asked = (usize, SendResponse<Bytes>);

/// An instance that allows `limit` streams a connection. Returns its requests, and the number of
/// open connections that had one.
fn instance(stage: &mut Stage, limit: u32) -> (mpsc::UnboundedReceiver<Asked>, Arc<AtomicUsize>) {
    let mut visitors = stage.take_visitors();
    let (sender, requests) = mpsc::unbounded_channel();
    let open = Arc::new(AtomicUsize::new(0));
    let counted = open.clone();
    tokio::spawn(async move {
        let mut number = 0;
        while let Some(stream) = visitors.recv().await {
            let (sender, open) = (sender.clone(), counted.clone());
            number += 1;
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                builder.max_concurrent_streams(limit);
                // Readiness probes send nothing.
                let Ok(mut connection) = builder.handshake(stream).await else {
                    return;
                };
                open.fetch_add(1, Ordering::SeqCst);
                while let Some(Ok((_, respond))) = connection.accept().await {
                    let _ = sender.send((number, respond));
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (requests, open)
}

async fn until_open(open: &AtomicUsize, expected: usize) {
    let reached = async {
        while open.load(Ordering::SeqCst) > expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("surplus connections close", reached).await;
}

#[tokio::test]
async fn further_connections_carry_the_streams_that_one_does_not_allow() {
    for (limit, workers) in [(5, 1), (1, 1), (5, 2), (1000, 1)] {
        let choose = |options: &mut Options| options.proxy.workers = workers;
        let mut stage = Stage::with(spoken(Protocol::H2c), choose).await;
        let (mut requests, open) = instance(&mut stage, limit);
        let mut clients = Vec::new();
        for number in 0..REQUESTS {
            // None may be refused: the proxy must not send a POST twice.
            let fields = "Content-Length: 0\r\n";
            let request = get(&format!("/{number}"), fields).replacen("GET", "POST", 1);
            clients.push(stage.client(request).await);
        }
        let mut asked = Vec::new();
        let mut loads = BTreeMap::new();
        for _ in 0..REQUESTS {
            let request = within("all at once", requests.recv()).await;
            let request = request.expect("more");
            *loads.entry(request.0).or_insert(0) += 1;
            asked.push(request);
        }
        assert!(loads.values().all(|load| *load <= limit), "{loads:?}");
        let fewest = REQUESTS.div_ceil(limit as usize);
        assert!(loads.len() < fewest + workers, "{limit}: {loads:?}");
        for (_, mut respond) in asked {
            respond
                .send_response(Response::new(()), true)
                .expect("open");
        }
        for mut client in clients {
            client.answered(200).await;
        }
        // Each worker keeps one.
        until_open(&open, workers).await;
        tokio::time::sleep(QUIET).await;
        assert!(open.load(Ordering::SeqCst) >= 1, "one is kept");
        stage.stop().await;
    }
}

/// The instance's side of a connection, frame by frame.
struct Peer(TcpStream);

impl Peer {
    /// The next connection over HTTP/2, whose client gets no settings yet.
    async fn accept(stage: &mut Stage) -> Self {
        loop {
            let stream = within("a connection", stage.visitors.recv()).await;
            let mut stream = stream.expect("the engine lives");
            let mut preface = [0; PREFACE.len()];
            if within("a preface", stream.read_exact(&mut preface))
                .await
                .is_ok()
            {
                return Self(stream);
            }
        }
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let frame = frame(kind, flags, stream, payload);
        self.0.write_all(&frame).await.expect("it is taken");
    }

    async fn allow(&mut self, streams: u8) {
        let limit = [0, MAX_CONCURRENT_STREAMS, 0, 0, 0, streams];
        self.send(SETTINGS, 0, 0, &limit).await;
    }

    /// The stream of the next request.
    async fn request(&mut self) -> u32 {
        let next = async {
            loop {
                let mut head = [0; 9];
                self.0.read_exact(&mut head).await.expect("a frame");
                let [_, a, b, kind, _, stream @ ..] = head;
                let mut payload = vec![0; usize::from(u16::from_be_bytes([a, b]))];
                self.0.read_exact(&mut payload).await.expect("a payload");
                if kind == HEADERS {
                    return u32::from_be_bytes(stream);
                }
            }
        };
        within("a request", next).await
    }

    async fn respond(&mut self, stream: u32) {
        let flags = END_HEADERS | END_STREAM;
        self.send(HEADERS, flags, stream, &[STATUS_200]).await;
    }
}

/// Checks that the instance gets no connection with a request meanwhile. Probes are none.
async fn no_connection(stage: &mut Stage) {
    tokio::time::sleep(QUIET).await;
    while let Ok(mut stream) = stage.visitors.try_recv() {
        let read = tokio::time::timeout(QUIET, stream.read_u8()).await;
        assert!(!matches!(read, Ok(Ok(_))), "one more connection");
    }
}

#[tokio::test]
async fn requests_wait_in_order_while_the_instance_allows_no_stream() {
    let mut stage = Stage::with(spoken(Protocol::H2c), alone).await;
    let mut clients: Vec<Wire> = Vec::new();
    for number in 0..3 {
        clients.push(stage.client(get(&format!("/{number}"), "")).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut peer = Peer::accept(&mut stage).await;
    // No request precedes the settings, and a limit of 0 causes no further connection.
    no_connection(&mut stage).await;
    peer.allow(0).await;
    no_connection(&mut stage).await;
    // One leaves, which its connection notices at the latest after half a second.
    clients.remove(1).reset();
    tokio::time::sleep(Duration::from_secs(1)).await;
    peer.allow(3).await;
    for mut client in clients {
        let stream = peer.request().await;
        client.is_quiet().await;
        peer.respond(stream).await;
        client.answered(200).await;
    }
    stage.stop().await;
}

#[tokio::test]
async fn a_limit_that_falls_and_a_goaway_move_later_requests() {
    let mut stage = Stage::with(spoken(Protocol::H2c), alone).await;
    let mut clients = Vec::new();
    let mut first = {
        clients.push(stage.client(get("/", "")).await);
        let mut peer = Peer::accept(&mut stage).await;
        peer.allow(9).await;
        peer
    };
    let mut streams = vec![first.request().await];
    clients.push(stage.client(get("/", "")).await);
    streams.push(first.request().await);
    first.allow(1).await;
    tokio::time::sleep(QUIET).await;
    // The limit is below what is open: a further connection.
    let mut third = stage.client(get("/", "")).await;
    let mut second = Peer::accept(&mut stage).await;
    second.allow(1).await;
    let third_stream = second.request().await;
    // The first connection takes no more, whatever its limit is.
    first.allow(9).await;
    let last = streams[1].to_be_bytes();
    let goaway = [&last[..], &[0, 0, 0, 0]].concat();
    first.send(GOAWAY, 0, 0, &goaway).await;
    tokio::time::sleep(QUIET).await;
    let mut fourth = stage.client(get("/", "")).await;
    no_connection_of(&mut second).await;
    let mut last = Peer::accept(&mut stage).await;
    last.allow(1).await;
    let fourth_stream = last.request().await;
    // Its streams end in order.
    for (client, stream) in clients.iter_mut().zip(streams) {
        first.respond(stream).await;
        client.answered(200).await;
    }
    second.respond(third_stream).await;
    third.answered(200).await;
    last.respond(fourth_stream).await;
    fourth.answered(200).await;
    stage.stop().await;
}

/// Checks that the connection brings no request meanwhile.
async fn no_connection_of(peer: &mut Peer) {
    let asked = tokio::time::timeout(QUIET, peer.request()).await;
    assert!(asked.is_err(), "beyond its limit: {asked:?}");
}

/// RFC 9113 section 8.7: a refused stream was not processed, so any method may be sent again, once.
#[tokio::test]
async fn a_refused_request_is_sent_once_more() {
    let mut stage = Stage::with(spoken(Protocol::H2c), alone).await;
    let post = get("/", "Content-Length: 0\r\n").replacen("GET", "POST", 1);
    let mut client = stage.client(post.clone()).await;
    let mut peer = Peer::accept(&mut stage).await;
    peer.allow(9).await;
    let stream = peer.request().await;
    peer.send(RST_STREAM, 0, stream, &REFUSED_STREAM).await;
    let stream = peer.request().await;
    peer.respond(stream).await;
    client.answered(200).await;
    client.send(post).await;
    for _ in 0..2 {
        let stream = peer.request().await;
        peer.send(RST_STREAM, 0, stream, &REFUSED_STREAM).await;
    }
    client.answered(502).await;
    no_connection_of(&mut peer).await;
    stage.stop().await;
}

/// The waits end with the request's deadline.
#[tokio::test]
async fn a_request_that_gets_no_stream_is_late() {
    let shape = |route: &mut cless_proto::v1::Route| {
        spoken(Protocol::H2c)(route);
        super::long::brief(route);
    };
    let mut stage = Stage::with(shape, alone).await;
    let mut client = stage.client(get("/", "")).await;
    let mut peer = Peer::accept(&mut stage).await;
    peer.allow(0).await;
    client.answered(504).await;
    stage.stop().await;
}
