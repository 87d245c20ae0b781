//! An HTTP/1 connection to an instance, driven by the task of the request on it.
//!
//! [`Http1Conn::send`] writes the request and reads the response head; [`Http1Conn::poll_frame`]
//! reads the response body. An idle connection is not polled until it is reused. A request body
//! that is incomplete when the response head arrives continues in a task of its own; its
//! connection carries no other request.
//!
//! ```text
//!  Request ─► upload ─► socket ─► buffer ─► h1_head ─► Response
//!                                   └─────► h1_decode ─► frames, trailers
//! ```
//!
//! Decision: no `hyper::client::conn`, which is a task behind two channels. Here the task that
//! serves the client also does the upstream I/O, so a request costs two scheduler turns and a short
//! one a single write. CPU per request relative to HAProxy fell from 1.02 to 1.00 (HTTP/1.1, 32
//! connections), 1.00 to 0.93 (256 connections) and 1.09 to 1.02 (HTTP/2 clients). The bar
//! `cpu_per_request` of case h1-1k (against the better of nginx and HAProxy) requires this codec;
//! `make bench-proxy` measures it.

mod upload;

use std::future::poll_fn;
use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use tokio::io::{AsyncReadExt as _, Chain, Join, join};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::io::poll_read_buf;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use self::upload::Upload;
use super::request_body::UploadBody;
use super::send_error::SendError;
use crate::proxy::wire::h1_decode::{BodyDecoder, Decoded};
use crate::proxy::wire::h1_error::Error;
use crate::proxy::wire::h1_head::{self, MAX_HEAD, ResponseHead};
use crate::proxy::wire::incoming::Incoming;

/// Limits of a single read in bytes. In between, it follows the length of the last response.
const MIN_READ: usize = 8 * 1024;
const MAX_READ: usize = MAX_HEAD;

/// Interim responses that precede a response, and their bytes, beyond which it is malformed.
const MAX_INTERIM: u32 = 100;
const MAX_INTERIM_BYTES: usize = 64 * 1024;

/// One connection. Dropped, it is closed.
#[derive(Debug)]
pub(super) struct Http1Conn {
    reader: OwnedReadHalf,
    /// `None`: a task owns it and sends the rest of a request.
    writer: Option<OwnedWriteHalf>,
    /// Bytes that were read and not parsed.
    buffer: BytesMut,
    /// Bytes of the current response so far, and of the previous one.
    received: usize,
    previous: usize,
    /// Another request may follow the current response.
    keep_alive: bool,
    /// Limit of the fields of a response head.
    max_fields: usize,
    open: TaskTrackerToken,
}

impl Http1Conn {
    /// `max_fields`: limit of the fields of a response head. `open`: counts the connection while it
    /// is open.
    pub(super) fn new(stream: TcpStream, max_fields: usize, open: TaskTrackerToken) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader,
            writer: Some(writer),
            buffer: BytesMut::new(),
            received: 0,
            previous: 0,
            keep_alive: true,
            max_fields,
            open,
        }
    }

    /// Whether another request may follow the finished one.
    pub(super) fn is_reusable(&self) -> bool {
        self.keep_alive && self.buffer.is_empty()
    }

    /// Whether an idle connection is still open: nothing arrives on it, not even its end.
    pub(super) fn is_open(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.is_reusable() && self.poll_read(&mut cx).is_pending()
    }

    pub(super) async fn send<B: UploadBody>(
        &mut self,
        request: Box<Request<B>>,
        interim: &dyn Fn(Response<()>),
    ) -> Result<Response<Incoming>, SendError<B>> {
        let is_head = *request.method() == Method::HEAD;
        let mut upload = Upload::new(request);
        self.previous = std::mem::take(&mut self.received);
        let mut interims = InterimBudget::default();
        let mut on_interim = |head: Response<BodyDecoder>, bytes| {
            interims.take(bytes)?;
            interim(head.map(|_| ()));
            Ok(())
        };
        let head = poll_fn(|cx| self.poll_head(&mut upload, is_head, &mut on_interim, cx)).await;
        let head = match head {
            Ok(head) => head,
            Err(error) => {
                self.keep_alive = false;
                let ended = matches!(error, Error::Io(_) | Error::Incomplete);
                return Err(SendError {
                    error: error.into(),
                    request: upload.into_repeatable(ended && self.received == 0),
                });
            }
        };
        self.keep_alive = head.keep_alive && upload.is_complete();
        if !upload.is_complete()
            && let Some(writer) = self.writer.take()
        {
            tokio::task::spawn_local(upload.send_rest(writer));
        }
        Ok(head.response.map(Incoming::Http1Response))
    }

    /// Sends the request while it reads; ready with the response head.
    fn poll_head<B: UploadBody>(
        &mut self,
        upload: &mut Upload<B>,
        is_head: bool,
        on_interim: &mut impl FnMut(Response<BodyDecoder>, usize) -> Result<(), Error>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, Error>> {
        loop {
            if let Some(writer) = &mut self.writer
                && let Poll::Ready(Err(error)) = upload.poll(writer, cx)
            {
                match error {
                    // The instance may respond before it stops reading (RFC 9112 section 9.5).
                    Error::Io(error) if upload.has_begun() => {
                        debug!(%error, "instance stopped reading a request");
                        upload.cancel();
                    }
                    error => return Poll::Ready(Err(error)),
                }
            }
            let before = self.buffer.len();
            if let Some(head) = h1_head::parse(&mut self.buffer, is_head, self.max_fields)? {
                let status = head.response.status();
                if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                    if status == StatusCode::CONTINUE {
                        upload.release_body();
                    }
                    on_interim(head.response, before - self.buffer.len())?;
                    continue;
                }
                return Poll::Ready(Ok(head));
            }
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(Err(Error::Incomplete));
            }
        }
    }

    /// Reads once; returns the number of bytes, 0 at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let space = self.previous.max(self.received).clamp(MIN_READ, MAX_READ);
        self.buffer.reserve(space);
        let read = poll_read_buf(Pin::new(&mut self.reader), cx, &mut self.buffer);
        if let Poll::Ready(Ok(bytes)) = read {
            self.received += bytes;
        }
        read
    }

    pub(super) fn poll_frame(
        &mut self,
        body: &mut BodyDecoder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match body.next(&mut self.buffer)? {
                Decoded::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                Decoded::End => return Poll::Ready(None),
                Decoded::NeedMore => {
                    if ready!(self.poll_read(cx))? == 0 {
                        return Poll::Ready(body.end().err().map(Err));
                    }
                }
            }
        }
    }

    /// The connection after a switch of protocols. `None` if the request was not sent completely.
    pub(super) fn into_upgraded(self) -> Option<UpgradedConn> {
        let received = Cursor::new(self.buffer.freeze());
        Some(UpgradedConn {
            io: join(received.chain(self.reader), self.writer?),
            _open: self.open,
        })
    }
}

/// The interim responses before a response. An endless sequence of them is malformed.
#[derive(Debug, Default)]
pub(super) struct InterimBudget {
    heads: u32,
    bytes: usize,
}

impl InterimBudget {
    /// Counts a head of this many bytes.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Error> {
        self.heads += 1;
        self.bytes += bytes;
        match self.heads > MAX_INTERIM || self.bytes > MAX_INTERIM_BYTES {
            true => Err(Error::malformed("it has too many interim responses")),
            false => Ok(()),
        }
    }
}

/// A connection to an instance that has switched protocols.
#[derive(Debug)]
pub(crate) struct UpgradedConn {
    /// The bytes that arrived behind the response head, then those of the socket.
    pub(crate) io: Join<Chain<Cursor<Bytes>, OwnedReadHalf>, OwnedWriteHalf>,
    _open: TaskTrackerToken,
}
