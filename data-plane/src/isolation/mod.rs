//! Isolation: containers reach neither each other, nor this host, nor a control plane.
//!
//! ```text
//!  host (what this machine is) ─┐
//!  control planes' addresses   ─┼─► rules ─► plan ◄─ firewall lists ─┐
//!  the bridge's name           ─┘             │                      │ every 5 s, and when the
//!                                             └──► firewall sets ────┘ engine has come back
//!                                                        │
//!                           status::judge ◄── gaps ──────┘──► log, report, `ready`
//! ```
//!
//! - [`rules`], [`plan`], [`status`]: pure, with their laws.
//! - [`firewall`], [`host`]: the shell: iptables, and the files of this machine.
//!
//! [`Isolation`] is a reconciler: each round rereads everything and sets what is not as it should be,
//! so rules that somebody flushed, or that another process of this node left, are put right. The
//! node's bridge has a name that follows from the node's id, so the rules are there before the bridge
//! is. Nothing is changed but the node's own two chains and the jumps to them.
//!
//! Where the rules cannot be set, containers start all the same, and the node says so; with
//! `--require-isolation` neither the node nor a container starts.

mod firewall;
mod host;
mod plan;
mod rules;
mod status;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use parking_lot::RwLock;
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use firewall::{Firewall, Found};
use host::{ControlPlane, Host};
use rules::{Family, RuleSet, Subject};
use status::Gap;

pub use status::{State, Status};

/// How often the rules are looked at: as long as somebody's flush leaves them open, and two programs
/// that run for 2 ms each.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What isolation of a node is about.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node's random id.
    pub node: String,
    /// Where its proxy listens, without TLS and with: the only ports of this host that containers may
    /// reach.
    pub proxy: Vec<SocketAddr>,
    /// As the node was given them.
    pub control_planes: Vec<Uri>,
    /// Where the engine is asked, if that is said.
    pub engine: Option<String>,
    /// Nothing is to start that is not isolated.
    pub required: bool,
}

/// A container, or the node, must not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "isolation is required (--require-isolation) and not in force: {reason}. Put that right, or go \
     without the flag"
)]
pub struct NotIsolated {
    reason: String,
}

/// The isolation of a node's containers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Isolation {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    required: bool,
    node: String,
    proxy: Vec<SocketAddr>,
    engine: Option<String>,
    /// One round at a time.
    work: Mutex<Work>,
    /// None before the first round, and where there are no rounds.
    status: RwLock<Option<Status>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Work {
    host: Host,
    bridge: String,
    /// The engine said that it made the bridge.
    made: bool,
    control_planes: Vec<ControlPlane>,
    v4: Firewall,
    v6: Firewall,
    /// The rules are removed, or never to be set.
    ended: bool,
}

/// The short form of a node's id that its network, bridge and chains are named by.
pub(crate) fn short_id(node: &str) -> String {
    let short = node.chars().filter(char::is_ascii_alphanumeric);
    short.take(12).collect()
}

/// The interface of a node's bridge: 15 characters, the most that the kernel takes.
pub(crate) fn bridge_name(node: &str) -> String {
    let short: String = short_id(node).chars().take(10).collect();
    format!("cless{short}")
}

impl Isolation {
    /// Not in force before [`Isolation::reconcile`]. `changed` is bumped when the status changes.
    pub fn new(options: Options, changed: watch::Sender<u64>) -> Self {
        let planes = options.control_planes.iter().map(ControlPlane::new);
        Self {
            inner: Arc::new(Inner {
                required: options.required,
                proxy: options.proxy,
                engine: options.engine,
                work: Mutex::new(Work {
                    host: Host::at(Path::new("/")),
                    bridge: bridge_name(&options.node),
                    made: false,
                    control_planes: planes.collect(),
                    v4: Firewall::new(Family::V4),
                    v6: Firewall::new(Family::V6),
                    ended: false,
                }),
                node: short_id(&options.node),
                status: RwLock::default(),
                changed,
            }),
        }
    }

    /// For an engine whose containers are no processes: touches no packet filter, and says nothing.
    #[cfg(feature = "test-util")]
    pub fn unchecked() -> Self {
        let options = Options {
            node: String::new(),
            proxy: Vec::new(),
            control_planes: Vec::new(),
            engine: None,
            required: false,
        };
        let isolation = Self::new(options, watch::Sender::new(0));
        if let Ok(mut work) = isolation.inner.work.try_lock() {
            work.ended = true;
        }
        isolation
    }

    /// What was last found; none before the first round.
    pub fn status(&self) -> Option<Status> {
        self.inner.status.read().clone()
    }

    /// The first round, before anything starts.
    ///
    /// # Errors
    /// [`NotIsolated`] if isolation is required and something is missing that does not come by itself.
    pub async fn begin(&self) -> Result<(), NotIsolated> {
        let gaps = self.reconcile().await;
        if self.inner.required && !gaps.iter().all(Gap::may_pass) {
            let mut work = self.inner.work.lock().await;
            // What runs on the bridge, left by a process before, stays as closed as it can be.
            if !work.host.has_interface(&work.bridge) {
                work.remove(&self.inner.node).await;
            }
            return Err(NotIsolated {
                reason: status::judge(&gaps).reason,
            });
        }
        Ok(())
    }

    /// Looks again and again, forever.
    pub async fn follow(self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.reconcile().await;
        }
    }

    /// The node's bridge is there, under this name; puts the rules in force for it. To be called before
    /// a container joins it, and whenever the engine may have changed the packet filter.
    pub async fn cover(&self, bridge: &str) {
        {
            let mut work = self.inner.work.lock().await;
            bridge.clone_into(&mut work.bridge);
            work.made = true;
        }
        self.reconcile().await;
    }

    /// Whether a container may start.
    ///
    /// # Errors
    /// [`NotIsolated`] if isolation is required and not in force, although it was just tried again.
    pub async fn ready(&self) -> Result<(), NotIsolated> {
        let enforced = |status: &Status| status.state == State::Enforced;
        if !self.inner.required || self.status().as_ref().is_some_and(enforced) {
            return Ok(());
        }
        let gaps = self.reconcile().await;
        match status::judge(&gaps) {
            Status {
                state: State::Enforced,
                ..
            } => Ok(()),
            Status { reason, .. } => Err(NotIsolated { reason }),
        }
    }

    /// One round: rereads everything, sets what is not in force, tells what is missing.
    async fn reconcile(&self) -> Vec<Gap> {
        let mut work = self.inner.work.lock().await;
        if work.ended {
            return Vec::new();
        }
        let gaps = work.round(&self.inner).await;
        self.publish(status::judge(&gaps));
        gaps
    }

    fn publish(&self, found: Status) {
        let mut status = self.inner.status.write();
        if status.as_ref() == Some(&found) {
            return;
        }
        match found.state {
            State::Enforced => info!("containers are isolated"),
            State::Partial => warn!(reason = found.reason, "containers are isolated in part"),
            State::None => warn!(reason = found.reason, "containers are not isolated"),
        }
        *status = Some(found);
        self.inner.changed.send_modify(|count| *count += 1);
    }

    /// Removes the rules for good: the node stops, and its containers are gone.
    pub async fn remove(&self) {
        let mut work = self.inner.work.lock().await;
        if !std::mem::replace(&mut work.ended, true) {
            work.remove(&self.inner.node).await;
        }
    }
}

impl Work {
    async fn round(&mut self, about: &Inner) -> Vec<Gap> {
        if let Some(engine) = &about.engine
            && let Some(engine) = host::elsewhere(engine).await
        {
            return vec![Gap::Elsewhere(engine)];
        }
        if self.made && !self.host.has_interface(&self.bridge) {
            return vec![Gap::NoBridge(self.bridge.clone())];
        }
        let mut gaps = Vec::new();
        let mut subject = Subject {
            node: about.node.clone(),
            bridge: self.bridge.clone(),
            proxy: about.proxy.clone(),
            control_planes: Default::default(),
            nameservers: self.host.nameservers(),
        };
        for plane in &mut self.control_planes {
            let found = plane.locate().await;
            subject.control_planes.extend(found);
            if found.is_empty() {
                gaps.push(Gap::Unresolved(plane.host().to_owned()));
            }
        }
        let set = RuleSet::new(&subject, Family::V4);
        let v4 = self.v4.enforce(&set).await;
        gaps.extend(told(v4, &set).err().map(Gap::RulesV4));
        let families: &[Family] = if self.host.has_ipv6(&self.bridge) {
            let set = RuleSet::new(&subject, Family::V6);
            let v6 = self.v6.enforce(&set).await;
            gaps.extend(told(v6, &set).err().map(Gap::RulesV6));
            &[Family::V4, Family::V6]
        } else {
            &[Family::V4]
        };
        // Docker sees to it when it makes the bridge.
        if self.made {
            let open = families.iter().filter(|f| !self.host.filters_bridges(**f));
            gaps.extend(open.map(|family| Gap::Unfiltered(*family)));
        }
        gaps
    }

    async fn remove(&mut self, node: &str) {
        for firewall in [&mut self.v4, &mut self.v6] {
            if let Err(error) = firewall.remove(node).await {
                warn!(%error, "cannot remove the isolation rules; the next start of this node will");
            }
        }
    }
}

/// Says of rules that were there and are not that they are set again.
fn told(outcome: Result<Found, firewall::Error>, set: &RuleSet) -> Result<(), firewall::Error> {
    if outcome? == Found::Lost {
        warn!(
            chains = format!("{}, {}", set.host.name, set.forward.name),
            "another program changed the isolation rules; they are set again"
        );
    }
    Ok(())
}
