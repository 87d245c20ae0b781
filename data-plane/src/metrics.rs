//! The metrics of a node, in the text formats of Prometheus and OpenMetrics.
//!
//! Names follow the OpenTelemetry semantic conventions where there are any
//! (`http.server.request.duration`); labels are service and version, never a path or a raw host.

mod format;
mod labels;
pub(crate) mod reasons;
mod registration;
pub mod worker_stats;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use self::format::Format;
use self::labels::{
    BuildLabels, BytesLabels, OutcomeLabels, PauseLabels, PhaseLabels, ReasonLabels, RejectLabels,
    RequestLabels, SandboxLabels, StateLabels, VersionLabels,
};
use self::worker_stats::WorkerStats;
use crate::report::{ColdStart, FailureReason, NodeReport};

/// From 0.5 ms to 5 min: warm responses to long requests.
const REQUEST_BUCKETS: [f64; 19] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
    30.0, 60.0, 120.0, 300.0,
];
/// From 1 ms to 1 min: phases of starts.
const START_BUCKETS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 10.0, 20.0, 60.0,
];

/// Values that are read at the time of a scrape.
#[derive(Debug)]
pub struct Observed<'a> {
    /// Instances and sandboxes.
    pub report: &'a NodeReport,
    /// The length of each queue, by service and version.
    pub queues: Vec<(Arc<str>, u32, usize)>,
    /// Whether the engine answers.
    pub engine_up: bool,
    /// The revision of the present route table.
    pub feed_revision: i64,
    /// Time since the control plane was last heard; `None` if it never was.
    pub feed_staleness: Option<Duration>,
}

/// The metrics of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    build: Family<BuildLabels, Gauge>,
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    request_bytes: Family<BytesLabels, Counter>,
    response_bytes: Family<BytesLabels, Counter>,
    active: Gauge,
    connections: Gauge,
    tunnels: Gauge,
    closed: Family<ReasonLabels, Counter>,
    access_log_dropped: Counter,
    traces_dropped: Counter,
    /// The workers of the proxy, added up at a scrape.
    workers: Mutex<Vec<Arc<WorkerStats>>>,
    queue_wait: Family<VersionLabels, Histogram, fn() -> Histogram>,
    rejects: Family<RejectLabels, Counter>,
    queue_depth: Family<VersionLabels, Gauge>,
    phases: Family<PhaseLabels, Histogram, fn() -> Histogram>,
    pauses: Family<PauseLabels, Histogram, fn() -> Histogram>,
    starts: Family<OutcomeLabels, Counter>,
    instances: Family<StateLabels, Gauge>,
    engine_up: Gauge,
    sandboxes: Family<SandboxLabels, Gauge>,
    feed_revision: Gauge,
    feed_staleness: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let request_histogram: fn() -> Histogram = || Histogram::new(REQUEST_BUCKETS);
        let start_histogram: fn() -> Histogram = || Histogram::new(START_BUCKETS);
        let metrics = Self {
            registry: Mutex::new(Registry::default()),
            build: Family::default(),
            requests: Family::new_with_constructor(request_histogram),
            request_bytes: Family::default(),
            response_bytes: Family::default(),
            active: Gauge::default(),
            connections: Gauge::default(),
            tunnels: Gauge::default(),
            closed: Family::default(),
            access_log_dropped: Counter::default(),
            traces_dropped: Counter::default(),
            workers: Mutex::default(),
            queue_wait: Family::new_with_constructor(start_histogram),
            rejects: Family::default(),
            queue_depth: Family::default(),
            phases: Family::new_with_constructor(start_histogram),
            pauses: Family::new_with_constructor(start_histogram),
            starts: Family::default(),
            instances: Family::default(),
            engine_up: Gauge::default(),
            sandboxes: Family::default(),
            feed_revision: Gauge::default(),
            feed_staleness: Gauge::default(),
        };
        metrics.register();
        metrics.begin();
        metrics
    }
}

impl Metrics {
    /// Has the counters of known reasons start at 0.
    fn begin(&self) {
        let build = BuildLabels {
            version: env!("CARGO_PKG_VERSION"),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
        };
        self.build.get_or_create(&build).set(1);
        for reason in reasons::VERSION.into_iter().chain(reasons::NO_VERSION) {
            self.rejects(reason, None, None);
        }
        self.begin_closed();
    }

    /// Has the counters of a version start at 0.
    pub fn begin_version(&self, service: &Arc<str>, version: u32) {
        for reason in reasons::VERSION {
            self.rejects(reason, Some(service), Some(version));
        }
        for outcome in ["ready"].into_iter().chain(OUTCOMES.map(outcome)) {
            self.starts_ended(service, version, outcome);
        }
        self.bytes(Some(service), Some(version));
    }

    /// The duration histogram of a version and status. Callers keep it, because finding it takes a
    /// lock. No service: none has the host. No version: none was chosen.
    pub fn durations(
        &self,
        service: Option<&Arc<str>>,
        version: Option<u32>,
        status: u16,
    ) -> Histogram {
        let labels = RequestLabels {
            service: service.cloned(),
            version,
            http_response_status_code: status,
        };
        self.requests.get_or_create_owned(&labels)
    }

    /// The counters of bytes of request and response bodies. Callers keep them.
    pub fn bytes(&self, service: Option<&Arc<str>>, version: Option<u32>) -> [Counter; 2] {
        let service = service.cloned();
        let labels = BytesLabels { service, version };
        [&self.request_bytes, &self.response_bytes].map(|bytes| bytes.get_or_create_owned(&labels))
    }

    fn rejects(
        &self,
        reason: &'static str,
        service: Option<&Arc<str>>,
        version: Option<u32>,
    ) -> Counter {
        let service = service.cloned();
        self.rejects.get_or_create_owned(&RejectLabels {
            reason,
            service,
            version,
        })
    }

    /// Adds the counts of a worker.
    pub fn add_worker(&self, stats: Arc<WorkerStats>) {
        self.workers.lock().push(stats);
    }

    /// The counter of access log lines that were dropped.
    pub fn access_log_dropped(&self) -> Counter {
        self.access_log_dropped.clone()
    }

    /// The counter of requests whose spans were dropped.
    pub fn traces_dropped(&self) -> Counter {
        self.traces_dropped.clone()
    }

    /// Counts a response that cless generated or cut. No service: none has the host. No version:
    /// none was chosen.
    pub fn rejected(&self, reason: &'static str, service: Option<&Arc<str>>, version: Option<u32>) {
        self.rejects(reason, service, version).inc();
    }

    /// Records the wait of a request for an instance.
    pub fn waited(&self, service: &Arc<str>, version: u32, waited: Duration) {
        let service = service.clone();
        self.queue_wait
            .get_or_create(&VersionLabels { service, version })
            .observe(waited.as_secs_f64());
    }

    /// Records a successful start.
    pub fn cold_start(&self, service: &Arc<str>, version: u32, cold_start: &ColdStart) {
        let phases = cold_start.phases().chain([("total", cold_start.total)]);
        self.observe_phases(service, version, "ready", phases);
        self.starts_ended(service, version, "ready").inc();
    }

    /// Records the phases of a failed start.
    pub fn failed_phases(
        &self,
        service: &Arc<str>,
        version: u32,
        reason: FailureReason,
        phases: impl Iterator<Item = (&'static str, Duration)>,
    ) {
        self.observe_phases(service, version, outcome(reason), phases);
    }

    fn observe_phases(
        &self,
        service: &Arc<str>,
        version: u32,
        outcome: &'static str,
        phases: impl Iterator<Item = (&'static str, Duration)>,
    ) {
        for (phase, took) in phases {
            let service = service.clone();
            self.phases
                .get_or_create(&PhaseLabels {
                    service,
                    version,
                    phase,
                    outcome,
                })
                .observe(took.as_secs_f64());
        }
    }

    /// Records a pause.
    pub fn paused(&self, service: &Arc<str>, version: u32, took: Duration) {
        self.record_pause(service, version, "pause", took);
    }

    /// Records a resume.
    pub fn resumed(&self, service: &Arc<str>, version: u32, took: Duration) {
        self.record_pause(service, version, "unpause", took);
    }

    fn record_pause(&self, service: &Arc<str>, version: u32, call: &'static str, took: Duration) {
        let labels = PauseLabels {
            service: service.clone(),
            version,
            call,
        };
        self.pauses
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// Counts a failed start.
    pub fn start_failed(&self, service: &Arc<str>, version: u32, reason: FailureReason) {
        self.starts_ended(service, version, outcome(reason)).inc();
    }

    fn starts_ended(&self, service: &Arc<str>, version: u32, outcome: &'static str) -> Counter {
        let service = service.clone();
        self.starts.get_or_create_owned(&OutcomeLabels {
            service,
            version,
            outcome,
        })
    }

    /// The text of a scrape.
    ///
    /// # Errors
    /// If formatting fails, which a `String` never does.
    pub fn encode(
        &self,
        observed: Observed<'_>,
        format: Format,
    ) -> Result<String, std::fmt::Error> {
        let report = observed.report;
        self.instances.clear();
        for instance in &report.instances {
            let labels = StateLabels {
                service: instance.service.clone(),
                version: instance.key.number,
                state: format!("{:?}", instance.state).to_lowercase(),
            };
            self.instances.get_or_create(&labels).inc();
        }
        self.queue_depth.clear();
        for (service, version, waiting) in observed.queues {
            let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
            self.queue_depth
                .get_or_create(&VersionLabels { service, version })
                .set(waiting);
        }
        self.engine_up.set(i64::from(observed.engine_up));
        for (state, count) in [
            ("idle", report.sandboxes.idle),
            ("used", report.sandboxes.used),
        ] {
            self.sandboxes
                .get_or_create(&SandboxLabels { state })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.add_up_workers();
        self.feed_revision.set(observed.feed_revision);
        let staleness = observed.feed_staleness;
        self.feed_staleness
            .set(staleness.map_or(f64::NAN, |since| since.as_secs_f64()));
        self.text(format)
    }

    fn text(&self, format: Format) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry.lock())?;
        Ok(match format {
            Format::OpenMetrics => text,
            Format::Prometheus => format::to_prometheus(&text),
        })
    }

    fn begin_closed(&self) {
        for reason in reasons::CLOSED {
            self.closed.get_or_create_owned(&ReasonLabels { reason });
        }
    }

    fn add_up_workers(&self) {
        let (mut active, mut connections, mut tunnels) = (0, 0, 0);
        self.closed.clear();
        self.begin_closed();
        for stats in self.workers.lock().iter() {
            let counts = stats.snapshot();
            active += counts.active;
            connections += counts.connections;
            tunnels += counts.tunnels;
            for (reason, count) in counts.closed {
                let labels = ReasonLabels { reason };
                self.closed.get_or_create(&labels).inc_by(count);
            }
        }
        self.active.set(active);
        self.connections.set(connections);
        self.tunnels.set(tunnels);
    }
}

#[cfg(feature = "test-util")]
impl Metrics {
    /// A scrape with one sample of each metric, so that its labels show: for the guide.
    pub fn example() -> String {
        let (metrics, service) = (Self::default(), Arc::<str>::from("hello"));
        let (version, none) = (1, Duration::ZERO);
        let failed = FailureReason::Exited;
        metrics.begin_version(&service, version);
        let sample = metrics.durations(Some(&service), Some(version), 200);
        sample.observe(0.0);
        metrics.waited(&service, version, none);
        metrics.failed_phases(&service, version, failed, [("start", none)].into_iter());
        metrics.start_failed(&service, version, failed);
        metrics.paused(&service, version, none);
        let sandboxes = SandboxLabels { state: "idle" };
        metrics.sandboxes.get_or_create(&sandboxes).inc();
        let state = "ready".to_owned();
        let labels = VersionLabels {
            service: service.clone(),
            version,
        };
        metrics.queue_depth.get_or_create(&labels).inc();
        let labels = StateLabels {
            service,
            version,
            state,
        };
        metrics.instances.get_or_create(&labels).inc();
        metrics.text(Format::OpenMetrics).unwrap_or_default()
    }
}

/// The reasons of failed starts.
const OUTCOMES: [FailureReason; 4] = [
    FailureReason::Image,
    FailureReason::Engine,
    FailureReason::Exited,
    FailureReason::NotReady,
];

/// The `outcome` label of a failed start.
fn outcome(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::Image => "image",
        FailureReason::Engine => "engine",
        FailureReason::Exited => "exited",
        FailureReason::NotReady => "not_ready",
        // No start fails for it.
        FailureReason::MalformedResponse => "malformed_response",
        FailureReason::NotAllowed => "not_allowed",
    }
}

#[cfg(test)]
mod tests;
