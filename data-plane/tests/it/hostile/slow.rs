//! Slow clients: heads, bodies, reads and idle connections.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{end_of, get, meanwhile, reached_only_by_good, sent, strict, was_held_back};
use crate::front::client::LIMIT;
use crate::front::{Front, HOST};

/// Sends one byte at a time, each within its timeout, until the proxy closes the connection.
async fn trickle(mut stream: TcpStream, bytes: &[u8], pause: Duration) -> Vec<u8> {
    let trickling = async {
        for byte in bytes.iter().cycle() {
            let mut answer = [0; 512];
            tokio::select! {
                read = stream.read(&mut answer) => match read {
                    Ok(read) => return answer[..read].to_vec(),
                    Err(_) => return Vec::new(),
                },
                () = tokio::time::sleep(pause) => {}
            }
            if stream.write_all(&[*byte]).await.is_err() {
                return Vec::new();
            }
        }
        Vec::new()
    };
    timeout(LIMIT, trickling)
        .await
        .expect("the proxy closes the connection")
}

/// RFC 9110 section 15.5.9.
#[tokio::test]
async fn slow_heads_are_answered_408_and_closed() {
    let front = Front::start_with(strict).await;
    let start = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n");
    let slow = (0..50).map(|_| async {
        let stream = sent(&front, start.as_bytes()).await;
        trickle(stream, b"X-A: b\r\n", Duration::from_millis(100)).await
    });
    let answers = meanwhile(&front, join_all(slow)).await;
    for answer in answers {
        let told = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            told.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
            "{told}"
        );
        assert!(told.contains("\r\nconnection: close\r\n"), "{told}");
    }
    reached_only_by_good(&front);
    front.stop().await;
}

/// The timeout of a pipelined head starts when the request before it is answered.
#[tokio::test]
async fn a_pipelined_head_times_out_only_after_the_response_before_it() {
    let front = Front::start_with(strict).await;
    let ahead = format!("{}GET /next HT", get("/late"));
    let mut stream = sent(&front, ahead.as_bytes()).await;
    let said = end_of(&mut stream).await;
    let said = String::from_utf8_lossy(&said);
    // The origin takes twice the head timeout.
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    assert!(said.contains("\r\n\r\nokHTTP/1.1 408 "), "{said}");
    front.stop().await;
}

#[tokio::test]
async fn silent_connections_are_closed() {
    let front = Front::start_with(strict).await;
    let silent = (0..50).map(|at| {
        let front = &front;
        async move {
            // Nothing; half an HTTP/1 request; half the preface of HTTP/2; all of it.
            let start = [
                "",
                "GET / HT",
                "PRI * HTTP/2.0\r\n\r\n",
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            ];
            let start = start[at % start.len()];
            let said = end_of(&mut sent(front, start.as_bytes()).await).await;
            // Only a started request gets a response.
            let is_begun = start.starts_with("GET");
            assert_eq!(said.starts_with(b"HTTP/1.1 408 "), is_begun, "{start:?}");
        }
    });
    meanwhile(&front, join_all(silent)).await;
    front.stop().await;
}

#[tokio::test]
async fn slow_handshakes_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    std::fs::write(folder.path().join("default.crt"), made.cert.pem()).unwrap();
    let key = made.signing_key.serialize_pem();
    std::fs::write(folder.path().join("default.key"), key).unwrap();
    let front = Front::start_with(|options| {
        strict(options);
        options.proxy.tls_listen = Some(([127, 0, 0, 1], 0).into());
        options.proxy.tls_cert_dir = Some(folder.path().to_owned());
    })
    .await;
    let address = front.stage.tls.expect("it serves HTTPS");
    let slow = (0..50).map(|at| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        match at % 2 {
            0 => drop(end_of(&mut stream).await),
            // The start of a ClientHello that announces 512 bytes.
            _ => {
                stream
                    .write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])
                    .await
                    .unwrap();
                trickle(stream, &[0], Duration::from_millis(100)).await;
            }
        }
    });
    meanwhile(&front, join_all(slow)).await;
    front.stop().await;
}

#[tokio::test]
async fn slow_bodies_are_closed_and_never_count_as_requests() {
    let front = Front::start_with(strict).await;
    let length = format!("POST /slow HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n");
    let chunked =
        format!("POST /slow HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let slow = (0..40).map(|at| {
        let (front, head) = (&front, if at % 2 == 0 { &length } else { &chunked });
        let piece: &[u8] = if at % 2 == 0 { b"x" } else { b"1\r\nx\r\n" };
        async move {
            let stream = sent(front, head.as_bytes()).await;
            trickle(stream, piece, Duration::from_millis(100)).await
        }
    });
    meanwhile(&front, join_all(slow)).await;
    reached_only_by_good(&front);
    front.stop().await;
}

#[tokio::test]
async fn slow_readers_are_closed_and_throttle_the_origin() {
    let front = Front::start_with(strict).await;
    for (round, path) in (1..).zip(["/large", "/drip"]) {
        let slow = async {
            let mut all = Vec::new();
            for _ in 0..8 {
                all.push(sent(&front, get(path).as_bytes()).await);
            }
            // Nothing is read until the proxy has closed them; then the kernel's buffer and the end
            // remain.
            let closed = async {
                while front.closed("slow_reader").await < 8 * round {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            timeout(LIMIT, closed)
                .await
                .expect("slow readers are closed");
            for stream in &mut all {
                let said = end_of(stream).await;
                assert!(
                    said.len() < 48 << 20,
                    "{} bytes were taken unread",
                    said.len()
                );
            }
        };
        meanwhile(&front, slow).await;
    }
    was_held_back(&front);
    front.stop().await;
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let front = Front::start_with(strict).await;
    let idle = (0..200).map(|_| async {
        let mut stream = sent(&front, get("/idle").as_bytes()).await;
        let said = end_of(&mut stream).await;
        assert!(said.starts_with(b"HTTP/1.1 200 "), "it was served first");
    });
    meanwhile(&front, join_all(idle)).await;
    front.stop().await;
}

#[tokio::test]
async fn connections_are_bounded_and_existing_ones_continue() {
    let front = Front::start_with(|options| {
        options.proxy.workers = 1;
        options.proxy.max_connections = 20;
    })
    .await;
    let mut kept = TcpStream::connect(front.address).await.unwrap();
    ask(&mut kept).await;
    // Half of the new connections exceed the limit.
    let mut all = Vec::new();
    for _ in 0..40 {
        all.push(TcpStream::connect(front.address).await.unwrap());
        ask(&mut kept).await;
    }
    let answered = join_all(all.iter_mut().map(|stream| async {
        let _ = stream.write_all(get("/").as_bytes()).await;
        let mut answer = [0; 12];
        matches!(timeout(LIMIT, stream.read(&mut answer)).await, Ok(Ok(1..)) if answer.ends_with(b" 200"))
    }))
    .await;
    let answered = answered.into_iter().filter(|answered| *answered).count();
    assert!(answered < 20, "{answered} beside one are served");
    ask(&mut kept).await;
    drop(all);
    // Permits are free again as soon as the proxy has seen the connections close.
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let mut stream = TcpStream::connect(front.address).await.unwrap();
        let _ = stream.write_all(get("/").as_bytes()).await;
        if let Ok(1..) = stream.read(&mut [0; 64]).await {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "no permit becomes free"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    front.stop().await;
}

#[tokio::test]
async fn connections_per_address_are_bounded() {
    let front = Front::start_with(|options| {
        options.proxy.workers = 1;
        options.proxy.max_connections_per_ip = 5;
    })
    .await;
    let mut kept = TcpStream::connect(front.address).await.unwrap();
    ask(&mut kept).await;
    let mut answered = 0;
    let mut all = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(front.address).await.unwrap();
        let _ = stream.write_all(get("/").as_bytes()).await;
        if let Ok(Ok(1..)) = timeout(LIMIT, stream.read(&mut [0; 64])).await {
            answered += 1;
        }
        all.push(stream);
        ask(&mut kept).await;
    }
    assert!(answered <= 5, "{answered} were served");
    // Another address has its own limit.
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = other.connect(front.address).await.unwrap();
    ask(&mut other).await;
    front.stop().await;
}

/// A well-behaved client on a persistent connection.
async fn ask(kept: &mut TcpStream) {
    kept.write_all(get("/kept").as_bytes())
        .await
        .expect("it reads");
    let mut answer = Vec::new();
    timeout(LIMIT, async {
        while !answer.ends_with(b"\r\n\r\nok") {
            assert!(
                kept.read_buf(&mut answer).await.expect("it answers") > 0,
                "closed"
            );
        }
    })
    .await
    .expect("a good client is served in time");
}
