use super::*;
use proptest::prelude::*;

fn client(number: u8) -> Option<Client> {
    Some(Client::from(IpAddr::from([192, 0, 2, number])))
}

fn service(number: usize) -> Arc<str> {
    format!("s{number}").into()
}

#[derive(Debug, Clone)]
struct Waiting {
    service: Arc<str>,
    rank: Rank,
    callers: Vec<Option<Client>>,
    arrived: u64,
}

fn candidates(waiting: &[Waiting]) -> Vec<Candidate<'_>> {
    let all = waiting.iter().map(|one| Candidate {
        service: &one.service,
        rank: one.rank,
        callers: one.callers.clone(),
        arrived: one.arrived,
    });
    all.collect()
}

fn take(order: &mut StartOrder, waiting: &mut Vec<Waiting>) -> Option<(Waiting, Grant)> {
    let (index, grant) = order.grant(&candidates(waiting))?;
    Some((waiting.remove(index), grant))
}

fn awaited(number: usize, callers: &[u8], arrived: u64) -> Waiting {
    Waiting {
        service: service(number),
        rank: Rank::First,
        callers: callers.iter().map(|one| client(*one)).collect(),
        arrived,
    }
}

fn start() -> impl Strategy<Value = (usize, bool, Vec<u8>)> {
    let callers = proptest::collection::vec(0u8..4, 0..3);
    (0usize..5, any::<bool>(), callers)
}

#[derive(Debug, Clone)]
enum Step {
    Arrive((usize, bool, Vec<u8>)),
    /// A start ends; the index counts modulo the permits in use.
    End(usize),
    Grant,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => start().prop_map(Step::Arrive),
        1 => any::<usize>().prop_map(Step::End),
        2 => Just(Step::Grant),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn the_limit_the_reserves_and_the_order_of_classes_and_ranks_hold(
        limit in 1usize..7, steps in steps()
    ) {
        let mut order = StartOrder::new(limit);
        let (mut waiting, mut running) = (Vec::<Waiting>::new(), Vec::<Grant>::new());
        for (arrived, step) in steps.into_iter().enumerate() {
            match step {
                Step::Arrive((number, first, callers)) => waiting.push(Waiting {
                    rank: if first { Rank::First } else { Rank::Further },
                    ..awaited(number, &callers, arrived as u64)
                }),
                Step::End(index) if !running.is_empty() => {
                    let ended = running.remove(index % running.len());
                    order.release(&ended);
                }
                Step::End(_) => {}
                Step::Grant => {
                    let held = |of: &Option<Client>| {
                        running.iter().filter(|one| one.client == Some(*of)).count()
                    };
                    let before = waiting.clone();
                    let refills = running.iter().filter(|one| one.client.is_none()).count();
                    let left = limit - running.len();
                    let holders: std::collections::HashSet<_> =
                        running.iter().filter_map(|one| one.client).collect();
                    let is_half_used = running.len() >= (limit / 2).max(1);
                    // The model of who may have a permit.
                    let may = |one: &Waiting| match one.callers.is_empty() {
                        false if one.callers.iter().any(|of| held(of) == 0) => left > 0,
                        false => left > 1 && !(holders.len() > 1 && is_half_used),
                        true if !holders.is_empty() && is_half_used => false,
                        true => (left > 1 || limit == 1 && left == 1) && refills < (limit / 2).max(1),
                    };
                    let rank = |one: &Waiting| {
                        let runs = running.iter().any(|run| run.service == one.service);
                        if runs { Rank::Further } else { one.rank }
                    };
                    let best = before
                        .iter()
                        .filter(|one| may(one))
                        .map(|one| (one.callers.is_empty(), rank(one)))
                        .min();
                    let granted = take(&mut order, &mut waiting);
                    let taken = granted.as_ref().map(|(one, _)| (one.callers.is_empty(), rank(one)));
                    prop_assert_eq!(taken, best);
                    if let Some((one, grant)) = granted {
                        if let Some(client) = &grant.client {
                            prop_assert!(one.callers.contains(client));
                            let least = one.callers.iter().map(held).min();
                            prop_assert_eq!(Some(held(client)), least, "the least loaded pays");
                        }
                        running.push(grant);
                    }
                    prop_assert!(running.len() <= limit);
                    if running.is_empty() {
                        prop_assert!(waiting.is_empty(), "an idle node starts what waits");
                    }
                }
            }
        }
    }

    #[test]
    fn services_of_the_same_class_take_turns(
        limit in 1usize..6, services in 2usize..6, of_a_client in any::<bool>(), ends in proptest::collection::vec(any::<usize>(), 60)
    ) {
        let mut order = StartOrder::new(limit);
        let callers: &[u8] = if of_a_client { &[1] } else { &[] };
        // The first service has the most starts and asked first.
        let mut arrivals = 0;
        let mut waiting = Vec::new();
        for number in 0..services {
            for _ in 0..(60 * (services - number)) {
                arrivals += 1;
                waiting.push(Waiting { rank: Rank::Further, ..awaited(number, callers, arrivals) });
            }
        }
        let mut running = Vec::new();
        let mut counts = vec![0usize; services];
        for end in ends {
            while let Some((one, grant)) = take(&mut order, &mut waiting) {
                let number: usize = one.service[1..].parse().unwrap();
                counts[number] += 1;
                running.push(grant);
            }
            let held = |number: usize| running.iter().filter(|one| one.service == service(number)).count();
            let most = (0..services).map(held).max();
            let least = (0..services).map(held).min();
            prop_assert!(most <= least.map(|held| held + 1), "{:?} to {:?}", least, most);
            prop_assert!(!running.is_empty());
            let ended = running.remove(end % running.len());
            order.release(&ended);
        }
        prop_assert!(counts.iter().all(|count| *count > 0), "{:?}", counts);
    }

    #[test]
    fn a_client_without_a_permit_gets_the_next_one_whatever_another_waits_for(
        limit in 2usize..8, storm in 1usize..100, refills in 0usize..40, before in any::<bool>()
    ) {
        let mut order = StartOrder::new(limit);
        let mut waiting: Vec<_> = (0..storm).map(|n| awaited(n, &[1], n as u64)).collect();
        waiting.extend((storm..storm + refills).map(|n| awaited(n, &[], n as u64)));
        let quiet = awaited(1000, &[2], if before { 0 } else { 1000 });
        while take(&mut order, &mut waiting).is_some() {}
        prop_assert!(!order.is_full(), "one permit is free for others");
        waiting.push(quiet.clone());
        let next = take(&mut order, &mut waiting);
        prop_assert_eq!(next.map(|(one, _)| one.service), Some(quiet.service));
    }

    #[test]
    fn while_clients_share_the_node_a_storm_has_half_of_it(limit in 2usize..8, storm in 30usize..100) {
        let mut order = StartOrder::new(limit);
        let mut waiting: Vec<_> = (0..storm).map(|n| awaited(n, &[1], n as u64)).collect();
        let mut running = Vec::new();
        while let Some((_, grant)) = take(&mut order, &mut waiting) {
            running.push(grant);
        }
        prop_assert_eq!(running.len(), limit - 1, "alone");
        waiting.push(awaited(1000, &[2], 1000));
        let quiet = take(&mut order, &mut waiting).map(|(_, grant)| grant);
        for ended in running {
            order.release(&ended);
            while take(&mut order, &mut waiting).is_some() {}
            prop_assert!(order.used <= limit);
        }
        prop_assert!(order.used <= (limit / 2).max(2), "{} beside the quiet client", order.used);
        order.release(&quiet.unwrap());
        while take(&mut order, &mut waiting).is_some() {}
        prop_assert_eq!(order.used, limit - 1, "alone again");
    }

    #[test]
    fn waking_a_service_too_does_not_delay_it(storm in 4usize..80, arrived in 0u64..80) {
        let mut order = StartOrder::new(4);
        let mut waiting: Vec<_> = (0..storm).map(|n| awaited(n, &[1], n as u64)).collect();
        while take(&mut order, &mut waiting).is_some() {}
        waiting.push(awaited(1000, &[1, 2], arrived));
        let next = take(&mut order, &mut waiting).map(|(one, _)| one.service);
        prop_assert_eq!(next, Some(service(1000)));
    }
}

#[test]
fn an_ipv6_client_is_its_network_and_a_mapped_address_is_ipv4() {
    let of = |text: &str| Client::from(text.parse::<IpAddr>().unwrap());
    assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
    assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
}
