//! Traces as received by a collector.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use cless_data_plane::Options;
use opentelemetry_proto::tonic::collector::trace::v1 as otlp;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use otlp::trace_service_server::{TraceService, TraceServiceServer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::{Stage, answers_ok, get};
use crate::feed::plane::within;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

struct Collector {
    address: SocketAddr,
    messages: mpsc::UnboundedReceiver<otlp::ExportTraceServiceRequest>,
}

struct Service(mpsc::UnboundedSender<otlp::ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<otlp::ExportTraceServiceRequest>,
    ) -> Result<Response<otlp::ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(otlp::ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, messages) = mpsc::unbounded_channel();
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Service(sender)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        Self { address, messages }
    }

    /// The spans of the next message, and the attributes of their node.
    async fn next(&mut self) -> (Vec<Span>, BTreeMap<String, Value>) {
        let message = within("spans", self.messages.recv()).await;
        let message = message.expect("the collector lives");
        let [of_node] = &message.resource_spans[..] else {
            panic!("one resource, not {message:?}")
        };
        let node = of_node.resource.as_ref().expect("a resource");
        let scopes = of_node.scope_spans.iter();
        let spans = scopes.flat_map(|scope| scope.spans.clone()).collect();
        (spans, values(&node.attributes))
    }
}

async fn stage(collector: SocketAddr, ratio: f64) -> Stage {
    let to = format!("http://{collector}");
    let choose = move |options: &mut Options| {
        options.trace.otlp_endpoint = Some(to.parse().expect("a URL"));
        options.trace.otlp_sample_ratio = ratio;
    };
    Stage::choosing(choose).await
}

fn values(attributes: &[KeyValue]) -> BTreeMap<String, Value> {
    let value = |value: &Option<AnyValue>| value.as_ref()?.value.clone();
    let known = attributes.iter();
    known
        .filter_map(|known| Some((known.key.clone(), value(&known.value)?)))
        .collect()
}

fn text(text: &str) -> Option<Value> {
    Some(Value::StringValue(text.to_owned()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = spans.iter().find(|span| span.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {spans:?}"))
}

/// The trace id, parent and flags sent to the instance.
fn traceparent(head: &str) -> [&str; 3] {
    let mut told = head
        .lines()
        .filter_map(|line| line.strip_prefix("traceparent: 00-"));
    let (one, another) = (told.next(), told.next());
    assert!(another.is_none(), "it occurs twice: {head}");
    let mut parts = one.expect("a traceparent").split('-');
    [(); 3].map(|()| parts.next().expect("three parts"))
}

#[tokio::test]
async fn a_trace_is_continued_through_a_cold_start_to_the_instance() {
    let mut collector = Collector::start().await;
    let mut stage = stage(collector.address, 0.0).await;
    let said = format!("traceparent: 00-{TRACE}-{CALLER}-01\r\ntracestate: a=b\r\n");
    let (mut client, mut instance, head) = stage.asked(get("/a?b=c", &said)).await;
    answers_ok(&mut instance, &mut client).await;

    let (spans, node) = collector.next().await;
    let own = named(&spans, "GET a");
    assert_eq!(traceparent(&head), [TRACE, &hex(&own.span_id), "01"]);
    assert!(head.contains("tracestate: a=b\r\n"), "{head}");
    assert_eq!(hex(&own.parent_span_id), CALLER);
    assert_eq!(own.trace_state, "a=b");
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE, "{span:?}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    }
    let under = |parent: &str, child: &str| {
        assert_eq!(
            named(&spans, child).parent_span_id,
            named(&spans, parent).span_id,
            "{child}"
        );
    };
    under("GET a", "wait");
    under("wait", "cold start");
    for phase in ["queue", "create", "start", "ready"] {
        under("cold start", phase);
    }
    let told = values(&own.attributes);
    for (name, value) in [
        ("http.request.method", text("GET")),
        ("url.path", text("/a")),
        ("url.query", text("b=c")),
        ("url.scheme", text("http")),
        ("server.address", text(super::HOST)),
        ("client.address", text("127.0.0.1")),
        ("network.protocol.version", text("1.1")),
        ("http.response.status_code", Some(Value::IntValue(200))),
        ("http.response.body.size", Some(Value::IntValue(2))),
        ("faas.coldstart", Some(Value::BoolValue(true))),
        ("cless.service", text("a")),
        ("cless.version", Some(Value::IntValue(1))),
    ] {
        assert_eq!(told.get(name).cloned(), value, "{name}");
    }
    assert_eq!(node.get("service.name").cloned(), text("cless-data-plane"));
    assert_eq!(node.get("cless.node").cloned(), text("one"));
    assert!(node.contains_key("service.instance.id"), "{node:?}");

    // The caller's decision overrides the ratio both ways; without one, this ratio records nothing.
    let not = format!("traceparent: 00-{TRACE}-{CALLER}-00\r\n");
    instance = exchange(&mut client, instance, &not, [TRACE, CALLER, "00"]).await;
    client.send(get("/", "")).await;
    let head = instance.head().await;
    assert_eq!(traceparent(&head)[2], "00");
    answers_ok(&mut instance, &mut client).await;
    drop(client);
    stage.stop().await;
    assert!(collector.messages.try_recv().is_err(), "none is recorded");
}

/// A request with this `traceparent`, and the expected one at the instance.
async fn exchange(
    client: &mut super::Wire,
    mut instance: super::Wire,
    said: &str,
    told: [&str; 3],
) -> super::Wire {
    client.send(get("/", said)).await;
    assert_eq!(traceparent(&instance.head().await), told);
    answers_ok(&mut instance, client).await;
    instance
}

#[tokio::test]
async fn responses_of_cless_are_traced_and_the_last_spans_are_sent_on_shutdown() {
    let mut collector = Collector::start().await;
    let stage = stage(collector.address, 1.0).await;
    let mut client = stage
        .client("GET / HTTP/1.1\r\nHost: unknown.localhost\r\n\r\n")
        .await;
    client.until("request id").await;
    drop(client);
    stage.stop().await;
    let (spans, _) = collector.next().await;
    let [span] = &spans[..] else {
        panic!("one span, not {spans:?}")
    };
    assert_eq!(span.name, "GET");
    assert!(span.parent_span_id.is_empty(), "it starts a trace");
    let told = values(&span.attributes);
    assert_eq!(told.get("error.type").cloned(), text("unknown_host"));
}

#[tokio::test]
async fn an_unreachable_collector_costs_spans_and_no_requests() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = gone.local_addr().expect("an address");
    drop(gone);
    let mut stage = stage(address, 1.0).await;
    let (mut client, mut instance, _) = stage.asked(get("/", "")).await;
    answers_ok(&mut instance, &mut client).await;
    let dropped = async {
        while !stage
            .metrics()
            .await
            .contains("cless_traces_dropped_total 1")
        {
            tokio::task::yield_now().await;
        }
    };
    within("it is counted", dropped).await;
    stage.stop().await;
}
