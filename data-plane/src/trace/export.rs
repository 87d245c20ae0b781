//! The queue of requests that have ended, and the task that sends their spans to a collector.
//!
//! One message is in flight at a time. While it is, what ends meanwhile gathers in the queue, and is
//! dropped and counted when that is full. An outage is logged at its beginning and at its end.

use std::time::Duration;

use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{Node, Request, TraceOptions, Tracer, span};

/// Batches that may wait: 16 384 requests, about 8 MB.
const QUEUE: usize = 256;
/// Batches in a message: 512 requests, which with what a client may write in each are below the 4 MiB
/// that a collector takes.
const MESSAGE: usize = 8;
/// For the last message, on shutdown.
const LAST: Duration = Duration::from_secs(5);

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The collector's address, from the environment.
    #[error("cannot export traces: {0}")]
    Variable(String),
    /// The exporter cannot be made.
    #[error("cannot export traces to {collector} (--otlp-endpoint): {source}")]
    Exporter {
        /// Where to.
        collector: Uri,
        /// Why.
        source: ExporterBuildError,
    },
}

/// Where requests that have ended wait to be exported.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: mpsc::Sender<Vec<Request>>,
    dropped: Counter,
}

/// The task that exports.
#[derive(Debug)]
pub struct Exporting(JoinHandle<()>);

/// Begins to export, if the flags or the environment say where to. `dropped` counts requests whose
/// spans were lost. To be called within a runtime; no collector needs to be there yet.
///
/// # Errors
/// [`Error`]: the address cannot be used.
pub fn start(
    options: &TraceOptions,
    node: Node<'_>,
    dropped: Counter,
) -> Result<Option<(Tracer, Exporting)>, Error> {
    let collector = options.collector(|name| std::env::var(name).ok());
    let Some(collector) = collector.map_err(Error::Variable)? else {
        return Ok(None);
    };
    let mut exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(collector.to_string());
    if collector.scheme_str() == Some("https") {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    let mut exporter = exporter.build().map_err(|source| Error::Exporter {
        collector: collector.clone(),
        source,
    })?;
    exporter.set_resource(&resource(node));
    info!(%collector, ratio = options.otlp_sample_ratio, "traces are exported");
    let (sender, queue) = mpsc::channel(QUEUE);
    let task = tokio::spawn(export(queue, exporter, dropped.clone()));
    let tracer = Tracer::new(options.otlp_sample_ratio, Queue { sender, dropped });
    Ok(Some((tracer, Exporting(task))))
}

/// What `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` say goes before what we do.
fn resource(node: Node<'_>) -> Resource {
    let said = std::env::var("OTEL_SERVICE_NAME").ok();
    let said = said.filter(|name| !name.is_empty());
    let resource = Resource::builder_empty()
        .with_service_name("cless-data-plane")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node.id.to_owned()),
            KeyValue::new("cless.node", node.name.to_owned()),
        ])
        .with_detector(Box::new(EnvResourceDetector::new()));
    match said {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

impl Queue {
    pub(super) fn send(&self, batch: Vec<Request>) {
        if let Err(lost) = self.sender.try_send(batch) {
            use mpsc::error::TrySendError::{Closed, Full};
            let (Full(lost) | Closed(lost)) = lost;
            self.dropped.inc_by(lost.len() as u64);
        }
    }
}

async fn export(
    mut queue: mpsc::Receiver<Vec<Request>>,
    exporter: impl opentelemetry_sdk::trace::SpanExporter,
    dropped: Counter,
) {
    let mut batches = Vec::with_capacity(MESSAGE);
    let mut failing = false;
    while queue.recv_many(&mut batches, MESSAGE).await > 0 {
        let requests: Vec<Request> = batches.drain(..).flatten().collect();
        let spans = requests
            .iter()
            .flat_map(|request| span::of(request, rand::random));
        let spans: Vec<SpanData> = spans.collect();
        let sent = exporter.export(spans).await;
        if let Err(error) = &sent {
            dropped.inc_by(requests.len() as u64);
            if !failing {
                warn!(%error, "cannot export traces; they are dropped until the collector takes them");
            }
        } else if failing {
            info!("traces are exported again");
        }
        failing = sent.is_err();
    }
}

impl Exporting {
    /// Waits until the last spans are sent, for 5 s at most; once all [`Tracer`]s and
    /// [`Spans`](super::Spans) are dropped.
    pub async fn end(self) {
        if tokio::time::timeout(LAST, self.0).await.is_err() {
            warn!("the last traces were not exported in time");
        }
    }
}
