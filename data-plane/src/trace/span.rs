//! Spans of a finished request, by OpenTelemetry's semantic conventions (HTTP server spans; FaaS,
//! `faas.coldstart`). Pure.
//!
//! ```text
//!  GET hello ────────────────────────────────────────────  server; the request with both bodies
//!    wait ──────────────────────────                       until an instance was assigned
//!      cold start ─────────────────                        start of the instance it waited for
//!        queue ─ create ─── start ────── ready ─
//!      wake ──                                             alternatively: resume of a paused one
//! ```
//!
//! Requests that wait for one start each include it with its times, so it may begin before the
//! request. Law, tested below: the parent of a span is among the spans or the caller's, and the
//! phases of a start lie within it in order.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Version};
use opentelemetry::trace::{SpanContext, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::FinishedRequest;
use crate::report::ColdStart;

/// Limit in characters of client-supplied text: a head may have 64 KiB, and a collector message 4
/// MiB.
const MAX_TEXT: usize = 1024;

/// Query parameters that carry signatures (semantic conventions, `url.query`); their values are
/// redacted.
const SIGNATURE_PARAMETERS: [&str; 4] = ["AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"];

/// The spans of a request, its own first. `id` draws the ids of the others.
pub(super) fn of(request: &FinishedRequest, id: impl FnMut() -> u64) -> Vec<SpanData> {
    let context = &request.context;
    let began = before(request.ended, request.took);
    let mut own = span(
        context.span.clone(),
        &context.parent,
        span_name(request),
        (began, request.ended),
    );
    own.span_kind = SpanKind::Server;
    own.parent_span_is_remote = context.parent.is_valid();
    own.attributes = attributes(request);
    if request.status >= 500 {
        own.status = Status::error(request.reason);
    }
    let mut spans = vec![own];
    if let Some(waited) = request.waited {
        wait(request, (began, began + waited), id, &mut spans);
    }
    spans
}

fn wait(
    request: &FinishedRequest,
    times: (SystemTime, SystemTime),
    mut id: impl FnMut() -> u64,
    spans: &mut Vec<SpanData>,
) {
    let mut add = |parent: &SpanContext, name: &'static str, times| {
        let context = request.context.child(id());
        spans.push(span(context.clone(), parent, name.into(), times));
        context
    };
    let waits = add(&request.context.span, "wait", times);
    if let Some(start) = &request.start {
        let start_began = before(start.at, start.total);
        let starts = add(&waits, "cold start", (start_began, start.at));
        for (phase, times) in phases(start, start_began) {
            add(&starts, phase, times);
        }
    }
    if let Some(wake) = request.wake {
        add(&waits, "wake", (before(times.1, wake), times.1));
    }
}

/// The phases of a start in sequence. Unattributed time between them is known only in total and
/// comes last.
fn phases(
    start: &ColdStart,
    mut at: SystemTime,
) -> impl Iterator<Item = (&'static str, (SystemTime, SystemTime))> {
    start.phases().map(move |(phase, took)| {
        let began = at;
        at += took;
        (phase, (began, at))
    })
}

fn before(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_sub(by).unwrap_or(time)
}

fn span(
    context: SpanContext,
    parent: &SpanContext,
    name: Cow<'static, str>,
    (start_time, end_time): (SystemTime, SystemTime),
) -> SpanData {
    SpanData {
        span_context: context,
        parent_span_id: parent.span_id(),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name,
        start_time,
        end_time,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("cless")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

/// The method if RFC 9110 or RFC 5789 defines it; arbitrary methods would make span names
/// unbounded.
fn method(method: &Method) -> Option<&str> {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    known.contains(method).then(|| method.as_str())
}

/// The span name of method and service, which has low cardinality.
fn span_name(request: &FinishedRequest) -> Cow<'static, str> {
    let method = method(&request.method).unwrap_or("HTTP");
    match &request.service {
        Some(service) => format!("{method} {service}").into(),
        None => method.to_owned().into(),
    }
}

fn attributes(request: &FinishedRequest) -> Vec<KeyValue> {
    let mut all = vec![
        KeyValue::new("url.scheme", request.scheme),
        KeyValue::new("url.path", cut(request.uri.path())),
        KeyValue::new("client.address", text(&request.client)),
        KeyValue::new("http.response.status_code", i64::from(request.status)),
        KeyValue::new(
            "http.response.body.size",
            i64::try_from(request.bytes).unwrap_or(i64::MAX),
        ),
        KeyValue::new("cless.request_id", text(&request.id)),
        KeyValue::new("faas.coldstart", request.start.is_some()),
    ];
    let method = method(&request.method);
    all.push(KeyValue::new(
        "http.request.method",
        method.unwrap_or("_OTHER").to_owned(),
    ));
    if method.is_none() {
        let original = cut(request.method.as_str());
        all.push(KeyValue::new("http.request.method_original", original));
    }
    if let Some(version) = protocol(request.protocol) {
        all.push(KeyValue::new("network.protocol.version", version));
    }
    if let Some(query) = request.uri.query() {
        all.push(KeyValue::new("url.query", cut(&redacted(query))));
    }
    let host = request.host.as_ref().and_then(|host| host.to_str().ok());
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    if let Some(host) = authority.or(host)
        && let Ok(host) = host.parse::<http::uri::Authority>()
    {
        all.push(KeyValue::new("server.address", cut(host.host())));
        if let Some(port) = host.port_u16() {
            all.push(KeyValue::new("server.port", i64::from(port)));
        }
    }
    if let Some(agent) = &request.agent {
        all.push(KeyValue::new("user_agent.original", text(agent)));
    }
    if let Some(service) = &request.service {
        all.push(KeyValue::new("cless.service", service.clone()));
    }
    if let Some(number) = request.version {
        all.push(KeyValue::new("cless.version", i64::from(number)));
    }
    if let Some(instance) = &request.instance {
        all.push(KeyValue::new("container.name", instance.clone()));
    }
    if !request.reason.is_empty() {
        all.push(KeyValue::new("error.type", request.reason));
    } else if request.status >= 500 {
        all.push(KeyValue::new("error.type", request.status.to_string()));
    }
    all
}

fn protocol(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}

fn text(value: &HeaderValue) -> String {
    cut(&String::from_utf8_lossy(value.as_bytes()))
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

fn redacted(query: &str) -> String {
    let part = |part: &str| match part.split_once('=') {
        Some((name, _)) if SIGNATURE_PARAMETERS.contains(&name) => format!("{name}=REDACTED"),
        _ => part.to_owned(),
    };
    query.split('&').map(part).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests;
