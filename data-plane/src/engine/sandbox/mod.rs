//! Ready-made network namespaces for new instances, each held by a pause container.
//!
//! Of a cold start on the engine's bridge, about half is spent on a network namespace of its own. A
//! new instance that joins one which is there already (`NetworkMode: container:ID`) starts in half
//! the time, and its address is known before it is started, so it can be probed from the moment
//! that start is sent.
//!
//! [`stock`] decides; this performs. [`keep`] is the task that keeps the stock full. Everything else
//! is asked by starts, farewells and the sweep. A start that finds the stock empty uses the bridge:
//! nothing ever waits for a sandbox.
//!
//! Ownership: a pause container has the labels of its cluster, node and process, and a role. Whose
//! it is, once used, is told by who joined it, for labels cannot be changed. One that an earlier
//! process left idle is removed, not adopted: whether a tenant has been in it cannot be known.

#[path = "inventory.rs"]
mod stock;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::engine::Engine;
use crate::runtime::{Container, ContainerState, Error, Runtime, SandboxSpec, label};
use stock::{Action, Event, STARVED, Stock};

pub(super) use stock::Sandbox;

/// Between attempts to remove one from an engine that does not answer.
const REMOVE_RETRY: Duration = Duration::from_secs(1);
/// How often a half-made one looks whether the starts that came between are over.
const STEP_ASIDE: Duration = Duration::from_millis(20);

/// A sandbox in the hands of a start.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    /// The engine's id of the pause container.
    pub(super) id: String,
    /// Where the instance will be dialled.
    pub(super) address: IpAddr,
    /// The pause container has ended, and the network with it.
    pub(super) lost: CancellationToken,
}

/// The sandboxes of a node.
#[derive(Debug)]
pub(super) struct Sandboxes {
    books: Mutex<Books>,
    /// Something happened that the keeper must look at.
    woken: Notify,
    stop: CancellationToken,
    /// Held while one is made, so that the end of it can be waited for.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Books {
    stock: Stock,
    /// By instance; cancelled when its network is gone.
    lost: HashMap<String, CancellationToken>,
    /// Why none could be made at last.
    trouble: Option<String>,
}

impl Sandboxes {
    /// Will keep `size` ready once [`keep`] runs.
    pub(super) fn new(size: usize) -> Self {
        Self {
            books: Mutex::new(Books {
                stock: Stock::new(size, Instant::now()),
                lost: HashMap::new(),
                trouble: None,
            }),
            woken: Notify::new(),
            stop: CancellationToken::new(),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// One for an instance, if one is ready. It stays with the instance until it is released.
    pub(super) fn take(&self, instance: &str) -> Option<Lease> {
        let sandbox = self.books.lock().stock.take(instance, Instant::now())?;
        self.wake();
        Some(Lease {
            lost: self.lost(instance),
            id: sandbox.id,
            address: sandbox.address,
        })
    }

    /// An instance of an earlier process is in this one.
    pub(super) fn adopt(&self, instance: &str, sandbox: Sandbox) {
        self.on(Event::Found {
            instance: instance.to_owned(),
            sandbox,
        });
    }

    /// Cancelled when the network of an instance is gone; never, if it is in no sandbox.
    pub(super) fn lost(&self, instance: &str) -> CancellationToken {
        let mut books = self.books.lock();
        match books.stock.of(instance) {
            Some(_) => books.lost.entry(instance.to_owned()).or_default().clone(),
            None => CancellationToken::new(),
        }
    }

    /// A pause container has ended. Gives the instance that was in it.
    pub(super) fn died(self: &Arc<Self>, runtime: &Arc<dyn Runtime>, name: &str) -> Option<String> {
        let mut told = None;
        for action in self.on(Event::Died(name.to_owned())) {
            match action {
                Action::Tell(instance) => {
                    warn!(container = name, instance, "a network sandbox has ended");
                    self.lost(&instance).cancel();
                    told = Some(instance);
                }
                Action::Remove(name) => self.remove_soon(runtime, name),
                Action::Make { .. } => {}
            }
        }
        self.wake();
        told
    }

    /// The instance is gone: so is its sandbox, once this returns.
    pub(super) async fn release(&self, runtime: &dyn Runtime, instance: &str) {
        for name in self.released(instance) {
            self.remove(runtime, name).await;
        }
    }

    /// The instance does without. Does not wait for the removal.
    pub(super) fn discard(self: &Arc<Self>, runtime: &Arc<dyn Runtime>, instance: &str) {
        for name in self.released(instance) {
            self.remove_soon(runtime, name);
        }
    }

    fn released(&self, instance: &str) -> Vec<String> {
        let actions = self.on(Event::Released(instance.to_owned()));
        self.books.lock().lost.remove(instance);
        removals(actions)
    }

    /// Ready for an instance, and used by one.
    pub(super) fn counts(&self) -> (usize, usize) {
        self.books.lock().stock.counts()
    }

    /// Those that must be running.
    pub(super) fn alive(&self) -> Vec<String> {
        self.books.lock().stock.alive()
    }

    /// Whether a pause container of this name is in use here, on its way in or on its way out.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.books.lock().stock.knows(name)
    }

    /// Why starts have to do without, for a person.
    pub(super) fn trouble(&self) -> Option<String> {
        self.books.lock().trouble.clone()
    }

    /// Looks at the stock again.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Makes no more, and removes those that are idle.
    pub(super) async fn shut_down(&self, runtime: &dyn Runtime) {
        self.stop.cancel();
        let idle = removals(self.on(Event::Stop));
        join_all(idle.into_iter().map(|name| self.remove(runtime, name))).await;
        drop(self.making.lock().await);
    }

    fn on(&self, event: Event) -> Vec<Action> {
        self.books.lock().stock.on(event, Instant::now())
    }

    async fn remove(&self, runtime: &dyn Runtime, name: String) {
        while let Err(error) = runtime.remove(&name).await {
            warn!(container = name, %error, "cannot remove a network sandbox, trying again");
            tokio::time::sleep(REMOVE_RETRY).await;
        }
        self.on(Event::Removed(name));
    }

    fn remove_soon(self: &Arc<Self>, runtime: &Arc<dyn Runtime>, name: String) {
        let (sandboxes, runtime) = (self.clone(), runtime.clone());
        tokio::spawn(async move { sandboxes.remove(&*runtime, name).await });
    }

    /// What a make came to.
    fn note(&self, outcome: Result<Sandbox, Error>) -> Vec<Action> {
        match outcome {
            Ok(sandbox) => {
                debug!(container = sandbox.name, "a network sandbox is ready");
                self.books.lock().trouble = None;
                self.on(Event::Made(sandbox))
            }
            Err(error) => {
                let message = error.to_string();
                let before = self.books.lock().trouble.replace(message.clone());
                if before.as_ref() != Some(&message) {
                    warn!(%error, "no network sandbox can be made; starts use the bridge");
                }
                self.on(Event::MakeFailed)
            }
        }
    }
}

fn removals(actions: Vec<Action>) -> Vec<String> {
    let names = actions.into_iter().filter_map(|action| match action {
        Action::Remove(name) => Some(name),
        Action::Make { .. } | Action::Tell(_) => None,
    });
    names.collect()
}

/// Keeps the stock full until the node stops. `changed` is called when the trouble with it changes.
pub(super) async fn keep(engine: Arc<Engine>, changed: impl Fn()) {
    let sandboxes = &engine.sandboxes;
    while !sandboxes.stop.is_cancelled() {
        let making = sandboxes.making.lock().await;
        // Without a route table there is no cluster to label them with, and nothing to start.
        if !engine.cluster.read().is_empty() {
            let look = Event::Look {
                quiet_for: engine.gate.quiet_for(),
                name: format!("cless-sandbox-{:08x}", rand::random::<u32>()),
            };
            for action in sandboxes.on(look) {
                let Action::Make { name, in_turn } = action else {
                    continue;
                };
                let before = sandboxes.trouble();
                for name in removals(sandboxes.note(make(&engine, name, in_turn).await)) {
                    sandboxes.remove(&*engine.runtime, name).await;
                }
                if sandboxes.trouble() != before {
                    changed();
                }
            }
        }
        drop(making);
        let next = sandboxes.books.lock().stock.next_look(Instant::now());
        let wait = tokio::time::sleep(next.unwrap_or(STARVED));
        tokio::select! {
            () = sandboxes.stop.cancelled() => {}
            () = sandboxes.woken.notified() => {}
            () = wait => {}
        }
    }
}

async fn make(engine: &Engine, name: String, in_turn: bool) -> Result<Sandbox, Error> {
    let runtime = &*engine.runtime;
    let _place = match in_turn {
        true => Some(engine.gate.enter(&"".into()).await),
        false => None,
    };
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
    };
    runtime.create_sandbox(&spec).await?;
    if !in_turn {
        step_aside(engine).await;
    }
    runtime.start(&spec.name).await?;
    let found = runtime.inspect(&spec.name).await?;
    sandbox_in(&found).ok_or_else(|| Error::Unavailable(format!("{} does not run", spec.name)))
}

/// Lets starts that came meanwhile go first: of the making, the start takes the most CPU by far.
async fn step_aside(engine: &Engine) {
    let until = Instant::now() + STARVED;
    while engine.gate.quiet_for().is_none() && Instant::now() < until {
        tokio::time::sleep(STEP_ASIDE).await;
    }
}

/// The sandbox that a pause container holds; none if it does not run.
fn sandbox_in(container: &Container) -> Option<Sandbox> {
    let running = container.state == ContainerState::Running;
    Some(Sandbox {
        name: container.name.clone(),
        id: container.id.clone(),
        address: container.address.filter(|_| running)?,
    })
}

/// Whether it is a pause container.
pub(super) fn is_sandbox(container: &Container) -> bool {
    container.labels.get(label::ROLE).map(String::as_str) == Some(label::SANDBOX)
}

/// Where an instance of an earlier process is dialled, and the sandbox it is in, if in one.
pub(super) fn address_of(
    instance: &Container,
    port: u16,
    all: &[Container],
) -> Option<(SocketAddr, Option<Sandbox>)> {
    let Some(id) = &instance.sandbox else {
        return Some((SocketAddr::new(instance.address?, port), None));
    };
    let held = all.iter().find(|one| is_sandbox(one) && one.id == *id)?;
    let sandbox = sandbox_in(held)?;
    Some((SocketAddr::new(sandbox.address, port), Some(sandbox)))
}

/// Those of `alive` that do not run, by what the engine has. `alive` was asked for before the engine
/// was, so one that is made meanwhile is not taken for missing.
pub(super) fn ended(alive: Vec<String>, found: &[Container]) -> Vec<String> {
    let runs = |name: &String| {
        let held = found.iter().find(|one| one.name == *name);
        held.is_some_and(|one| sandbox_in(one).is_some())
    };
    alive.into_iter().filter(|name| !runs(name)).collect()
}
