use super::super::Context;
use super::*;

use http::HeaderMap;
use opentelemetry::Value;
use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::Sampler;
use proptest::prelude::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn request() -> FinishedRequest {
    let mut fields = HeaderMap::new();
    let said = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    fields.insert("traceparent", HeaderValue::from_static(said));
    FinishedRequest {
        context: Context::begin(&fields, &Sampler::AlwaysOn, (1, 2)),
        method: Method::GET,
        uri: "/a?x=1&sig=secret".parse().unwrap(),
        protocol: Version::HTTP_11,
        host: Some(HeaderValue::from_static("a.localhost:8080")),
        agent: Some(HeaderValue::from_bytes(b"curl \xff").unwrap()),
        client: HeaderValue::from_static("192.0.2.1"),
        scheme: "http",
        id: HeaderValue::from_static("abc"),
        service: Some("a".into()),
        version: Some(3),
        instance: Some("cless-a-3".to_owned()),
        status: 200,
        bytes: 12,
        reason: "",
        ended: SystemTime::UNIX_EPOCH + MS(5000),
        took: MS(400),
        waited: None,
        start: None,
        wake: None,
    }
}

fn ids() -> impl FnMut() -> u64 {
    let mut last = 100;
    move || {
        last += 1;
        last
    }
}

fn attribute(span: &SpanData, name: &str) -> Option<Value> {
    let mut named = span
        .attributes
        .iter()
        .filter(|known| known.key.as_str() == name);
    let found = named.next().map(|known| known.value.clone());
    assert!(named.next().is_none(), "{name} occurs twice");
    found
}

#[test]
fn a_request_has_the_semantic_attributes() {
    let spans = of(&request(), ids());
    let [span] = &spans[..] else {
        panic!("one span, not {spans:?}")
    };
    assert_eq!(span.name, "GET a");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(span.parent_span_id, SpanId::from(0xb7ad_6b71_6920_3331));
    assert_eq!(span.start_time, SystemTime::UNIX_EPOCH + MS(4600));
    for (name, value) in [
        ("http.request.method", Value::from("GET")),
        ("http.response.status_code", 200.into()),
        ("http.response.body.size", 12.into()),
        ("url.path", "/a".into()),
        ("url.query", "x=1&sig=REDACTED".into()),
        ("url.scheme", "http".into()),
        ("server.address", "a.localhost".into()),
        ("server.port", 8080.into()),
        ("client.address", "192.0.2.1".into()),
        ("network.protocol.version", "1.1".into()),
        ("user_agent.original", "curl \u{fffd}".into()),
        ("cless.service", "a".into()),
        ("cless.version", 3.into()),
        ("faas.coldstart", false.into()),
    ] {
        assert_eq!(attribute(span, name), Some(value), "{name}");
    }
    assert_eq!(span.status, Status::Unset);
    assert_eq!(attribute(span, "error.type"), None);
}

#[test]
fn a_failure_says_whose_it_is() {
    let ours = FinishedRequest {
        status: 503,
        reason: "queue_full",
        ..request()
    };
    let span = &of(&ours, ids())[0];
    assert_eq!(span.status, Status::error("queue_full"));
    assert_eq!(attribute(span, "error.type"), Some("queue_full".into()));
    let theirs = FinishedRequest {
        status: 500,
        ..request()
    };
    let span = &of(&theirs, ids())[0];
    assert_eq!(attribute(span, "error.type"), Some("500".into()));
    // A client error is not an error of the server.
    let callers = FinishedRequest {
        status: 404,
        reason: "unknown_host",
        service: None,
        version: None,
        ..request()
    };
    let span = &of(&callers, ids())[0];
    assert_eq!((&*span.name, &span.status), ("GET", &Status::Unset));
}

#[test]
fn client_supplied_text_is_bounded() {
    let odd = FinishedRequest {
        method: Method::from_bytes(b"BREW").unwrap(),
        uri: format!("/{}", "x".repeat(60_000)).parse().unwrap(),
        ..request()
    };
    let span = &of(&odd, ids())[0];
    assert_eq!(span.name, "HTTP a");
    assert_eq!(
        attribute(span, "http.request.method"),
        Some("_OTHER".into())
    );
    assert_eq!(
        attribute(span, "http.request.method_original"),
        Some("BREW".into())
    );
    let Some(Value::String(path)) = attribute(span, "url.path") else {
        panic!("a path")
    };
    assert_eq!(path.as_str().len(), MAX_TEXT);
}

#[test]
fn a_resume_ends_with_the_wait() {
    let woke = FinishedRequest {
        waited: Some(MS(20)),
        wake: Some(MS(15)),
        ..request()
    };
    let spans = of(&woke, ids());
    let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["GET a", "wait", "wake"]);
    assert_eq!(spans[2].end_time, spans[1].end_time);
    assert_eq!(spans[2].start_time, spans[1].end_time - MS(15));
}

proptest! {
    #[test]
    fn spans_are_a_tree_and_phases_lie_within_their_start(
        waited in proptest::option::of(0_u64..400),
        took in proptest::collection::vec(proptest::option::of(0_u64..1000), 5),
        rest in 0_u64..50,
        started in any::<bool>(),
    ) {
        let total = took.iter().flatten().sum::<u64>() + rest;
        let phase = |at: usize| took[at].map(MS);
        let start = ColdStart {
            pull: phase(0),
            queue: phase(1),
            create: phase(2),
            start: phase(3),
            ready: phase(4),
            total: MS(total),
            at: SystemTime::UNIX_EPOCH + MS(4900),
        };
        let request = FinishedRequest {
            waited: waited.map(MS),
            start: (started && waited.is_some()).then_some(start),
            ..request()
        };
        let spans = of(&request, ids());
        let own: Vec<SpanId> = spans.iter().map(|span| span.span_context.span_id()).collect();
        prop_assert_eq!(spans[0].parent_span_id, request.context.parent.span_id());
        for span in &spans {
            prop_assert_eq!(span.span_context.trace_id(), request.context.parent.trace_id());
            prop_assert!(span.span_context.is_sampled() && span.start_time <= span.end_time);
        }
        for span in &spans[1..] {
            prop_assert!(own.contains(&span.parent_span_id));
        }
        if let Some(at) = spans.iter().position(|span| span.name == "cold start") {
            let (starts, phases) = (&spans[at], &spans[at + 1..]);
            prop_assert_eq!(phases.len(), took.iter().flatten().count());
            let mut last = starts.start_time;
            for phase in phases {
                prop_assert_eq!(phase.parent_span_id, starts.span_context.span_id());
                prop_assert_eq!(phase.start_time, last);
                last = phase.end_time;
            }
            prop_assert!(last <= starts.end_time);
        }
    }
}
