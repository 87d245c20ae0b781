//! Handles one request: a local response, or route, admit and forward.

use std::rc::Rc;

use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use rand::RngExt as _;
use tracing::debug;

use super::body::{RequestBody, ResponseBody};
use super::context::{InterimPath, RequestContext, StreamSignals};
use super::dispatch::{connect, dispatch};
use super::error::{ALLOW, Error};
use super::forwarded::{self, RequestOrigin};
use super::h2_websocket::{self, ExpectedAccept};
use super::headers;
use super::route::{Routed, label_service, mark_for_caches, route_and_admit};
use super::tunnel::{self, Tunnel};
use crate::proxy::client::{ClientConn, Transport};
use crate::proxy::log::access::LoggedRequest;
use crate::proxy::log::server_timing::server_timing;
use crate::proxy::upstream::{Lease, UpstreamProtocol};
use crate::proxy::wire::incoming::Incoming;
use crate::proxy::wire::malformation::Malformation;
use crate::proxy::worker::Worker;
use crate::route::{Affinity, Protocol};

const MAX_FORWARDS: HeaderName = header::MAX_FORWARDS;

/// Returns the response to one request. Errors are responses too.
///
/// `signals`: those of the request's HTTP/2 stream.
///
/// The request is boxed because each level of async calls stores its arguments again, and the
/// future is moved several times before it is polled.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    client: Rc<ClientConn>,
    request: Box<Request<Incoming>>,
    signals: Option<Rc<StreamSignals>>,
) -> Response<ResponseBody> {
    let index = client.begin_request();
    let grpc = headers::is_grpc(request.headers());
    let random = worker.rng.borrow_mut().random();
    let id = headers::request_id(request.headers(), client.is_trusted, random);
    let logged = worker.has_log().then(|| {
        Box::new(LoggedRequest::new(
            request.method(),
            request.uri(),
            request.version(),
            request.headers(),
            worker.proxy.tracer.as_ref(),
        ))
    });
    let interim = match signals {
        Some(signals) => InterimPath::Http2(signals),
        None if request.version() == Version::HTTP_11 => InterimPath::Http1,
        None => InterimPath::None,
    };
    let context = RequestContext::new(worker.clone(), client.clone(), id, interim, logged);
    let is_head = *request.method() == Method::HEAD;
    let local = match client.counters.framing_error(index) {
        Some(error) => Some(Err(Error::Ambiguous(error))),
        None => local_response(&worker, &client, &request),
    };
    let result = match local {
        Some(local) => {
            label_service(&worker, &request, &context);
            local.map(|response| complete_local(response, &context))
        }
        None => forward(&worker, request, &context, grpc).await,
    };
    context.interim_written().await;
    let response = result.unwrap_or_else(|error| {
        context.reject(&error);
        context
            .span()
            .in_scope(|| debug!(reason = error.reason(), "request rejected"));
        context.complete_response();
        let mut response = error.response(context.id(), grpc);
        if let Some(bytes) = response.body().size_hint().exact()
            && !is_head
        {
            context.add_response_bytes(bytes);
        }
        // HTTP/2 has no such field (RFC 9113 section 8.2.2).
        if client.is_http2() {
            response.headers_mut().remove(header::CONNECTION);
        }
        response
    });
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if client.counters.resolve_upgrade(switched) {
        client.wake();
    }
    // Nothing is awaited behind this.
    client.counters.answer();
    response
}

/// Completes a response of cless that is not an error.
fn complete_local(
    mut response: Response<ResponseBody>,
    context: &RequestContext,
) -> Response<ResponseBody> {
    context.set_response(response.status().as_u16(), "");
    context.complete_response();
    let id = context.id().clone();
    response.headers_mut().insert(headers::REQUEST_ID, id);
    response
}

/// The response to a request that needs no route; `None` if it needs one.
fn local_response(
    worker: &Worker,
    client: &ClientConn,
    request: &Request<Incoming>,
) -> Option<Result<Response<ResponseBody>, Error>> {
    let (fields, limits) = (request.headers(), &worker.proxy.limits);
    if *request.method() == Method::CONNECT && !h2_websocket::is_extended_connect(request) {
        return Some(Err(Error::Method("CONNECT")));
    }
    // TRACE would reveal fields that the proxy adds (RFC 9110 section 17.4).
    if *request.method() == Method::TRACE {
        return Some(Err(Error::Method("TRACE")));
    }
    let checked = headers::check_target(request).and_then(|()| h2_websocket::protocol(request));
    let checked = match request.version() {
        Version::HTTP_2 => {
            checked.and_then(|_| headers::check_http2_head(request, limits.max_header_bytes))
        }
        _ => checked.map(|_| ()),
    };
    if let Err(error) = checked {
        return Some(Err(error));
    }
    let max_headers = limits.max_headers;
    if fields.len() > max_headers && headers::count(fields) > max_headers {
        return Some(Err(Error::TooManyFields));
    }
    if let Some(expected) = fields.get(header::EXPECT)
        && request.version() != Version::HTTP_10
        && !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Some(Err(Error::Expectation));
    }
    if let Some(port) = worker.proxy.redirect_port
        && *client.transport() == Transport::Plain
        && !forwarded::is_https_at_trusted_peer(fields, client.is_trusted)
    {
        return Some(redirect(request, port));
    }
    // RFC 9110 section 7.4. A trusted peer may have ended TLS.
    if request.uri().scheme() == Some(&Scheme::HTTPS)
        && *client.transport() == Transport::Plain
        && !client.is_trusted
    {
        return Some(Err(Error::Misdirected));
    }
    if *request.method() == Method::OPTIONS && forwards_left(request) == Some(0) {
        let mut response = Response::new(ResponseBody::empty());
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static(ALLOW));
        return Some(headers::host(request).map(|_| response));
    }
    None
}

/// The hops left for `OPTIONS` (RFC 9110 section 7.6.2).
fn forwards_left<B>(request: &Request<B>) -> Option<u64> {
    request
        .headers()
        .get(MAX_FORWARDS)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Redirects to the same target over HTTPS, with the same method (RFC 9110 section 15.4.9).
fn redirect(request: &Request<Incoming>, port: u16) -> Result<Response<ResponseBody>, Error> {
    let host = headers::host(request)?;
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", PathAndQuery::as_str);
    let path = if path.starts_with('/') { path } else { "/" };
    let location = match port {
        443 => format!("https://{host}{path}"),
        port => format!("https://{host}:{port}{path}"),
    };
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn forward(
    worker: &Rc<Worker>,
    mut request: Box<Request<Incoming>>,
    context: &Rc<RequestContext>,
    grpc: bool,
) -> Result<Response<ResponseBody>, Error> {
    let routed = route_and_admit(worker, &request, context).await?;
    let protocol = match routed.target.protocol() {
        Protocol::Auto if grpc => UpstreamProtocol::H2c,
        Protocol::Auto | Protocol::Http1 => UpstreamProtocol::Http1,
        Protocol::H2c => UpstreamProtocol::H2c,
    };
    let websocket = h2_websocket::protocol(&request)?;
    let is_extended = websocket.is_some();
    let upgrade = websocket.or_else(|| headers::upgrade(request.headers(), request.version()));
    // HTTP/2 has no upgrade. A request without it would be another one.
    if upgrade.is_some() && protocol != UpstreamProtocol::Http1 {
        return Err(Error::Protocol);
    }
    let mut pending = upgrade.is_some().then(|| PendingUpgrade {
        client: (!is_extended).then(|| hyper::upgrade::on(&mut *request)),
        expected: None,
    });
    let lease = connect(worker, context, &request, &routed, protocol).await?;
    let extended = pending.as_mut().filter(|_| is_extended);
    let request = upstream_request(context, *request, protocol, upgrade, extended, !grpc);
    let (response, lease) = dispatch(worker, context, lease, request, protocol).await?;
    client_response(worker, response, lease, context, pending, &routed)
}

/// The request for the instance. `extended`: the upgrade that an HTTP/2 stream asks for.
/// `has_min_rate`: the client must send the body at a minimum rate.
fn upstream_request(
    context: &Rc<RequestContext>,
    request: Request<Incoming>,
    protocol: UpstreamProtocol,
    upgrade: Option<HeaderValue>,
    extended: Option<&mut PendingUpgrade>,
    has_min_rate: bool,
) -> Box<Request<RequestBody>> {
    let host = headers::host_field(&request);
    let (mut head, body) = request.into_parts();
    if let Some(pending) = extended {
        pending.expected = Some(h2_websocket::to_http1_upgrade(&mut head, rand::random()));
    }
    let has_expect = head.headers.contains_key(header::EXPECT);
    let expects = has_expect && head.version != Version::HTTP_10;
    set_upstream_fields(context, &mut head, host.as_ref(), upgrade);
    set_target(&mut head, host.as_ref(), protocol);

    let mut body = RequestBody::new(body, context.clone(), has_min_rate);
    // `Expect` is passed on only if the body waits for the instance's `100 Continue`.
    if expects && protocol == UpstreamProtocol::Http1 && !body.is_end_stream() {
        body.hold();
    } else if has_expect {
        head.headers.remove(header::EXPECT);
    }
    Box::new(Request::from_parts(head, body))
}

/// An upgrade that a client asks for.
struct PendingUpgrade {
    /// The client's connection over HTTP/1. `None` over HTTP/2, whose task has the stream.
    client: Option<OnUpgrade>,
    /// The `Sec-WebSocket-Accept` to check, over HTTP/2. `None` over HTTP/1.
    expected: Option<ExpectedAccept>,
}

fn set_upstream_fields(
    context: &RequestContext,
    head: &mut Parts,
    host: Option<&HeaderValue>,
    upgrade: Option<HeaderValue>,
) {
    headers::prepare_request(&mut head.headers, upgrade);
    let client = context.client();
    let none = HeaderValue::from_static("");
    let origin = RequestOrigin {
        peer: client.peer.ip(),
        peer_text: &client.peer_text,
        is_trusted: client.is_trusted,
        scheme: client.scheme(),
        host: host.unwrap_or(&none),
        version: head.version,
        more_claims: context.more_claims(),
    };
    forwarded::set_forwarded(&mut head.headers, origin, context.id());
    context.set_trace_context(&mut head.headers);
    if head.method == Method::OPTIONS
        && let Some(left) = head.headers.get(MAX_FORWARDS)
        && let Some(left) = left.to_str().ok().and_then(|left| left.parse::<u64>().ok())
    {
        let left = HeaderValue::from(left.saturating_sub(1));
        head.headers.insert(MAX_FORWARDS, left);
    }
}

/// Sets target, host and version for the protocol of the instance.
fn set_target(head: &mut Parts, host: Option<&HeaderValue>, protocol: UpstreamProtocol) {
    let uri = std::mem::take(&mut head.uri);
    match protocol {
        UpstreamProtocol::Http1 => {
            if let Some(host) = host {
                head.headers.insert(header::HOST, host.clone());
            }
            head.uri = origin_form(uri, &head.method);
            head.version = Version::HTTP_11;
        }
        UpstreamProtocol::H2c => {
            head.headers.remove(header::HOST);
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
            let path = uri.into_parts().path_and_query;
            parts.path_and_query = path.or_else(|| Some(PathAndQuery::from_static("/")));
            head.uri = Uri::from_parts(parts).unwrap_or_default();
            head.version = Version::HTTP_2;
        }
    }
}

/// The target in origin form (RFC 9112 section 3.2.1), or `*` for `OPTIONS` of a server (section
/// 3.2.4).
fn origin_form(uri: Uri, method: &Method) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    let is_server_wide =
        *method == Method::OPTIONS && uri.query().is_none() && uri.path().len() <= 1;
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = match is_server_wide {
        true => Some(PathAndQuery::from_static("*")),
        false => uri.into_parts().path_and_query,
    };
    Uri::from_parts(parts).unwrap_or_default()
}

fn client_response(
    worker: &Rc<Worker>,
    mut response: Response<Incoming>,
    lease: Lease,
    context: &Rc<RequestContext>,
    upgrade: Option<PendingUpgrade>,
    routed: &Routed,
) -> Result<Response<ResponseBody>, Error> {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let expected = upgrade
        .as_ref()
        .and_then(|upgrade| upgrade.expected.as_ref());
    let is_stream = expected.is_some();
    if let Some(expected) = expected {
        let status = response.status();
        h2_websocket::validate_upgrade(status, response.headers_mut(), expected)?;
    }
    let switch_or_lease = match (switched, upgrade) {
        (true, Some(upgrade)) => {
            let tunnel = Tunnel {
                instance: lease.into_upgraded().ok_or(Error::UpgradeFailed)?,
                context: context.clone(),
            };
            Ok((upgrade, tunnel))
        }
        // RFC 9110 section 15.2.2.
        (true, None) => {
            let found = Malformation::of_field("101 without a request for it", b"upgrade");
            return Err(Error::MalformedResponse(found));
        }
        (false, _) => Err(lease),
    };
    if switched && is_stream {
        *response.status_mut() = StatusCode::OK;
    }
    context.set_response(response.status().as_u16(), "");
    let (mut head, incoming) = response.into_parts();
    let keeps_upgrade = switched && !is_stream;
    headers::prepare_response(&mut head.headers, context.id(), keeps_upgrade, head.version);
    head.version = Version::HTTP_11;
    // RFC 9110 section 8.6. HTTP/1 removes it, and HTTP/2 does not.
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    let settings = &routed.route.settings;
    if settings.affinity != Affinity::None || settings.version_header {
        mark_for_caches(&mut head.headers, settings, routed.cookie.is_some());
    }
    if let Some(cookie) = &routed.cookie {
        head.headers.append(header::SET_COOKIE, cookie.clone());
    }
    if routed.route.settings.server_timing
        && let Some(timing) = context.with_guard(server_timing).flatten()
    {
        head.headers.append("server-timing", timing);
    }
    let body = match switch_or_lease {
        Ok((upgrade, tunnel)) => start_tunnel(worker, upgrade, tunnel),
        Err(lease) => ResponseBody::upstream(incoming, lease, context.clone()),
    };
    if !body.is_end_stream() {
        context.watch_response();
    }
    Ok(Response::from_parts(head, body))
}

/// Spawns the tunnel of an HTTP/1 client. The task of an HTTP/2 stream runs its own.
fn start_tunnel(worker: &Rc<Worker>, upgrade: PendingUpgrade, tunnel: Tunnel) -> ResponseBody {
    let Some(client) = upgrade.client else {
        return ResponseBody::tunnel(tunnel);
    };
    let tunnel = tunnel::run(worker.clone(), tunnel::upgraded(client), tunnel);
    tokio::task::spawn_local(worker.proxy.tunnels.track_future(tunnel));
    ResponseBody::empty()
}

#[cfg(test)]
mod tests;
