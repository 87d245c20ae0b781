//! Sends a request to the instance it has a place in, and waits for the response's head.
//!
//! It is sent again only where no byte of it was: on another connection, if the instance had closed the
//! one at hand; to another instance, if the one at hand accepts none.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use tracing::debug;

use super::body::RequestBody;
use super::choose::Chosen;
use super::error::Error;
use super::exchange::Exchange;
use super::incoming::Incoming;
use super::upstream::{HUNGRY, Lease, Speak};
use super::worker::Worker;
use crate::instance::Guard;
use crate::instance::guard::Instance;

/// Pauses before an instance that does not accept is tried, or another chosen, again. Its death is
/// known within about 60 ms of it, so the second pause outlasts that; the last is for an engine that is
/// busy, and for one that still runs and is found deaf by a few looks.
const REACH_AGAIN: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(1000),
];

/// A connection to the instance at hand, or to another if that one accepts none. Waits for a place in
/// that other one no longer than it would have waited for the first.
pub(super) async fn reach(
    worker: &Worker,
    exchange: &Exchange,
    chosen: &Chosen,
    speak: Speak,
    deadline: Instant,
) -> Result<Lease, Error> {
    let until = deadline.min(exchange.began() + chosen.route.settings.cold_start_timeout);
    let mut pauses = REACH_AGAIN.iter();
    loop {
        let instance = exchange.instance().ok_or(Error::Unreachable)?;
        if let Some(lease) = worker.upstreams.open(&instance, speak) {
            return Ok(lease);
        }
        let dialled = Box::pin(connect(worker, exchange, &instance, speak)).await;
        let error = match dialled {
            Ok(lease) => return Ok(lease),
            Err(error) => error,
        };
        debug!(container = instance.name(), %error, "an instance does not accept");
        // While the pause lasts the place is given up, so that the instance may be taken out.
        exchange.step_out();
        let pause = pauses.next().ok_or(Error::Unreachable)?;
        tokio::time::sleep(*pause).await;
        let guard = chosen.target.pool.admit(until).await?;
        exchange.admitted(&chosen.target, guard);
    }
}

async fn connect(
    worker: &Worker,
    exchange: &Exchange,
    instance: &Arc<Instance>,
    speak: Speak,
) -> std::io::Result<Lease> {
    let most = exchange
        .with_guard(|guard| guard.concurrency())
        .unwrap_or(1);
    let connected = match instance.address() {
        Some(address) => {
            worker
                .upstreams
                .connect(instance, address, speak, most)
                .await
        }
        None => Err(std::io::ErrorKind::AddrNotAvailable.into()),
    };
    if connected.is_err() {
        exchange.with_guard(Guard::failed);
    }
    connected
}

/// Sends `request` on `lease`; tells on which connection the response comes.
pub(super) async fn send(
    worker: &Worker,
    exchange: &Rc<Exchange>,
    mut lease: Lease,
    mut request: Box<Request<RequestBody>>,
    speak: Speak,
    deadline: Instant,
) -> Result<(Response<Incoming>, Lease), Error> {
    loop {
        let instance = exchange.instance().ok_or(Error::Unreachable)?;
        let unheard = lease.may_be_unheard();
        let awaited = Awaited::new(exchange);
        let sent = {
            let mut sending = pin!(lease.send(request));
            let waiting = async {
                if unheard {
                    match tokio::time::timeout(HUNGRY, sending.as_mut()).await {
                        Ok(sent) => return sent,
                        Err(_) => worker.upstreams.feed(&instance),
                    }
                    let _hungry = instance.hungers();
                    return sending.await;
                }
                sending.await
            };
            tokio::time::timeout_at(deadline.into(), waiting).await
        };
        let failed = match sent {
            Ok(Ok(response)) => {
                awaited.over(Guard::answered);
                let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                if !switches && !exchange.is_request_sent() {
                    // The instance may have said in one breath that it wants the body and what it answers: the
                    // client is to be told the former before it gets the latter (RFC 9110 section 10.1.1).
                    tokio::task::yield_now().await;
                }
                return Ok((response, lease));
            }
            Ok(Err(failed)) => failed,
            Err(_) => {
                awaited.over(Guard::failed);
                return Err(Error::Late);
            }
        };
        debug!(error = %failed.error, reused = lease.reused(), "an exchange failed");
        let ours = failed.is_ours();
        request = match failed.unsent {
            Some(unsent) if lease.reused() => {
                awaited.over(|_| {});
                unsent
            }
            // A body that the caller cut is no fault of the instance.
            _ if exchange.is_request_broken() => {
                awaited.over(|_| {});
                return Err(Error::BrokenBody);
            }
            _ => {
                match ours {
                    true => awaited.over(|_| {}),
                    false => awaited.over(Guard::failed),
                }
                return Err(Error::Broken);
            }
        };
        lease = match worker.upstreams.open(&instance, speak) {
            Some(lease) => lease,
            None => Box::pin(connect(worker, exchange, &instance, speak))
                .await
                .map_err(|_| Error::Unreachable)?,
        };
    }
}

/// A request that was sent and has no answer yet. Dropped before it is over, its caller has left.
struct Awaited<'a> {
    exchange: &'a Exchange,
    since: Instant,
    over: bool,
}

impl<'a> Awaited<'a> {
    fn new(exchange: &'a Exchange) -> Self {
        Self {
            exchange,
            since: Instant::now(),
            over: false,
        }
    }

    /// What came of it is told to the instance, if it says anything of that.
    fn over(mut self, tell: impl FnOnce(&Guard)) {
        self.over = true;
        self.exchange.with_guard(tell);
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.exchange.left();
            let waited = self.since.elapsed();
            self.exchange.with_guard(|guard| guard.abandoned(waited));
        }
    }
}
