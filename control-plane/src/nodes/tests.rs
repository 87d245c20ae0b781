use super::*;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::Instant;

fn identity(id: &str) -> Identity {
    let name = NodeName::parse("a").expect("a label");
    Identity {
        id: id.into(),
        name,
        version: String::new(),
    }
}

/// A clock that goes as tokio's does, paused or not.
pub(crate) fn of_tokio() -> Nodes {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    Nodes::with_clock(|| Timestamp::default().plus(BEGUN.get_or_init(Instant::now).elapsed()))
}

#[tokio::test]
async fn a_second_stream_of_a_node_ends_the_first_and_survives_its_end() {
    let nodes = Nodes::new();
    let first = nodes.connect(identity("1"), "b".into()).expect("free");
    let second = nodes.connect(identity("1"), "b".into()).expect("own");
    first.replaced().await;
    drop(first);
    assert_eq!(nodes.connected().len(), 1);
    assert!(!second.replaced.is_cancelled());
    drop(second);
    assert!(nodes.connected().is_empty());
    assert_eq!(nodes.all().len(), 1, "stale, not forgotten");
}

/// As the loop of [`reconcile`] does each second.
async fn pass(nodes: &Nodes, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_secs(1)).await;
        nodes.forget();
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_vanishes_is_stale_for_five_minutes_then_gone() {
    let nodes = of_tokio();
    let fresh = nodes.connect(identity("1"), "b".into()).expect("free");
    pass(&nodes, Duration::from_secs(3600)).await;
    let shown = nodes.all();
    assert!(shown[0].is_connected(), "however long it says nothing");
    assert_eq!(shown[0].gone_since(), None);

    let left = nodes.now();
    drop(fresh);
    pass(&nodes, Duration::from_secs(299)).await;
    let shown = nodes.all();
    assert!(!shown[0].is_connected());
    assert_eq!(shown[0].gone_since(), Some(left));
    assert!(shown[0].connect_time.is_some(), "kept while stale");

    let again = nodes
        .connect(identity("1"), "b".into())
        .expect("its own name");
    assert_eq!(nodes.all()[0].gone_since(), None, "fresh again");
    drop(again);
    pass(&nodes, Duration::from_secs(299)).await;
    assert_eq!(nodes.all().len(), 1, "counted from when it left last");
    pass(&nodes, Duration::from_secs(2)).await;
    assert!(nodes.all().is_empty(), "gone");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_reports_without_a_stream_is_stale_and_stays_known() {
    let nodes = of_tokio();
    for _ in 0..60 {
        let report = nodes.report(identity("1"), "b".into(), Report::default());
        report.expect("taken in");
        pass(&nodes, Duration::from_secs(10)).await;
    }
    assert!(!nodes.all()[0].is_connected());
    assert_eq!(nodes.propagation("e", 0), Propagation::default());
    pass(&nodes, Duration::from_secs(300)).await;
    assert!(nodes.all().is_empty());
}
