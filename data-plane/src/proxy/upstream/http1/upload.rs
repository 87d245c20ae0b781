//! Sends a request over HTTP/1: its head, and its body as far as it is available.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Method, Request, header};
use http_body::Frame;
use tokio::io::AsyncWrite as _;
use tokio::net::tcp::OwnedWriteHalf;
use tracing::debug;

use crate::proxy::upstream::request_body::UploadBody;
use crate::proxy::upstream::send_error::{Repeatable, is_idempotent};
use crate::proxy::wire::h1_error::Error;

/// Data up to this length is copied into the buffer, so that both leave in one write.
const MAX_COPIED: usize = 4 * 1024;
/// Initial capacity of the buffer in bytes: a usual head.
const HEAD_CAPACITY: usize = 1024;

/// A request that is being sent.
#[derive(Debug)]
pub(super) struct Upload<B> {
    request: Box<Request<B>>,
    body: BodyFraming,
    /// Bytes to write, and the number of those written.
    out: Vec<u8>,
    sent: usize,
    /// Data behind `out` that is too long to be copied.
    data: Bytes,
    /// Some bytes were written.
    has_written: bool,
    /// A frame or an error was taken from the body.
    has_body_begun: bool,
    /// The instance stopped reading.
    is_cancelled: bool,
}

/// The framing of the rest of the body (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyFraming {
    Over,
    Length(u64),
    Chunked,
    /// The end of a chunk follows its data.
    ChunkEnd,
}

impl<B: UploadBody> Upload<B> {
    pub(super) fn new(request: Box<Request<B>>) -> Self {
        let body = framing(request.body());
        let mut out = Vec::with_capacity(HEAD_CAPACITY);
        write_head(&mut out, &request, body);
        Self {
            request,
            body,
            out,
            sent: 0,
            data: Bytes::new(),
            has_written: false,
            has_body_begun: false,
            is_cancelled: false,
        }
    }

    /// The whole request was written.
    pub(super) fn is_complete(&self) -> bool {
        self.body == BodyFraming::Over && self.is_written() && !self.is_cancelled
    }

    fn is_written(&self) -> bool {
        self.sent == self.out.len() && self.data.is_empty()
    }

    /// Some bytes were written, or taken from the body.
    pub(super) fn has_begun(&self) -> bool {
        self.has_written || self.has_body_begun
    }

    /// Sends nothing more, because the instance stopped reading.
    pub(super) fn cancel(&mut self) {
        self.is_cancelled = true;
    }

    /// Sends the body that `Expect: 100-continue` held back.
    pub(super) fn release_body(&mut self) {
        self.request.body_mut().release();
    }

    /// The request, if it can be sent again although the connection failed. `is_unanswered`: it
    /// failed without a byte of a response.
    pub(super) fn into_repeatable(
        self,
        is_unanswered: bool,
    ) -> Option<(Box<Request<B>>, Repeatable)> {
        let repeatable = match self.has_written {
            _ if self.has_body_begun => return None,
            false => Repeatable::Unsent,
            true if is_unanswered && is_idempotent(self.request.method()) => Repeatable::Idempotent,
            true => return None,
        };
        Some((self.request, repeatable))
    }

    /// Writes the available bytes. Ready once the request is complete or cancelled.
    pub(super) fn poll(
        &mut self,
        writer: &mut OwnedWriteHalf,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        if self.is_cancelled {
            return Poll::Ready(Ok(()));
        }
        loop {
            let filled = self.poll_fill(cx)?;
            if self.is_written() {
                ready!(filled);
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_write(writer, cx))?;
        }
    }

    /// Takes frames of the body that fit into the same write. Ready at the end or without space.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while self.body != BodyFraming::Over && self.data.is_empty() && self.out.len() < MAX_COPIED
        {
            if self.body == BodyFraming::ChunkEnd {
                self.out.extend_from_slice(b"\r\n");
                self.body = BodyFraming::Chunked;
            }
            let body = self.request.body_mut();
            let frame = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose();
            // A frame or error that was taken cannot be sent again.
            self.has_body_begun = true;
            let frame = frame.map_err(|error| Error::Body(error.into()))?;
            let is_last = body.is_end_stream();
            match frame.map(Frame::into_data) {
                Some(Ok(data)) => {
                    self.put(data)?;
                    if is_last {
                        self.end(None)?;
                    }
                }
                Some(Err(frame)) => self.end(frame.into_trailers().ok())?,
                None => self.end(None)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Adds data of the body.
    fn put(&mut self, data: Bytes) -> Result<(), Error> {
        let chunked = match &mut self.body {
            BodyFraming::Length(left) => {
                let more = data.len() as u64;
                *left = left.checked_sub(more).ok_or(Error::BodyLength)?;
                false
            }
            // An empty chunk would end the body.
            _ if data.is_empty() => return Ok(()),
            _ => {
                write!(self.out, "{:x}\r\n", data.len())?;
                true
            }
        };
        match data.len() > MAX_COPIED {
            true => self.data = data,
            false => self.out.extend_from_slice(&data),
        }
        if chunked {
            self.body = BodyFraming::ChunkEnd;
        }
        Ok(())
    }

    /// Ends the body. Only chunks can carry trailers (RFC 9112 section 7.1.2).
    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Error> {
        match self.body {
            BodyFraming::Over | BodyFraming::Length(0) => {}
            BodyFraming::Length(_) => return Err(Error::BodyLength),
            // The data of the chunk is not in `out`, so its end follows in a later turn.
            BodyFraming::ChunkEnd if !self.data.is_empty() => return Ok(()),
            framing => {
                if framing == BodyFraming::ChunkEnd {
                    self.out.extend_from_slice(b"\r\n");
                }
                self.out.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    write_fields(&mut self.out, &trailers);
                }
                self.out.extend_from_slice(b"\r\n");
            }
        }
        self.body = BodyFraming::Over;
        Ok(())
    }

    fn poll_write(
        &mut self,
        writer: &mut OwnedWriteHalf,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let short = self.out.get(self.sent..).unwrap_or_default();
        let writer = Pin::new(writer);
        let written = match (short, &*self.data) {
            (short, []) => writer.poll_write(cx, short),
            ([], data) => writer.poll_write(cx, data),
            (short, data) => {
                writer.poll_write_vectored(cx, &[IoSlice::new(short), IoSlice::new(data)])
            }
        };
        let written = ready!(written)?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.has_written = true;
        let of_short = written.min(short.len());
        self.sent += of_short;
        self.data.advance(written - of_short);
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the rest while the response is awaited. A request that fails closes its half of the
    /// connection.
    pub(super) async fn send_rest(mut self, mut writer: OwnedWriteHalf) {
        let ended = std::future::poll_fn(|cx| {
            if self.request.body().poll_cancelled(cx).is_ready() {
                return Poll::Ready(false);
            }
            self.poll(&mut writer, cx).map(|ended| {
                if let Err(error) = &ended {
                    debug!(%error, "cannot send the rest of a request");
                }
                ended.is_ok()
            })
        });
        if ended.await && !self.is_cancelled {
            // The response is still being read.
            writer.forget();
        }
    }
}

fn framing(body: &impl UploadBody) -> BodyFraming {
    match body.size_hint().exact() {
        _ if body.is_end_stream() => BodyFraming::Over,
        Some(length) => BodyFraming::Length(length),
        None => BodyFraming::Chunked,
    }
}

/// Writes the request line and the fields (RFC 9112 sections 3 and 5). The framing fields follow
/// from `body`.
fn write_head<B>(out: &mut Vec<u8>, request: &Request<B>, body: BodyFraming) {
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.uri().path().as_bytes());
    if let Some(query) = request.uri().query() {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(out, request.headers());
    let length = match (body, request.method()) {
        (BodyFraming::Length(length), _) => Some(length),
        // Methods that usually have a body announce an empty one (RFC 9110 section 8.6).
        (BodyFraming::Over, &(Method::POST | Method::PUT | Method::PATCH)) => Some(0),
        _ => None,
    };
    if let Some(length) = length {
        out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
    } else if body != BodyFraming::Over {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        if matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING) {
            continue;
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::wire::h1_framing::{Inspector, ReadPhase};
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn written(request: &Request<()>, body: BodyFraming) -> Vec<u8> {
        let mut out = Vec::new();
        write_head(&mut out, request, body);
        out
    }

    #[test]
    fn rfc_9112_section_6_a_body_is_framed_once_and_as_it_is_sent() {
        let request = |method: Method| {
            Request::builder()
                .method(method)
                .uri("/a?b=1")
                .header("content-length", "7")
                .header("transfer-encoding", "gzip")
                .header("x", "1")
                .body(())
                .expect("a request")
        };
        for (method, body, expected) in [
            (
                Method::GET,
                BodyFraming::Over,
                "GET /a?b=1 HTTP/1.1\r\nx: 1\r\n\r\n",
            ),
            (
                Method::POST,
                BodyFraming::Over,
                "POST /a?b=1 HTTP/1.1\r\nx: 1\r\ncontent-length: 0\r\n\r\n",
            ),
            (
                Method::GET,
                BodyFraming::Length(5),
                "GET /a?b=1 HTTP/1.1\r\nx: 1\r\ncontent-length: 5\r\n\r\n",
            ),
            (
                Method::PUT,
                BodyFraming::Chunked,
                "PUT /a?b=1 HTTP/1.1\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
        ] {
            let out = written(&request(method), body);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }

    #[test]
    fn rfc_9112_section_3_2_a_target_has_a_path() {
        for (uri, line) in [
            ("*", "OPTIONS * HTTP/1.1\r\n\r\n"),
            ("/", "OPTIONS / HTTP/1.1\r\n\r\n"),
            ("http://a.example?q", "OPTIONS /?q HTTP/1.1\r\n\r\n"),
        ] {
            let request = Request::builder().method(Method::OPTIONS).uri(uri);
            let out = written(&request.body(()).expect("a request"), BodyFraming::Over);
            assert_eq!(String::from_utf8_lossy(&out), line);
        }
    }

    proptest! {
        /// A strict reader finds exactly one request, whatever the fields are.
        #[test]
        fn a_request_is_read_as_exactly_one(
            fields in proptest::collection::vec(("[a-z0-9-]{1,20}", proptest::collection::vec(any::<u8>(), 0..30)), 0..12),
            length in 0_u64..3,
        ) {
            let mut request = Request::new(());
            for (name, value) in &fields {
                if let (Ok(name), Ok(value)) =
                    (HeaderName::try_from(name), HeaderValue::from_bytes(value))
                {
                    request.headers_mut().append(name, value);
                }
            }
            request.headers_mut().remove(header::UPGRADE);
            let mut out = written(&request, BodyFraming::Length(length));
            out.resize(out.len() + length as usize, b'x');
            let mut inspector = Inspector::new(64 * 1024);
            let found = inspector.inspect(&out);
            prop_assert_eq!((found.pass, found.error), (out.len(), None));
            prop_assert_eq!(inspector.heads(), 1);
            prop_assert_eq!(inspector.phase(), ReadPhase::Idle);
        }
    }
}
