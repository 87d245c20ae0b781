//! Isolation: containers reach neither each other, nor this host, nor a control plane.
//!
//! ```text
//!  host (facts of this machine) ─┐
//!  control planes' addresses    ─┼─► rules ─► plan ◄─ firewall lists ─┐
//!  the bridge's name            ─┘             │                      │ every 5 s, and when the
//!                                              └──► firewall sets ────┘ engine reconnects
//!                                                         │
//!                          status ◄── gaps ───────────────┘──► log, report, `ready`
//! ```
//!
//! - [`rules`], [`plan`], [`status`]: pure, with their laws.
//! - [`egress`]: destinations on this host that single containers may reach.
//! - [`firewall`], [`host`]: I/O: iptables, and the files of this machine.
//!
//! [`Isolation`] is a reconciler: each round rereads everything and repairs the rules, for example
//! after a flush or after a crash of this node. The bridge's name is derived from the node's id, so
//! the rules exist before the bridge does. Only the node's own two chains and the jumps to them are
//! changed.
//!
//! If the rules cannot be set, containers still start and the node reports it. With
//! `--require-isolation` neither the node nor a container starts.

mod egress;
mod firewall;
mod host;
mod plan;
mod rules;
mod status;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use parking_lot::RwLock;
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use egress::Permits;
use firewall::{EnforceOutcome, Firewall};
use host::{ControlPlane, Host};
use rules::{Family, RuleInputs, RuleSet};
use status::Gap;

pub use egress::Permit;
pub use status::{EnforcementState, Status};

/// Interval of the rounds. It bounds the exposure after a flush, and costs two runs of a 2 ms
/// program.
const INTERVAL: Duration = Duration::from_secs(5);

/// The bridges of nodes have this prefix and ten more characters.
const BRIDGE_PREFIX: &str = "cless";

/// Options of a node's isolation.
#[derive(Debug, Clone)]
pub struct Options {
    /// Random id of the node.
    pub node: String,
    /// Listen addresses of the proxy, the only ports of this host that containers may reach.
    pub proxy: Vec<SocketAddr>,
    /// Addresses of control planes, as configured.
    pub control_planes: Vec<Uri>,
    /// Address of the engine; `None` means the standard socket.
    pub engine: Option<String>,
    /// Whether to refuse starts without isolation.
    pub required: bool,
    /// Destinations on this host of the containers that an earlier process left running.
    pub permits: Vec<Permit>,
}

/// The start of a container or of the node is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "isolation is required (--require-isolation) but not enforced: {reason}. Resolve this, or \
     start without the flag"
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
    /// Held during a round, so that rounds do not overlap.
    reconciler: Mutex<Reconciler>,
    /// `None` before the first round, and if rounds are disabled.
    status: RwLock<Option<Status>>,
    /// Destinations of permits that resolved to no address in the last round.
    unresolved: RwLock<BTreeSet<String>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Reconciler {
    host: Host,
    bridge: String,
    /// Whether the engine has created the bridge.
    bridge_exists: bool,
    control_planes: Vec<ControlPlane>,
    /// Further control planes of the cluster. One that does not resolve here is no gap.
    announced: Vec<ControlPlane>,
    permits: Permits,
    v4: Firewall,
    v6: Firewall,
    /// Whether rounds are over, because the rules were removed or are never set.
    ended: bool,
}

/// The short form of a node's id, used in the names of its network, bridge and chains.
pub(crate) fn short_id(node: &str) -> String {
    let short = node.chars().filter(char::is_ascii_alphanumeric);
    short.take(12).collect()
}

/// Interface name of a node's bridge, at the kernel's limit of 15 characters.
pub(crate) fn bridge_name(node: &str) -> String {
    let short: String = short_id(node).chars().take(10).collect();
    format!("{BRIDGE_PREFIX}{short}")
}

impl Isolation {
    /// Isolation that takes effect with [`Isolation::reconcile`]. `changed` is incremented on each
    /// change of the status.
    pub fn new(options: Options, changed: watch::Sender<u64>) -> Self {
        let planes = options.control_planes.iter().map(ControlPlane::new);
        let mut permits = Permits::default();
        for permit in options.permits {
            permits.insert(permit);
        }
        Self {
            inner: Arc::new(Inner {
                required: options.required,
                proxy: options.proxy,
                engine: options.engine,
                reconciler: Mutex::new(Reconciler {
                    host: Host::at(Path::new("/")),
                    bridge: bridge_name(&options.node),
                    bridge_exists: false,
                    control_planes: planes.collect(),
                    announced: Vec::new(),
                    permits,
                    v4: Firewall::new(Family::V4),
                    v6: Firewall::new(Family::V6),
                    ended: false,
                }),
                node: short_id(&options.node),
                status: RwLock::default(),
                unresolved: RwLock::default(),
                changed,
            }),
        }
    }

    /// For an engine without real containers: never touches the packet filter, and has no status.
    #[cfg(feature = "test-util")]
    pub fn unchecked() -> Self {
        let options = Options {
            node: String::new(),
            proxy: Vec::new(),
            control_planes: Vec::new(),
            engine: None,
            required: false,
            permits: Vec::new(),
        };
        let isolation = Self::new(options, watch::Sender::new(0));
        if let Ok(mut reconciler) = isolation.inner.reconciler.try_lock() {
            reconciler.ended = true;
        }
        isolation
    }

    /// Status found by the last round; `None` before the first.
    pub fn status(&self) -> Option<Status> {
        self.inner.status.read().clone()
    }

    /// Runs the first round, before anything starts.
    ///
    /// # Errors
    /// [`NotIsolated`] if isolation is required and a gap exists that does not close by itself.
    pub async fn begin(&self) -> Result<(), NotIsolated> {
        let gaps = self.reconcile().await;
        if self.inner.required && !gaps.iter().all(Gap::may_close) {
            let mut reconciler = self.inner.reconciler.lock().await;
            // Containers left on the bridge by an earlier process stay as isolated as possible.
            if !reconciler.host.has_interface(&reconciler.bridge) {
                reconciler.remove(&self.inner.node).await;
            }
            return Err(NotIsolated {
                reason: status::summarize(&gaps).reason,
            });
        }
        Ok(())
    }

    /// Reconciles periodically, forever.
    pub async fn follow(self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.reconcile().await;
        }
    }

    /// Records that the node's bridge exists under this name, and applies its rules. Call it
    /// before a container joins, and whenever the engine may have changed the packet filter.
    pub async fn cover(&self, bridge: &str) {
        {
            let mut reconciler = self.inner.reconciler.lock().await;
            bridge.clone_into(&mut reconciler.bridge);
            reconciler.bridge_exists = true;
        }
        self.reconcile().await;
    }

    /// Whether a container may start.
    ///
    /// # Errors
    /// [`NotIsolated`] if isolation is required and still not enforced after another round.
    pub async fn ready(&self) -> Result<(), NotIsolated> {
        let enforced = |status: &Status| status.state == EnforcementState::Enforced;
        if !self.inner.required || self.status().as_ref().is_some_and(enforced) {
            return Ok(());
        }
        let gaps = self.reconcile().await;
        match status::summarize(&gaps) {
            Status {
                state: EnforcementState::Enforced,
                ..
            } => Ok(()),
            Status { reason, .. } => Err(NotIsolated { reason }),
        }
    }

    /// Lets a container reach destinations on this host. Returns after the rules are set.
    pub async fn permit(&self, permit: Permit) {
        if self.inner.reconciler.lock().await.permits.insert(permit) {
            self.reconcile().await;
        }
    }

    /// Also closes the ports of these control planes, which replace those of the call before.
    pub async fn announce(&self, planes: &[Uri]) {
        let mut reconciler = self.inner.reconciler.lock().await;
        reconciler.announced = planes.iter().map(ControlPlane::new).collect();
        drop(reconciler);
        self.reconcile().await;
    }

    /// Withdraws a container's permit, before its address may be reused.
    pub async fn revoke(&self, container: &str) {
        if self.inner.reconciler.lock().await.permits.remove(container) {
            self.reconcile().await;
        }
    }

    /// Destinations of permits whose names resolve to no address, for a person.
    pub fn unresolved_egress(&self) -> Vec<String> {
        self.inner.unresolved.read().iter().cloned().collect()
    }

    /// Runs one round: rereads everything, repairs the rules and returns the remaining gaps.
    async fn reconcile(&self) -> Vec<Gap> {
        let mut reconciler = self.inner.reconciler.lock().await;
        if reconciler.ended {
            return Vec::new();
        }
        let gaps = reconciler.round(&self.inner).await;
        self.publish(status::summarize(&gaps));
        gaps
    }

    fn publish(&self, found: Status) {
        let mut status = self.inner.status.write();
        if status.as_ref() == Some(&found) {
            return;
        }
        match found.state {
            EnforcementState::Enforced => info!("containers are isolated"),
            EnforcementState::Partial => {
                warn!(reason = found.reason, "containers are partially isolated")
            }
            EnforcementState::None => warn!(reason = found.reason, "containers are not isolated"),
        }
        *status = Some(found);
        self.inner.changed.send_modify(|count| *count += 1);
    }

    /// Removes the rules permanently. The node is stopping, and its containers are gone.
    pub async fn remove(&self) {
        let mut reconciler = self.inner.reconciler.lock().await;
        if !std::mem::replace(&mut reconciler.ended, true) {
            reconciler.remove(&self.inner.node).await;
        }
    }
}

impl Inner {
    fn set_unresolved(&self, found: BTreeSet<String>) {
        let mut unresolved = self.unresolved.write();
        if *unresolved == found {
            return;
        }
        if !found.is_empty() {
            warn!(destinations = ?found, "egress destinations do not resolve to an IPv4 address");
        }
        *unresolved = found;
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Reconciler {
    async fn round(&mut self, shared: &Inner) -> Vec<Gap> {
        if let Some(engine) = &shared.engine
            && let Some(engine) = host::remote_host(engine).await
        {
            return vec![Gap::RemoteEngine(engine)];
        }
        if self.bridge_exists && !self.host.has_interface(&self.bridge) {
            return vec![Gap::NoBridge(self.bridge.clone())];
        }
        let mut gaps = Vec::new();
        let mut inputs = RuleInputs {
            node: shared.node.clone(),
            bridge: self.bridge.clone(),
            other_bridges: self.host.engine_bridges(&self.bridge),
            proxy: shared.proxy.clone(),
            control_planes: Default::default(),
            nameservers: self.host.nameservers(),
            egress: self.permits.resolve().await,
        };
        shared.set_unresolved(self.permits.unresolved());
        for plane in &mut self.control_planes {
            let found = plane.locate().await;
            inputs.control_planes.extend(found);
            if found.is_empty() {
                gaps.push(Gap::Unresolved(plane.host().to_owned()));
            }
        }
        let set = RuleSet::new(&inputs, Family::V4);
        let v4 = self.v4.enforce(&set).await;
        gaps.extend(log_restored(v4, &set).err().map(Gap::RulesV4));
        for plane in &mut self.announced {
            inputs.control_planes.extend(plane.locate().await);
        }
        let families: &[Family] = if self.host.has_ipv6(&self.bridge) {
            let set = RuleSet::new(&inputs, Family::V6);
            let v6 = self.v6.enforce(&set).await;
            gaps.extend(log_restored(v6, &set).err().map(Gap::RulesV6));
            &[Family::V4, Family::V6]
        } else {
            &[Family::V4]
        };
        // Docker enables bridge filtering when it creates the bridge.
        if self.bridge_exists {
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

/// Logs that lost rules were set again.
fn log_restored(
    outcome: Result<EnforceOutcome, firewall::Error>,
    set: &RuleSet,
) -> Result<(), firewall::Error> {
    if outcome? == EnforceOutcome::Restored {
        warn!(
            chains = format!("{}, {}", set.host.name, set.forward.name),
            "another program changed the isolation rules; they are set again"
        );
    }
    Ok(())
}
