//! One call of `grpc.health.v1.Health/Check`, over HTTP/2 without TLS and with prior knowledge.
//!
//! It uses hyper's connection instead of tonic's channel, which adds a queue, reconnects and their
//! tasks to a single message.

use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::net::TcpStream;

use super::http::drive;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SERVING` of `HealthCheckResponse.ServingStatus`.
const SERVING: i32 = 1;
/// The largest response body; more than a health response needs.
const ANSWER_MAX: usize = 4 * 1024;
/// The length of flag and message length, before a message.
const PREFIX: usize = 5;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("no HTTP/2 answer: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("answered HTTP {0}, not gRPC")]
    NotGrpc(u16),
    #[error("its response cannot be read: {0}")]
    Unreadable(String),
    #[error("the server does not know this service")]
    UnknownService,
    #[error("the server has no grpc.health.v1.Health")]
    NoHealth,
    #[error("grpc-status {0}")]
    Status(String),
    #[error("answered {0}, expected SERVING")]
    NotServing(String),
}

pub(super) async fn check(
    stream: TcpStream,
    address: SocketAddr,
    service: &str,
) -> Result<(), Error> {
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(16 * 1024)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await?;
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "cless-probe")
        .body(Full::new(framed(service)))?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE);
        let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if head.status != 200 || !grpc {
            return Err(Error::NotGrpc(head.status.as_u16()));
        }
        let whole = Limited::new(body, ANSWER_MAX).collect().await;
        let whole = whole.map_err(|error| Error::Unreadable(error.to_string()))?;
        // A response without a message has its status in the head.
        let trailers = whole.trailers().unwrap_or(&head.headers).clone();
        verdict(&trailers, &whole.to_bytes())
    };
    drive(exchange, connection).await
}

fn framed(service: &str) -> Bytes {
    let message = Request {
        service: service.to_owned(),
    };
    let mut frame = BytesMut::with_capacity(PREFIX + message.encoded_len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    frame.put_slice(&message.encode_to_vec());
    frame.freeze()
}

fn verdict(trailers: &HeaderMap, body: &[u8]) -> Result<(), Error> {
    let status = trailers.get("grpc-status").map(|status| status.as_bytes());
    match status {
        Some(b"0") => {}
        Some(b"5") => return Err(Error::UnknownService),
        Some(b"12") => return Err(Error::NoHealth),
        Some(other) => return Err(Error::Status(String::from_utf8_lossy(other).into_owned())),
        None => return Err(Error::Unreadable("it has no grpc-status".to_owned())),
    }
    let message = match body.split_at_checked(PREFIX) {
        Some(([0, length @ ..], message))
            if usize::try_from(length.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)))
                == Ok(message.len()) =>
        {
            message
        }
        _ => {
            return Err(Error::Unreadable(
                "it is not one uncompressed message".to_owned(),
            ));
        }
    };
    let answer = Response::decode(message).map_err(|error| Error::Unreadable(error.to_string()))?;
    match answer.status {
        SERVING => Ok(()),
        0 => Err(Error::NotServing("UNKNOWN".to_owned())),
        2 => Err(Error::NotServing("NOT_SERVING".to_owned())),
        3 => Err(Error::NotServing("SERVICE_UNKNOWN".to_owned())),
        other => Err(Error::NotServing(format!("status {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn random_responses_never_panic(body: Vec<u8>, status in "[0-9]{0,3}") {
            let mut trailers = HeaderMap::new();
            if let Ok(status) = status.parse() {
                trailers.insert("grpc-status", status);
            }
            let _ = verdict(&trailers, &body);
        }

        #[test]
        fn only_serving_is_healthy(status in 0i32..6) {
            let message = Response { status }.encode_to_vec();
            let mut body = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
            body.extend(message);
            let trailers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static("0"),
            )]);
            prop_assert_eq!(verdict(&trailers, &body).is_ok(), status == SERVING);
        }
    }
}
