//! An HTTP/1 connection to an instance, driven by the request that is on it.
//!
//! Our own and not hyper's, whose connection is a task behind two channels: here the task that serves a client
//! writes the request and reads the response itself, so that an exchange costs two turns of the scheduler, and a
//! short request one write. Whoever holds an [`Http1`] polls it:
//!
//! - with a request on it: [`Http1::send`] until the response's head, then [`Http1::poll_frame`] for its body;
//! - idle: nobody, until a look ([`Http1::is_open`]) finds it closed or the next request is sent.
//!
//! A request whose body is not here whole when the response is goes on in a task of its own, since then bytes flow
//! that no reader of the response asks for; its connection carries no other.
//!
//! ```text
//!  Request ─► upload ─► socket ─► buffer ─► head ─► Response
//!                                   └─────► decode ─► frames, trailers
//! ```
//!
//! [`head`] and [`decode`] are pure. They forgive nothing that could be read in two ways: such a response is an error.

#[path = "../wire/h1_decode.rs"]
pub(in super::super) mod decode;
#[cfg(test)]
#[path = "../wire/h1_fuzz.rs"]
mod fuzz;
#[path = "../wire/h1_head.rs"]
mod head;
mod upload;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::io::poll_read_buf;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use self::decode::{Decoder, Next};
use self::head::Head;
use self::upload::Upload;
use super::super::body::RequestBody;
use super::super::incoming::Incoming;
use super::lease::Failed;

/// What is read at once, at least and at most. Between them it follows the length of the last response.
const LEAST_READ: usize = 8 * 1024;
const MOST_READ: usize = 128 * 1024;

/// Why there is no response, or not the whole of it.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// RFC 9112 section 8.
    #[error("the connection ended before the response did")]
    Incomplete,
    #[error("the response is malformed: {0}")]
    Malformed(&'static str),
    /// The fault is not the instance's.
    #[error("the request's body broke off: {0}")]
    Body(Box<super::super::body::Error>),
}

/// One connection. Dropped, it is closed.
#[derive(Debug)]
pub(super) struct Http1 {
    reader: OwnedReadHalf,
    /// `None`: a task has it, which sends the rest of a request.
    writer: Option<OwnedWriteHalf>,
    /// What was read and is of no message yet.
    buffer: BytesMut,
    /// Bytes of the response at hand so far, and of the one before.
    taken: usize,
    usual: usize,
    /// Once the response is over it can carry another request.
    keeps: bool,
    open: TaskTrackerToken,
}

impl Http1 {
    /// Over a new `stream`. `open`: counts it while it is open.
    pub(super) fn new(stream: TcpStream, open: TaskTrackerToken) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader,
            writer: Some(writer),
            buffer: BytesMut::new(),
            taken: 0,
            usual: 0,
            keeps: true,
            open,
        }
    }

    /// Whether another request may follow the one that is over.
    pub(super) fn is_kept(&self) -> bool {
        self.keeps && self.buffer.is_empty()
    }

    /// Looks whether it is still open, while it idles: nothing comes then, not even an end.
    pub(super) fn is_open(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        self.is_kept() && self.poll_read(&mut nobody).is_pending()
    }

    /// Sends a request, and reads until the response's head is there.
    pub(super) async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
    ) -> Result<Response<Incoming>, Failed> {
        let is_head = *request.method() == Method::HEAD;
        let mut upload = Upload::new(request);
        self.usual = std::mem::take(&mut self.taken);
        let answered = poll_fn(|cx| self.poll_head(&mut upload, is_head, cx)).await;
        let head = match answered {
            Ok(head) => head,
            Err(error) => {
                self.keeps = false;
                return Err(Failed {
                    error: error.into(),
                    unsent: upload.into_unsent(),
                });
            }
        };
        self.keeps = head.keeps && upload.is_over();
        if !upload.is_over()
            && let Some(writer) = self.writer.take()
        {
            tokio::task::spawn_local(upload.go_on(writer));
        }
        Ok(head.response.map(Incoming::Framed))
    }

    /// Moves the request out and the response in; ready with the head of the latter.
    fn poll_head(
        &mut self,
        upload: &mut Upload,
        is_head: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, Error>> {
        loop {
            if let Some(writer) = &mut self.writer
                && let Poll::Ready(Err(error)) = upload.poll(writer, cx)
            {
                match error {
                    // It may have answered before it stopped to read (RFC 9112 section 9.5).
                    Error::Io(error) if upload.is_begun() => {
                        debug!(%error, "an instance left a request");
                        upload.give_up();
                    }
                    error => return Poll::Ready(Err(error)),
                }
            }
            if let Some(head) = head::parse(&mut self.buffer, is_head)? {
                let status = head.response.status();
                if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                    if status == StatusCode::CONTINUE {
                        upload.is_wanted();
                    }
                    continue;
                }
                return Poll::Ready(Ok(head));
            }
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(Err(Error::Incomplete));
            }
        }
    }

    /// Reads more; how much.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let more = self.usual.max(self.taken).clamp(LEAST_READ, MOST_READ);
        self.buffer.reserve(more);
        let read = poll_read_buf(Pin::new(&mut self.reader), cx, &mut self.buffer);
        if let Poll::Ready(Ok(bytes)) = read {
            self.taken += bytes;
        }
        read
    }

    /// The next frame of the response's body.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match body.next(&mut self.buffer)? {
                Next::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                Next::End => return Poll::Ready(None),
                Next::More => {
                    if ready!(self.poll_read(cx))? == 0 {
                        return Poll::Ready(body.end().err().map(Err));
                    }
                }
            }
        }
    }

    /// The connection, once it speaks another protocol. `None` if the request before the switch is not sent whole.
    pub(super) fn switched(self) -> Option<Switched> {
        let stream = self.reader.reunite(self.writer?).ok()?;
        Some(Switched {
            ahead: self.buffer.freeze(),
            stream,
            _open: self.open,
        })
    }
}

/// A connection that has switched to another protocol.
#[derive(Debug)]
pub(in super::super) struct Switched {
    /// What came right behind the response's head.
    ahead: Bytes,
    stream: TcpStream,
    _open: TaskTrackerToken,
}

impl AsyncRead for Switched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let most = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(most));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Switched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Fields as `httparse` found them, in a section that ends with an empty line.
fn fields<'a>(
    section: &Bytes,
    found: impl Iterator<Item = httparse::Header<'a>>,
    into: &mut HeaderMap,
) -> Result<(), Error> {
    for field in found {
        let name = http::HeaderName::from_bytes(field.name.as_bytes());
        let value = http::HeaderValue::from_maybe_shared(section.slice_ref(field.value));
        match (name, value) {
            (Ok(name), Ok(value)) => into.append(name, value),
            (Err(_), _) => return Err(Error::Malformed("the name of a field")),
            (_, Err(_)) => return Err(Error::Malformed("the value of a field")),
        };
    }
    Ok(())
}
