//! What must hold at each step, and what must come about once the weather is fair.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::plane::Plane;
use super::{BEHIND_MOST, HEALED_WITHIN, NODES, PLANES, World};

impl World<'_> {
    /// The laws that hold at any time.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let stale = |plane: &Plane| plane.feed.nodes().iter().any(|node| !node.connected);
        if self.planes.iter().flatten().any(stale) {
            self.tally.count("node shown as stale");
        }
        let head = self.database.head();
        let planes_well = (0..2).all(|at| {
            self.planes[at].is_some() && !self.replicas[at].cut_off.load(Ordering::Relaxed)
        });
        let then = Instant::now().checked_sub(BEHIND_MOST);
        let then = then.and_then(|then| self.database.head_at(then));
        for n in 0..NODES {
            let node = &self.nodes[n];
            node.check()?;
            let at = node.at();
            let at_head = at
                .as_ref()
                .is_some_and(|(cluster, at)| cluster == "ours" && *at == head)
                && self.shown(&node.name, &head);
            let well = planes_well
                && node.is_connected()
                && node.view.misled.lock().is_none()
                && node
                    .view
                    .paths
                    .iter()
                    .all(super::super::link::Path::is_fair)
                && !self.plans.lock().contains_key(&node.name);
            if self.troubled[n] {
                self.troubled[n] = !(well && at_head);
                continue;
            }
            let (Some((epoch, revision)), Some((_, (its_epoch, its)))) = (&then, &at) else {
                continue;
            };
            if *epoch == head.0 && (epoch != its_epoch || its < revision) {
                return Err(format!(
                    "node {n} is at {its_epoch} {its}, though nothing befell it since {epoch} {revision}"
                ));
            }
            if self.troubled.contains(&true) {
                self.tally.count("node up to date beside one in trouble");
            }
        }
        Ok(())
    }

    /// Ends all trouble; every node must reach the head.
    pub(super) async fn heal(&mut self) -> Result<(), String> {
        self.tell("all is healed".to_owned());
        self.plans.lock().clear();
        for replica in &self.replicas {
            replica.cut_off.store(false, Ordering::Relaxed);
        }
        for at in 0..PLANES {
            if self.planes[at].is_none() {
                self.start_plane(at).await;
            }
        }
        for n in 0..NODES {
            self.fair(n);
            if self.nodes[n].view.misled.lock().take().is_some() {
                self.nodes[n].disconnect();
            }
            // It holds to the cluster that it came to know, until it is started anew.
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
        // What a node has refused is not sent again before the head moves.
        self.reach(true).await?;
        self.write();
        self.reach(false).await
    }

    pub(super) async fn reach(&mut self, refusing: bool) -> Result<(), String> {
        let deadline = Instant::now() + HEALED_WITHIN;
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
                if !(refusing && self.refuses(&node.name)) {
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

    /// Whether the planes that have a stream of it, and there is one, show it at the head.
    pub(super) fn shown(&self, name: &str, head: &(String, i64)) -> bool {
        let planes = self.planes.iter().flatten();
        let nodes = planes.flat_map(|plane| plane.feed.nodes());
        let mut of = nodes
            .filter(|node| node.name == name && node.connected)
            .peekable();
        of.peek().is_some()
            && of.all(|node| node.applied.as_ref() == Some(head) && node.refusal.is_none())
    }

    pub(super) fn refuses(&self, name: &str) -> bool {
        let nodes = self
            .planes
            .iter()
            .flatten()
            .flat_map(|plane| plane.feed.nodes());
        let mut of = nodes.filter(|node| node.name == name && node.connected);
        of.any(|node| node.refusal.is_some())
    }
}
