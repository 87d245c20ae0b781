//! Refused calls on their way to the audit log: a bounded queue, written once a second.
//!
//! Similar refusals join into one entry with a count. Law (of [`Queue`], PURE): the counts of the
//! entries and the number of dropped refusals sum to the number of refusals.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::clock::now;
use crate::store::{Refusal, Store};

/// Entries that wait for the next batch.
const ENTRIES_MAX: usize = 1000;
/// Entries of one peer among them, so that one peer does not displace the others.
const PEER_MAX: u32 = 50;
/// Interval of the batches.
const BATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a method or a reason.
const TEXT_MAX: usize = 400;

/// What similar refusals have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) principal: String,
    pub(super) peer: String,
    pub(super) method: String,
    pub(super) code: i32,
    pub(super) message: String,
}

/// The refusals since the last batch.
#[derive(Debug, Default)]
struct Queue {
    counts: HashMap<Kind, u32>,
    by_peer: HashMap<String, u32>,
    dropped: u32,
}

impl Queue {
    fn push(&mut self, kind: Kind) {
        if let Some(count) = self.counts.get_mut(&kind) {
            *count = count.saturating_add(1);
            return;
        }
        let full = self.counts.len() >= ENTRIES_MAX;
        let of_peer = self.by_peer.get(&kind.peer).copied().unwrap_or(0);
        if full || of_peer >= PEER_MAX {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.by_peer.insert(kind.peer.clone(), of_peer + 1);
        self.counts.insert(kind, 1);
    }

    /// Takes the entries; the last one counts what was dropped.
    fn take(&mut self) -> Vec<Refusal> {
        let Self {
            counts, dropped, ..
        } = std::mem::take(self);
        let mut entries: Vec<Refusal> = counts
            .into_iter()
            .map(|(kind, count)| Refusal {
                principal: kind.principal,
                peer: kind.peer,
                method: kind.method,
                code: kind.code,
                message: kind.message,
                count,
            })
            .collect();
        entries.sort_by(|a, b| {
            (&a.peer, &a.method, &a.message).cmp(&(&b.peer, &b.method, &b.message))
        });
        if dropped > 0 {
            entries.push(Refusal {
                principal: "system".to_owned(),
                peer: String::new(),
                method: "record_refusals".to_owned(),
                code: Code::ResourceExhausted as i32,
                message: "further refused calls are counted here and have no entry of their own"
                    .to_owned(),
                count: dropped,
            });
        }
        entries
    }
}

/// A handle to the queue. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals {
    queue: Arc<Mutex<Queue>>,
}

impl Refusals {
    pub(super) fn push(&self, mut kind: Kind) {
        kind.method = cless_proto::bounds::sendable(&kind.method, TEXT_MAX);
        kind.message = cless_proto::bounds::sendable(&kind.message, TEXT_MAX);
        self.queue.lock().push(kind);
    }

    /// Writes batches until `shutdown`, and a last one then.
    pub(super) async fn run(self, store: Store, shutdown: CancellationToken) {
        let mut failing = false;
        loop {
            let ended = tokio::select! {
                () = shutdown.cancelled() => true,
                () = tokio::time::sleep(BATCH_INTERVAL) => false,
            };
            let entries = self.queue.lock().take();
            if !entries.is_empty() {
                let lost = entries.len();
                match store.record_refusals(entries, now()).await {
                    Ok(()) => failing = false,
                    Err(error) if !failing => {
                        tracing::error!(%error, lost, "refused calls cannot be written to the audit log");
                        failing = true;
                    }
                    Err(_same) => {}
                }
            }
            if ended {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind(peer: u32, message: u32) -> Kind {
        Kind {
            principal: String::new(),
            peer: format!("10.0.0.{peer}"),
            method: "/cless.v1.CatalogService/GetService".into(),
            code: Code::Unauthenticated as i32,
            message: message.to_string(),
        }
    }

    #[test]
    fn one_peer_does_not_displace_others() {
        let mut queue = Queue::default();
        for message in 0..10_000 {
            queue.push(kind(1, message));
        }
        queue.push(kind(2, 0));
        let entries = queue.take();
        assert_eq!(entries.len(), PEER_MAX as usize + 2);
        assert!(entries.iter().any(|entry| entry.peer == "10.0.0.2"));
        assert_eq!(
            entries.last().map(|entry| entry.count),
            Some(10_000 - PEER_MAX)
        );
        assert!(queue.take().is_empty());
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut queue = Queue::default();
        for peer in 0..5000 {
            queue.push(kind(peer, 0));
        }
        assert_eq!(queue.take().len(), ENTRIES_MAX + 1);
    }

    proptest! {
        #[test]
        fn no_refusal_is_lost_uncounted(
            pushed in proptest::collection::vec((0..40_u32, 0..80_u32), 0..3000),
        ) {
            let mut queue = Queue::default();
            for (peer, message) in &pushed {
                queue.push(kind(*peer, *message));
            }
            let entries = queue.take();
            prop_assert!(entries.len() <= ENTRIES_MAX + 1);
            let counted: usize = entries.iter().map(|entry| entry.count as usize).sum();
            prop_assert_eq!(counted, pushed.len());
        }
    }
}
