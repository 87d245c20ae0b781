//! The invariants of each step, and convergence after the repair of all faults.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::control_plane::SimControlPlane;
use super::super::link::Link;
use super::{MAX_LAG, NODES, PLANES, REPAIR_TIMEOUT, Run};

impl Run<'_> {
    /// Checks the invariants of each step.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let stale = |plane: &SimControlPlane| plane.feed.nodes().iter().any(|node| !node.connected);
        if self.planes.iter().flatten().any(stale) {
            self.coverage.count("node shown as stale");
        }
        let head = self.database.head();
        let planes_are_healthy = (0..2).all(|at| {
            self.planes[at].is_some() && !self.replicas[at].cut_off.load(Ordering::Relaxed)
        });
        let then = Instant::now().checked_sub(MAX_LAG);
        let then = then.and_then(|then| self.database.head_at(then));
        for n in 0..NODES {
            let node = &self.nodes[n];
            node.check()?;
            let at = node.at();
            let at_head = at
                .as_ref()
                .is_some_and(|(cluster, at)| cluster == "ours" && *at == head)
                && self.shown(&node.name, &head);
            let is_healthy = planes_are_healthy
                && node.is_connected()
                && node.network.misdirected_to.lock().is_none()
                && node.network.links.iter().all(Link::is_open)
                && !self.planned.lock().contains_key(&node.name);
            if self.disturbed[n] {
                self.disturbed[n] = !(is_healthy && at_head);
                continue;
            }
            let (Some((epoch, revision)), Some((_, (its_epoch, its)))) = (&then, &at) else {
                continue;
            };
            if *epoch == head.0 && (epoch != its_epoch || its < revision) {
                return Err(format!(
                    "node {n} is at {its_epoch} {its}, but has had no fault since {epoch} {revision}"
                ));
            }
            if self.disturbed.contains(&true) {
                self.coverage.count("node up to date beside a faulty one");
            }
        }
        Ok(())
    }

    /// Repairs all faults; every node must reach the newest revision.
    pub(super) async fn repair(&mut self) -> Result<(), String> {
        self.log("all faults are repaired".to_owned());
        self.planned.lock().clear();
        for replica in &self.replicas {
            replica.cut_off.store(false, Ordering::Relaxed);
        }
        for at in 0..PLANES {
            if self.planes[at].is_none() {
                self.start_plane(at).await;
            }
        }
        for n in 0..NODES {
            self.restore_links(n);
            if self.nodes[n].network.misdirected_to.lock().take().is_some() {
                self.nodes[n].disconnect();
            }
            // A node keeps its first cluster until it restarts.
            if self.nodes[n]
                .at()
                .is_some_and(|(cluster, _)| cluster == "theirs")
            {
                self.nodes[n].stop().await;
            }
            if self.nodes[n].feed.is_none() {
                self.start_node(n).await;
            }
        }
        // A refused change is not sent again before the next write.
        self.wait_converged(true).await?;
        self.write();
        self.wait_converged(false).await
    }

    async fn wait_converged(&mut self, allow_refusal: bool) -> Result<(), String> {
        let deadline = Instant::now() + REPAIR_TIMEOUT;
        loop {
            sleep(Duration::from_millis(500)).await;
            let mut behind = Vec::new();
            let head = self.database.head();
            for node in &self.nodes {
                node.check()?;
                let at = node.at();
                if at
                    .as_ref()
                    .is_some_and(|(cluster, at)| cluster == "ours" && *at == head)
                    && self.shown(&node.name, &head)
                {
                    continue;
                }
                if !(allow_refusal && self.refuses(&node.name)) {
                    behind.push(format!("{} is at {at:?}", node.name));
                }
            }
            if behind.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("the head is {head:?}, but {}", behind.join(", ")));
            }
        }
    }

    /// Whether at least one control plane has a stream of the node, and all of those report it at
    /// `head`.
    fn shown(&self, name: &str, head: &(String, i64)) -> bool {
        let planes = self.planes.iter().flatten();
        let nodes = planes.flat_map(|plane| plane.feed.nodes());
        let mut streams = nodes
            .filter(|node| node.name == name && node.connected)
            .peekable();
        streams.peek().is_some()
            && streams.all(|node| node.applied.as_ref() == Some(head) && node.refusal.is_none())
    }

    fn refuses(&self, name: &str) -> bool {
        let planes = self.planes.iter().flatten();
        let mut nodes = planes.flat_map(|plane| plane.feed.nodes());
        nodes.any(|node| node.name == name && node.connected && node.refusal.is_some())
    }
}
