//! What a node counts, in the Prometheus text format on the admin port.
//!
//! Names follow the OpenTelemetry semantic conventions where there are any
//! (`http.server.request.duration`); labels are service and version, never a path or a raw host.

mod labels;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use self::labels::{
    OutcomeLabels, PhaseLabels, ReasonLabels, RequestLabels, SandboxLabels, SleepLabels,
    StateLabels, VersionLabels,
};
use crate::instance::Pools;
use crate::instance::report::{ColdStart, FailureReason};
use crate::proxy::stats::Stats;

/// From half a millisecond to five minutes: warm answers up to long requests.
const REQUEST_BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0,
];
/// From a millisecond to a minute: phases of starts.
const START_BUCKETS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 2.0, 10.0, 60.0,
];

/// The workers of the proxy, to be added up at a scrape.
#[derive(Debug, Default)]
struct Workers(Mutex<Vec<Arc<Stats>>>);

/// The counts of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    active: Gauge,
    connections: Gauge,
    tunnels: Gauge,
    closed: Family<ReasonLabels, Counter>,
    access_log_dropped: Counter,
    traces_dropped: Counter,
    workers: Workers,
    queue_wait: Family<VersionLabels, Histogram, fn() -> Histogram>,
    rejects: Family<ReasonLabels, Counter>,
    queue_depth: Family<VersionLabels, Gauge>,
    phases: Family<PhaseLabels, Histogram, fn() -> Histogram>,
    sleeps: Family<SleepLabels, Histogram, fn() -> Histogram>,
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
            requests: Family::new_with_constructor(request_histogram),
            active: Gauge::default(),
            connections: Gauge::default(),
            tunnels: Gauge::default(),
            closed: Family::default(),
            access_log_dropped: Counter::default(),
            traces_dropped: Counter::default(),
            workers: Workers::default(),
            queue_wait: Family::new_with_constructor(start_histogram),
            rejects: Family::default(),
            queue_depth: Family::default(),
            phases: Family::new_with_constructor(start_histogram),
            sleeps: Family::new_with_constructor(start_histogram),
            starts: Family::default(),
            instances: Family::default(),
            engine_up: Gauge::default(),
            sandboxes: Family::default(),
            feed_revision: Gauge::default(),
            feed_staleness: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = self.registry.lock();
        registry.register_with_unit(
            "http_server_request_duration",
            "Requests, from their head to the end of their response",
            Unit::Seconds,
            self.requests.clone(),
        );
        registry.register(
            "http_server_active_requests",
            "Requests in progress",
            self.active.clone(),
        );
        registry.register(
            "http_server_open_connections",
            "Connections of clients",
            self.connections.clone(),
        );
        registry.register(
            "cless_tunnels",
            "Upgraded connections",
            self.tunnels.clone(),
        );
        registry.register(
            "cless_connections_closed",
            "Connections of clients that cless refused or ended",
            self.closed.clone(),
        );
        registry.register(
            "cless_access_log_dropped",
            "Lines of the access log that could not be written in time",
            self.access_log_dropped.clone(),
        );
        registry.register(
            "cless_traces_dropped",
            "Requests whose spans could not be exported",
            self.traces_dropped.clone(),
        );
        registry.register_with_unit(
            "cless_queue_wait",
            "Waits of requests that found no free instance",
            Unit::Seconds,
            self.queue_wait.clone(),
        );
        registry.register(
            "cless_rejects",
            "Requests that cless answered itself",
            self.rejects.clone(),
        );
        registry.register(
            "cless_queue_depth",
            "Requests that wait for a free instance",
            self.queue_depth.clone(),
        );
        registry.register_with_unit(
            "cless_cold_start_phase",
            "Phases of starts; of one that failed, the phase in which it did has the rest of its time",
            Unit::Seconds,
            self.phases.clone(),
        );
        registry.register_with_unit(
            "cless_sleep",
            "The engine's answers to pause, and to unpause, which a request waits for",
            Unit::Seconds,
            self.sleeps.clone(),
        );
        registry.register("cless_starts", "Starts by outcome", self.starts.clone());
        registry.register(
            "cless_instances",
            "Instances by state",
            self.instances.clone(),
        );
        registry.register(
            "cless_engine_up",
            "Whether the container engine answers",
            self.engine_up.clone(),
        );
        registry.register(
            "cless_sandboxes",
            "Network sandboxes by state",
            self.sandboxes.clone(),
        );
        registry.register(
            "cless_feed_revision",
            "Revision of the route table that serves",
            self.feed_revision.clone(),
        );
        registry.register_with_unit(
            "cless_feed_staleness",
            "Since the control plane was last heard",
            Unit::Seconds,
            self.feed_staleness.clone(),
        );
    }

    /// Where requests to a version that got a place and this status are counted; to be kept, because
    /// to find it takes a lock.
    pub fn durations(&self, service: &Arc<str>, version: u32, status: u16) -> Histogram {
        let labels = RequestLabels {
            service: service.clone(),
            version,
            http_response_status_code: status,
        };
        self.requests.get_or_create(&labels).clone()
    }

    /// Counts of a worker are added up with those of the others.
    pub fn worker(&self, stats: Arc<Stats>) {
        self.workers.0.lock().push(stats);
    }

    /// Where lines of the access log are counted that were not written.
    pub fn access_log_dropped(&self) -> Counter {
        self.access_log_dropped.clone()
    }

    /// Where requests are counted whose spans were not exported.
    pub fn traces_dropped(&self) -> Counter {
        self.traces_dropped.clone()
    }

    /// A request was answered by cless itself.
    pub fn rejected(&self, reason: &'static str) {
        self.rejects.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A request waited for an instance.
    pub fn waited(&self, service: &Arc<str>, version: u32, waited: Duration) {
        let service = service.clone();
        self.queue_wait
            .get_or_create(&VersionLabels { service, version })
            .observe(waited.as_secs_f64());
    }

    /// A start succeeded.
    pub fn cold_start(&self, service: &Arc<str>, version: u32, cold_start: &ColdStart) {
        let phases = cold_start.phases().chain([("total", cold_start.total)]);
        self.observe_phases(service, version, "ready", phases);
        self.start_ended(service, version, "ready");
    }

    /// A start is about to fail, and has spent this.
    pub fn spent(
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

    /// An instance was put to sleep.
    pub fn paused(&self, service: &Arc<str>, version: u32, took: Duration) {
        self.slept(service, version, "pause", took);
    }

    /// An instance that slept was woken.
    pub fn woken(&self, service: &Arc<str>, version: u32, took: Duration) {
        self.slept(service, version, "unpause", took);
    }

    fn slept(&self, service: &Arc<str>, version: u32, call: &'static str, took: Duration) {
        let labels = SleepLabels {
            service: service.clone(),
            version,
            call,
        };
        self.sleeps
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// A start failed.
    pub fn start_failed(&self, service: &Arc<str>, version: u32, reason: FailureReason) {
        self.start_ended(service, version, outcome(reason));
    }

    fn start_ended(&self, service: &Arc<str>, version: u32, outcome: &'static str) {
        let service = service.clone();
        self.starts
            .get_or_create(&OutcomeLabels {
                service,
                version,
                outcome,
            })
            .inc();
    }

    /// The text of a scrape, with what is only known by looking.
    ///
    /// # Errors
    /// If formatting fails, which a `String` never does.
    pub fn scrape(
        &self,
        pools: &Pools,
        revision: i64,
        staleness: Option<Duration>,
    ) -> Result<String, std::fmt::Error> {
        let report = pools.report();
        self.instances.clear();
        for instance in report.instances {
            let labels = StateLabels {
                service: instance.service,
                version: instance.key.number,
                state: format!("{:?}", instance.state).to_lowercase(),
            };
            self.instances.get_or_create(&labels).inc();
        }
        self.queue_depth.clear();
        for (service, version, waiting) in pools.queues() {
            let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
            self.queue_depth
                .get_or_create(&VersionLabels { service, version })
                .set(waiting);
        }
        self.engine_up.set(i64::from(pools.engine_answers()));
        for (state, count) in [
            ("idle", report.sandboxes.idle),
            ("used", report.sandboxes.used),
        ] {
            self.sandboxes
                .get_or_create(&SandboxLabels { state })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.add_up_workers();
        self.feed_revision.set(revision);
        self.feed_staleness
            .set(staleness.map_or(f64::NAN, |since| since.as_secs_f64()));
        let mut text = String::new();
        text::encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }

    fn add_up_workers(&self) {
        let (mut active, mut connections, mut tunnels) = (0, 0, 0);
        self.closed.clear();
        for stats in self.workers.0.lock().iter() {
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
        metrics.durations(&service, version, 200).observe(0.0);
        metrics.waited(&service, version, none);
        metrics.rejected("unknown_host");
        metrics.spent(&service, version, failed, [("start", none)].into_iter());
        metrics.start_failed(&service, version, failed);
        metrics.paused(&service, version, none);
        metrics
            .closed
            .get_or_create(&ReasonLabels { reason: "idle" })
            .inc();
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
        let mut text = String::new();
        let encoded = text::encode(&mut text, &metrics.registry.lock());
        encoded.map(|()| text).unwrap_or_default()
    }
}

/// The label of a start that failed.
fn outcome(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::Image => "image",
        FailureReason::Engine => "engine",
        FailureReason::Exited => "exited",
        FailureReason::NotReady => "not_ready",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The depth of queues was registered twice, so each of its samples was there twice, which
    /// Prometheus refuses.
    #[test]
    fn each_metric_is_registered_once() {
        let metrics = Metrics::default();
        let mut text = String::new();
        text::encode(&mut text, &metrics.registry.lock()).unwrap();
        let mut named: Vec<_> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let all = named.len();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named.len(), all, "{text}");
    }
}
