//! Finds the moment at which a started container answers.
//!
//! The first look is 1 ms after the start and looks grow apart to at most 50 ms: most servers
//! listen within a few milliseconds, and one that takes seconds is not worth a thousand looks a
//! second. The address is the container's own: a published port would prove nothing, because the
//! engine's proxy accepts before the program listens.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::route::Readiness;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// A start takes the engine a hundred milliseconds; a refused connection takes less than a tenth of one.
const PAUSE_WHILE_STARTING: Duration = Duration::from_millis(2);
/// A connection or answer that takes longer counts as none.
const ONE_LOOK: Duration = Duration::from_secs(1);

/// Why an HTTP probe got no status.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
}

/// Looks until the container answers; gives what the last look found if `deadline` passes first.
///
/// # Errors
/// The last look's finding, for a person.
pub(super) async fn until_ready(
    address: SocketAddr,
    readiness: &Readiness,
    deadline: Instant,
) -> Result<(), String> {
    let mut pause = FIRST_PAUSE;
    loop {
        let found = match tokio::time::timeout(ONE_LOOK, look(address, readiness)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(found)) => found,
            Err(_) => format!("{address} did not answer within {} s", ONE_LOOK.as_secs()),
        };
        if Instant::now() + pause >= deadline {
            return Err(found);
        }
        tokio::time::sleep(pause).await;
        pause = (pause + pause / 2 + Duration::from_micros(500)).min(LONGEST_PAUSE);
    }
}

/// Looks until the container answers, however long: for while the engine starts it. Looks do not grow
/// apart, because the time of the first answer is still to come.
pub(super) async fn while_starting(address: SocketAddr, readiness: &Readiness) {
    loop {
        let found = tokio::time::timeout(ONE_LOOK, look(address, readiness)).await;
        if matches!(found, Ok(Ok(()))) {
            return;
        }
        tokio::time::sleep(PAUSE_WHILE_STARTING).await;
    }
}

async fn look(address: SocketAddr, readiness: &Readiness) -> Result<(), String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("connecting to port {}: {error}", address.port()))?;
    match readiness {
        Readiness::Tcp => Ok(()),
        Readiness::Http { path, status } => {
            let got = get(stream, address, path)
                .await
                .map_err(|error| format!("GET {path}: {error}"))?;
            if status.contains(&got) {
                Ok(())
            } else {
                Err(format!(
                    "GET {path} answered {got}, wanted {} to {}",
                    status.start(),
                    status.end()
                ))
            }
        }
    }
}

async fn get(stream: TcpStream, address: SocketAddr, path: &str) -> Result<u16, Error> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream))
            .await?;
    let request = http::Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::USER_AGENT, "cless-probe")
        .header(http::header::CONNECTION, "close")
        .body(Empty::new())?;
    let exchange = sender.send_request(request);
    tokio::pin!(exchange);
    tokio::select! {
        response = &mut exchange => Ok(response?.status().as_u16()),
        ended = connection => {
            ended?;
            // The answer may have arrived with the end of the connection.
            Ok(exchange.await?.status().as_u16())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn a_listener_is_ready_and_a_closed_port_says_why_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(until_ready(address, &Readiness::Tcp, soon()).await, Ok(()));
        drop(listener);
        let late = Instant::now() + Duration::from_millis(20);
        let found = until_ready(address, &Readiness::Tcp, late)
            .await
            .unwrap_err();
        assert!(found.contains("connecting to port"), "{found}");
    }

    #[tokio::test]
    async fn while_it_is_started_it_is_looked_at_again_and_again() {
        let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = held.local_addr().unwrap();
        drop(held);
        let (begin, tcp) = (Instant::now(), Readiness::Tcp);
        let listens = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            TcpListener::bind(address).await.unwrap()
        };
        let (_listener, ()) = tokio::join!(listens, while_starting(address, &tcp));
        assert!(begin.elapsed() >= Duration::from_millis(300));
    }

    #[tokio::test]
    async fn an_http_probe_waits_for_a_status_in_its_range() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in ["503 No", "503 No", "200 OK"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 512];
                let _ = stream.read(&mut head).await.unwrap();
                let text = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        let readiness = Readiness::Http {
            path: "/healthz".into(),
            status: 200..=299,
        };
        assert_eq!(until_ready(address, &readiness, soon()).await, Ok(()));
    }
}
