//! From a request's head to a place in an instance: host, version, pool.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Request};

use super::client::Transport;
use super::error::Error;
use super::exchange::Exchange;
use super::headers;
use super::target::Target;
use super::worker::Worker;
use crate::instance::Refusal;
use crate::route::{Affinity, Ask, Choice, Route, choose};

/// The cookie of `affinity: cookie`.
const AFFINITY_COOKIE: &str = "cless-affinity";
/// The request header that names a version, where a service allows it.
const VERSION_HEADER: &str = "cless-version";

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) route: Arc<Route>,
    pub(super) target: Rc<Target>,
    /// Set for a request that got a new affinity key.
    pub(super) cookie: Option<HeaderValue>,
}

/// Chooses a version and takes a place in an instance of it for the exchange. A version that is deleted
/// while the request waits is chosen anew, once.
pub(super) async fn choose_and_admit<B>(
    worker: &Rc<Worker>,
    request: &Request<B>,
    exchange: &Exchange,
) -> Result<Chosen, Error> {
    let mut new_key = None;
    let mut chosen_anew = false;
    loop {
        let (route, target) = choose_version(worker, request, exchange, &mut new_key)?;
        let deadline = exchange.began() + route.settings.cold_start_timeout;
        match target.pool.admit(deadline).await {
            Ok(guard) => {
                if let Some(waited) = guard.waited() {
                    target.waited(waited);
                }
                exchange.admitted(&target, guard);
                return Ok(Chosen {
                    route,
                    target,
                    cookie: new_key.and_then(cookie),
                });
            }
            Err(Refusal::Gone) if !chosen_anew => {
                worker.targets.forget(&target);
                chosen_anew = true;
            }
            Err(refusal) => return Err(refusal.into()),
        }
    }
}

fn cookie(key: String) -> Option<HeaderValue> {
    let cookie = format!("{AFFINITY_COOKIE}={key}; Path=/; HttpOnly; SameSite=Lax");
    HeaderValue::try_from(cookie).ok()
}

fn choose_version<B>(
    worker: &Rc<Worker>,
    request: &Request<B>,
    exchange: &Exchange,
    new_key: &mut Option<String>,
) -> Result<(Arc<Route>, Rc<Target>), Error> {
    let node = &worker.node;
    let host = headers::host(request)?;
    if let (Some(tls), Transport::Tls(named)) = (&node.tls, &*exchange.client().transport())
        && !tls.covers(named.as_deref(), &host)
    {
        return Err(Error::Misdirected);
    }
    let table = node.feed.table();
    if table.is_initial() {
        return Err(Error::NoTable);
    }
    let entry = table.lookup(&host).ok_or(Error::UnknownHost)?;
    let fields = request.headers();
    let key = match &entry.route.settings.affinity {
        Affinity::None => None,
        Affinity::Header(name) => fields.get(name).map(HeaderValue::as_bytes),
        Affinity::Cookie => Some(match headers::cookie(fields, AFFINITY_COOKIE) {
            Some(key) => key.as_bytes(),
            // Drawn from the system's generator: a key must not tell of others.
            None => new_key
                .get_or_insert_with(|| format!("{:016x}", rand::random::<u64>()))
                .as_bytes(),
        }),
    };
    let version_header = entry.route.settings.version_header;
    let ask = Ask {
        version_header: match version_header {
            true => fields.get(VERSION_HEADER),
            false => None,
        }
        .and_then(|value| value.to_str().ok()),
        affinity_key: key,
    };
    match choose(entry, &ask, &mut *worker.rng.borrow_mut()) {
        Choice::Version(version) => {
            let target = worker
                .targets
                .get(&node.pools, &node.metrics, &entry.route, version);
            Ok((entry.route.clone(), target))
        }
        Choice::NoTraffic => Err(Error::NoTraffic),
        Choice::UnknownVersion => Err(Error::UnknownVersion),
    }
}
