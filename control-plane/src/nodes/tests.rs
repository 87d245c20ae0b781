use super::*;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::Instant;

fn identity(id: &str) -> NodeIdentity {
    let name = NodeName::parse("a").expect("a label");
    NodeIdentity {
        id: id.into(),
        name,
        version: String::new(),
    }
}

/// A registry on tokio's clock, so that tests can pause it.
pub(crate) fn with_tokio_clock() -> Nodes {
    static START: OnceLock<Instant> = OnceLock::new();
    Nodes::with_clock(|| Timestamp::default().plus(START.get_or_init(Instant::now).elapsed()))
}

#[tokio::test]
async fn a_second_stream_of_a_node_replaces_the_first_and_survives_its_end() {
    let nodes = Nodes::new();
    let first = nodes.connect(identity("1"), "b".into()).expect("free");
    let second = nodes
        .connect(identity("1"), "b".into())
        .expect("the same node");
    first.replaced().await;
    drop(first);
    assert_eq!(nodes.in_service().len(), 1);
    assert!(!second.replaced.is_cancelled());
    drop(second);
    assert!(nodes.in_service().is_empty());
    assert_eq!(nodes.all().len(), 1, "stale, not forgotten");
}

/// Lets time pass with the periodic work of [`reconcile`].
async fn advance(nodes: &Nodes, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_secs(1)).await;
        nodes.forget_stale();
    }
}

#[tokio::test(start_paused = true)]
async fn a_disconnected_node_is_stale_for_five_minutes_then_forgotten() {
    let nodes = with_tokio_clock();
    let fresh = nodes.connect(identity("1"), "b".into()).expect("free");
    advance(&nodes, Duration::from_secs(3600)).await;
    let shown = nodes.all();
    assert!(
        shown[0].is_connected(),
        "connected however long it is silent"
    );
    assert_eq!(shown[0].disconnected_since(), None);

    let left = nodes.now();
    drop(fresh);
    advance(&nodes, Duration::from_secs(299)).await;
    let shown = nodes.all();
    assert!(!shown[0].is_connected());
    assert_eq!(shown[0].disconnected_since(), Some(left));
    assert!(shown[0].connect_time.is_some(), "kept while stale");

    let again = nodes
        .connect(identity("1"), "b".into())
        .expect("the same node");
    assert_eq!(nodes.all()[0].disconnected_since(), None, "connected again");
    drop(again);
    advance(&nodes, Duration::from_secs(299)).await;
    assert_eq!(nodes.all().len(), 1, "counted from the last disconnect");
    advance(&nodes, Duration::from_secs(2)).await;
    assert!(nodes.all().is_empty(), "forgotten");
}

#[test]
fn a_report_without_a_stream_leaves_nothing() {
    let nodes = Nodes::new();
    let report = nodes.report(&identity("1"), "b", NodeReport::default());
    report.expect_err("no stream");
    assert!(nodes.all().is_empty());
}
