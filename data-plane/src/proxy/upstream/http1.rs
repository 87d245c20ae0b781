//! An HTTP/1 connection to an instance, driven by the request that is on it.
//!
//! hyper would have each connection be a task, which a request hands itself to and is woken by. A task that
//! serves a client can as well drive the connection while it waits for it: then a request costs two turns of
//! the scheduler and not four, and no waker. So whoever holds an [`Http1`] polls it:
//!
//! - with a request on it: [`Http1::send`], then [`Http1::poll_frame`] for the response's body;
//! - idle: nobody, until a look ([`Http1::look`]) finds it closed or the next request is sent;
//! - with a response whose request is not sent whole, or one that switches protocols: a task after all
//!   ([`Http1::detach`]), since then bytes flow that no reader of the response asks for.
//!
//! Law: what the connection has to say, it says while it is polled. So what it says is looked for right after,
//! with a waker that wakes nobody, and whoever takes it is not woken to be told that it did ([`Bell`]).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::super::body::RequestBody;
use super::super::joined::Joined;

/// What hyper reads at once on one connection, and the longest head of a response: the head and a body of
/// 64 KiB in one go. Of fields it takes its own 100: to say another number costs it memory of its own for
/// each response, 6 % of all.
const READ_AHEAD: usize = 128 * 1024;

/// One connection. Dropped, it is closed, unless it is [detached](Self::detach).
#[derive(Debug)]
pub(super) struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    driver: Driver,
}

enum Driver {
    /// Who holds the connection.
    Holder {
        connection: Pin<Box<dyn Future<Output = ()>>>,
        bell: Arc<Bell>,
        /// Rings it.
        rope: Waker,
    },
    /// A task.
    Task,
    /// Nobody: the connection is closed.
    Over,
}

/// How a connection wakes its holder.
///
/// hyper's body is a channel that wakes the connection when its reader has taken something. Reader and connection
/// are the same task here, and it looks again anyway before it waits: so the bell is tied meanwhile.
#[derive(Debug, Default)]
struct Bell {
    tied: AtomicBool,
    holder: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.tied.load(Ordering::Relaxed) {
            self.holder.wake();
        }
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Holder { .. } => "Holder",
            Self::Task => "Task",
            Self::Over => "Over",
        })
    }
}

impl Http1 {
    /// Over a new `stream`. `open`: counts it while it is open.
    pub(super) async fn new(
        stream: Joined<TcpStream>,
        address: SocketAddr,
        open: TaskTrackerToken,
    ) -> io::Result<Self> {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ_AHEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let bell = Arc::<Bell>::default();
        let driver = Driver::Holder {
            rope: bell.clone().into(),
            bell,
            connection: Box::pin(async move {
                if let Err(error) = connection.with_upgrades().await {
                    debug!(%address, ?error, "a connection to an instance ended");
                }
                drop(open);
            }),
        };
        Ok(Self { sender, driver })
    }

    /// Does what there is to do on the connection; `cx` is woken when there is more.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Driver::Holder {
            connection,
            bell,
            rope,
        } = &mut self.driver
        {
            bell.holder.register(cx.waker());
            let ended = connection.as_mut().poll(&mut Context::from_waker(rope));
            if ended.is_ready() {
                self.driver = Driver::Over;
            }
        }
    }

    /// Takes what the connection has said.
    fn listen<T>(&self, cx: &Context<'_>, take: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let mut nobody = Context::from_waker(Waker::noop());
        match &self.driver {
            Driver::Holder { bell, .. } => {
                bell.tied.store(true, Ordering::Relaxed);
                let taken = take(&mut nobody);
                bell.tied.store(false, Ordering::Relaxed);
                taken
            }
            Driver::Over => take(&mut nobody),
            Driver::Task => take(&mut Context::from_waker(cx.waker())),
        }
    }

    /// From now on nobody has a request on it.
    pub(super) fn rest(&self) {
        if let Driver::Holder { bell, .. } = &self.driver {
            bell.holder.take();
        }
    }

    /// Known to be closed.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.driver, Driver::Over) || self.sender.is_closed()
    }

    /// Looks whether it is still open; while it idles.
    pub(super) fn look(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.is_closed()
    }

    /// Whether it can carry another request; once both bodies of the last are done.
    pub(super) fn is_reusable(&mut self) -> bool {
        self.sender.is_ready() || (self.look() && self.sender.is_ready())
    }

    /// Sends a request and drives the connection until the response's head is there. A request of which no
    /// byte was sent comes back with the error.
    pub(super) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
        let response = self.sender.try_send_request(request);
        Sending {
            connection: self,
            response,
        }
    }

    /// The next frame of a response's body.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut body = Pin::new(body);
        let read = self.listen(cx, |cx| body.as_mut().poll_frame(cx));
        if read.is_ready() || matches!(self.driver, Driver::Task) {
            return read;
        }
        self.drive(cx);
        self.listen(cx, |cx| body.poll_frame(cx))
    }

    /// Gives it a task: from now on it moves by itself.
    pub(super) fn detach(&mut self) {
        match std::mem::replace(&mut self.driver, Driver::Task) {
            Driver::Holder { connection, .. } => {
                tokio::task::spawn_local(connection);
            }
            other => self.driver = other,
        }
    }
}

pin_project! {
    /// A request on its way, until its response's head is there.
    struct Sending<'a, F> {
        connection: &'a mut Http1,
        #[pin]
        response: F,
    }
}

impl<F: Future> Future for Sending<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.connection.drive(cx);
        this.connection.listen(cx, |cx| this.response.poll(cx))
    }
}
