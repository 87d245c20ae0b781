//! A scripted engine for failures that a real engine cannot produce on demand.
//!
//! Its containers are listeners on loopback addresses, so probes and requests are real.
//! [`Fake::script`] sets the behaviour of the next starts, and [`Fake::visitors`] receives the
//! accepted connections.

mod engine;
mod fault;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use super::{
    Container, ContainerOptions, ContainerSpec, ContainerState, EngineEvent, Error, Exit,
    Healthcheck, Runtime, label,
};

mod images;

pub use images::Images;

/// Behaviour of a started container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// Listens after this delay.
    Listens(Duration),
    /// Exits with this code.
    Exits(i32),
    /// Runs without ever listening.
    NeverListens,
    /// The engine refuses to create it.
    CreateRefused,
}

pub use fault::{Call, Fault};

/// The result of a container's HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It succeeds.
    Healthy,
    /// It fails with this output.
    Unhealthy(String),
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Fake {
    inner: Arc<Inner>,
}

struct Inner {
    containers: Mutex<HashMap<String, Fixture>>,
    scripts: Mutex<VecDeque<Script>>,
    starts: AtomicU32,
    faults: Mutex<Vec<(Call, Fault)>>,
    unreachable: AtomicBool,
    pause_takes: Mutex<Duration>,
    visitors: Mutex<Option<mpsc::UnboundedSender<TcpStream>>>,
    offered: Mutex<Vec<String>>,
    graces: Mutex<Vec<Duration>>,
    health: Mutex<Option<Health>>,
    start_takes: Mutex<Duration>,
    events: broadcast::Sender<EngineEvent>,
    images: Images,
}

struct Fixture {
    container: Container,
    image: String,
    /// Address to listen on: its own or that of its sandbox.
    listens_at: IpAddr,
    script: Script,
    listening: Option<JoinHandle<()>>,
    health: Option<Health>,
}

fn check() -> Healthcheck {
    Healthcheck {
        command: vec!["check".to_owned()],
        timeout: Duration::from_secs(30),
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                containers: Mutex::default(),
                scripts: Mutex::default(),
                starts: AtomicU32::new(0),
                faults: Mutex::default(),
                unreachable: AtomicBool::new(false),
                pause_takes: Mutex::default(),
                visitors: Mutex::default(),
                offered: Mutex::new(vec!["runc".to_owned()]),
                graces: Mutex::default(),
                health: Mutex::default(),
                start_takes: Mutex::default(),
                events: broadcast::Sender::new(64),
                images: Images::default(),
            }),
        }
    }
}

impl Fake {
    /// Queues the behaviour of one create and start; the default is to listen at once.
    pub fn script(&self, script: Script) {
        self.inner.scripts.lock().push_back(script);
    }

    /// The local images and the registry.
    pub fn images(&self) -> &Images {
        &self.inner.images
    }

    /// The image that a container was created from, as the create call named it.
    pub fn image_of(&self, name: &str) -> Option<String> {
        let containers = self.inner.containers.lock();
        containers.get(name).map(|fixture| fixture.image.clone())
    }

    /// Number of starts so far.
    pub fn starts(&self) -> u32 {
        self.inner.starts.load(Ordering::SeqCst)
    }

    /// Sets the duration of later pauses.
    pub fn pauses_take(&self, time: Duration) {
        *self.inner.pause_takes.lock() = time;
    }

    /// Receives every connection that containers accept from now on, probes included. Without a
    /// receiver, connections are closed at once.
    pub fn visitors(&self) -> mpsc::UnboundedReceiver<TcpStream> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.inner.visitors.lock() = Some(sender);
        receiver
    }

    /// Sets the runtimes on offer.
    pub fn offers_runtimes(&self, names: &[&str]) {
        *self.inner.offered.lock() = names.iter().map(|name| (*name).to_owned()).collect();
    }

    /// Restarts the event stream, as after a restart of the engine.
    pub fn reconnects(&self) {
        let _ = self.inner.events.send(EngineEvent::Connected);
    }

    /// Grace periods of the stops so far.
    pub fn graces(&self) -> Vec<Duration> {
        self.inner.graces.lock().clone()
    }

    /// Gives later containers a HEALTHCHECK with this result.
    pub fn born_with_health(&self, health: Health) {
        *self.inner.health.lock() = Some(health);
    }

    /// Changes the HEALTHCHECK of a container; `None` removes it.
    pub fn set_health(&self, name: &str, health: Option<Health>) {
        let labels = {
            let mut containers = self.inner.containers.lock();
            let Some(fixture) = containers.get_mut(name) else {
                return;
            };
            fixture.container.healthcheck = health.as_ref().map(|_| check());
            fixture.health = health.clone();
            fixture.container.labels.clone()
        };
        if matches!(health, Some(Health::Unhealthy(_))) {
            let name = name.to_owned();
            let _ = self
                .inner
                .events
                .send(EngineEvent::Unhealthy { name, labels });
        }
    }

    /// Sets the delay between the start of a process and the response to the start call.
    pub fn starts_take(&self, time: Duration) {
        *self.inner.start_takes.lock() = time;
    }

    /// Pauses or resumes a container behind the node's back.
    pub fn set_paused(&self, name: &str, paused: bool) {
        let labels = {
            let mut containers = self.inner.containers.lock();
            let Some(fixture) = containers.get_mut(name) else {
                return;
            };
            fixture.container.state = match paused {
                true => ContainerState::Paused,
                false => ContainerState::Running,
            };
            fixture.container.labels.clone()
        };
        let name = name.to_owned();
        let _ = self.inner.events.send(EngineEvent::PauseChanged {
            name,
            labels,
            paused,
        });
    }

    /// Takes a container off its network.
    pub fn disconnect(&self, name: &str) {
        let mut containers = self.inner.containers.lock();
        if let Some(fixture) = containers.get_mut(name) {
            fixture.container.address = None;
            let container = fixture.container.id.clone();
            let _ = self
                .inner
                .events
                .send(EngineEvent::NetworkLeft { container });
        }
    }

    /// State of a container.
    pub fn state(&self, name: &str) -> Option<ContainerState> {
        let containers = self.inner.containers.lock();
        containers.get(name).map(|fixture| fixture.container.state)
    }

    /// Keeps a container running but closes its listener.
    pub fn stop_listening(&self, name: &str) {
        if let Some(fixture) = self.inner.containers.lock().get_mut(name)
            && let Some(listening) = fixture.listening.take()
        {
            listening.abort();
        }
    }

    /// Changes the state, with the checks of a real engine.
    fn transition(&self, call: Call, name: &str) -> Result<(), Error> {
        let (from, to) = match call {
            Call::Pause => (ContainerState::Running, ContainerState::Paused),
            _ => (ContainerState::Paused, ContainerState::Running),
        };
        let mut containers = self.inner.containers.lock();
        let fixture = containers
            .get_mut(name)
            .ok_or_else(|| Error::NotFound(name.to_owned()))?;
        if fixture.container.state == to {
            return Ok(());
        }
        if fixture.container.state != from {
            return Err(Error::Refused(format!(
                "{name} is {:?}",
                fixture.container.state
            )));
        }
        fixture.container.state = to;
        Ok(())
    }

    /// Names of all containers.
    pub fn names(&self) -> Vec<String> {
        self.inner.containers.lock().keys().cloned().collect()
    }

    /// Names of the sandboxes.
    pub fn sandboxes(&self) -> Vec<String> {
        let containers = self.inner.containers.lock();
        let all = containers.values().map(|fixture| &fixture.container);
        let held = all.filter(|one| one.labels.contains_key(label::ROLE));
        held.map(|one| one.name.clone()).collect()
    }

    /// The running sandbox with this id.
    fn running_sandbox(&self, id: &str) -> Option<Container> {
        let containers = self.inner.containers.lock();
        let mut all = containers.values().map(|fixture| &fixture.container);
        all.find(|one| one.id == id && one.state == ContainerState::Running)
            .cloned()
    }

    /// Creates a container; in a sandbox it has no address of its own.
    fn make(
        &self,
        name: &str,
        image: &str,
        labels: &BTreeMap<String, String>,
        sandbox: Option<Container>,
        script: Script,
    ) -> String {
        /// Shared by all fakes of the process, so that no two containers share an address. The
        /// upper half of the address identifies the process.
        static HOSTS: AtomicU32 = AtomicU32::new(0);
        let host = HOSTS.fetch_add(1, Ordering::SeqCst) % 4096;
        let process = std::process::id() % 4000 + 16;
        let [_, second, third, fourth] = (process << 12 | host).to_be_bytes();
        let own = IpAddr::V4(Ipv4Addr::new(127, second, third, fourth));
        let container = Container {
            id: format!("{host:064x}"),
            name: name.to_owned(),
            labels: labels.clone(),
            state: ContainerState::Created,
            address: sandbox.is_none().then_some(own),
            sandbox: sandbox.as_ref().map(|held| held.id.clone()),
            exit: Exit::default(),
            healthcheck: self.inner.health.lock().as_ref().map(|_| check()),
            program: String::new(),
        };
        let id = container.id.clone();
        let fixture = Fixture {
            container,
            image: image.to_owned(),
            listens_at: sandbox.and_then(|held| held.address).unwrap_or(own),
            script,
            listening: None,
            health: self.inner.health.lock().clone(),
        };
        let mut containers = self.inner.containers.lock();
        containers.insert(name.to_owned(), fixture);
        id
    }

    /// Adds a running container that no pool started.
    pub async fn insert(&self, name: &str, labels: BTreeMap<String, String>) {
        self.insert_in(name, labels, None).await;
    }

    /// Like [`Fake::insert`], in the sandbox with this id.
    pub async fn insert_in(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        sandbox: Option<String>,
    ) {
        let spec = ContainerSpec {
            name: name.to_owned(),
            image: String::new(),
            env: Vec::new(),
            command: Vec::new(),
            args: Vec::new(),
            labels,
            memory: 0,
            cpu_millis: 0,
            network: String::new(),
            pids_limit: 0,
            read_only_root: false,
            tmpfs: Vec::new(),
            user: None,
            stop_signal: None,
            stop_grace: Duration::ZERO,
            runtime: None,
            sandbox,
            options: ContainerOptions::default(),
        };
        let made = self.create(&spec).await;
        assert!(made.is_ok(), "the container is created");
        let started = self.start(name).await;
        assert!(started.is_ok(), "the container starts");
    }

    fn end(&self, name: &str, code: i32) -> Option<BTreeMap<String, String>> {
        let mut containers = self.inner.containers.lock();
        let fixture = containers.get_mut(name)?;
        if let Some(listening) = fixture.listening.take() {
            listening.abort();
        }
        fixture.container.state = ContainerState::Exited;
        fixture.container.exit.code = code;
        Some(fixture.container.labels.clone())
    }

    /// Ends the process of a container.
    pub fn kill(&self, name: &str, code: i32) {
        let Some(labels) = self.end(name, code) else {
            return;
        };
        let _ = self.inner.events.send(EngineEvent::Died {
            name: name.to_owned(),
            labels,
            exit_code: Some(code),
        });
    }
}
