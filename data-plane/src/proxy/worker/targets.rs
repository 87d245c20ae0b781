//! The pool and the metrics of each version that a worker serves.
//!
//! Finding them costs a lock and a hash of the version's name each. A request pays neither: its
//! [`VersionTarget`] is found by the address of the version, which the entry keeps alive.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nohash_hasher::IntMap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::Metrics;
use crate::pool::{Pool, Pools};
use crate::route::{Protocol, Route, Version};

/// The metrics of the requests with one service and version, as one worker counts them.
#[derive(Debug)]
pub(crate) struct RequestMetrics {
    metrics: Arc<Metrics>,
    /// `None`: no service has the host.
    service: Option<Arc<str>>,
    /// `None`: no version was chosen.
    version: Option<u32>,
    /// Durations by status, in the order of first use. There are few.
    durations: RefCell<Vec<(u16, Histogram)>>,
    /// Bytes of request and response bodies.
    bytes: [Counter; 2],
}

impl RequestMetrics {
    pub(crate) fn new(
        metrics: &Arc<Metrics>,
        service: Option<Arc<str>>,
        version: Option<u32>,
    ) -> Self {
        Self {
            bytes: metrics.bytes(service.as_ref(), version),
            metrics: metrics.clone(),
            service,
            version,
            durations: RefCell::default(),
        }
    }

    /// Records a finished request. `bytes`: those of the request body and of the response body.
    pub(crate) fn record(&self, status: u16, took: Duration, bytes: [u64; 2]) {
        let mut durations = self.durations.borrow_mut();
        let at = durations.iter().position(|(known, _)| *known == status);
        let at = at.unwrap_or_else(|| {
            let service = self.service.as_ref();
            let histogram = self.metrics.durations(service, self.version, status);
            durations.push((status, histogram));
            durations.len() - 1
        });
        if let Some((_, histogram)) = durations.get(at) {
            histogram.observe(took.as_secs_f64());
        }
        for (counter, bytes) in self.bytes.iter().zip(bytes) {
            if bytes > 0 {
                counter.inc_by(bytes);
            }
        }
    }
}

/// One version as a worker serves it.
#[derive(Debug)]
pub(crate) struct VersionTarget {
    pub(crate) version: Arc<Version>,
    pub(crate) pool: Pool,
    pub(crate) metrics: RequestMetrics,
}

impl VersionTarget {
    pub(crate) fn number(&self) -> u32 {
        self.version.key.number
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.version.spec.protocol
    }

    pub(crate) fn record_wait(&self, waited: Duration) {
        let metrics = &self.metrics.metrics;
        metrics.waited(&self.version.service, self.number(), waited);
    }
}

#[derive(Debug, Default)]
pub(crate) struct VersionTargets {
    known: RefCell<IntMap<usize, Rc<VersionTarget>>>,
}

impl VersionTargets {
    /// The target of a version, whose pool is created if there is none.
    pub(crate) fn get(
        &self,
        pools: &Pools,
        metrics: &Arc<Metrics>,
        route: &Route,
        version: &Arc<Version>,
    ) -> Rc<VersionTarget> {
        let key = key(version);
        if let Some(target) = self.known.borrow().get(&key) {
            return target.clone();
        }
        let target = Rc::new(VersionTarget {
            version: version.clone(),
            pool: pools.get(route, version),
            metrics: RequestMetrics::new(
                metrics,
                Some(version.service.clone()),
                Some(version.key.number),
            ),
        });
        self.known.borrow_mut().insert(key, target.clone());
        target
    }

    /// Removes a target whose pool has ended, so that the next request gets a new one.
    pub(crate) fn remove(&self, target: &Rc<VersionTarget>) {
        let key = key(&target.version);
        let mut known = self.known.borrow_mut();
        if known
            .get(&key)
            .is_some_and(|known| Rc::ptr_eq(known, target))
        {
            known.remove(&key);
        }
    }

    /// Removes versions that no route table holds, and pools that have ended.
    pub(crate) fn sweep(&self) {
        self.known
            .borrow_mut()
            .retain(|_, target| Arc::strong_count(&target.version) > 1 && !target.pool.is_closed());
    }
}

/// The address of a version. Its low four bits are the same for all, so they go where an unhashed
/// map does not look for a bucket.
fn key(version: &Arc<Version>) -> usize {
    (Arc::as_ptr(version) as usize).rotate_right(4)
}
