//! What the engine has, compared with what the pools know: taken over, removed, or reported dead.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{debug, info};

use super::{Pools, key_of};
use crate::instance::owner::{Message, is_stale};
use crate::instance::pool::Pool;
use crate::instance::report::InstanceState;
use crate::instance::trouble::is_no_answer;
use crate::instance::{sandbox, sure};
use crate::runtime::{Container, ContainerState, Error, label};

impl Pools {
    /// Compares the engine's containers with the pools; see the module above.
    ///
    /// # Errors
    /// The engine's, if it does not answer; nothing is changed then.
    pub(super) async fn sweep(&self) -> Result<(), Error> {
        let engine = &self.inner.around.engine;
        // Before the containers: one that is made meanwhile is then not taken for missing.
        let (ready, sandboxes) = (self.served_names(), engine.sandboxes.alive());
        let (named, found) = match self.ask_engine().await {
            Ok(answer) => answer,
            Err(error) => {
                if is_no_answer(&error) {
                    engine.missed();
                }
                self.set_engine(Err(error.to_string()));
                return Err(error);
            }
        };
        self.set_engine(Ok(named));
        engine.cover_network().await;
        // An engine that restarts ends what it runs before it tells anyone.
        let alive: HashSet<&str> = found
            .iter()
            .filter(|one| matches!(one.state, ContainerState::Running | ContainerState::Paused))
            .map(|one| one.name.as_str())
            .collect();
        for (pool, name) in ready {
            if !alive.contains(name.as_str()) {
                pool.shared.tell(Message::Died(name));
            }
        }
        for name in sandbox::ended(sandboxes, &found) {
            self.sandbox_died(&name);
        }
        // After the dead are told: none of them is woken because of this.
        engine.answered();
        let known = self.known_names();
        let strangers = found.iter().filter(|one| !known.contains(&one.name));
        let (held, strangers): (Vec<_>, Vec<_>) =
            strangers.partition(|one| sandbox::is_sandbox(one));
        // Taking over is quick and may spare a start; removing takes the engine a while each.
        let mut leftovers = Vec::new();
        for container in strangers {
            if !self.take_over(container, &found) {
                leftovers.push(container);
            }
        }
        // After who is in them, and without those that were taken over with who is in them.
        leftovers.extend(held.iter().filter(|one| !engine.sandboxes.knows(&one.name)));
        if !self.inner.synced.load(Ordering::Relaxed) {
            return Ok(());
        }
        for container in leftovers {
            if self.inner.stopping.load(Ordering::Relaxed) {
                return Ok(());
            }
            info!(
                container = container.name,
                "removing a leftover of this node"
            );
            sure::remove(engine, &container.name).await?;
        }
        Ok(())
    }

    /// Takes over what an earlier process of this node left behind, before the first request can
    /// start another beside it. Waits at most `patience`; what is not found by then is found by a
    /// later sweep.
    pub async fn take_over_leftovers(&self, patience: Duration) {
        match tokio::time::timeout(patience, self.sweep()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the engine does not answer at start"),
            Err(_) => debug!("the engine does not answer in time at start"),
        }
    }

    /// False if no pool can use it.
    fn take_over(&self, container: &Container, all: &[Container]) -> bool {
        let ours = container.labels.get(label::BOOT) == Some(&self.inner.around.engine.boot);
        if ours || self.inner.stopping.load(Ordering::Relaxed) {
            return false;
        }
        let Some((pool, port)) = self.adopter(container) else {
            return false;
        };
        let Some((address, sandbox)) = sandbox::address_of(container, port, all) else {
            return false;
        };
        let engine = &self.inner.around.engine;
        if let Some(sandbox) = sandbox {
            engine.sandboxes.adopt(&container.name, sandbox);
        }
        let adopt = Message::Adopt(Box::new(container.clone()), address);
        let adopted = pool.shared.tell(adopt);
        if !adopted {
            engine.sandboxes.discard(&engine.runtime, &container.name);
        }
        adopted
    }

    /// The pool that can use a container of an earlier process, and the port it listens on.
    fn adopter(&self, container: &Container) -> Option<(Pool, u16)> {
        if !matches!(
            container.state,
            ContainerState::Running | ContainerState::Paused
        ) {
            return None;
        }
        let table = self.inner.table.lock().clone();
        let (route, version) = table.version(&key_of(&container.labels)?)?;
        // One that ran a tag before it was known which digest counts.
        let digest = container.labels.get(label::DIGEST).map(String::as_str);
        if is_stale(digest, version) {
            return None;
        }
        let port = container.labels.get(label::PORT)?.parse().ok()?;
        Some((self.get(route, version), port))
    }

    fn served_names(&self) -> Vec<(Pool, String)> {
        self.names(|state| {
            matches!(
                state,
                InstanceState::Ready
                    | InstanceState::Pausing
                    | InstanceState::Paused
                    | InstanceState::Resuming
            )
        })
    }

    fn known_names(&self) -> HashSet<String> {
        let names = self.names(|_| true);
        names.into_iter().map(|(_, name)| name).collect()
    }

    /// The containers of all pools that are in one of these states.
    fn names(&self, states: impl Fn(InstanceState) -> bool) -> Vec<(Pool, String)> {
        let mut names = Vec::new();
        for pool in self.all() {
            let view = pool.shared.view.lock();
            let found = view.instances.iter();
            let found = found.filter(|(_, report)| states(report.state));
            names.extend(found.map(|(instance, _)| (pool.clone(), instance.name().to_owned())));
        }
        names
    }
}
