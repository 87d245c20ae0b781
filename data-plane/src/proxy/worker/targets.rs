//! A version as one worker knows it: its pool and its metrics, found once and kept.
//!
//! Finding them takes a lock and a hash of the version's name each; a request takes neither, because a
//! [`Target`] is found by the address in memory of the version it is of, which the entry keeps alive.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

use super::ints::IntMap;
use crate::instance::{Pool, Pools};
use crate::metrics::Metrics;
use crate::route::{Protocol, Route, Version};

/// What a worker keeps of a version.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) version: Arc<Version>,
    pub(super) pool: Pool,
    metrics: Arc<Metrics>,
    /// One a status, in the order of their first use: there are few.
    durations: RefCell<Vec<(u16, Histogram)>>,
}

impl Target {
    /// The version's number.
    pub(super) fn number(&self) -> u32 {
        self.version.key.number
    }

    /// How its instances are spoken to.
    pub(super) fn protocol(&self) -> Protocol {
        self.version.spec.protocol
    }

    /// A request is over.
    pub(super) fn request_ended(&self, status: u16, took: Duration) {
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

    /// A request waited for an instance.
    pub(super) fn waited(&self, waited: Duration) {
        self.metrics
            .waited(&self.version.service, self.number(), waited);
    }
}

/// The versions that one worker has met.
#[derive(Debug, Default)]
pub(super) struct Targets {
    known: RefCell<IntMap<usize, Rc<Target>>>,
}

impl Targets {
    /// The target of a version; its pool is made if there is none.
    pub(super) fn get(
        &self,
        pools: &Pools,
        metrics: &Arc<Metrics>,
        route: &Route,
        version: &Arc<Version>,
    ) -> Rc<Target> {
        let address = Arc::as_ptr(version) as usize;
        if let Some(target) = self.known.borrow().get(&address) {
            return target.clone();
        }
        let target = Rc::new(Target {
            version: version.clone(),
            pool: pools.get(route, version),
            metrics: metrics.clone(),
            durations: RefCell::default(),
        });
        self.known.borrow_mut().insert(address, target.clone());
        target
    }

    /// Its pool has ended: the next request finds another.
    pub(super) fn forget(&self, target: &Rc<Target>) {
        let address = Arc::as_ptr(&target.version) as usize;
        let mut known = self.known.borrow_mut();
        if known
            .get(&address)
            .is_some_and(|known| Rc::ptr_eq(known, target))
        {
            known.remove(&address);
        }
    }

    /// Lets go of versions that no table has any more, and of pools that have ended.
    pub(super) fn sweep(&self) {
        self.known
            .borrow_mut()
            .retain(|_, target| Arc::strong_count(&target.version) > 1 && !target.pool.is_over());
    }
}
