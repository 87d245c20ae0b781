//! The pool and the metrics of each version that a worker serves.
//!
//! Finding them costs a lock and a hash of the version's name each. A request pays neither: its
//! [`VersionTarget`] is found by the address of the version, which the entry keeps alive.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nohash_hasher::IntMap;
use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::Metrics;
use crate::pool::{Pool, Pools};
use crate::route::{Protocol, Route, Version};

/// One version as a worker serves it.
#[derive(Debug)]
pub(crate) struct VersionTarget {
    pub(crate) version: Arc<Version>,
    pub(crate) pool: Pool,
    metrics: Arc<Metrics>,
    /// Durations by status, in the order of first use. There are few.
    durations: RefCell<Vec<(u16, Histogram)>>,
}

impl VersionTarget {
    pub(crate) fn number(&self) -> u32 {
        self.version.key.number
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.version.spec.protocol
    }

    pub(crate) fn record_request(&self, status: u16, took: Duration) {
        let mut durations = self.durations.borrow_mut();
        let at = durations.iter().position(|(known, _)| *known == status);
        let at = at.unwrap_or_else(|| {
            let histogram = self
                .metrics
                .durations(&self.version.service, self.number(), status);
            durations.push((status, histogram));
            durations.len() - 1
        });
        if let Some((_, histogram)) = durations.get(at) {
            histogram.observe(took.as_secs_f64());
        }
    }

    pub(crate) fn record_wait(&self, waited: Duration) {
        self.metrics
            .waited(&self.version.service, self.number(), waited);
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
            metrics: metrics.clone(),
            durations: RefCell::default(),
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
