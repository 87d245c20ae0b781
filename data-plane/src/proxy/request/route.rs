//! Routes a request: host, service, version, and a permit of an instance.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use super::context::RequestContext;
use super::error::Error;
use super::{forwarded, headers};
use crate::pool::Refusal;
use crate::proxy::client::Transport;
use crate::proxy::worker::Worker;
use crate::proxy::worker::targets::VersionTarget;
use crate::route::{Affinity, Choice, Route, Settings, VersionSelector, choose};

/// The cookie of `affinity: cookie`.
const AFFINITY_COOKIE: &str = "cless-affinity";
/// The request header that names a version, where a service allows it.
const VERSION_HEADER: &str = "cless-version";

#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) route: Arc<Route>,
    pub(crate) target: Rc<VersionTarget>,
    /// Sets the affinity cookie. `None`: the request has a key, or needs none.
    pub(crate) cookie: Option<HeaderValue>,
}

/// Has shared caches tell the versions apart: one stored response must not give all users the
/// version, or the key, of one. `is_new_key`: the response sets the affinity cookie.
pub(crate) fn mark_for_caches(headers: &mut HeaderMap, settings: &Settings, is_new_key: bool) {
    let affinity = match &settings.affinity {
        Affinity::None => None,
        Affinity::Cookie => Some(header::COOKIE),
        Affinity::Header(name) => Some(name.clone()),
    };
    let version = settings
        .version_header
        .then_some(HeaderName::from_static(VERSION_HEADER));
    for name in affinity.into_iter().chain(version) {
        if !headers::names(headers, &header::VARY, &name) {
            headers.append(header::VARY, name.into());
        }
    }
    if is_new_key {
        headers::make_private(headers);
    }
}

/// Selects a version and waits for a permit of one of its instances. If the version is deleted
/// during the wait, another is selected, once.
pub(crate) async fn route_and_admit<B>(
    worker: &Rc<Worker>,
    request: &Request<B>,
    context: &RequestContext,
) -> Result<Routed, Error> {
    let mut new_key = None;
    let mut is_retry = false;
    loop {
        let selected = select_version(worker, request, context, &mut new_key);
        let (route, target) = selected.inspect_err(|_| label_service(worker, request, context))?;
        context.set_target(&target);
        context.set_limits(&route.settings);
        let client = || charged_client(worker, request, context);
        let deadline = context.start_deadline(&route.settings);
        match target.pool.admit(deadline, client).await {
            Ok(guard) => {
                if let Some(waited) = guard.waited() {
                    target.record_wait(waited);
                }
                context.set_permit(guard);
                return Ok(Routed {
                    route,
                    target,
                    cookie: new_key.and_then(affinity_cookie),
                });
            }
            Err(Refusal::Gone) if !is_retry => {
                worker.targets.remove(&target);
                is_retry = true;
            }
            Err(refusal) => return Err(refusal.into()),
        }
    }
}

/// The client that is charged for a start; `None` if it is unknown.
pub(crate) fn charged_client<B>(
    worker: &Worker,
    request: &Request<B>,
    context: &RequestContext,
) -> Option<IpAddr> {
    let conn = context.client();
    let is_trusted = |address| worker.proxy.is_trusted(address);
    match conn.is_trusted {
        true => forwarded::client_address(request.headers(), is_trusted),
        false => Some(conn.peer.ip()),
    }
}

/// Labels a request that is answered before its version is chosen with the service of its host.
pub(crate) fn label_service<B>(worker: &Worker, request: &Request<B>, context: &RequestContext) {
    let table = worker.proxy.feed.table();
    if let Ok(host) = headers::host(request)
        && let Some(entry) = table.lookup(&host)
    {
        context.set_service(&entry.route.service);
    }
}

fn affinity_cookie(key: String) -> Option<HeaderValue> {
    let cookie = format!("{AFFINITY_COOKIE}={key}; Path=/; HttpOnly; SameSite=Lax");
    HeaderValue::try_from(cookie).ok()
}

fn select_version<B>(
    worker: &Rc<Worker>,
    request: &Request<B>,
    context: &RequestContext,
    new_key: &mut Option<String>,
) -> Result<(Arc<Route>, Rc<VersionTarget>), Error> {
    let proxy = &worker.proxy;
    let host = headers::host(request)?;
    if let (Some(tls), Transport::Tls(server_name)) = (&proxy.tls, &*context.client().transport())
        && !tls.covers(server_name.as_deref(), &host)
    {
        return Err(Error::Misdirected);
    }
    let table = proxy.feed.table();
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
            // The system's generator: a key must not reveal those of other clients.
            None => new_key
                .get_or_insert_with(|| format!("{:016x}", rand::random::<u64>()))
                .as_bytes(),
        }),
    };
    let version_header = entry.route.settings.version_header;
    let ask = VersionSelector {
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
                .get(&proxy.pools, &proxy.metrics, &entry.route, version);
            Ok((entry.route.clone(), target))
        }
        Choice::NoTraffic => Err(Error::NoTraffic),
        Choice::UnknownVersion => Err(Error::UnknownVersion),
    }
}
