//! ExportQueue of finished requests, and the task that exports their spans to a collector.
//!
//! One message is in flight at a time. Meanwhile the queue buffers batches; when it is full,
//! batches are dropped and counted. An outage is logged at its start and at its end.
//! OpenTelemetry's own span processors are not used, because their queue drops spans without
//! counting them.

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

use super::{FinishedRequest, NodeResource, TraceOptions, Tracer, span};

/// Capacity in batches: 16 384 requests, about 8 MB.
const QUEUE: usize = 256;
/// Batches per message: with 512 requests and client-supplied text at its limit, a message stays
/// below the collectors' 4 MiB limit.
const MESSAGE: usize = 8;
/// Timeout of the last message on shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Reasons why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The collector's address in the environment is invalid.
    #[error("cannot export traces: {0}")]
    Variable(String),
    /// The exporter cannot be created.
    #[error("cannot export traces to {collector} (--otlp-endpoint): {source}")]
    Exporter {
        /// Address of the collector.
        collector: Uri,
        /// The cause.
        source: ExporterBuildError,
    },
}

#[derive(Debug, Clone)]
pub(super) struct ExportQueue {
    sender: mpsc::Sender<Vec<FinishedRequest>>,
    dropped: Counter,
}

/// Handle of the export task.
#[derive(Debug)]
pub struct TraceExport(JoinHandle<()>);

/// Starts the export if flags or environment name a collector. `dropped` counts requests whose
/// spans were lost. Must be called within a tokio runtime; the collector need not be reachable.
///
/// # Errors
/// [`Error`] if the address is unusable.
pub fn start(
    options: &TraceOptions,
    node: NodeResource<'_>,
    dropped: Counter,
) -> Result<Option<(Tracer, TraceExport)>, Error> {
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
    let tracer = Tracer::new(options.otlp_sample_ratio, ExportQueue { sender, dropped });
    Ok(Some((tracer, TraceExport(task))))
}

/// `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` take precedence over our attributes.
fn resource(node: NodeResource<'_>) -> Resource {
    let service_name = std::env::var("OTEL_SERVICE_NAME").ok();
    let service_name = service_name.filter(|name| !name.is_empty());
    let resource = Resource::builder_empty()
        .with_service_name("cless-data-plane")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node.id.to_owned()),
            KeyValue::new("cless.node", node.name.to_owned()),
        ])
        .with_detector(Box::new(EnvResourceDetector::new()));
    match service_name {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

impl ExportQueue {
    pub(super) fn send(&self, batch: Vec<FinishedRequest>) {
        if let Err(lost) = self.sender.try_send(batch) {
            use mpsc::error::TrySendError::{Closed, Full};
            let (Full(lost) | Closed(lost)) = lost;
            self.dropped.inc_by(lost.len() as u64);
        }
    }
}

async fn export(
    mut queue: mpsc::Receiver<Vec<FinishedRequest>>,
    exporter: impl opentelemetry_sdk::trace::SpanExporter,
    dropped: Counter,
) {
    let mut batches = Vec::with_capacity(MESSAGE);
    let mut failing = false;
    while queue.recv_many(&mut batches, MESSAGE).await > 0 {
        let requests: Vec<FinishedRequest> = batches.drain(..).flatten().collect();
        let spans = requests
            .iter()
            .flat_map(|request| span::of(request, rand::random));
        let spans: Vec<SpanData> = spans.collect();
        let sent = exporter.export(spans).await;
        if let Err(error) = &sent {
            dropped.inc_by(requests.len() as u64);
            if !failing {
                warn!(%error, "cannot export traces; they are dropped until the collector accepts them");
            }
        } else if failing {
            info!("traces are exported again");
        }
        failing = sent.is_err();
    }
}

impl TraceExport {
    /// Waits up to 5 s until the last spans are sent. All [`Tracer`]s and
    /// [`SpanBuffer`](super::SpanBuffer)s must be dropped before.
    pub async fn end(self) {
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.0)
            .await
            .is_err()
        {
            warn!("the last traces were not exported in time");
        }
    }
}
