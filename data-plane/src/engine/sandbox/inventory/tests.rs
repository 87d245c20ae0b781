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

/// What the world does to a stock.
#[derive(Debug, Clone)]
enum Deed {
    Wait(u64),
    Busy(bool),
    Look,
    MakeSucceeds(bool),
    Take(u8),
    Release(u8),
    Die(u8),
    Find(u8),
    RemovalEnds(u8),
    Stop,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (1..2_000_u64).prop_map(Deed::Wait),
        2 => any::<bool>().prop_map(Deed::Busy),
        8 => Just(Deed::Look),
        8 => prop::bool::weighted(0.8).prop_map(Deed::MakeSucceeds),
        6 => (0..6_u8).prop_map(Deed::Take),
        4 => (0..6_u8).prop_map(Deed::Release),
        2 => any::<u8>().prop_map(Deed::Die),
        1 => (0..6_u8).prop_map(Deed::Find),
        2 => any::<u8>().prop_map(Deed::RemovalEnds),
        1 => Just(Deed::Stop),
    ]
}

/// The engine and the instances, as honest as they must be for the laws to be checked against.
struct World {
    stock: Stock,
    now: Instant,
    busy_since: Option<Instant>,
    quiet_since: Instant,
    making: Option<String>,
    /// Pause containers that run.
    running: BTreeSet<String>,
    /// Ever given to an instance, or found with one.
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
            stock: Stock::new(SIZE, now),
            now,
            busy_since: None,
            quiet_since: now,
            making: None,
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

    fn quiet_for(&self) -> Option<Duration> {
        match self.busy_since {
            Some(_) => None,
            None => Some(self.now - self.quiet_since),
        }
    }

    fn on(&mut self, event: Event) -> Result<(), TestCaseError> {
        for action in self.stock.on(event, self.now) {
            match action {
                Action::Make { name, in_turn } => {
                    prop_assert!(!self.stopped && self.making.is_none());
                    let quiet = self.quiet_for().is_some_and(|time| time >= QUIET);
                    prop_assert!(quiet || in_turn, "made out of turn while something starts");
                    prop_assert!(quiet || self.now - self.full_at >= STARVED);
                    self.making = Some(name);
                }
                Action::Remove(name) => {
                    prop_assert!(
                        !self.held.values().any(|held| *held == name),
                        "removed from under an instance"
                    );
                    prop_assert!(self.removals.insert(name.clone()), "removed twice");
                    self.running.remove(&name);
                }
                Action::Tell(instance) => {
                    let held = self.held.get(&instance);
                    prop_assert!(held.is_some_and(|name| !self.running.contains(name)));
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, deed: Deed) -> Result<(), TestCaseError> {
        match deed {
            Deed::Wait(ms) => self.now += Duration::from_millis(ms),
            Deed::Busy(true) => self.busy_since = Some(self.busy_since.unwrap_or(self.now)),
            Deed::Busy(false) => {
                if self.busy_since.take().is_some() {
                    self.quiet_since = self.now;
                }
            }
            Deed::Look => {
                let (quiet_for, name) = (self.quiet_for(), self.name());
                self.on(Event::Look { quiet_for, name })?;
            }
            Deed::MakeSucceeds(true) => {
                if let Some(name) = self.making.take() {
                    self.running.insert(name.clone());
                    self.on(Event::Made(sandbox(&name)))?;
                }
            }
            Deed::MakeSucceeds(false) => {
                if self.making.take().is_some() {
                    self.on(Event::MakeFailed)?;
                }
            }
            Deed::Take(who) => self.take(&format!("i{who}"))?,
            Deed::Release(who) => {
                let instance = format!("i{who}");
                let name = self.held.remove(&instance);
                self.on(Event::Released(instance))?;
                if let Some(name) = name {
                    prop_assert!(self.removals.contains(&name), "left behind");
                }
            }
            Deed::Die(which) => {
                let names: Vec<String> = self.running.iter().cloned().collect();
                if let Some(name) = names.get(usize::from(which) % names.len().max(1)) {
                    self.running.remove(name);
                    self.on(Event::Died(name.clone()))?;
                }
            }
            Deed::Find(who) => {
                let (instance, name) = (format!("i{who}"), self.name());
                if !self.held.contains_key(&instance) {
                    self.running.insert(name.clone());
                    self.given.insert(name.clone());
                    self.held.insert(instance.clone(), name.clone());
                    let sandbox = sandbox(&name);
                    self.on(Event::Found { instance, sandbox })?;
                }
            }
            Deed::RemovalEnds(which) => {
                let names: Vec<String> = self.removals.iter().cloned().collect();
                if let Some(name) = names.get(usize::from(which) % names.len().max(1)) {
                    self.on(Event::Removed(name.clone()))?;
                }
            }
            Deed::Stop => {
                self.stopped = true;
                self.on(Event::Stop)?;
            }
        }
        let (idle, used) = self.stock.counts();
        prop_assert!(idle + usize::from(self.making.is_some()) <= SIZE);
        prop_assert_eq!(used, self.held.len());
        if idle + usize::from(self.making.is_some()) == SIZE {
            self.full_at = self.now;
        }
        Ok(())
    }

    fn take(&mut self, instance: &str) -> Result<(), TestCaseError> {
        let Some(taken) = self.stock.take(instance, self.now) else {
            return Ok(());
        };
        prop_assert!(!self.stopped);
        prop_assert!(self.running.contains(&taken.name), "it had died");
        prop_assert!(self.given.insert(taken.name.clone()), "given out twice");
        prop_assert!(self.held.insert(instance.to_owned(), taken.name).is_none());
        Ok(())
    }
}

proptest! {
    #[test]
    fn each_serves_one_instance_and_is_removed_once_and_none_is_made_out_of_turn(
        deeds in proptest::collection::vec(deed(), 0..200)
    ) {
        let mut world = World::new();
        for deed in deeds {
            world.apply(deed)?;
        }
    }

    #[test]
    fn stopped_and_released_nothing_is_left(deeds in proptest::collection::vec(deed(), 0..200)) {
        let mut world = World::new();
        for deed in deeds {
            world.apply(deed)?;
        }
        world.apply(Deed::Stop)?;
        world.apply(Deed::MakeSucceeds(true))?;
        for who in 0..6 {
            world.apply(Deed::Release(who))?;
        }
        prop_assert!(world.running.is_empty(), "{:?}", world.running);
        prop_assert_eq!(world.stock.next_look(world.now), None);
    }

    #[test]
    fn a_node_that_is_quiet_or_starved_fills_its_stock(
        deeds in proptest::collection::vec(deed(), 0..100),
        busy in any::<bool>(),
    ) {
        let mut world = World::new();
        for deed in deeds {
            if !matches!(deed, Deed::Stop) {
                world.apply(deed)?;
            }
        }
        world.apply(Deed::Busy(busy))?;
        world.apply(Deed::MakeSucceeds(true))?;
        // Past any back-off, and past the patience with starts that never end.
        world.apply(Deed::Wait(400_000))?;
        for _ in 0..SIZE {
            world.apply(Deed::Look)?;
            world.apply(Deed::MakeSucceeds(true))?;
        }
        prop_assert_eq!(world.stock.counts().0, SIZE);
    }
}

#[test]
fn the_next_look_is_when_something_can_be_done() {
    let now = Instant::now();
    let mut stock = Stock::new(1, now);
    assert_eq!(stock.next_look(now), Some(QUIET));
    let look = |name: &str| Event::Look {
        quiet_for: Some(QUIET),
        name: name.to_owned(),
    };
    assert_eq!(stock.on(look("a"), now).len(), 1);
    assert_eq!(stock.next_look(now), None, "one is in the making");
    assert_eq!(
        stock.on(Event::MakeFailed, now),
        [Action::Remove("a".to_owned())]
    );
    assert_eq!(
        stock.next_look(now),
        Some(Duration::from_secs(1)),
        "after the back-off"
    );
    assert_eq!(stock.on(look("b"), now), []);
    assert_eq!(Stock::new(0, now).next_look(now), None, "turned off");
}
