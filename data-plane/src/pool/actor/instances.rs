//! One instance in the hands of its owner: its state, and what is done when that moves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Owner;
use crate::instance::adoption::Adoption;
use crate::instance::farewell::{Farewell, take_away};
use crate::instance::guard::Instance;
use crate::instance::sleep::Doze;
use crate::instance::start::Start;
use crate::instance::state::{Action, Event, State, step};
use crate::route::PullPolicy;
use crate::runtime::{Container, ContainerState, label};

pub(super) struct Tenant {
    pub(super) instance: Arc<Instance>,
    pub(super) state: State,
    pub(super) container: String,
    pub(super) created_at: SystemTime,
    /// The digest of the image it runs, once that is known.
    pub(super) digest: Option<Arc<str>>,
    pub(super) driver: Option<JoinHandle<()>>,
    /// Since when it has been ready, if this process started it.
    pub(super) ready_at: Option<Instant>,
    /// How often the engine had been away by then.
    pub(super) outages: u64,
    give_up: CancellationToken,
    died: CancellationToken,
}

impl Owner {
    pub(super) fn died(&mut self, name: &str) {
        let found = self
            .tenants
            .iter()
            .find(|(_, tenant)| tenant.instance.name() == name);
        let Some((&serial, tenant)) = found else {
            return;
        };
        // A start finds out why by itself; it reports the failure.
        tenant.died.cancel();
        if !is_starting(tenant.state) {
            if matches!(
                tenant.state,
                State::Ready | State::Pausing | State::Paused | State::Resuming
            ) {
                self.ended(serial);
            }
            self.apply(serial, Event::Died);
        }
    }

    /// A start or an adoption has a token of its own for that.
    pub(super) fn network_lost(&mut self, name: &str) {
        let named = |tenant: &Tenant| tenant.instance.name() == name;
        for serial in self.serials(|state| !is_starting(state)) {
            if self.tenants.get(&serial).is_some_and(named) {
                self.apply(serial, Event::Died);
            }
        }
    }

    pub(super) fn adopt(&mut self, container: Container, address: SocketAddr) {
        let known = self
            .tenants
            .values()
            .any(|tenant| tenant.instance.name() == container.name);
        if known || self.stopping.is_some() {
            return;
        }
        info!(
            service = %self.member.version.service, version = self.shared.key.number,
            container = container.name, "taking over a container of an earlier process"
        );
        let serial = self.admit_tenant(container.name.clone(), State::Probing);
        if let Some(tenant) = self.tenants.get_mut(&serial) {
            tenant.container = container.id.chars().take(12).collect();
            let digest = container.labels.get(label::DIGEST);
            tenant.digest = digest.map(|digest| digest.as_str().into());
            let adoption = Adoption {
                lost: self.around.engine.sandboxes.lost(tenant.instance.name()),
                engine: self.around.engine.clone(),
                frozen: container.state == ContainerState::Paused,
                name: container.name,
                pool: self.shared.clone(),
                serial,
                version: self.member.version.clone(),
                address,
                patience: self.member.settings.cold_start_timeout,
                give_up: tenant.give_up.clone(),
                died: tenant.died.clone(),
            };
            tenant.driver = Some(tokio::spawn(adoption.run()));
        }
    }

    fn admit_tenant(&mut self, name: String, state: State) -> u64 {
        let instance = Arc::new(Instance::new(name, Instant::now()));
        let serial = instance.serial();
        self.tenants.insert(
            serial,
            Tenant {
                instance,
                state,
                container: String::new(),
                created_at: SystemTime::now(),
                digest: None,
                driver: None,
                ready_at: None,
                outages: 0,
                give_up: CancellationToken::new(),
                died: CancellationToken::new(),
            },
        );
        self.dirty = true;
        serial
    }

    pub(super) fn start_one(&mut self) {
        let version = self.member.version.clone();
        let nonce: u32 = rand::random();
        let name = format!(
            "cless-{}-v{}-{nonce:08x}",
            version.service, self.shared.key.number
        );
        let serial = self.admit_tenant(name.clone(), State::Creating);
        if let Some(proof) = &mut self.proof {
            proof.tried = true;
        }
        if let Some(tenant) = self.tenants.get_mut(&serial) {
            let start = Start {
                engine: self.around.engine.clone(),
                pool: self.shared.clone(),
                serial,
                name,
                pull_first: version.spec.pull_policy == PullPolicy::Always && !self.pulled,
                version,
                patience: self.member.settings.cold_start_timeout,
                port: self.port,
                image_digest: self.image_digest.clone(),
                looked: self.looked,
                give_up: tenant.give_up.clone(),
                died: tenant.died.clone(),
            };
            tenant.driver = Some(tokio::spawn(start.run()));
        }
    }

    /// Feeds an event to an instance's state machine and does what it asks.
    pub(super) fn apply(&mut self, serial: u64, event: Event) {
        let Some(tenant) = self.tenants.get_mut(&serial) else {
            return;
        };
        let (next, actions) = step(tenant.state, event);
        self.dirty |= next != tenant.state;
        tenant.state = next;
        let mut emptied = false;
        for action in actions {
            match action {
                Action::Open => {
                    // A start that answered early is still at the engine.
                    tenant.driver = tenant.driver.take().filter(|one| !one.is_finished());
                    // Each does nothing where it is the other's turn.
                    tenant.instance.admission.open();
                    tenant.instance.admission.thaw();
                }
                Action::Pause | Action::Resume => {
                    let doze = Doze {
                        engine: self.around.engine.clone(),
                        pool: self.shared.clone(),
                        instance: tenant.instance.clone(),
                    };
                    // Whoever takes the container away waits for this call to be over, and this one
                    // for the call before it.
                    let before = tenant.driver.take();
                    tenant.driver = Some(match action {
                        Action::Pause => tokio::spawn(doze.pause(before)),
                        _ => tokio::spawn(doze.resume(before)),
                    });
                }
                Action::CloseWhenEmpty => {
                    tenant.give_up.cancel();
                    tenant.instance.retired().cancel();
                    emptied |= tenant.instance.admission.drain();
                }
                Action::Close => {
                    tenant.instance.admission.shut();
                    tenant.instance.retired().cancel();
                }
                Action::Stop | Action::Remove => {
                    tenant.give_up.cancel();
                    tenant.instance.retired().cancel();
                    let how = match (action, event) {
                        (Action::Stop, _) => Farewell::Stop(self.shared.stop_grace),
                        (_, Event::Died) => Farewell::Explain,
                        _ => Farewell::Remove,
                    };
                    tokio::spawn(take_away(
                        self.around.engine.clone(),
                        self.shared.clone(),
                        serial,
                        tenant.instance.name().to_owned(),
                        how,
                        tenant.driver.take(),
                    ));
                }
                Action::Forget => {
                    self.tenants.remove(&serial);
                    break;
                }
            }
        }
        self.publish_open();
        if emptied {
            self.apply(serial, Event::Emptied);
        }
    }

    fn publish_open(&self) {
        let open: Vec<Arc<Instance>> = self
            .tenants
            .values()
            .filter(|tenant| tenant.state == State::Ready)
            .map(|tenant| tenant.instance.clone())
            .collect();
        let same = {
            let before = self.shared.open.load();
            before.len() == open.len()
                && before
                    .iter()
                    .zip(&open)
                    .all(|(one, other)| Arc::ptr_eq(one, other))
        };
        if !same {
            self.shared.open.store(Arc::new(open));
        }
    }

    pub(super) fn reap(&mut self, serial: u64) {
        let Some(tenant) = self.tenants.get(&serial) else {
            return;
        };
        if tenant.instance.admission.reap() {
            info!(
                service = %self.member.version.service, version = self.shared.key.number,
                container = tenant.instance.name(), "reaping an idle instance"
            );
            self.apply(serial, Event::Emptied);
        }
    }
}

/// Serves, or will.
pub(super) fn is_hopeful(state: State) -> bool {
    is_starting(state)
        || matches!(
            state,
            State::Ready | State::Pausing | State::Paused | State::Resuming
        )
}

/// On its way to ready for the first time.
pub(super) fn is_starting(state: State) -> bool {
    matches!(state, State::Creating | State::Starting | State::Probing)
}
