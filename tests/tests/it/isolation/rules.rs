//! The lifecycle of the rules of a node.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::models::NetworkCreateRequest;
use cless_proto::v1::isolation::State;
use cless_tests::cluster::{Cluster, settings};
use cless_tests::{firewall, wait};

use super::{connect, wait_isolation};
use crate::{SOON, check_serves, hello, sample};

#[tokio::test(flavor = "multi_thread")]
async fn flushed_rules_are_restored() -> Result<()> {
    let cluster = hello(settings()).await?;
    check_serves(&cluster, "hello").await?;
    wait_isolation(&cluster, 0, State::Enforced).await?;
    let id = cluster.node_id(0)?;
    let chains = firewall::chains(&id);
    let expected = firewall::rules(&id);
    ensure!(!expected.is_empty(), "there are no rules");
    let bridge = firewall::bridge(&id);
    let jump = format!("-i {bridge} -j {chains}IN");
    for script in [
        format!("-F {chains}IN"),
        format!("-F {chains}FWD"),
        format!("-D INPUT {jump}"),
        format!("-I INPUT -i {bridge} -j ACCEPT"),
        format!("-A {chains}IN -j ACCEPT"),
    ] {
        ensure!(
            firewall::restore("iptables", &format!("*filter\n{script}\nCOMMIT\n")),
            "{script}"
        );
        // Rules of others are kept; the node's rules are moved before them.
        let outcome = wait::until(
            &format!("the rules are restored after {script}"),
            SOON,
            async || Ok((firewall::rules(&id) == expected && is_first(&jump)?).then_some(())),
        )
        .await;
        if script.starts_with("-I") {
            firewall::restore(
                "iptables",
                &format!("*filter\n-D INPUT -i {bridge} -j ACCEPT\nCOMMIT\n"),
            );
        }
        outcome?;
    }
    wait_isolation(&cluster, 0, State::Enforced).await?;
    cluster.finish().await
}

/// Whether only rules of nodes precede a jump in INPUT.
fn is_first(jump: &str) -> Result<bool> {
    let listed = std::process::Command::new("iptables-save").output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut input = listed
        .lines()
        .filter_map(|line| line.strip_prefix("-A INPUT "));
    let first = input.find(|rule| *rule == jump || !rule.contains("-j CLESS-"));
    Ok(first == Some(jump))
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_survive_a_kill_are_replaced_at_start_and_removed_by_sigterm() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let id = cluster.node_id(0)?;
    let expected = firewall::rules(&id);
    ensure!(!expected.is_empty(), "no rules before the first container");
    cluster.kill_node(0).await?;
    ensure!(
        firewall::rules(&id) == expected,
        "the rules changed with the kill"
    );
    let chains = firewall::chains(&id);
    let stale = format!(
        "*filter\n-A {chains}FWD -j ACCEPT\n-A FORWARD -i stale -j {chains}FWD\n-A INPUT -i stale -j \
         {chains}IN\nCOMMIT\n"
    );
    ensure!(firewall::restore("iptables", &stale), "{stale}");
    ensure!(firewall::restore("ip6tables", &stale), "{stale}");
    cluster.start_node(0).await?;
    ensure!(
        firewall::rules(&id) == expected,
        "{:#?}",
        firewall::rules(&id)
    );

    cluster.node_mut(0).setup.args = vec!["--keep-containers".to_owned()];
    cluster.stop_node(0).await?;
    cluster.start_node(0).await?;
    cluster.stop_node(0).await?;
    ensure!(
        firewall::rules(&id) == expected,
        "kept containers have no rules"
    );

    cluster.node_mut(0).setup.args.clear();
    cluster.start_node(0).await?;
    cluster.stop_node(0).await?;
    ensure!(
        firewall::rules(&id).is_empty(),
        "{:#?}",
        firewall::rules(&id)
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_of_an_older_release_is_covered_by_its_own_bridge_name() -> Result<()> {
    let mut cluster = Cluster::start_exposed(1).await?;
    cluster.serve("hello", sample().await?, settings()).await?;
    let id = cluster.node_id(0)?;
    cluster.stop_node(0).await?;
    let label = ("cless.cluster".to_owned(), cluster.id().to_owned());
    let name = format!("cless-{}", firewall::short_id(&id));
    let icc = "com.docker.network.bridge.enable_icc".to_owned();
    let request = NetworkCreateRequest {
        name: name.clone(),
        options: Some([(icc, "false".to_owned())].into()),
        labels: Some([label].into()),
        ..Default::default()
    };
    let created = cluster.docker().create_network(request).await?;
    let bridge = format!("br-{}", &created.id[..12]);

    cluster.start_node(0).await?;
    cluster.wait_propagated(0).await?;
    let jumps = |bridge: &str| {
        let rules = firewall::rules(&id);
        rules
            .iter()
            .filter(|rule| rule.contains(&format!("-i {bridge} -j")))
            .count()
    };
    wait::until("the old bridge is covered", SOON, async || {
        Ok((jumps(&bridge) > 0 && jumps(&firewall::bridge(&id)) == 0).then_some(()))
    })
    .await?;
    let network = cluster.docker().inspect_network(&name, None).await?;
    let config = network
        .ipam
        .and_then(|ipam| ipam.config)
        .unwrap_or_default();
    let gateway = config.into_iter().find_map(|config| config.gateway);
    let admin = format!(
        "{}:{}",
        gateway.context("no gateway")?,
        cluster.node(0).admin.port()
    );
    ensure!(
        connect(&cluster, 0, "hello", &admin).await? == "refused",
        "{admin}"
    );
    wait_isolation(&cluster, 0, State::Enforced).await?;
    cluster.finish().await?;
    let path = format!("/sys/class/net/{bridge}");
    wait::until(
        "the bridge is removed",
        Duration::from_secs(5),
        async || Ok((!std::path::Path::new(&path).exists()).then_some(())),
    )
    .await
}
