//! Reconciling the engine's containers with the pools: adopt, remove, or report dead.
//!
//! Only containers with the label of this node's random id are considered. The file of that id is
//! locked while the process lives, so no other process creates or removes them. Nothing is removed
//! before the first committed sync of this run: an older table on disk may lack versions that an
//! earlier process started.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::actor::digest::is_stale;
use super::handle::Pool;
use super::message::Message;
use super::registry::{Pools, key_of};
use crate::engine::error_class::is_unreachable;
use crate::engine::policy::NodePolicy;
use crate::engine::{confirmed_calls, sandbox};
use crate::isolation::Permit;
use crate::report::InstanceState;
use crate::route::{Table, Version};
use crate::runtime::{Container, ContainerState, Error, Runtime, Runtimes, label};

impl Pools {
    /// Compares the engine's containers with the pools; see the module.
    ///
    /// # Errors
    /// The engine's; nothing is changed if it cannot list its containers.
    pub(super) async fn reconcile_containers(&self) -> Result<(), Error> {
        let context = &self.inner.context;
        let (engine, sandboxes) = (&context.engine, &context.sandboxes);
        // Before the list: a container that is created in between is not missing.
        let (served, alive_sandboxes) = (self.served_names(), sandboxes.alive());
        let (name, found) = match self.query_engine().await {
            Ok(answer) => answer,
            Err(error) => {
                // First the reason: pools that observe the outage report it.
                self.note_engine(Err(error.to_string()));
                if is_unreachable(&error) {
                    engine.record_failure();
                }
                return Err(error);
            }
        };
        self.note_engine(Ok(name));
        engine.cover_network().await;
        // A restarting engine ends its containers before it sends events.
        let by_name: HashMap<&str, &Container> =
            found.iter().map(|one| (one.name.as_str(), one)).collect();
        for (pool, name) in served {
            pool.shared.send(match by_name.get(name.as_str()) {
                Some(one) if is_alive(one) && one.address.is_none() && one.sandbox.is_none() => {
                    Message::NetworkLost(name)
                }
                Some(one) if is_alive(one) => Message::PauseChanged {
                    paused: one.state == ContainerState::Paused,
                    name,
                },
                found => {
                    let exit_code = match found {
                        Some(_) => engine.runtime.inspect(&name).await.ok(),
                        None => None,
                    };
                    let exit_code = exit_code.map(|found| found.exit.code);
                    Message::Died { name, exit_code }
                }
            });
        }
        for name in sandbox::ended(alive_sandboxes, &found) {
            self.sandbox_died(&name);
        }
        // After the deaths: the pools must not resume a dead instance when the engine is back.
        engine.record_answer();
        let known = self.known_names();
        let unknown = found.iter().filter(|one| !known.contains(&one.name));
        let (holders, unknown): (Vec<_>, Vec<_>) =
            unknown.partition(|one| sandbox::is_sandbox(one));
        // Adoptions first: they are fast and may save a start, while each removal takes the engine
        // time.
        let mut leftovers = Vec::new();
        for container in unknown {
            if !self.adopt(container, &found).await {
                leftovers.push(container);
            }
        }
        // After the adoptions, which keep their sandboxes.
        leftovers.extend(holders.iter().filter(|one| !sandboxes.knows(&one.name)));
        if !self.inner.synced.load(Ordering::Relaxed) {
            return Ok(());
        }
        for container in leftovers {
            if self.is_stopping() {
                return Ok(());
            }
            info!(
                container = container.name,
                "removing an orphaned container of this node"
            );
            confirmed_calls::remove(engine, &container.name).await?;
            engine.isolation.revoke(&container.name).await;
        }
        Ok(())
    }

    /// Adopts containers of an earlier process before the first request can start another one.
    /// Waits at most `timeout`; a later reconciliation adopts the rest.
    pub async fn adopt_leftovers(&self, timeout: Duration) {
        match tokio::time::timeout(timeout, self.reconcile_containers()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the engine does not answer at start"),
            Err(_) => debug!("the engine does not answer in time at start"),
        }
    }

    /// The engine's name and version, and this node's containers.
    async fn query_engine(&self) -> Result<(String, Vec<Container>), Error> {
        let engine = &self.inner.context.engine;
        let name = engine.runtime.engine().await?;
        self.check_oci_runtime(&engine.runtime.runtimes().await?);
        Ok((name, engine.runtime.list(&engine.node).await?))
    }

    fn check_oci_runtime(&self, offered: &Runtimes) {
        let context = &self.inner.context;
        let oci_runtime = &context.engine.oci_runtime;
        if oci_runtime.update(offered) {
            if let Err(error) = oci_runtime.selected() {
                warn!(%error, "no container is started");
            }
            context.report_changed();
        }
    }

    pub(super) fn note_engine(&self, answer: Result<String, String>) {
        if self.set_engine(answer.clone()) {
            match &answer {
                Ok(name) => info!(engine = name, "the engine answers"),
                Err(error) => warn!(
                    error,
                    "the engine does not answer; ready instances keep serving"
                ),
            }
            self.inner.context.report_changed();
        }
    }

    /// Notifies the pools of the instance whose pause container ended. Does nothing for another
    /// name.
    pub(super) fn sandbox_died(&self, name: &str) {
        if let Some(instance) = self.inner.context.sandboxes.died(name) {
            for pool in self.all() {
                pool.shared.send(Message::NetworkLost(instance.clone()));
            }
        }
    }

    /// False if no pool can use the container.
    async fn adopt(&self, container: &Container, all: &[Container]) -> bool {
        let context = &self.inner.context;
        let own = container.labels.get(label::BOOT) == Some(&context.engine.boot);
        if own || self.is_stopping() {
            return false;
        }
        let Some((pool, version, port)) = self.adopter(container) else {
            return false;
        };
        let Some((address, sandbox)) = sandbox::address_of(container, port, all) else {
            return false;
        };
        if let Some(sandbox) = sandbox {
            context.sandboxes.adopt(&container.name, sandbox);
        }
        let egress = &version.spec.options.egress;
        if let Some(permit) = Permit::new(&container.name, address.ip(), egress) {
            context.engine.isolation.permit(permit).await;
        }
        let adopt = Message::Adopt(Box::new(container.clone()), address);
        let adopted = pool.shared.send(adopt);
        if !adopted {
            context.sandboxes.discard(&container.name);
        }
        adopted
    }

    /// The pool that can adopt a container, the container's version and its port.
    fn adopter(&self, container: &Container) -> Option<(Pool, Arc<Version>, u16)> {
        if !is_alive(container) {
            return None;
        }
        let table = self.inner.table.lock().clone();
        let (route, version) = table.version(&key_of(&container.labels)?)?;
        let digest = container.labels.get(label::DIGEST).map(String::as_str);
        let generation = container.labels.get(label::IMAGE_GENERATION);
        let generation = generation.map_or(Ok(0), |text| text.parse());
        if is_stale(digest, version) || generation != Ok(version.image_generation) {
            return None;
        }
        let options = &version.spec.options;
        let policy = &self.inner.context.engine.policy;
        // The node may have been started with less than before.
        if let Some(why) = policy.refusal(&options.cap_add, &options.egress) {
            warn!(
                container = container.name,
                why, "a container is not adopted"
            );
            return None;
        }
        let port = container.labels.get(label::PORT)?.parse().ok()?;
        Some((self.get(route, version), version.clone(), port))
    }

    /// Whether the container of this engine id serves, or is paused.
    pub(super) fn serves_in(&self, container: &str) -> bool {
        self.all().iter().any(|pool| {
            let view = pool.shared.view.lock();
            let mut known = view.instances.iter().map(|(_, report)| report);
            known.any(|one| {
                is_served(one.state)
                    && !one.container.is_empty()
                    && container.starts_with(&one.container)
            })
        })
    }

    fn served_names(&self) -> Vec<(Pool, String)> {
        self.names(is_served)
    }

    fn known_names(&self) -> HashSet<String> {
        let names = self.names(|_| true);
        names.into_iter().map(|(_, name)| name).collect()
    }

    /// The containers of all pools whose state matches.
    fn names(&self, matches: impl Fn(InstanceState) -> bool) -> Vec<(Pool, String)> {
        let mut names = Vec::new();
        for pool in self.all() {
            let view = pool.shared.view.lock();
            let found = view.instances.iter();
            let found = found.filter(|(_, report)| matches(report.state));
            names.extend(found.map(|(instance, _)| (pool.clone(), instance.name().to_owned())));
        }
        names
    }
}

fn is_served(state: InstanceState) -> bool {
    matches!(
        state,
        InstanceState::Ready
            | InstanceState::Pausing
            | InstanceState::Paused
            | InstanceState::Resuming
    )
}

/// The egress of the containers that an earlier process of this node left, so that the first round
/// of its isolation keeps their connections. Empty if the engine does not answer in time.
pub async fn kept_permits(
    runtime: &dyn Runtime,
    node: &str,
    table: &Table,
    policy: &NodePolicy,
    timeout: Duration,
) -> Vec<Permit> {
    if policy.egress.is_empty() {
        return Vec::new();
    }
    let Ok(Ok(all)) = tokio::time::timeout(timeout, runtime.list(node)).await else {
        return Vec::new();
    };
    let permit = |one: &Container| {
        let (_, version) = table.version(&key_of(&one.labels)?)?;
        let (address, _) = sandbox::address_of(one, 0, &all)?;
        Permit::new(&one.name, address.ip(), &version.spec.options.egress)
    };
    let permits = all.iter().filter(|one| is_alive(one)).filter_map(permit);
    permits
        .filter(|one| policy.refusal(&[], &one.to).is_none())
        .collect()
}

fn is_alive(container: &Container) -> bool {
    matches!(
        container.state,
        ContainerState::Running | ContainerState::Paused
    )
}
