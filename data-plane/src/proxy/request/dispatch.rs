//! Sends a request to the admitted instance and waits for the response head.
//!
//! A request is retried only if no byte of it was sent: on another connection, if the instance had
//! closed a reused one; on another instance, if this one accepts no connection.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use tracing::debug;

use super::body::RequestBody;
use super::context::RequestContext;
use super::error::Error;
use super::route::{Routed, charged_client};
use crate::instance::Instance;
use crate::pool::Guard;
use crate::proxy::upstream::{Lease, Repeatable, STARVATION_TIMEOUT, UpstreamProtocol};
use crate::proxy::wire::incoming::Incoming;
use crate::proxy::worker::Worker;

/// Pauses before another attempt to connect. The exit of an instance is known within about 60 ms,
/// so the second pause outlasts it. The last one is for a busy engine, and for an instance that
/// still runs and is found unresponsive after a few checks.
const CONNECT_RETRY: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(1000),
];

/// Connects to the admitted instance, or to another if it accepts no connection. The wait for a
/// permit of the other one ends at the same deadline as the first wait.
///
/// # Errors
/// [`Error::Late`] if its connections have room for no further request until the deadline.
pub(crate) async fn connect<B>(
    worker: &Worker,
    context: &RequestContext,
    request: &Request<B>,
    routed: &Routed,
    protocol: UpstreamProtocol,
) -> Result<Lease, Error> {
    let mut pauses = CONNECT_RETRY.iter();
    loop {
        let instance = context.instance().ok_or(Error::Unreachable)?;
        if let Some(lease) = worker.upstreams.take_open(&instance, protocol) {
            return Ok(lease);
        }
        let dialling = Box::pin(dial(worker, context, &instance, protocol, false));
        let error = match or_late(context, dialling).await? {
            Ok(lease) => return Ok(lease),
            Err(error) => error,
        };
        context
            .span()
            .in_scope(|| debug!(%error, "instance does not accept connections"));
        // Without the permit, the pool may remove the instance during the pause.
        context.release_permit();
        let pause = pauses.next().ok_or(Error::Unreachable)?;
        tokio::time::sleep(*pause).await;
        let until = context.start_deadline(&routed.route.settings);
        let client = || charged_client(worker, request, context);
        let guard = routed.target.pool.admit(until, client).await?;
        context.set_permit(guard);
    }
}

/// Waits for `future` until the request is late, for which the instance is at fault.
async fn or_late<F: Future>(context: &RequestContext, future: F) -> Result<F::Output, Error> {
    let mut future = pin!(future);
    // Each turn but the last one needs a byte that passed meanwhile.
    loop {
        let deadline = context.deadline();
        match tokio::time::timeout_at(deadline.into(), future.as_mut()).await {
            Ok(output) => return Ok(output),
            Err(_) if context.deadline() > deadline => {}
            Err(_) => {
                context.with_guard(Guard::failed);
                return Err(Error::Late);
            }
        }
    }
}

async fn dial(
    worker: &Worker,
    context: &RequestContext,
    instance: &Arc<Instance>,
    protocol: UpstreamProtocol,
    fresh: bool,
) -> std::io::Result<Lease> {
    let concurrency = context.with_guard(|guard| guard.concurrency()).unwrap_or(1);
    let upstreams = &worker.upstreams;
    let connected = match instance.address() {
        Some(address) => {
            upstreams
                .connect(instance, address, protocol, concurrency, fresh)
                .await
        }
        None => Err(std::io::ErrorKind::AddrNotAvailable.into()),
    };
    if connected.is_err() {
        context.with_guard(Guard::failed);
    }
    connected
}

/// Sends `request` on `lease`. Returns the response and the connection that it arrives on.
///
/// A request of which nothing was sent on a reused connection goes out on another. An idempotent
/// one without an answer is sent once more on a new connection (RFC 9110 section 9.2.2): servers
/// close kept connections, gunicorn even after it has read a request.
pub(crate) async fn dispatch(
    worker: &Worker,
    context: &Rc<RequestContext>,
    mut lease: Lease,
    mut request: Box<Request<RequestBody>>,
    protocol: UpstreamProtocol,
) -> Result<(Response<Incoming>, Lease), Error> {
    let mut has_repeated = false;
    loop {
        let instance = context.instance().ok_or(Error::Unreachable)?;
        let may_be_starved = lease.may_be_starved();
        let wait = ResponseWait::new(context);
        let sent = {
            let interim = |head: Response<()>| context.forward_interim(head);
            let mut sending = pin!(lease.send(request, &interim));
            let waiting = async {
                if may_be_starved {
                    match tokio::time::timeout(STARVATION_TIMEOUT, sending.as_mut()).await {
                        Ok(sent) => return sent,
                        Err(_) => worker.upstreams.close_idle_everywhere(&instance),
                    }
                    let _starved = instance.mark_starved();
                    return sending.await;
                }
                sending.await
            };
            or_late(context, waiting).await
        };
        let failed = match sent {
            Ok(Ok(response)) => {
                wait.finish(Guard::answered);
                let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                if !switches && !context.is_body_sent() {
                    // The instance may send 100 and the response at once. The client must get the
                    // 100 first (RFC 9110 section 10.1.1).
                    tokio::task::yield_now().await;
                }
                return Ok((response, lease));
            }
            Ok(Err(failed)) => failed,
            Err(late) => {
                wait.finish(|_| {});
                return Err(late);
            }
        };
        context.span().in_scope(
            || debug!(error = %failed.error, reused = lease.is_reused(), "request failed"),
        );
        let is_body_error = failed.is_body_error();
        let fresh;
        request = match failed.request {
            Some((unsent, Repeatable::Unsent)) if lease.is_reused() => {
                wait.finish(|_| {});
                fresh = false;
                unsent
            }
            Some((repeated, Repeatable::Idempotent)) if !has_repeated => {
                match lease.is_reused() {
                    true => wait.finish(|_| {}),
                    false => wait.finish(Guard::failed),
                }
                fresh = true;
                has_repeated = true;
                repeated
            }
            // The instance is not at fault if the client cut its body.
            _ if context.is_body_broken() => {
                wait.finish(|_| {});
                return Err(Error::BrokenBody);
            }
            _ => {
                match is_body_error {
                    true => wait.finish(|_| {}),
                    false => wait.finish(Guard::failed),
                }
                return Err(Error::of_response(&failed.error));
            }
        };
        let open = match fresh && protocol == UpstreamProtocol::Http1 {
            true => None,
            false => worker.upstreams.take_open(&instance, protocol),
        };
        lease = match open {
            Some(lease) => lease,
            None => {
                let dialling = Box::pin(dial(worker, context, &instance, protocol, fresh));
                let dialled = or_late(context, dialling).await?;
                dialled.map_err(|_| Error::Unreachable)?
            }
        };
    }
}

/// The wait for a response. Dropped before it is finished, the client has left.
struct ResponseWait<'a> {
    context: &'a RequestContext,
    since: Instant,
    is_finished: bool,
}

impl<'a> ResponseWait<'a> {
    fn new(context: &'a RequestContext) -> Self {
        Self {
            context,
            since: Instant::now(),
            is_finished: false,
        }
    }

    /// Ends the wait and reports its outcome to the instance.
    fn finish(mut self, report: impl FnOnce(&Guard)) {
        self.is_finished = true;
        self.context.with_guard(report);
    }
}

impl Drop for ResponseWait<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.context.cancel_upload();
            let waited = self.since.elapsed();
            self.context.with_guard(|guard| guard.abandoned(waited));
        }
    }
}
