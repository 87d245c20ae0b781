//! One request: route, choose, admit, forward.

use std::rc::Rc;
use std::time::Instant;

use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use rand::RngExt as _;
use tracing::debug;

use super::access::Asked;
use super::body::{Body, RequestBody};
use super::choose::{Chosen, choose_and_admit};
use super::client::{Client, Transport};
use super::error::{ALLOW, Error};
use super::exchange::Exchange;
use super::extended::{self, Accept};
use super::forwarded::{self, Origin};
use super::headers;
use super::incoming::Incoming;
use super::send::{reach, send};
use super::timing::server_timing;
use super::tunnel::{self, Switched};
use super::upstream::{Lease, Speak};
use super::worker::Worker;
use crate::route::Protocol;

const MAX_FORWARDS: HeaderName = header::MAX_FORWARDS;

/// Answers one request. Never fails: what goes wrong is an answer too.
///
/// The request is in a box because a future keeps what it is given once more at each level of calls, and
/// is moved several times before it rests.
pub(super) async fn handle(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Box<Request<Incoming>>,
) -> Response<Body> {
    let number = client.request_began();
    let grpc = headers::is_grpc(request.headers());
    let random = worker.rng.borrow_mut().random();
    let id = headers::request_id(request.headers(), client.trusted, random);
    let asked = worker.logs().then(|| {
        let (method, uri) = (request.method(), request.uri());
        Box::new(Asked::new(
            method,
            uri,
            request.version(),
            request.headers(),
            worker.node.tracer.as_ref(),
        ))
    });
    let exchange = Exchange::new(worker.clone(), client.clone(), id, asked);
    let answer = match client.meter.fault(number) {
        Some(fault) => Err(Error::Ambiguous(fault)),
        None => match own_answer(&worker, &client, &request) {
            Some(answer) => answer.map(|response| told(response, &exchange)),
            None => forward(&worker, request, &exchange, grpc).await,
        },
    };
    let response = answer.unwrap_or_else(|error| {
        worker.node.metrics.rejected(error.reason());
        debug!(
            request_id = exchange.id().to_str().unwrap_or_default(),
            reason = error.reason(),
            "a request was answered by cless"
        );
        exchange.answered(error.status().as_u16(), error.reason());
        exchange.response_over();
        let mut response = error.response(exchange.id(), grpc);
        // A stream ends by itself, and has no such field (RFC 9113 section 8.2.2).
        if client.is_http2() {
            response.headers_mut().remove(header::CONNECTION);
        }
        response
    });
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if client.meter.open_gate(switched) {
        client.wake();
    }
    response
}

/// A whole answer of our own that is no error.
fn told(mut response: Response<Body>, exchange: &Exchange) -> Response<Body> {
    exchange.answered(response.status().as_u16(), "");
    exchange.response_over();
    let id = exchange.id().clone();
    response.headers_mut().insert(headers::REQUEST_ID, id);
    response
}

/// What is answered whatever the route.
fn own_answer(
    worker: &Worker,
    client: &Client,
    request: &Request<Incoming>,
) -> Option<Result<Response<Body>, Error>> {
    let fields = request.headers();
    if *request.method() == Method::CONNECT && !extended::is_extended(request) {
        return Some(Err(Error::Method("CONNECT")));
    }
    // It would show what is between a client and its instance (RFC 9110 section 17.4).
    if *request.method() == Method::TRACE {
        return Some(Err(Error::Method("TRACE")));
    }
    let told = headers::check_target(request).and_then(|()| extended::protocol(request));
    if let Err(error) = told {
        return Some(Err(error));
    }
    if fields.len() > worker.node.limits.max_headers {
        return Some(Err(Error::TooManyFields));
    }
    if let Some(expected) = fields.get(header::EXPECT)
        && request.version() != Version::HTTP_10
        && !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Some(Err(Error::Expectation));
    }
    if let Some(port) = worker.node.redirect
        && *client.transport() == Transport::Plain
    {
        return Some(redirect(request, port));
    }
    if *request.method() == Method::OPTIONS && forwards_left(request) == Some(0) {
        let mut response = Response::new(Body::empty());
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static(ALLOW));
        return Some(headers::host(request).map(|_| response));
    }
    None
}

/// How often `OPTIONS` may still be passed on (RFC 9110 section 7.6.2).
fn forwards_left<B>(request: &Request<B>) -> Option<u64> {
    request
        .headers()
        .get(MAX_FORWARDS)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// To the same target over HTTPS, with the same method (RFC 9110 section 15.4.9).
fn redirect(request: &Request<Incoming>, port: u16) -> Result<Response<Body>, Error> {
    let host = headers::host(request)?;
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", PathAndQuery::as_str);
    let path = if path.starts_with('/') { path } else { "/" };
    let to = match port {
        443 => format!("https://{host}{path}"),
        port => format!("https://{host}:{port}{path}"),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(to) = HeaderValue::try_from(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    Ok(response)
}

async fn forward(
    worker: &Rc<Worker>,
    mut request: Box<Request<Incoming>>,
    exchange: &Rc<Exchange>,
    grpc: bool,
) -> Result<Response<Body>, Error> {
    let chosen = choose_and_admit(worker, &request, exchange).await?;
    let deadline = exchange.began() + chosen.route.settings.request_timeout;
    let speak = match chosen.target.protocol() {
        Protocol::Auto if grpc => Speak::H2c,
        Protocol::Auto | Protocol::Http1 => Speak::Http1,
        Protocol::H2c => Speak::H2c,
    };
    // HTTP/2 has no switch: an instance that speaks it alone sees the request without one.
    let websocket = extended::protocol(&request)?;
    if websocket.is_some() && speak != Speak::Http1 {
        return Err(Error::Protocol);
    }
    let is_extended = websocket.is_some();
    let upgrade = websocket.or_else(|| headers::upgrade(request.headers(), request.version()));
    let upgrade = upgrade.filter(|_| speak == Speak::Http1);
    let mut switch = upgrade.is_some().then(|| Switch {
        client: (!is_extended).then(|| hyper::upgrade::on(&mut *request)),
        accept: None,
    });
    let lease = reach(worker, exchange, &chosen, speak, deadline).await?;
    let extended = switch.as_mut().filter(|_| is_extended);
    let request = outgoing(exchange, *request, speak, upgrade, extended, !grpc);
    let (response, lease) = send(worker, exchange, lease, request, speak, deadline).await?;
    answer(worker, response, lease, exchange, switch, &chosen, deadline)
}

/// The request as the instance gets it. `extended`: asks for the switch on a stream's behalf.
/// `hurried`: its body may not drip.
fn outgoing(
    exchange: &Rc<Exchange>,
    request: Request<Incoming>,
    speak: Speak,
    upgrade: Option<HeaderValue>,
    extended: Option<&mut Switch>,
    hurried: bool,
) -> Box<Request<RequestBody>> {
    let asked = headers::host_field(&request);
    let (mut head, body) = request.into_parts();
    if let Some(switch) = extended {
        switch.accept = Some(extended::ask(&mut head, rand::random()));
    }
    let has_expect = head.headers.contains_key(header::EXPECT);
    let expects = has_expect && head.version != Version::HTTP_10;
    tell_instance(exchange, &mut head, asked.as_ref(), upgrade);
    address(&mut head, asked.as_ref(), speak);

    let mut body = RequestBody::new(body, exchange.clone(), hurried);
    // Whoever passes a body on at once must not ask the instance to say so.
    if expects && speak == Speak::Http1 && !body.is_end_stream() {
        body.hold();
    } else if has_expect {
        head.headers.remove(header::EXPECT);
    }
    Box::new(Request::from_parts(head, body))
}

/// What a client asks to switch to, and how it did.
struct Switch {
    /// On a connection of HTTP/1; a stream's task knows its own.
    client: Option<OnUpgrade>,
    /// It asked on a stream of HTTP/2, where the switch is a success.
    accept: Option<Accept>,
}

/// Fields for the instance.
fn tell_instance(
    exchange: &Exchange,
    head: &mut Parts,
    asked: Option<&HeaderValue>,
    upgrade: Option<HeaderValue>,
) {
    headers::prepare_request(&mut head.headers, upgrade);
    let client = exchange.client();
    let none = HeaderValue::from_static("");
    let origin = Origin {
        peer: client.peer.ip(),
        peer_text: &client.peer_text,
        trusted: client.trusted,
        scheme: client.scheme(),
        host: asked.unwrap_or(&none),
        version: head.version,
    };
    forwarded::tell(&mut head.headers, origin, exchange.id());
    exchange.tell_trace(&mut head.headers);
    if head.method == Method::OPTIONS
        && let Some(left) = head.headers.get(MAX_FORWARDS)
        && let Some(left) = left.to_str().ok().and_then(|left| left.parse::<u64>().ok())
    {
        let left = HeaderValue::from(left.saturating_sub(1));
        head.headers.insert(MAX_FORWARDS, left);
    }
}

/// The target, as the protocol towards the instance has it.
fn address(head: &mut Parts, asked: Option<&HeaderValue>, speak: Speak) {
    let uri = std::mem::take(&mut head.uri);
    match speak {
        Speak::Http1 => {
            if let Some(host) = asked {
                head.headers.insert(header::HOST, host.clone());
            }
            head.uri = origin_form(uri, &head.method);
            head.version = Version::HTTP_11;
        }
        Speak::H2c => {
            head.headers.remove(header::HOST);
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = asked.and_then(|host| Authority::try_from(host.as_bytes()).ok());
            let path = uri.into_parts().path_and_query;
            parts.path_and_query = path.or_else(|| Some(PathAndQuery::from_static("/")));
            head.uri = Uri::from_parts(parts).unwrap_or_default();
            head.version = Version::HTTP_2;
        }
    }
}

/// The target as an origin server takes it (RFC 9112 section 3.2.1); `OPTIONS` of a whole server is `*`
/// (section 3.2.4).
fn origin_form(uri: Uri, method: &Method) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    let whole = *method == Method::OPTIONS && uri.query().is_none() && uri.path().len() <= 1;
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = match whole {
        true => Some(PathAndQuery::from_static("*")),
        false => uri.into_parts().path_and_query,
    };
    Uri::from_parts(parts).unwrap_or_default()
}

fn answer(
    worker: &Rc<Worker>,
    mut response: Response<Incoming>,
    lease: Lease,
    exchange: &Rc<Exchange>,
    switch: Option<Switch>,
    chosen: &Chosen,
    deadline: Instant,
) -> Result<Response<Body>, Error> {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let accept = switch.as_ref().and_then(|switch| switch.accept.as_ref());
    let on_stream = accept.is_some();
    if let Some(accept) = accept {
        extended::settle(response.status(), response.headers_mut(), accept)?;
    }
    let way = match switched {
        true => {
            let exchange = exchange.clone();
            let instance = lease.switched().ok_or(Error::Broken)?;
            Ok(Switched { instance, exchange })
        }
        false => Err(lease),
    };
    if switched && on_stream {
        *response.status_mut() = StatusCode::OK;
    }
    exchange.answered(response.status().as_u16(), "");
    let (mut head, incoming) = response.into_parts();
    let says_switched = switched && !on_stream;
    headers::prepare_response(
        &mut head.headers,
        exchange.id(),
        says_switched,
        head.version,
    );
    head.version = Version::HTTP_11;
    if let Some(cookie) = &chosen.cookie {
        head.headers.append(header::SET_COOKIE, cookie.clone());
    }
    if chosen.route.settings.server_timing
        && let Some(timing) = exchange.with_guard(server_timing).flatten()
    {
        head.headers.append("server-timing", timing);
    }
    let body = match way {
        // An instance that switches unasked has broken the protocol.
        Ok(tunnel) => tunnelled(worker, switch.ok_or(Error::Broken)?, tunnel),
        Err(lease) => Body::upstream(incoming, lease, exchange.clone(), deadline),
    };
    if exchange.client().is_http2() && !body.is_end_stream() {
        exchange.due(deadline);
    }
    Ok(Response::from_parts(head, body))
}

/// Begins the tunnel to a client of HTTP/1; that to a stream is begun by the stream's task.
fn tunnelled(worker: &Rc<Worker>, switch: Switch, tunnel: Switched) -> Body {
    let Some(client) = switch.client else {
        return Body::tunnel(tunnel);
    };
    let tunnel = tunnel::run(worker.clone(), tunnel::upgraded(client), tunnel);
    tokio::task::spawn_local(worker.node.tunnels.track_future(tunnel));
    Body::empty()
}

#[cfg(test)]
#[path = "handler/tests.rs"]
mod tests;
