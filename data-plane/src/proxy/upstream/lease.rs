//! A connection in use, of either protocol.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};

use super::super::body::RequestBody;
use super::super::incoming::{self, Incoming};
use super::http1::{self, Http1};
use super::http2::Http2;
use super::{Idle, Upstreams};
use crate::instance::Instance;

#[derive(Debug)]
pub(super) enum Sender {
    Http1(Http1),
    H2c(Http2),
}

/// A connection in use. Dropped, it is closed; given back, it is kept for the next request.
#[derive(Debug)]
pub(in super::super) struct Lease {
    pub(super) sender: Sender,
    pub(super) instance: Arc<Instance>,
    pub(super) upstreams: Upstreams,
    pub(super) sleeps: u64,
    pub(super) reused: bool,
}

/// A request that got no response.
#[derive(Debug)]
pub(in super::super) struct Failed {
    pub(in super::super) error: incoming::Error,
    /// It, if no byte of it was sent and none of its body taken.
    pub(in super::super) unsent: Option<Box<Request<RequestBody>>>,
}

impl Failed {
    /// Its body broke off: no fault of the instance.
    pub(in super::super) fn is_ours(&self) -> bool {
        matches!(
            &self.error,
            incoming::Error::Response(http1::Error::Body(_))
        )
    }
}

impl Lease {
    /// Sends a request on it. One that was not sent at all comes back with the error.
    pub(in super::super) async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
    ) -> Result<Response<Incoming>, Failed> {
        match &mut self.sender {
            Sender::Http1(connection) => connection.send(request).await,
            Sender::H2c(connection) => connection.send(request).await.map_err(|error| Failed {
                unsent: None,
                error: error.into(),
            }),
        }
    }

    /// The next frame of the response's body, which came on it.
    pub(in super::super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, incoming::Error>>> {
        match (&mut self.sender, body) {
            (Sender::Http1(connection), Incoming::Framed(body)) => {
                let polled = connection.poll_frame(body, cx);
                polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            (_, body) => Pin::new(body).poll_frame(cx),
        }
    }

    /// The connection, once its instance has switched to another protocol.
    pub(in super::super) fn switched(self) -> Option<http1::Switched> {
        match self.sender {
            Sender::Http1(connection) => connection.switched(),
            Sender::H2c(_) => None,
        }
    }

    /// It served a request before, so the instance may have closed it meanwhile.
    pub(in super::super) fn reused(&self) -> bool {
        self.reused
    }

    /// Only one request at a time is on it, and it is new.
    pub(in super::super) fn may_be_unheard(&self) -> bool {
        !self.reused && matches!(self.sender, Sender::Http1(_))
    }

    /// Keeps it for the next request, unless it is closed or its instance takes none.
    pub(in super::super) fn give_back(self) {
        let Sender::Http1(connection) = self.sender else {
            return;
        };
        let instance = &self.instance;
        let stale = self.sleeps != instance.pause_count() || instance.is_retired();
        if stale || instance.is_starved() || !connection.is_kept() {
            return;
        }
        // What watches the instance made the entry and takes it away: without one, it has retired.
        if let Some(known) = self
            .upstreams
            .inner
            .known
            .borrow_mut()
            .get_mut(&instance.serial())
        {
            let idle = Idle {
                connection,
                since: self.upstreams.inner.ticks.get(),
                sleeps: self.sleeps,
            };
            known.idle.extend(known.dials.offer(idle));
        }
    }
}
