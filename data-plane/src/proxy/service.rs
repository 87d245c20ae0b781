//! One request: route, choose, admit, forward.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::body::{Body, Exchange, RequestBody};
use super::error::Error;
use super::headers::{self, Origin};
use super::timing;
use super::upstream::{Connections, Lease};
use crate::feed::Feed;
use crate::instance::{Guard, Pools, Refusal};
use crate::metrics::{Active, Metrics};
use crate::route::{Affinity, Ask, Choice, Route, choose, normalize};

/// The cookie of `affinity: cookie`.
const AFFINITY_COOKIE: &str = "cless-affinity";
/// The request header that names a version, where a service allows it.
const VERSION_HEADER: &str = "cless-version";
/// Pauses before an instance that does not accept is tried, or another chosen, again. Its death is
/// known within about 60 ms of it, so the second pause outlasts that; the last is for an engine that is
/// busy, and for one that still runs and is found deaf by a few looks.
const REACH_AGAIN: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(1000),
];

/// What every connection's requests need. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

struct Inner {
    feed: Feed,
    pools: Pools,
    connections: Connections,
    metrics: Arc<Metrics>,
    trusted: Vec<IpNet>,
    /// Upgraded connections, which outlive their request.
    tunnels: TaskTracker,
}

/// A version with a place, chosen for a request.
struct Chosen {
    route: Arc<Route>,
    version: u32,
    guard: Guard,
}

/// What a request brings that outlives its head.
struct Caller {
    began: Instant,
    id: HeaderValue,
    /// Set for a request that got a new affinity key.
    new_key: Option<String>,
}

impl Proxy {
    /// A proxy over a feed and pools. `trusted`: peers whose `X-Forwarded-*` are believed.
    pub fn new(feed: Feed, pools: Pools, metrics: Arc<Metrics>, trusted: Vec<IpNet>) -> Self {
        Self {
            inner: Arc::new(Inner {
                feed,
                pools,
                connections: Connections::default(),
                metrics,
                trusted,
                tunnels: TaskTracker::new(),
            }),
        }
    }

    /// Connections to instances.
    pub fn connections(&self) -> &Connections {
        &self.inner.connections
    }

    /// Upgraded connections, to be waited for on shutdown.
    pub fn tunnels(&self) -> &TaskTracker {
        &self.inner.tunnels
    }

    /// Answers one request. Never fails: what goes wrong is an answer too.
    pub async fn handle(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let active = self.inner.metrics.request_began();
        let grpc = headers::is_grpc(request.headers());
        let trusted = self.trusts(peer.ip());
        let caller = Caller {
            began: Instant::now(),
            id: headers::request_id(request.headers(), trusted, rand::random()),
            new_key: None,
        };
        let id = caller.id.clone();
        let method = request.method().clone();
        match self.forward(request, peer, trusted, caller, active).await {
            Ok(response) => response,
            Err(error) => {
                self.inner.metrics.rejected(error.reason());
                debug!(
                    %method, request_id = id.to_str().unwrap_or_default(), reason = error.reason(),
                    "a request was answered by cless"
                );
                error.response(&id, grpc)
            }
        }
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.inner.trusted.iter().any(|net| net.contains(&peer))
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        trusted: bool,
        mut caller: Caller,
        active: Active,
    ) -> Result<Response<Body>, Error> {
        if request.method() == Method::CONNECT {
            return Err(Error::Connect);
        }
        let chosen = self.choose_and_admit(&request, &mut caller).await?;
        let settings = chosen.route.settings.clone();
        let deadline = caller.began + settings.request_timeout;

        let switch = headers::upgrade(request.headers()).map(|_| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        let asked = head.uri.authority().map_or_else(
            || head.headers.get(header::HOST).cloned(),
            |authority| headers::host_field(Some(authority)),
        );
        let host = asked
            .as_ref()
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        let origin = Origin {
            peer,
            trusted,
            scheme: "http",
            host,
        };
        headers::prepare_request(&mut head.headers, origin, &caller.id, head.version);
        if let Some(host) = &asked {
            head.headers.insert(header::HOST, host.clone());
        }
        head.uri = origin_form(&head.uri);
        head.version = Version::HTTP_11;

        let (response, lease, exchange) = self
            .exchange(head, body, chosen, (caller.began, active), deadline)
            .await?;
        let mut response =
            self.answer(response, lease, exchange.clone(), switch, &caller, deadline)?;
        if let Some(key) = &caller.new_key {
            let cookie = format!("{AFFINITY_COOKIE}={key}; Path=/; HttpOnly; SameSite=Lax");
            if let Ok(cookie) = HeaderValue::try_from(cookie) {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
        }
        if settings.server_timing
            && let Some(timing) = timing::server_timing(exchange.guard())
        {
            response.headers_mut().append("server-timing", timing);
        }
        Ok(response)
    }

    /// From the host to a place in an instance. A version that is deleted while the request waits
    /// is chosen anew, once.
    async fn choose_and_admit(
        &self,
        request: &Request<Incoming>,
        caller: &mut Caller,
    ) -> Result<Chosen, Error> {
        let mut chosen_anew = false;
        loop {
            let (route, version, pool) = self.choose(request, caller)?;
            let deadline = caller.began + route.settings.cold_start_timeout;
            match pool.admit(deadline).await {
                Ok(guard) => {
                    if let Some(waited) = guard.waited() {
                        self.inner.metrics.waited(&route.service, version, waited);
                    }
                    return Ok(Chosen {
                        route,
                        version,
                        guard,
                    });
                }
                Err(Refusal::Gone) if !chosen_anew => chosen_anew = true,
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }

    fn choose(
        &self,
        request: &Request<Incoming>,
        caller: &mut Caller,
    ) -> Result<(Arc<Route>, u32, crate::instance::Pool), Error> {
        let host = normalize(headers::host(request)?)
            .map_err(|error| Error::BadRequest(error.to_string()))?;
        let table = self.inner.feed.table();
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
                None => caller
                    .new_key
                    .get_or_insert_with(|| format!("{:016x}", rand::random::<u64>()))
                    .as_bytes(),
            }),
        };
        let ask = Ask {
            version_header: fields
                .get(VERSION_HEADER)
                .and_then(|value| value.to_str().ok()),
            affinity_key: key,
        };
        match choose(entry, &ask, &mut rand::rng()) {
            Choice::Version(version) => {
                let pool = self.inner.pools.get(&entry.route, version);
                Ok((entry.route.clone(), version.key.number, pool))
            }
            Choice::NoTraffic => Err(Error::NoTraffic),
            Choice::UnknownVersion => Err(Error::UnknownVersion),
        }
    }

    /// Sends the request and waits for the response's head.
    ///
    /// It is sent again only where no byte of it was: on another connection, if the instance had
    /// closed the one at hand; to another instance, if the one at hand accepts none.
    async fn exchange(
        &self,
        head: http::request::Parts,
        body: Incoming,
        chosen: Chosen,
        begun: (Instant, Active),
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Lease, Arc<Exchange>), Error> {
        let Chosen {
            route,
            version,
            guard,
        } = chosen;
        let until = deadline.min(begun.0 + route.settings.cold_start_timeout);
        let (guard, mut lease) = self.reach(guard, &route, version, until).await?;
        let exchange = Exchange::new(
            guard,
            self.inner.metrics.clone(),
            route.service.clone(),
            version,
            begun,
        );
        let mut request = Request::from_parts(head, RequestBody::new(body, exchange.clone()));
        loop {
            let awaited = exchange.guard().awaited();
            let sending = lease.sender().try_send_request(request);
            let sent = tokio::time::timeout_at(deadline.into(), sending).await;
            let mut failed = match sent {
                Ok(Ok(response)) => {
                    awaited.answered();
                    return Ok((response, lease, exchange));
                }
                Ok(Err(failed)) => failed,
                Err(_) => {
                    awaited.failed();
                    return Err(Error::Late);
                }
            };
            let unsent = failed.take_message();
            debug!(error = %failed.error(), reused = lease.reused(), "an exchange failed");
            request = match unsent {
                Some(unsent) if lease.reused() => {
                    awaited.unknown();
                    unsent
                }
                _ => {
                    // A body that the caller cut is no fault of the instance.
                    match failed.error().is_user() {
                        true => awaited.unknown(),
                        false => awaited.failed(),
                    }
                    return Err(Error::Broken);
                }
            };
            let instance = exchange.guard().instance();
            lease = match self.inner.connections.idle(instance).await {
                Some(lease) => lease,
                None => {
                    let address = instance.address().ok_or(Error::Unreachable)?;
                    let connected = self.inner.connections.connect(instance, address).await;
                    connected.map_err(|_| {
                        exchange.guard().failed();
                        Error::Unreachable
                    })?
                }
            };
        }
    }

    /// A connection to the instance at hand, or to another if that one accepts none. Waits for a
    /// place in that other one no longer than it would have waited for the first, `until`.
    async fn reach(
        &self,
        mut guard: Guard,
        route: &Arc<Route>,
        version: u32,
        until: Instant,
    ) -> Result<(Guard, Lease), Error> {
        let mut pauses = REACH_AGAIN.iter();
        loop {
            let instance = guard.instance();
            if let Some(lease) = self.inner.connections.idle(instance).await {
                return Ok((guard, lease));
            }
            let address = instance.address().ok_or(Error::Unreachable)?;
            let error = match self.inner.connections.connect(instance, address).await {
                Ok(lease) => return Ok((guard, lease)),
                Err(error) => error,
            };
            debug!(container = instance.name(), %error, "an instance does not accept");
            guard.failed();
            // While the pause lasts the place is given up, so that the instance may be taken out.
            drop(guard);
            let pause = pauses.next().ok_or(Error::Unreachable)?;
            tokio::time::sleep(*pause).await;
            let known = route.version(version).ok_or(Error::Unreachable)?;
            guard = self.inner.pools.get(route, known).admit(until).await?;
        }
    }

    fn answer(
        &self,
        mut response: Response<Incoming>,
        lease: Lease,
        exchange: Arc<Exchange>,
        switch: Option<hyper::upgrade::OnUpgrade>,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Response<Body>, Error> {
        exchange.answered(response.status().as_u16());
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switched {
            // An instance that switches unasked has broken the protocol.
            let client = switch.ok_or(Error::Broken)?;
            let instance = hyper::upgrade::on(&mut response);
            self.inner
                .tunnels
                .spawn(tunnel(client, instance, exchange.clone()));
        }
        let (mut head, incoming) = response.into_parts();
        headers::prepare_response(&mut head.headers, &caller.id, switched);
        head.version = Version::HTTP_11;
        let body = match switched {
            true => Body::empty(),
            false => Body::upstream(incoming, lease, exchange, deadline),
        };
        Ok(Response::from_parts(head, body))
    }
}

/// Copies both ways until either side ends. Holds the exchange, so the instance stays busy.
async fn tunnel(
    client: hyper::upgrade::OnUpgrade,
    instance: hyper::upgrade::OnUpgrade,
    exchange: Arc<Exchange>,
) {
    let ended = async {
        let (client, instance) =
            tokio::try_join!(client, instance).map_err(std::io::Error::other)?;
        let (mut client, mut instance) = (TokioIo::new(client), TokioIo::new(instance));
        tokio::io::copy_bidirectional(&mut client, &mut instance).await
    };
    if let Err(error) = ended.await {
        debug!(%error, "a tunnel broke");
    }
    drop(exchange);
}

/// The target as an origin server takes it (RFC 9112 section 3.2.1).
fn origin_form(uri: &Uri) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = uri.path_and_query().cloned();
    Uri::from_parts(parts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_9112_section_3_2_1_the_instance_gets_origin_form() {
        for (given, sent) in [
            ("http://a.example/x?y=1", "/x?y=1"),
            ("/x", "/x"),
            ("http://a.example", "/"),
            ("*", "*"),
        ] {
            assert_eq!(origin_form(&given.parse().unwrap()), sent, "{given}");
        }
    }
}
