//! Creating instances, and carrying out the actions of their state machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tracing::{Instrument as _, info, info_span};

use super::PoolActor;
use super::entry::InstanceEntry;
use crate::instance::Instance;
use crate::instance::state::{Action, Event, State, step};
use crate::lifecycle::adopt::Adoption;
use crate::lifecycle::event::EventSender;
use crate::lifecycle::pause::PauseTask;
use crate::lifecycle::remove::{Removal, RemoveTask};
use crate::lifecycle::start::Start;
use crate::pool::message::Message;
use crate::route::PullPolicy;
use crate::runtime::{Container, ContainerState, label};

impl PoolActor {
    pub(super) fn adopt(&mut self, container: Container, address: SocketAddr) {
        let mut entries = self.instances.values();
        let known = entries.any(|entry| entry.instance.name() == container.name);
        if known || self.stopping.is_some() {
            return;
        }
        info!(
            container = container.name,
            "adopting a container of an earlier process"
        );
        let name = container.name.clone();
        let (serial, mut entry) = self.new_entry(name, State::Probing);
        entry.set_container_id(&container.id);
        let digest = container.labels.get(label::DIGEST);
        entry.digest = digest.map(|digest| digest.as_str().into());
        let span = info_span!("adopt", instance = container.name);
        let adoption = Adoption {
            network_lost: self.context.sandboxes.lost(&container.name),
            engine: self.context.engine.clone(),
            events: entry.events.clone(),
            paused: container.state == ContainerState::Paused,
            name: container.name,
            version: self.membership.version.clone(),
            address,
            timeout: self.membership.settings.cold_start_timeout,
            cancel: entry.cancel.clone(),
            died: entry.died.clone(),
        };
        entry.task = Some(tokio::spawn(adoption.run().instrument(span)));
        self.instances.insert(serial, entry);
    }

    pub(super) fn start_one(&mut self) {
        let version = self.membership.version.clone();
        let nonce: u32 = rand::random();
        let name = format!(
            "cless-{}-v{}-{nonce:08x}",
            version.service, self.shared.key.number
        );
        let (serial, mut entry) = self.new_entry(name.clone(), State::Creating);
        if let Some(verification) = &mut self.verification {
            entry.for_verification = verification.needs_start() && self.queue.is_empty();
            verification.begin_start();
        }
        let start = Start {
            engine: self.context.engine.clone(),
            sandboxes: self.context.sandboxes.clone(),
            events: entry.events.clone(),
            name,
            pull_first: version.spec.pull_policy == PullPolicy::Always && !self.image_pulled,
            version,
            fixed_digest: self.shared.fixed_digest(),
            timeout: self.membership.settings.cold_start_timeout,
            port: self.port,
            image_digest: self.image_digest.clone(),
            image_inspected: self.image_inspected,
            cancel: entry.cancel.clone(),
            died: entry.died.clone(),
        };
        entry.task = Some(tokio::spawn(start.run()));
        self.instances.insert(serial, entry);
    }

    fn new_entry(&mut self, name: String, state: State) -> (u64, InstanceEntry) {
        self.dirty = true;
        let instance = Arc::new(Instance::new(name, Instant::now()));
        let serial = instance.serial();
        let shared = self.shared.clone();
        let events = EventSender::new(serial, move |serial, event| {
            shared.send(Message::Task(serial, event));
        });
        (serial, InstanceEntry::new(instance, state, events))
    }

    /// Applies an event to an instance's state machine and carries out the actions.
    pub(super) fn apply(&mut self, serial: u64, event: Event) {
        let Some(entry) = self.instances.get_mut(&serial) else {
            return;
        };
        let (next, actions) = step(entry.state, event);
        self.dirty |= next != entry.state;
        entry.state = next;
        let mut emptied = false;
        for action in actions {
            match action {
                Action::Open => {
                    // The start call of an instance that answered early is still in progress.
                    entry.task = entry.task.take().filter(|task| !task.is_finished());
                    // Only one of the two applies: `open` after a start, `thaw` after a pause.
                    entry.instance.admission.open();
                    entry.instance.admission.thaw();
                }
                Action::Pause | Action::Resume => {
                    let task = PauseTask {
                        engine: self.context.engine.clone(),
                        events: entry.events.clone(),
                        instance: entry.instance.clone(),
                        previous: entry.task.take(),
                    };
                    let name = entry.instance.name();
                    entry.task = Some(match action {
                        Action::Pause => tokio::spawn(
                            task.pause()
                                .instrument(info_span!("pause", instance = name)),
                        ),
                        _ => tokio::spawn(
                            task.resume()
                                .instrument(info_span!("resume", instance = name)),
                        ),
                    });
                }
                Action::CloseWhenEmpty => {
                    entry.cancel.cancel();
                    entry.instance.retired().cancel();
                    emptied |= entry.instance.admission.drain();
                }
                Action::Close => {
                    entry.instance.admission.shut();
                    entry.instance.retired().cancel();
                }
                Action::Stop | Action::Remove => {
                    entry.cancel.cancel();
                    entry.instance.retired().cancel();
                    let name = entry.instance.name();
                    let span = info_span!("remove", instance = name);
                    let task = RemoveTask {
                        engine: self.context.engine.clone(),
                        sandboxes: self.context.sandboxes.clone(),
                        events: entry.events.clone(),
                        name: name.to_owned(),
                        removal: match (action, event) {
                            (Action::Stop, _) => Removal::Stop(self.shared.stop_grace),
                            (_, Event::Died) => Removal::Explain,
                            _ => Removal::Remove,
                        },
                        previous: entry.task.take(),
                    };
                    tokio::spawn(task.run().instrument(span));
                }
                Action::Forget => {
                    self.instances.remove(&serial);
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
        let ready = self.instances.values();
        let ready = ready.filter(|entry| entry.state == State::Ready);
        let open: Vec<Arc<Instance>> = ready.map(|entry| entry.instance.clone()).collect();
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
        let Some(entry) = self.instances.get(&serial) else {
            return;
        };
        if entry.instance.admission.reap() {
            info!(
                container = entry.instance.name(),
                "reaping an idle instance"
            );
            self.apply(serial, Event::Emptied);
        }
    }
}
