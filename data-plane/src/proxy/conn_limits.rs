//! Limits on the number of clients' connections, in total and by address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The connections of all clients. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ConnLimits {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    total: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    max_total: usize,
    max_by_address: usize,
}

/// A counted connection, until this is dropped.
#[derive(Debug)]
pub(super) struct ConnPermit {
    limits: ConnLimits,
    /// `None` if the address is exempt.
    address: Option<IpAddr>,
}

impl ConnLimits {
    pub(super) fn new(max_total: usize, max_by_address: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                total: AtomicUsize::new(0),
                by_address: Mutex::default(),
                max_total,
                max_by_address,
            }),
        }
    }

    /// Counts a connection. `is_exempt`: the address represents many clients, so only the total
    /// is limited.
    ///
    /// # Errors
    /// The metric label of the limit that is reached.
    pub(super) fn acquire(
        &self,
        address: IpAddr,
        is_exempt: bool,
    ) -> Result<ConnPermit, &'static str> {
        let mut permit = ConnPermit {
            limits: self.clone(),
            address: None,
        };
        if self.inner.total.fetch_add(1, Ordering::Relaxed) >= self.inner.max_total {
            return Err("max_connections");
        }
        if !is_exempt {
            let mut by_address = self.inner.by_address.lock();
            let count = by_address.entry(address).or_insert(0);
            if *count >= self.inner.max_by_address {
                return Err("max_connections_per_ip");
            }
            *count += 1;
            permit.address = Some(address);
        }
        Ok(permit)
    }
}

impl Drop for ConnPermit {
    fn drop(&mut self) {
        let inner = &self.limits.inner;
        inner.total.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = inner.by_address.lock();
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_holds_no_more_permits_than_its_limit() {
        let limits = ConnLimits::new(4, 2);
        let (a, b) = (IpAddr::from([1, 1, 1, 1]), IpAddr::from([2, 2, 2, 2]));
        let permits = [(); 2].map(|()| limits.acquire(a, false).unwrap());
        let refused = limits.acquire(a, false).unwrap_err();
        assert_eq!(refused, "max_connections_per_ip");
        let _trusted = limits.acquire(a, true).unwrap();
        let _other = limits.acquire(b, false).unwrap();
        assert_eq!(limits.acquire(b, false).unwrap_err(), "max_connections");
        drop(permits);
        assert!(limits.acquire(a, false).is_ok());
        assert_eq!(limits.inner.total.load(Ordering::Relaxed), 2);
    }
}
