//! How many instances to start, and which to wake, put to sleep and reap: one pure function.
//!
//! One more is asked for when requests wait that nothing on its way would absorb: each instance that
//! is starting, waking or just falling asleep will take `concurrency` of them. So a hundred requests
//! at concurrency 100 cause one start, and 101 cause two. One that sleeps is woken before another is
//! started: that takes a twentieth of the time.
//!
//! Instances go one by one as they are idle for `idle_timeout`, all but `min_instances`; those that
//! the load of the last minute did not need ([`ScaleInputs::needed`]) go as soon as they are idle, all but
//! one, and but for a version that has left the table, which a rollback is to find as it was.
//!
//! While the engine is away nothing is decided: it would not be done, and what runs and is taken out
//! of service could not be put back.
//!
//! Laws (tested below): never more than `max_instances`; an instance with work is neither reaped nor
//! put to sleep, and none is while requests wait; `min_instances` stay awake while the version has
//! traffic; deciding again after the decision is carried out decides nothing.

use std::cmp::Reverse;
use std::time::Duration;

/// What the route table says of the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionStatus {
    /// It gets a share of the traffic.
    InTraffic,
    /// It can be reached, by tag or for its proof.
    Reachable,
    /// It left the table: what it runs lives out its idle timeout, in case it comes back.
    Left,
    /// Its service is deleted: what it runs goes as soon as nothing is in flight.
    Deleted,
}

/// The settings that matter here.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Kept awake while the version has traffic.
    pub min_instances: u32,
    /// Never exceeded.
    pub max_instances: u32,
    /// Requests in one instance.
    pub concurrency: u32,
    /// How long an instance without requests is kept.
    pub idle_timeout: Duration,
    /// After how long without requests an instance sleeps.
    pub pause_after: Option<Duration>,
}

impl Limits {
    /// How many instances this much work fills.
    pub fn instances_for(&self, requests: usize) -> u32 {
        let concurrency = self.concurrency.max(1) as usize;
        u32::try_from(requests.div_ceil(concurrency)).unwrap_or(u32::MAX)
    }
}

/// One instance that can take requests.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    /// Which; returned in [`Decision`].
    pub id: u64,
    /// Requests in it.
    pub in_flight: u32,
    /// How long it has had none.
    pub idle_for: Duration,
}

/// One instance that sleeps.
#[derive(Debug, Clone, Copy)]
pub struct Sleeper {
    /// Which; returned in [`Decision`].
    pub id: u64,
    /// How long it has had no request.
    pub idle_for: Duration,
}

/// All that the decision depends on.
#[derive(Debug, Clone)]
pub struct ScaleInputs<'a> {
    /// See [`VersionStatus`].
    pub standing: VersionStatus,
    /// Requests that wait for a place.
    pub waiting: usize,
    /// Instances on their way to ready: starting or waking.
    pub coming: u32,
    /// Instances that are being frozen; they can be woken once they are.
    pub pausing: u32,
    /// Instances that are ready.
    pub running: &'a [Running],
    /// Instances that sleep.
    pub asleep: &'a [Sleeper],
    /// The most instances that the load filled at any time lately.
    pub needed: u32,
    /// A proof is asked for and no start for it is in progress.
    pub proof_wanted: bool,
    /// Starts are failing: only a proof may try.
    pub backing_off: bool,
    /// The engine does not answer.
    pub engine_away: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Instances to start.
    pub start: u32,
    /// Instances to wake.
    pub wake: Vec<u64>,
    /// Instances to put to sleep, if nothing entered them meanwhile.
    pub pause: Vec<u64>,
    /// Instances to reap, if nothing entered them meanwhile.
    pub reap: Vec<u64>,
}

/// Decides. Pure: the same facts give the same decision.
pub fn decide(facts: &ScaleInputs<'_>, limits: &Limits) -> Decision {
    if facts.engine_away {
        return Decision::default();
    }
    let (start, wake) = more(facts, limits);
    let reap = reaps(facts, limits, &wake);
    let pause = pauses(facts, limits, &reap);
    Decision {
        start,
        wake,
        pause,
        reap,
    }
}

fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

/// Instances that exist, in any state but on their way out.
fn alive(facts: &ScaleInputs<'_>) -> u32 {
    facts.coming + facts.pausing + count(facts.running) + count(facts.asleep)
}

/// How many are kept awake.
fn minimum(facts: &ScaleInputs<'_>, limits: &Limits) -> u32 {
    match facts.standing {
        VersionStatus::InTraffic => limits.min_instances.min(limits.max_instances.max(1)),
        _ => 0,
    }
}

/// How many running ones are spared: a proof that has yet to look at one keeps it.
fn spared(facts: &ScaleInputs<'_>, limits: &Limits) -> u32 {
    let for_proof = facts.proof_wanted && facts.standing != VersionStatus::Deleted;
    minimum(facts, limits).max(u32::from(for_proof))
}

/// How many to start, and which to wake.
fn more(facts: &ScaleInputs<'_>, limits: &Limits) -> (u32, Vec<u64>) {
    if facts.standing == VersionStatus::Deleted {
        return (0, Vec::new());
    }
    let on_their_way = facts.coming + facts.pausing;
    let for_queue = limits
        .instances_for(facts.waiting)
        .saturating_sub(on_their_way);
    let for_minimum = minimum(facts, limits).saturating_sub(on_their_way + count(facts.running));
    // A version that is running is proved by that; only one that is not needs one for it.
    let none = on_their_way == 0 && facts.running.is_empty();
    let for_proof = u32::from(facts.proof_wanted && none);
    let wanted = for_queue.max(for_minimum);

    let mut sleepers: Vec<&Sleeper> = facts.asleep.iter().collect();
    // The last to fall asleep has the most of its memory at hand.
    sleepers.sort_by_key(|one| (one.idle_for, one.id));
    sleepers.truncate(wanted.max(for_proof) as usize);
    let wake: Vec<u64> = sleepers.iter().map(|one| one.id).collect();

    let allowed = if facts.backing_off { 0 } else { wanted };
    let room = limits.max_instances.max(1).saturating_sub(alive(facts));
    let start = allowed
        .max(for_proof)
        .saturating_sub(count(&wake))
        .min(room);
    (start, wake)
}

fn reaps(facts: &ScaleInputs<'_>, limits: &Limits, woken: &[u64]) -> Vec<u64> {
    let deleted = facts.standing == VersionStatus::Deleted;
    if facts.waiting > 0 && !deleted {
        return Vec::new();
    }
    let spared = spared(facts, limits);
    let enough = match facts.standing {
        VersionStatus::InTraffic | VersionStatus::Reachable => facts.needed.max(spared).max(1),
        VersionStatus::Left => u32::MAX,
        VersionStatus::Deleted => 0,
    };
    let enough = enough.min(limits.max_instances.max(1));
    // Those that sleep first, and of each kind the longest idle: the ones kept are the warmest.
    let mut idle: Vec<(bool, Reverse<Duration>, u64)> = Vec::new();
    let sleepers = facts.asleep.iter().filter(|one| !woken.contains(&one.id));
    idle.extend(sleepers.map(|one| (false, Reverse(one.idle_for), one.id)));
    let running = facts.running.iter().filter(|one| one.in_flight == 0);
    idle.extend(running.map(|one| (true, Reverse(one.idle_for), one.id)));
    idle.sort_unstable();

    // What is on its way may yet fail, so it makes nothing superfluous.
    let mut left = count(facts.running) + count(facts.asleep);
    let mut awake = count(facts.running);
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

fn pauses(facts: &ScaleInputs<'_>, limits: &Limits, reaped: &[u64]) -> Vec<u64> {
    let Some(after) = limits.pause_after else {
        return Vec::new();
    };
    if facts.waiting > 0 || facts.standing == VersionStatus::Deleted {
        return Vec::new();
    }
    let stay: Vec<&Running> = facts
        .running
        .iter()
        .filter(|one| !reaped.contains(&one.id))
        .collect();
    let spare = count(&stay).saturating_sub(spared(facts, limits));
    let mut idle: Vec<&Running> = stay
        .into_iter()
        .filter(|one| one.in_flight == 0 && one.idle_for >= after)
        .collect();
    idle.sort_by_key(|one| (Reverse(one.idle_for), one.id));
    idle.truncate(spare as usize);
    idle.iter().map(|one| one.id).collect()
}

/// How long until an instance may be put to sleep or reaped for having been idle, if nothing changes
/// before. One that is at work now may be idle from now on. What is due already and stays, stays
/// until something else changes.
pub fn next_due(facts: &ScaleInputs<'_>, limits: &Limits) -> Option<Duration> {
    let running = facts.running.iter().flat_map(|one| {
        let idle_for = match one.in_flight {
            0 => one.idle_for,
            _ => Duration::ZERO,
        };
        [limits.pause_after, Some(limits.idle_timeout)]
            .into_iter()
            .flatten()
            .map(move |due| due.saturating_sub(idle_for))
    });
    let asleep = facts
        .asleep
        .iter()
        .map(|one| limits.idle_timeout.saturating_sub(one.idle_for));
    running.chain(asleep).filter(|left| !left.is_zero()).min()
}

#[cfg(test)]
mod tests;
