//! Network namespaces kept ready for new instances, each held by a pause container.
//!
//! A cold start on the engine's bridge spends about half its time on a network namespace of its
//! own. An instance that joins an existing one (`NetworkMode: container:ID`) starts in half the
//! time.
//!
//! [`inventory`] decides; this module performs, and [`Sandboxes::keep_stocked`] is the task that
//! refills the inventory. A start that finds the inventory empty uses the bridge: nothing waits for
//! a sandbox.
//!
//! Ownership: a pause container carries the labels of its cluster, node and process, and a role.
//! Labels are immutable, so the instance that joined a sandbox identifies its user. A sandbox that
//! an earlier process left idle is removed, not adopted: it may have been used.

mod inventory;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::context::EngineContext;
use super::start_limiter::StartRequest;
use super::start_order::Rank;
use crate::runtime::{Container, ContainerState, Error, NetworkNames, SandboxSpec, label};
use inventory::{Inventory, InventoryAction, InventoryEvent, MAX_SHORTAGE};

pub(crate) use inventory::Sandbox;

const REMOVE_RETRY: Duration = Duration::from_secs(1);
/// Interval at which a half-created sandbox checks whether the starts in progress have ended.
const YIELD_POLL: Duration = Duration::from_millis(20);

/// A sandbox in use by a start.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    /// The engine's id of the pause container.
    pub(crate) id: String,
    /// The address of the instance that joins it.
    pub(crate) address: IpAddr,
    /// Cancelled when the pause container ends, and the network with it.
    pub(crate) lost: CancellationToken,
}

/// The sandboxes of a node.
pub(crate) struct Sandboxes {
    engine: Arc<EngineContext>,
    ledger: Mutex<Ledger>,
    wake: Notify,
    stop: CancellationToken,
    /// Held during a creation, so that a shutdown can wait for its end.
    creating: tokio::sync::Mutex<()>,
}

struct Ledger {
    inventory: Inventory,
    /// Names of those that are being created for one instance.
    making: HashSet<String>,
    /// By instance; cancelled when its network is lost.
    lost: HashMap<String, CancellationToken>,
    /// The reason why the last creation failed; `None` if it succeeded.
    error: Option<String>,
}

impl Sandboxes {
    /// Keeps `size` ready while [`Sandboxes::keep_stocked`] runs; 0 disables sandboxes.
    pub(crate) fn new(engine: Arc<EngineContext>, size: usize) -> Self {
        Self {
            engine,
            ledger: Mutex::new(Ledger {
                inventory: Inventory::new(size, Instant::now()),
                making: HashSet::new(),
                lost: HashMap::new(),
                error: None,
            }),
            wake: Notify::new(),
            stop: CancellationToken::new(),
            creating: tokio::sync::Mutex::default(),
        }
    }

    /// Takes a ready sandbox for an instance, which keeps it until its release.
    pub(crate) fn take(&self, instance: &str) -> Option<Lease> {
        let taken = self.ledger.lock().inventory.take(instance, Instant::now());
        let sandbox = taken?;
        self.wake();
        Some(Lease {
            lost: self.lost(instance),
            id: sandbox.id,
            address: sandbox.address,
        })
    }

    /// Creates a sandbox for one instance that needs its own: with these names, or with an address
    /// that is known before the start. The caller holds a start permit.
    pub(crate) async fn make(&self, instance: &str, names: NetworkNames) -> Result<Lease, Error> {
        let name = new_name();
        self.ledger.lock().making.insert(name.clone());
        let made = create(&self.engine, name.clone(), names, false).await;
        let made = match made {
            Ok(sandbox) => {
                self.adopt(instance, sandbox.clone());
                Ok(Lease {
                    lost: self.lost(instance),
                    id: sandbox.id,
                    address: sandbox.address,
                })
            }
            Err(error) => {
                if let Err(error) = self.engine.runtime.remove(&name).await {
                    warn!(container = name, %error, "cannot remove a network sandbox; the next reconciliation will");
                }
                Err(error)
            }
        };
        self.ledger.lock().making.remove(&name);
        made
    }

    /// Records the sandbox of an instance of an earlier process.
    pub(crate) fn adopt(&self, instance: &str, sandbox: Sandbox) {
        self.on(InventoryEvent::Found {
            instance: instance.to_owned(),
            sandbox,
        });
    }

    /// Cancelled when the instance loses its network; never, if it is in no sandbox.
    pub(crate) fn lost(&self, instance: &str) -> CancellationToken {
        let mut ledger = self.ledger.lock();
        match ledger.inventory.of(instance) {
            Some(_) => ledger.lost.entry(instance.to_owned()).or_default().clone(),
            None => CancellationToken::new(),
        }
    }

    /// Records the end of a pause container. Returns the instance that was in it.
    pub(crate) fn died(self: &Arc<Self>, name: &str) -> Option<String> {
        let mut affected = None;
        for action in self.on(InventoryEvent::Died(name.to_owned())) {
            match action {
                InventoryAction::NotifyLost(instance) => {
                    warn!(container = name, instance, "a network sandbox has ended");
                    self.lost(&instance).cancel();
                    affected = Some(instance);
                }
                InventoryAction::Remove(name) => self.remove_soon(name),
                InventoryAction::Create { .. } => {}
            }
        }
        self.wake();
        affected
    }

    /// Removes the sandbox of an instance that is gone. Returns after the removal.
    pub(crate) async fn release(&self, instance: &str) {
        for name in self.released(instance) {
            self.remove(name).await;
        }
    }

    /// Removes the sandbox of an instance that does not use it, in the background.
    pub(crate) fn discard(self: &Arc<Self>, instance: &str) {
        for name in self.released(instance) {
            self.remove_soon(name);
        }
    }

    fn released(&self, instance: &str) -> Vec<String> {
        let actions = self.on(InventoryEvent::Released(instance.to_owned()));
        self.ledger.lock().lost.remove(instance);
        removals(actions)
    }

    /// Idle and used sandboxes.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.ledger.lock().inventory.counts()
    }

    /// Names of the pause containers that must run.
    pub(crate) fn alive(&self) -> Vec<String> {
        self.ledger.lock().inventory.alive()
    }

    /// Whether a sandbox, idle or used, has a pause container of this engine id.
    pub(crate) fn has_id(&self, id: &str) -> bool {
        self.ledger.lock().inventory.has_id(id)
    }

    /// Whether a pause container of this name is known, in any state.
    pub(crate) fn knows(&self, name: &str) -> bool {
        let ledger = self.ledger.lock();
        ledger.making.contains(name) || ledger.inventory.knows(name)
    }

    /// The error of the last creation, as text for people; `None` if it succeeded.
    pub(crate) fn error(&self) -> Option<String> {
        self.ledger.lock().error.clone()
    }

    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) async fn shut_down(&self) {
        self.stop.cancel();
        let idle = removals(self.on(InventoryEvent::Stop));
        join_all(idle.into_iter().map(|name| self.remove(name))).await;
        drop(self.creating.lock().await);
    }

    /// The application for a permit of a sandbox that nobody waits for.
    fn refill(&self) -> StartRequest {
        StartRequest {
            service: "".into(),
            rank: Rank::Further,
            demand: self.engine.start_limiter.demand(),
        }
    }

    /// Keeps the inventory full until the node stops. Calls `changed` when [`Sandboxes::error`]
    /// changes.
    pub(crate) async fn keep_stocked(&self, changed: impl Fn()) {
        while !self.stop.is_cancelled() {
            let creating = self.creating.lock().await;
            // Without a route table there is no cluster for the labels, and nothing to start.
            if !self.engine.cluster.read().is_empty() {
                let tick = InventoryEvent::Tick {
                    idle_for: self.engine.start_limiter.idle_for(),
                    name: new_name(),
                };
                for action in self.on(tick) {
                    let InventoryAction::Create { name, in_turn } = action else {
                        continue;
                    };
                    let before = self.error();
                    let permit = match in_turn {
                        true => Some(self.engine.start_limiter.acquire(self.refill()).await),
                        false => None,
                    };
                    let names = NetworkNames::default();
                    let created = create(&self.engine, name, names, !in_turn).await;
                    drop(permit);
                    for name in removals(self.record(created)) {
                        self.remove(name).await;
                    }
                    if self.error() != before {
                        changed();
                    }
                }
            }
            drop(creating);
            let next = self.ledger.lock().inventory.next_tick(Instant::now());
            let wait = tokio::time::sleep(next.unwrap_or(MAX_SHORTAGE));
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.wake.notified() => {}
                () = wait => {}
            }
        }
    }

    fn on(&self, event: InventoryEvent) -> Vec<InventoryAction> {
        self.ledger.lock().inventory.on(event, Instant::now())
    }

    async fn remove(&self, name: String) {
        while let Err(error) = self.engine.runtime.remove(&name).await {
            if matches!(error, Error::NotSent(_)) {
                self.engine.record_failure();
            }
            warn!(container = name, %error, "cannot remove a network sandbox, trying again");
            tokio::time::sleep(REMOVE_RETRY).await;
        }
        self.on(InventoryEvent::Removed(name));
    }

    fn remove_soon(self: &Arc<Self>, name: String) {
        let sandboxes = self.clone();
        tokio::spawn(async move { sandboxes.remove(name).await });
    }

    fn record(&self, created: Result<Sandbox, Error>) -> Vec<InventoryAction> {
        match created {
            Ok(sandbox) => {
                debug!(container = sandbox.name, "a network sandbox is ready");
                self.ledger.lock().error = None;
                self.on(InventoryEvent::Created(sandbox))
            }
            Err(error) => {
                let message = error.to_string();
                let before = self.ledger.lock().error.replace(message.clone());
                if before.as_ref() != Some(&message) {
                    warn!(%error, "cannot create a network sandbox; starts use the bridge");
                }
                self.on(InventoryEvent::CreateFailed)
            }
        }
    }
}

fn new_name() -> String {
    format!("cless-sandbox-{:08x}", rand::random::<u32>())
}

fn removals(actions: Vec<InventoryAction>) -> Vec<String> {
    let names = actions.into_iter().filter_map(|action| match action {
        InventoryAction::Remove(name) => Some(name),
        InventoryAction::Create { .. } | InventoryAction::NotifyLost(_) => None,
    });
    names.collect()
}

/// Creates and starts a sandbox. With `yields`, starts that begin in the meantime come first.
async fn create(
    engine: &EngineContext,
    name: String,
    names: NetworkNames,
    yields: bool,
) -> Result<Sandbox, Error> {
    let runtime = &*engine.runtime;
    let labels = [
        (label::CLUSTER, engine.cluster.read().to_string()),
        (label::NODE, engine.node.clone()),
        (label::BOOT, engine.boot.clone()),
        (label::ROLE, label::SANDBOX.to_owned()),
    ];
    let spec = SandboxSpec {
        name,
        labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
        network: engine.network().await?,
        names,
    };
    runtime.create_sandbox(&spec).await?;
    if yields {
        yield_to_starts(engine).await;
    }
    runtime.start(&spec.name).await?;
    let found = runtime.inspect(&spec.name).await?;
    sandbox_in(&found).ok_or_else(|| Error::NoResponse(format!("{} does not run", spec.name)))
}

/// Waits for starts that began in the meantime: starting a sandbox takes most of its CPU time.
async fn yield_to_starts(engine: &EngineContext) {
    let until = Instant::now() + MAX_SHORTAGE;
    while engine.start_limiter.idle_for().is_none() && Instant::now() < until {
        tokio::time::sleep(YIELD_POLL).await;
    }
}

/// The sandbox that a pause container holds; `None` if it does not run.
fn sandbox_in(container: &Container) -> Option<Sandbox> {
    let running = container.state == ContainerState::Running;
    Some(Sandbox {
        name: container.name.clone(),
        id: container.id.clone(),
        address: container.address.filter(|_| running)?,
    })
}

pub(crate) fn is_sandbox(container: &Container) -> bool {
    container.labels.get(label::ROLE).map(String::as_str) == Some(label::SANDBOX)
}

/// The address of an instance of an earlier process, and its sandbox, if it has one.
pub(crate) fn address_of(
    instance: &Container,
    port: u16,
    all: &[Container],
) -> Option<(SocketAddr, Option<Sandbox>)> {
    let Some(id) = &instance.sandbox else {
        return Some((SocketAddr::new(instance.address?, port), None));
    };
    let holder = all.iter().find(|one| is_sandbox(one) && one.id == *id)?;
    let sandbox = sandbox_in(holder)?;
    Some((SocketAddr::new(sandbox.address, port), Some(sandbox)))
}

/// The members of `alive` that do not run. `alive` was read before the engine listed `found`, so a
/// sandbox created in between is not missing.
pub(crate) fn ended(alive: Vec<String>, found: &[Container]) -> Vec<String> {
    let runs = |name: &String| {
        let holder = found.iter().find(|one| one.name == *name);
        holder.is_some_and(|one| sandbox_in(one).is_some())
    };
    alive.into_iter().filter(|name| !runs(name)).collect()
}
