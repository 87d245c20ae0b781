//! Names, descriptions and units of the metrics.

use prometheus_client::registry::Unit;

use super::Metrics;

impl Metrics {
    /// Registers each metric.
    pub(super) fn register(&self) {
        let mut registry = self.registry.lock();
        registry.register(
            "cless_build_info",
            "Build of the node; always 1",
            self.build.clone(),
        );
        registry.register_with_unit(
            "http_server_request_duration",
            "Duration of requests, from the head of the request to the end of the response",
            Unit::Seconds,
            self.requests.clone(),
        );
        registry.register(
            "cless_request_bytes",
            "Bytes of request bodies, and those of tunnels that clients sent",
            self.request_bytes.clone(),
        );
        registry.register(
            "cless_response_bytes",
            "Bytes of response bodies, and those of tunnels that instances sent",
            self.response_bytes.clone(),
        );
        registry.register(
            "http_server_active_requests",
            "Requests in progress",
            self.active.clone(),
        );
        registry.register(
            "http_server_open_connections",
            "Open client connections",
            self.connections.clone(),
        );
        registry.register(
            "cless_tunnels",
            "Upgraded connections",
            self.tunnels.clone(),
        );
        registry.register(
            "cless_connections_closed",
            "Client connections that cless refused or closed",
            self.closed.clone(),
        );
        registry.register(
            "cless_access_log_dropped",
            "Access log lines dropped because they could not be written in time",
            self.access_log_dropped.clone(),
        );
        registry.register(
            "cless_traces_dropped",
            "Requests whose spans were dropped",
            self.traces_dropped.clone(),
        );
        registry.register_with_unit(
            "cless_queue_wait",
            "Time that requests waited for a free instance",
            Unit::Seconds,
            self.queue_wait.clone(),
        );
        registry.register(
            "cless_rejects",
            "Responses that cless generated, and those of instances that it cut",
            self.rejects.clone(),
        );
        registry.register(
            "cless_queue_depth",
            "Requests waiting for a free instance",
            self.queue_depth.clone(),
        );
        registry.register_with_unit(
            "cless_cold_start_phase",
            "Duration of each phase of a start; a failed start adds its remaining time to the phase that failed",
            Unit::Seconds,
            self.phases.clone(),
        );
        registry.register_with_unit(
            "cless_sleep",
            "Duration of the engine's pause and unpause calls",
            Unit::Seconds,
            self.pauses.clone(),
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
            "Revision of the route table in use",
            self.feed_revision.clone(),
        );
        registry.register_with_unit(
            "cless_feed_staleness",
            "Time since the control plane was last heard",
            Unit::Seconds,
            self.feed_staleness.clone(),
        );
    }
}
