//! A request on its way to an instance: its head, and as much of its body as there is.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Method, Request, header};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite as _;
use tokio::net::tcp::OwnedWriteHalf;
use tracing::debug;

use super::Error;
use crate::proxy::body::{self, RequestBody};

/// Data up to this is copied behind what it follows, so that both are one write; what is longer is not copied.
const SHORT: usize = 4 * 1024;
/// Of a head.
const USUAL: usize = 1024;

/// A request that is being sent.
#[derive(Debug)]
pub(super) struct Upload {
    request: Box<Request<RequestBody>>,
    body: Framing,
    /// Bytes to be written, and how many of them are.
    out: Vec<u8>,
    sent: usize,
    /// Behind them: data that is too long to be copied, and what ends its chunk.
    data: Bytes,
    /// Some of it was written, or taken of its body.
    begun: bool,
    /// The instance does not read on.
    left: bool,
}

/// How the rest of the body is sent (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Over,
    Length(u64),
    Chunked,
    /// A chunk's data is to be followed by its end.
    ChunkEnd,
}

impl Upload {
    /// Its head is to be sent first.
    pub(super) fn new(request: Box<Request<RequestBody>>) -> Self {
        let body = framing(request.body());
        let mut out = Vec::with_capacity(USUAL);
        write_head(&mut out, &request, body);
        Self {
            request,
            body,
            out,
            sent: 0,
            data: Bytes::new(),
            begun: false,
            left: false,
        }
    }

    /// All of it is written.
    pub(super) fn is_over(&self) -> bool {
        self.body == Framing::Over && self.is_written() && !self.left
    }

    fn is_written(&self) -> bool {
        self.sent == self.out.len() && self.data.is_empty()
    }

    /// Some of it was written, or taken of its body.
    pub(super) fn is_begun(&self) -> bool {
        self.begun
    }

    /// The instance does not read on: nothing more is sent.
    pub(super) fn give_up(&mut self) {
        self.left = true;
    }

    /// The instance wants the body that was announced with `Expect: 100-continue`.
    pub(super) fn is_wanted(&mut self) {
        self.request.body_mut().wanted();
    }

    /// It, if nothing of it was sent.
    pub(super) fn into_unsent(self) -> Option<Box<Request<RequestBody>>> {
        (!self.begun).then_some(self.request)
    }

    /// Writes what there is. Ready once it is over, or given up.
    pub(super) fn poll(
        &mut self,
        writer: &mut OwnedWriteHalf,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        if self.left {
            return Poll::Ready(Ok(()));
        }
        loop {
            let more = self.poll_gather(cx)?;
            if self.is_written() {
                ready!(more);
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_write(writer, cx))?;
        }
    }

    /// Takes frames of the body while they go into the same write. Ready if there is none more, or no room.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while self.body != Framing::Over && self.data.is_empty() && self.out.len() < SHORT {
            if self.body == Framing::ChunkEnd {
                self.out.extend_from_slice(b"\r\n");
                self.body = Framing::Chunked;
            }
            let body = self.request.body_mut();
            let frame = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose();
            // What was taken of it, be it an error, will not come again.
            self.begun = true;
            let frame = frame.map_err(|error| Error::Body(Box::new(error)))?;
            let last = body.is_end_stream();
            match frame.map(Frame::into_data) {
                Some(Ok(data)) => {
                    self.put(data)?;
                    if last {
                        self.end(None)?;
                    }
                }
                Some(Err(frame)) => self.end(frame.into_trailers().ok())?,
                None => self.end(None)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Data of the body.
    fn put(&mut self, data: Bytes) -> Result<(), Error> {
        let chunked = match &mut self.body {
            Framing::Length(left) => {
                let more = data.len() as u64;
                *left = left.checked_sub(more).ok_or_else(wrong_length)?;
                false
            }
            // An empty chunk would be the last.
            _ if data.is_empty() => return Ok(()),
            _ => {
                write!(self.out, "{:x}\r\n", data.len())?;
                true
            }
        };
        match data.len() > SHORT {
            true => self.data = data,
            false => self.out.extend_from_slice(&data),
        }
        if chunked {
            self.body = Framing::ChunkEnd;
        }
        Ok(())
    }

    /// The body is over. Trailers go with chunks alone (RFC 9112 section 7.1.2).
    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Error> {
        match self.body {
            Framing::Over | Framing::Length(0) => {}
            Framing::Length(_) => return Err(wrong_length()),
            // The data that the end belongs to is not copied, so it follows in a turn of its own.
            Framing::ChunkEnd if !self.data.is_empty() => return Ok(()),
            framing => {
                if framing == Framing::ChunkEnd {
                    self.out.extend_from_slice(b"\r\n");
                }
                self.out.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    write_fields(&mut self.out, &trailers);
                }
                self.out.extend_from_slice(b"\r\n");
            }
        }
        self.body = Framing::Over;
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
        self.begun = true;
        let of_short = written.min(short.len());
        self.sent += of_short;
        self.data.advance(written - of_short);
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the rest, as long as somebody waits for the response; a request that breaks off closes its side of the
    /// connection.
    pub(super) async fn go_on(mut self, mut writer: OwnedWriteHalf) {
        let ended = std::future::poll_fn(|cx| {
            if self.request.body().poll_unread(cx).is_ready() {
                return Poll::Ready(false);
            }
            self.poll(&mut writer, cx).map(|ended| {
                if let Err(error) = &ended {
                    debug!(%error, "the rest of a request was not sent");
                }
                ended.is_ok()
            })
        });
        if ended.await && !self.left {
            // The response is still to be read.
            writer.forget();
        }
    }
}

fn wrong_length() -> Error {
    Error::Body(Box::new(body::Error::Length))
}

fn framing(body: &RequestBody) -> Framing {
    match body.size_hint().exact() {
        _ if body.is_end_stream() => Framing::Over,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

/// The request line and the fields (RFC 9112 sections 3 and 5). What frames the body is written as it is framed.
fn write_head<B>(out: &mut Vec<u8>, request: &Request<B>, body: Framing) {
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
        (Framing::Length(length), _) => Some(length),
        // A method that means to bring something says that it does not (RFC 9110 section 8.6).
        (Framing::Over, &(Method::POST | Method::PUT | Method::PATCH)) => Some(0),
        _ => None,
    };
    if let Some(length) = length {
        out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
    } else if body != Framing::Over {
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
    use crate::proxy::framing::Inspector;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn written(request: &Request<()>, body: Framing) -> Vec<u8> {
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
        for (method, body, wanted) in [
            (
                Method::GET,
                Framing::Over,
                "GET /a?b=1 HTTP/1.1\r\nx: 1\r\n\r\n",
            ),
            (
                Method::POST,
                Framing::Over,
                "POST /a?b=1 HTTP/1.1\r\nx: 1\r\ncontent-length: 0\r\n\r\n",
            ),
            (
                Method::GET,
                Framing::Length(5),
                "GET /a?b=1 HTTP/1.1\r\nx: 1\r\ncontent-length: 5\r\n\r\n",
            ),
            (
                Method::PUT,
                Framing::Chunked,
                "PUT /a?b=1 HTTP/1.1\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
        ] {
            let out = written(&request(method), body);
            assert_eq!(String::from_utf8_lossy(&out), wanted);
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
            let out = written(&request.body(()).expect("a request"), Framing::Over);
            assert_eq!(String::from_utf8_lossy(&out), line);
        }
    }

    proptest! {
        /// Whatever a head holds, what is written is one request to a strict reader.
        #[test]
        fn one_request_is_written_as_one(
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
            let mut out = written(&request, Framing::Length(length));
            out.resize(out.len() + length as usize, b'x');
            let mut inspector = Inspector::new(64 * 1024);
            let found = inspector.inspect(&out);
            prop_assert_eq!((found.pass, found.fault), (out.len(), None));
            prop_assert_eq!(inspector.heads(), 1);
            prop_assert_eq!(inspector.phase(), crate::proxy::framing::Phase::Idle);
        }
    }
}
