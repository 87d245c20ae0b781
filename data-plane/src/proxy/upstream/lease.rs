//! A connection in use, over either protocol.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};

use super::http1::{Http1Conn, UpgradedConn};
use super::http2::Http2Stream;
use super::open_conns::OpenConns;
use super::request_body::UploadBody;
use super::send_error::SendError;
use crate::instance::Instance;
use crate::proxy::wire::incoming::{self, Incoming};

#[derive(Debug)]
pub(super) enum Connection {
    Http1(Http1Conn),
    Http2(Http2Stream),
}

/// A connection in use. [Released](Self::release), it serves the next request; dropped, it closes.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(super) connection: Connection,
    pub(super) instance: Arc<Instance>,
    pub(super) conns: Rc<OpenConns>,
    /// `Instance::pause_count` when the connection was made.
    pub(super) sleeps: u64,
    pub(super) reused: bool,
}

impl Lease {
    /// Sends a request. `interim` gets the interim responses before the response. A request that can be sent again comes back with the error.
    pub(crate) async fn send<B: UploadBody>(
        &mut self,
        request: Box<Request<B>>,
        interim: &dyn Fn(Response<()>),
    ) -> Result<Response<Incoming>, SendError<B>> {
        match &mut self.connection {
            Connection::Http1(connection) => connection.send(request, interim).await,
            Connection::Http2(connection) => connection.send(request, interim).await,
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, incoming::Error>>> {
        match (&mut self.connection, body) {
            (Connection::Http1(connection), Incoming::Http1Response(body)) => {
                let polled = connection.poll_frame(body, cx);
                polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            (_, body) => Pin::new(body).poll_frame(cx),
        }
    }

    pub(crate) fn into_upgraded(self) -> Option<UpgradedConn> {
        match self.connection {
            Connection::Http1(connection) => connection.into_upgraded(),
            Connection::Http2(_) => None,
        }
    }

    /// The connection served a request before, so the instance may have closed it meanwhile.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// The connection is new and carries this request alone, so the instance may not have accepted
    /// it yet.
    pub(crate) fn may_be_starved(&self) -> bool {
        !self.reused && matches!(self.connection, Connection::Http1(_))
    }

    /// Keeps the connection for the next request, unless it is closed or its instance takes none.
    pub(crate) fn release(self) {
        let Connection::Http1(connection) = self.connection else {
            return;
        };
        let instance = &self.instance;
        let stale = self.sleeps != instance.pause_count() || instance.is_retired();
        if stale || instance.is_starved() || !connection.is_reusable() {
            return;
        }
        self.conns.keep(instance.serial(), connection, self.sleeps);
    }
}
