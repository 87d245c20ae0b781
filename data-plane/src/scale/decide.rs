//! Decides how many instances to start, and which to resume, pause and reap. Pure.
//!
//! A new instance starts when queued requests exceed what the starting, resuming and pausing
//! instances can absorb, at `concurrency` requests each. One hundred requests at concurrency 100
//! cause one start, 101 cause two. Paused instances are resumed first: that takes a twentieth of a
//! start's time.
//!
//! Instances beyond `min_instances` are reaped when idle for `idle_timeout`. Instances that the
//! load of the last minute did not need ([`ScaleInputs::needed`]) are reaped once idle, except the last
//! one. A version that left the table keeps them, so that a rollback finds it warm.
//!
//! While the engine is unavailable the decision is empty: it could not be carried out, and an
//! instance taken out of service could not be put back.
//!
//! Laws, tested below:
//! - `max_instances` is never exceeded.
//! - An instance with work is neither reaped nor paused, and none is while requests wait.
//! - `min_instances` stay awake while the version has traffic.
//! - Deciding again after the decision is carried out decides nothing.

use std::cmp::Reverse;
use std::time::Duration;

/// Status of the version in the route table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionStatus {
    /// The version receives a share of the traffic.
    InTraffic,
    /// The version is reachable by a tag or for its verification.
    Reachable,
    /// The version left the table; its instances keep their idle timeout in case it returns.
    Left,
    /// The service is deleted; instances are removed as soon as no request is in flight.
    Deleted,
}

/// The settings that scaling depends on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Instances kept awake while the version has traffic.
    pub min_instances: u32,
    /// Maximum number of instances.
    pub max_instances: u32,
    /// Maximum concurrent requests per instance.
    pub concurrency: u32,
    /// Idle time after which an instance is reaped.
    pub idle_timeout: Duration,
    /// Idle time after which an instance is paused; `None` disables pausing.
    pub pause_after: Option<Duration>,
}

impl Limits {
    /// The number of instances that this many requests fill.
    pub fn instances_for(&self, requests: usize) -> u32 {
        let concurrency = self.concurrency.max(1) as usize;
        u32::try_from(requests.div_ceil(concurrency)).unwrap_or(u32::MAX)
    }
}

/// An instance that accepts requests.
#[derive(Debug, Clone, Copy)]
pub struct RunningInstance {
    /// Id of the instance, returned in [`Decision`].
    pub id: u64,
    /// Requests in flight.
    pub in_flight: u32,
    /// Time since the last request ended.
    pub idle_for: Duration,
}

/// A paused instance.
#[derive(Debug, Clone, Copy)]
pub struct PausedInstance {
    /// Id of the instance, returned in [`Decision`].
    pub id: u64,
    /// Time since the last request ended.
    pub idle_for: Duration,
}

/// Inputs of the decision.
#[derive(Debug, Clone)]
pub struct ScaleInputs<'a> {
    /// Status of the version.
    pub status: VersionStatus,
    /// Number of queued requests.
    pub queued: usize,
    /// Number of starting and resuming instances.
    pub starting: u32,
    /// Number of instances being paused; they can be resumed afterwards.
    pub pausing: u32,
    /// Ready instances.
    pub running: &'a [RunningInstance],
    /// Paused instances.
    pub paused: &'a [PausedInstance],
    /// Peak number of instances that the recent load filled.
    pub needed: u32,
    /// Whether a verification is pending without a start in progress.
    pub verification_pending: bool,
    /// Whether refills up to `min_instances` wait, because an instance exited by itself.
    pub refills_delayed: bool,
    /// Whether starts back off after failures; only a verification may start an instance then.
    pub backing_off: bool,
    /// Whether the engine is unavailable.
    pub engine_unavailable: bool,
}

/// Actions to take.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Number of instances to start.
    pub start: u32,
    /// Instances to resume.
    pub resume: Vec<u64>,
    /// Instances to pause unless a request entered them meanwhile.
    pub pause: Vec<u64>,
    /// Instances to reap unless a request entered them meanwhile.
    pub reap: Vec<u64>,
}

/// Decides from the inputs alone.
pub fn decide(inputs: &ScaleInputs<'_>, limits: &Limits) -> Decision {
    if inputs.engine_unavailable {
        return Decision::default();
    }
    let (start, resume) = starts_and_resumes(inputs, limits);
    let reap = reaps(inputs, limits, &resume);
    let pause = pauses(inputs, limits, &reap);
    Decision {
        start,
        resume,
        pause,
        reap,
    }
}

fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

/// The number of instances that exist and are not being removed.
fn alive(inputs: &ScaleInputs<'_>) -> u32 {
    inputs.starting + inputs.pausing + count(inputs.running) + count(inputs.paused)
}

/// The number of instances to keep awake.
fn minimum(inputs: &ScaleInputs<'_>, limits: &Limits) -> u32 {
    match inputs.status {
        VersionStatus::InTraffic => limits.min_instances.min(limits.max_instances.max(1)),
        _ => 0,
    }
}

/// The number of running instances to spare; a pending verification needs one.
fn spared(inputs: &ScaleInputs<'_>, limits: &Limits) -> u32 {
    let for_verification = inputs.verification_pending && inputs.status != VersionStatus::Deleted;
    minimum(inputs, limits).max(u32::from(for_verification))
}

/// The number of instances to start, and the instances to resume.
fn starts_and_resumes(inputs: &ScaleInputs<'_>, limits: &Limits) -> (u32, Vec<u64>) {
    if inputs.status == VersionStatus::Deleted {
        return (0, Vec::new());
    }
    let pending = inputs.starting + inputs.pausing;
    let for_queue = limits.instances_for(inputs.queued).saturating_sub(pending);
    let for_minimum = match inputs.refills_delayed {
        true => 0,
        false => minimum(inputs, limits).saturating_sub(pending + count(inputs.running)),
    };
    // A running instance verifies the version; only without one is a start needed.
    let none = pending == 0 && inputs.running.is_empty();
    let for_verification = u32::from(inputs.verification_pending && none);
    let wanted = for_queue.max(for_minimum);

    let mut paused_instances: Vec<&PausedInstance> = inputs.paused.iter().collect();
    // The most recently paused instance has the most memory pages resident.
    paused_instances.sort_by_key(|one| (one.idle_for, one.id));
    paused_instances.truncate(wanted.max(for_verification) as usize);
    let resume: Vec<u64> = paused_instances.iter().map(|one| one.id).collect();

    let allowed = if inputs.backing_off { 0 } else { wanted };
    let room = limits.max_instances.max(1).saturating_sub(alive(inputs));
    let start = allowed
        .max(for_verification)
        .saturating_sub(count(&resume))
        .min(room);
    (start, resume)
}

fn reaps(inputs: &ScaleInputs<'_>, limits: &Limits, resumed: &[u64]) -> Vec<u64> {
    let deleted = inputs.status == VersionStatus::Deleted;
    if inputs.queued > 0 && !deleted {
        return Vec::new();
    }
    let spared = spared(inputs, limits);
    let enough = match inputs.status {
        VersionStatus::InTraffic | VersionStatus::Reachable => inputs.needed.max(spared).max(1),
        VersionStatus::Left => u32::MAX,
        VersionStatus::Deleted => 0,
    };
    let enough = enough.min(limits.max_instances.max(1));
    // Paused instances come first, then the longest idle, so the warmest instances are kept.
    let mut idle: Vec<(bool, Reverse<Duration>, u64)> = Vec::new();
    let paused_instances = inputs
        .paused
        .iter()
        .filter(|one| !resumed.contains(&one.id));
    idle.extend(paused_instances.map(|one| (false, Reverse(one.idle_for), one.id)));
    let running = inputs.running.iter().filter(|one| one.in_flight == 0);
    idle.extend(running.map(|one| (true, Reverse(one.idle_for), one.id)));
    idle.sort_unstable();

    // Starting instances may fail, so they do not make others superfluous.
    let mut left = count(inputs.running) + count(inputs.paused);
    let mut awake = count(inputs.running);
    let mut reap = Vec::new();
    for (runs, Reverse(idle_for), id) in idle {
        let due = deleted || idle_for >= limits.idle_timeout || left > enough;
        if due && (!runs || awake > spared) {
            left -= 1;
            awake -= u32::from(runs);
            reap.push(id);
        }
    }
    reap
}

fn pauses(inputs: &ScaleInputs<'_>, limits: &Limits, reaped: &[u64]) -> Vec<u64> {
    let Some(after) = limits.pause_after else {
        return Vec::new();
    };
    if inputs.queued > 0 || inputs.status == VersionStatus::Deleted {
        return Vec::new();
    }
    let stay: Vec<&RunningInstance> = inputs
        .running
        .iter()
        .filter(|one| !reaped.contains(&one.id))
        .collect();
    let spare = count(&stay).saturating_sub(spared(inputs, limits));
    let mut idle: Vec<&RunningInstance> = stay
        .into_iter()
        .filter(|one| one.in_flight == 0 && one.idle_for >= after)
        .collect();
    idle.sort_by_key(|one| (Reverse(one.idle_for), one.id));
    idle.truncate(spare as usize);
    idle.iter().map(|one| one.id).collect()
}

/// Time until an instance becomes due to be paused or reaped for idleness if nothing changes. An
/// instance with work may be idle from now on. An instance that is overdue and kept stays until
/// another input changes.
pub fn next_due(inputs: &ScaleInputs<'_>, limits: &Limits) -> Option<Duration> {
    let running = inputs.running.iter().flat_map(|one| {
        let idle_for = match one.in_flight {
            0 => one.idle_for,
            _ => Duration::ZERO,
        };
        [limits.pause_after, Some(limits.idle_timeout)]
            .into_iter()
            .flatten()
            .map(move |due| due.saturating_sub(idle_for))
    });
    let paused = inputs
        .paused
        .iter()
        .map(|one| limits.idle_timeout.saturating_sub(one.idle_for));
    running.chain(paused).filter(|left| !left.is_zero()).min()
}

#[cfg(test)]
mod tests;
