use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const SIZE: usize = 3;

fn sandbox(name: &str) -> Sandbox {
    Sandbox {
        name: name.to_owned(),
        id: format!("id of {name}"),
        address: Ipv4Addr::LOCALHOST.into(),
    }
}

/// An event of the environment.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Busy(bool),
    Tick,
    CreateEnds(bool),
    Take(u8),
    Release(u8),
    Die(u8),
    Find(u8),
    RemovalEnds(u8),
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..2_000_u64).prop_map(Step::Wait),
        2 => any::<bool>().prop_map(Step::Busy),
        8 => Just(Step::Tick),
        8 => prop::bool::weighted(0.8).prop_map(Step::CreateEnds),
        6 => (0..6_u8).prop_map(Step::Take),
        4 => (0..6_u8).prop_map(Step::Release),
        2 => any::<u8>().prop_map(Step::Die),
        1 => (0..6_u8).prop_map(Step::Find),
        2 => any::<u8>().prop_map(Step::RemovalEnds),
        1 => Just(Step::Stop),
    ]
}

/// The engine and the instances, as the laws need them.
struct World {
    inventory: Inventory,
    now: Instant,
    busy_since: Option<Instant>,
    idle_since: Instant,
    creating: Option<String>,
    /// Running pause containers.
    running: BTreeSet<String>,
    /// Every sandbox that an instance has had.
    given: BTreeSet<String>,
    /// By instance.
    held: BTreeMap<String, String>,
    removals: BTreeSet<String>,
    full_at: Instant,
    stopped: bool,
    names: u32,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            inventory: Inventory::new(SIZE, now),
            now,
            busy_since: None,
            idle_since: now,
            creating: None,
            running: BTreeSet::new(),
            given: BTreeSet::new(),
            held: BTreeMap::new(),
            removals: BTreeSet::new(),
            full_at: now,
            stopped: false,
            names: 0,
        }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("s{}", self.names)
    }

    fn idle_for(&self) -> Option<Duration> {
        match self.busy_since {
            Some(_) => None,
            None => Some(self.now - self.idle_since),
        }
    }

    fn on(&mut self, event: InventoryEvent) -> Result<(), TestCaseError> {
        for action in self.inventory.on(event, self.now) {
            match action {
                InventoryAction::Create { name, in_turn } => {
                    prop_assert!(!self.stopped && self.creating.is_none());
                    let idle = self.idle_for().is_some_and(|time| time >= IDLE);
                    prop_assert!(idle || in_turn, "created out of turn during a start");
                    prop_assert!(idle || self.now - self.full_at >= MAX_SHORTAGE);
                    self.creating = Some(name);
                }
                InventoryAction::Remove(name) => {
                    prop_assert!(
                        !self.held.values().any(|held| *held == name),
                        "removed from under an instance"
                    );
                    prop_assert!(self.removals.insert(name.clone()), "removed twice");
                    self.running.remove(&name);
                }
                InventoryAction::NotifyLost(instance) => {
                    let held = self.held.get(&instance);
                    prop_assert!(held.is_some_and(|name| !self.running.contains(name)));
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Wait(ms) => self.now += Duration::from_millis(ms),
            Step::Busy(true) => self.busy_since = Some(self.busy_since.unwrap_or(self.now)),
            Step::Busy(false) => {
                if self.busy_since.take().is_some() {
                    self.idle_since = self.now;
                }
            }
            Step::Tick => {
                let (idle_for, name) = (self.idle_for(), self.name());
                self.on(InventoryEvent::Tick { idle_for, name })?;
            }
            Step::CreateEnds(true) => {
                if let Some(name) = self.creating.take() {
                    self.running.insert(name.clone());
                    self.on(InventoryEvent::Created(sandbox(&name)))?;
                }
            }
            Step::CreateEnds(false) => {
                if self.creating.take().is_some() {
                    self.on(InventoryEvent::CreateFailed)?;
                }
            }
            Step::Take(who) => self.take(&format!("i{who}"))?,
            Step::Release(who) => {
                let instance = format!("i{who}");
                let name = self.held.remove(&instance);
                self.on(InventoryEvent::Released(instance))?;
                if let Some(name) = name {
                    prop_assert!(self.removals.contains(&name), "left behind");
                }
            }
            Step::Die(which) => {
                let names: Vec<String> = self.running.iter().cloned().collect();
                if let Some(name) = names.get(usize::from(which) % names.len().max(1)) {
                    self.running.remove(name);
                    self.on(InventoryEvent::Died(name.clone()))?;
                }
            }
            Step::Find(who) => {
                let (instance, name) = (format!("i{who}"), self.name());
                if !self.held.contains_key(&instance) {
                    self.running.insert(name.clone());
                    self.given.insert(name.clone());
                    self.held.insert(instance.clone(), name.clone());
                    let sandbox = sandbox(&name);
                    self.on(InventoryEvent::Found { instance, sandbox })?;
                }
            }
            Step::RemovalEnds(which) => {
                let names: Vec<String> = self.removals.iter().cloned().collect();
                if let Some(name) = names.get(usize::from(which) % names.len().max(1)) {
                    self.on(InventoryEvent::Removed(name.clone()))?;
                }
            }
            Step::Stop => {
                self.stopped = true;
                self.on(InventoryEvent::Stop)?;
            }
        }
        let (idle, used) = self.inventory.counts();
        prop_assert!(idle + usize::from(self.creating.is_some()) <= SIZE);
        prop_assert_eq!(used, self.held.len());
        if idle + usize::from(self.creating.is_some()) == SIZE {
            self.full_at = self.now;
        }
        Ok(())
    }

    fn take(&mut self, instance: &str) -> Result<(), TestCaseError> {
        let Some(taken) = self.inventory.take(instance, self.now) else {
            return Ok(());
        };
        prop_assert!(!self.stopped);
        prop_assert!(self.running.contains(&taken.name), "it has died");
        prop_assert!(self.given.insert(taken.name.clone()), "handed out twice");
        prop_assert!(self.held.insert(instance.to_owned(), taken.name).is_none());
        Ok(())
    }
}

proptest! {
    #[test]
    fn each_serves_one_instance_and_is_removed_once_and_none_is_created_out_of_turn(
        steps in proptest::collection::vec(step(), 0..200)
    ) {
        let mut world = World::new();
        for step in steps {
            world.apply(step)?;
        }
    }

    #[test]
    fn nothing_is_left_after_a_stop_and_all_releases(steps in proptest::collection::vec(step(), 0..200)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step)?;
        }
        world.apply(Step::Stop)?;
        world.apply(Step::CreateEnds(true))?;
        for who in 0..6 {
            world.apply(Step::Release(who))?;
        }
        prop_assert!(world.running.is_empty(), "{:?}", world.running);
        prop_assert_eq!(world.inventory.next_tick(world.now), None);
    }

    #[test]
    fn an_idle_or_long_busy_node_fills_its_inventory(
        steps in proptest::collection::vec(step(), 0..100),
        busy in any::<bool>(),
    ) {
        let mut world = World::new();
        for step in steps {
            if !matches!(step, Step::Stop) {
                world.apply(step)?;
            }
        }
        world.apply(Step::Busy(busy))?;
        world.apply(Step::CreateEnds(true))?;
        // Longer than any back-off and than the longest shortage.
        world.apply(Step::Wait(400_000))?;
        for _ in 0..SIZE {
            world.apply(Step::Tick)?;
            world.apply(Step::CreateEnds(true))?;
        }
        prop_assert_eq!(world.inventory.counts().0, SIZE);
    }
}

#[test]
fn the_next_tick_is_when_something_can_be_done() {
    let now = Instant::now();
    let mut inventory = Inventory::new(1, now);
    assert_eq!(inventory.next_tick(now), Some(IDLE));
    let tick = |name: &str| InventoryEvent::Tick {
        idle_for: Some(IDLE),
        name: name.to_owned(),
    };
    assert_eq!(inventory.on(tick("a"), now).len(), 1);
    assert_eq!(inventory.next_tick(now), None, "one is being created");
    assert_eq!(
        inventory.on(InventoryEvent::CreateFailed, now),
        [InventoryAction::Remove("a".to_owned())]
    );
    assert_eq!(
        inventory.next_tick(now),
        Some(Duration::from_secs(1)),
        "after the back-off"
    );
    assert_eq!(inventory.on(tick("b"), now), []);
    assert_eq!(Inventory::new(0, now).next_tick(now), None, "turned off");
}
