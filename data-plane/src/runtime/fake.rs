//! A scripted engine, for what a real one cannot be made to do on demand.
//!
//! Its containers are listeners on loopback addresses of their own, so that probes and requests are
//! real. [`Fake::script`] sets what the next starts do, [`Fake::visitors`] who serves what they accept.

mod engine;
mod mishap;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use super::{Container, ContainerSpec, ContainerState, Error, Event, Exit, Health, Runtime, label};

mod images;

pub use images::Images;

/// What a start does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// Listens after this long.
    Listens(Duration),
    /// Ends with this exit code.
    Exits(i32),
    /// Runs and never listens.
    NeverListens,
    /// The create is refused.
    CreateRefused,
}

pub use mishap::{Call, Mishap};

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Fake {
    inner: Arc<Inner>,
}

struct Inner {
    containers: Mutex<HashMap<String, Fixture>>,
    scripts: Mutex<VecDeque<Script>>,
    starts: AtomicU32,
    mishaps: Mutex<Vec<(Call, Mishap)>>,
    away: AtomicBool,
    pause_takes: Mutex<Duration>,
    visitors: Mutex<Option<mpsc::UnboundedSender<TcpStream>>>,
    offered: Mutex<Vec<String>>,
    graces: Mutex<Vec<Duration>>,
    health: Mutex<Option<Health>>,
    start_takes: Mutex<Duration>,
    events: broadcast::Sender<Event>,
    images: Images,
}

struct Fixture {
    container: Container,
    image: String,
    /// Its own address, or that of its sandbox.
    listens_at: IpAddr,
    script: Script,
    listening: Option<JoinHandle<()>>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                containers: Mutex::default(),
                scripts: Mutex::default(),
                starts: AtomicU32::new(0),
                mishaps: Mutex::default(),
                away: AtomicBool::new(false),
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
    /// What the next create and start do; without a script they listen at once.
    pub fn script(&self, script: Script) {
        self.inner.scripts.lock().push_back(script);
    }

    /// Its images and its registry.
    pub fn images(&self) -> &Images {
        &self.inner.images
    }

    /// Starts so far.
    pub fn starts(&self) -> u32 {
        self.inner.starts.load(Ordering::SeqCst)
    }

    /// Each pause takes this long from now on.
    pub fn pauses_take(&self, time: Duration) {
        *self.inner.pause_takes.lock() = time;
    }

    /// Every connection that a container accepts from now on, probes too; without a receiver they
    /// are closed at once.
    pub fn visitors(&self) -> mpsc::UnboundedReceiver<TcpStream> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.inner.visitors.lock() = Some(sender);
        receiver
    }

    /// It can run containers under these from now on.
    pub fn offers_runtimes(&self, names: &[&str]) {
        *self.inner.offered.lock() = names.iter().map(|name| (*name).to_owned()).collect();
    }

    /// The events' stream begins anew, as after a restart of the engine.
    pub fn reconnects(&self) {
        let _ = self.inner.events.send(Event::Connected);
    }

    /// With how long a grace containers were asked to end so far.
    pub fn graces(&self) -> Vec<Duration> {
        self.inner.graces.lock().clone()
    }

    /// Containers made from now on have a HEALTHCHECK, which says this at first.
    pub fn born_with_health(&self, health: Health) {
        *self.inner.health.lock() = Some(health);
    }

    /// A container's HEALTHCHECK says this from now on.
    pub fn set_health(&self, name: &str, health: Option<Health>) {
        let labels = {
            let mut containers = self.inner.containers.lock();
            let Some(fixture) = containers.get_mut(name) else {
                return;
            };
            fixture.container.health = health.clone();
            fixture.container.labels.clone()
        };
        if matches!(health, Some(Health::Unhealthy(_))) {
            let name = name.to_owned();
            let _ = self.inner.events.send(Event::Unhealthy { name, labels });
        }
    }

    /// Each start of an instance answers this long after its process runs, from now on.
    pub fn starts_take(&self, time: Duration) {
        *self.inner.start_takes.lock() = time;
    }

    /// Where a container is in its life.
    pub fn state(&self, name: &str) -> Option<ContainerState> {
        let containers = self.inner.containers.lock();
        containers.get(name).map(|fixture| fixture.container.state)
    }

    /// A container goes on running and does not accept any more.
    pub fn deafen(&self, name: &str) {
        if let Some(fixture) = self.inner.containers.lock().get_mut(name)
            && let Some(listening) = fixture.listening.take()
        {
            listening.abort();
        }
    }

    /// From one state to another, as strict as a real engine.
    fn turn(&self, call: Call, name: &str) -> Result<(), Error> {
        let (from, to) = match call {
            Call::Pause => (ContainerState::Running, ContainerState::Paused),
            _ => (ContainerState::Paused, ContainerState::Running),
        };
        let mut containers = self.inner.containers.lock();
        let fixture = containers
            .get_mut(name)
            .ok_or_else(|| Error::NotFound(name.to_owned()))?;
        if fixture.container.state != from {
            return Err(Error::Refused(format!(
                "{name} is {:?}",
                fixture.container.state
            )));
        }
        fixture.container.state = to;
        Ok(())
    }

    /// Names of the containers there are.
    pub fn names(&self) -> Vec<String> {
        self.inner.containers.lock().keys().cloned().collect()
    }

    /// Those of them that are sandboxes.
    pub fn sandboxes(&self) -> Vec<String> {
        let containers = self.inner.containers.lock();
        let all = containers.values().map(|fixture| &fixture.container);
        let held = all.filter(|one| one.labels.contains_key(label::ROLE));
        held.map(|one| one.name.clone()).collect()
    }

    /// The running sandbox of this id.
    fn held(&self, id: &str) -> Option<Container> {
        let containers = self.inner.containers.lock();
        let mut all = containers.values().map(|fixture| &fixture.container);
        all.find(|one| one.id == id && one.state == ContainerState::Running)
            .cloned()
    }

    /// Makes a container; its address is that of the sandbox, if it is in one.
    fn make(
        &self,
        name: &str,
        image: &str,
        labels: &BTreeMap<String, String>,
        sandbox: Option<Container>,
        script: Script,
    ) -> String {
        /// Of all fakes of the process: no two containers share an address, and no two processes that
        /// run at once either, for the first half of it is the process's.
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
            health: self.inner.health.lock().clone(),
        };
        let id = container.id.clone();
        let fixture = Fixture {
            container,
            image: image.to_owned(),
            listens_at: sandbox.and_then(|held| held.address).unwrap_or(own),
            script,
            listening: None,
        };
        let mut containers = self.inner.containers.lock();
        containers.insert(name.to_owned(), fixture);
        id
    }

    /// Puts a container there that no pool started.
    pub async fn plant(&self, name: &str, labels: BTreeMap<String, String>) {
        self.plant_in(name, labels, None).await;
    }

    /// As [`Fake::plant`], in the sandbox of this id.
    pub async fn plant_in(
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
        };
        let made = self.create(&spec).await;
        assert!(made.is_ok(), "a planted container is made");
        let started = self.start(name).await;
        assert!(started.is_ok(), "a planted container starts");
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

    /// Ends a container's process.
    pub fn kill(&self, name: &str, code: i32) {
        let Some(labels) = self.end(name, code) else {
            return;
        };
        let _ = self.inner.events.send(Event::Died {
            name: name.to_owned(),
            labels,
        });
    }
}
