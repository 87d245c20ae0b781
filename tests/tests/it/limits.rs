//! What a container may do: the defaults as the engine has them, and the limits of a version as the
//! app meets them.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::models::{ContainerInspectResponse, HostConfig};
use bollard::query_parameters::{EventsOptionsBuilder, InspectContainerOptions};
use cless_proto::v1;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::process::Program;
use cless_tests::wait;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout};

use crate::cli::cless;
use crate::{SOON, sample_spec, serve_spec};

/// The only container of a service, as the engine has it.
async fn inspect(cluster: &Cluster, service: &str) -> Result<ContainerInspectResponse> {
    let found = cluster.wait_containers(service, 1, SOON).await?;
    let id = found[0].id.as_str();
    let found = cluster
        .docker()
        .inspect_container(id, None::<InspectContainerOptions>);
    Ok(found.await?)
}

fn empty<T>(list: Option<Vec<T>>) -> bool {
    list.is_none_or(|list| list.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_the_defaults_of_the_design_and_nothing_of_the_host() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    serve_spec(&cluster, "plain", settings(), sample_spec(&[]).await?).await?;
    ensure!(cluster.get("plain", "/").await?.status == 200, "no answer");
    let found = inspect(&cluster, "plain").await?;
    let host: HostConfig = found.host_config.context("no host config")?;
    let sorted = |list: Option<Vec<String>>| {
        let mut list = list.unwrap_or_default();
        list.sort();
        list
    };
    ensure!(sorted(host.security_opt) == ["no-new-privileges"]);
    ensure!(sorted(host.cap_drop) == ["ALL"]);
    let may = [
        "CHOWN",
        "DAC_OVERRIDE",
        "KILL",
        "NET_BIND_SERVICE",
        "SETGID",
        "SETUID",
    ];
    ensure!(sorted(host.cap_add) == may);
    ensure!(host.pids_limit == Some(512), "{:?}", host.pids_limit);
    ensure!(host.memory == Some(512 << 20), "{:?}", host.memory);
    ensure!(
        host.nano_cpus == Some(1_000_000_000),
        "{:?}",
        host.nano_cpus
    );
    ensure!(host.init == Some(true));
    let log = host.log_config.context("no log config")?;
    ensure!(log.typ.as_deref() == Some("json-file"), "{log:?}");
    let log = log.config.unwrap_or_default();
    ensure!(
        log.get("max-size").is_some_and(|size| size == "10m"),
        "{log:?}"
    );
    ensure!(
        log.get("max-file").is_some_and(|count| count == "2"),
        "{log:?}"
    );
    ensure!(found.config.and_then(|config| config.stop_timeout) == Some(10));

    ensure!(host.privileged == Some(false));
    ensure!(
        host.port_bindings.is_none_or(|ports| ports.is_empty()),
        "a port is published"
    );
    ensure!(host.publish_all_ports != Some(true));
    ensure!(empty(host.binds) && empty(host.mounts) && empty(host.volumes_from));
    ensure!(empty(found.mounts), "something is mounted");
    ensure!(empty(host.devices) && empty(host.device_requests) && empty(host.device_cgroup_rules));
    for (what, mode) in [
        ("network", host.network_mode),
        ("pid", host.pid_mode),
        ("ipc", host.ipc_mode.map(|mode| mode.to_string())),
        ("uts", host.uts_mode),
        ("user", host.userns_mode),
    ] {
        ensure!(
            mode.as_deref() != Some("host"),
            "the host's {what} namespace"
        );
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_root_takes_nothing_and_its_tmpfs_up_to_their_size() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let spec = v1::VersionSpec {
        read_only_root: true,
        tmpfs: [("/run/app".to_owned(), 1 << 20)].into(),
        ..sample_spec(&[]).await?
    };
    serve_spec(&cluster, "sealed", settings(), spec).await?;
    let refused = cluster.get("sealed", "/write/file").await?;
    ensure!(refused.status == 500, "{}", refused.text());
    ensure!(refused.text().contains("Read-only"), "{}", refused.text());
    for path in [
        "/write/run/app/file?bytes=65536",
        "/write/tmp/file?bytes=2000000",
    ] {
        let written = cluster.get("sealed", path).await?;
        ensure!(written.status == 200, "{path}: {}", written.text());
    }
    let full = cluster
        .get("sealed", "/write/run/app/file?bytes=2000000")
        .await?;
    ensure!(
        full.status == 500 && full.text().contains("No space"),
        "{}",
        full.text()
    );
    let mounts = cluster.get("sealed", "/read/proc/mounts").await?.text();
    for path in ["/run/app", "/tmp"] {
        let line = mounts
            .lines()
            .find(|line| line.starts_with(&format!("tmpfs {path} ")));
        let line = line.with_context(|| format!("{path} is not mounted: {mounts}"))?;
        for option in ["noexec", "nosuid", "nodev", "mode=1777"] {
            // 1777 is what such a mount has anyway, and may not be shown.
            ensure!(
                option == "mode=1777" || line.contains(option),
                "{option}: {line}"
            );
        }
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_and_the_limit_on_processes_are_those_asked_for() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let spec = v1::VersionSpec {
        user: "1234:5678".to_owned(),
        pids_limit: 32,
        tmpfs: [("/data".to_owned(), 0)].into(),
        ..sample_spec(&[("TEXT", "a\nPRIVILEGED=1")]).await?
    };
    serve_spec(&cluster, "small", settings(), spec).await?;
    let status = cluster.get("small", "/read/proc/self/status").await?.text();
    for line in [
        "Uid:\t1234\t1234\t1234\t1234",
        "Gid:\t5678\t5678\t5678\t5678",
        "NoNewPrivs:\t1",
    ] {
        ensure!(status.contains(line), "no `{line}`: {status}");
    }
    // What is mounted belongs to root and yet takes what this user writes.
    let written = cluster.get("small", "/write/data/file").await?;
    ensure!(written.status == 200, "{}", written.text());
    let started: u32 = cluster
        .get("small", "/threads?n=100")
        .await?
        .text()
        .trim()
        .parse()?;
    ensure!(
        (1..32).contains(&started),
        "{started} threads beside the others"
    );
    // One variable, whatever it holds.
    let env = cluster.get("small", "/env").await?.json()?;
    ensure!(
        env["TEXT"] == "a\nPRIVILEGED=1" && env.get("PRIVILEGED").is_none(),
        "{env}"
    );
    cluster.finish().await
}

/// The signals that the engine sends to the containers of a service, and its exit code, until it ends.
async fn how_it_ends(
    cluster: &Cluster,
    service: &str,
    delete: impl AsyncFnOnce() -> Result<()>,
) -> Result<(Vec<String>, String, Duration)> {
    let filters = HashMap::from([
        ("event", vec!["kill".to_owned(), "die".to_owned()]),
        (
            "label",
            vec![
                format!("cless.cluster={}", cluster.id()),
                format!("cless.service={service}"),
            ],
        ),
    ]);
    let options = EventsOptionsBuilder::default().filters(&filters).build();
    let mut events = cluster.docker().events(Some(options));
    let collect = async {
        let (mut signals, mut begun) = (Vec::new(), None);
        while let Some(event) = events.next().await {
            let event = event?;
            let told = event
                .actor
                .and_then(|actor| actor.attributes)
                .unwrap_or_default();
            if event.action.as_deref() == Some("die") {
                let took = begun.map_or(Duration::ZERO, |at: Instant| at.elapsed());
                return Ok((
                    signals,
                    told.get("exitCode").cloned().unwrap_or_default(),
                    took,
                ));
            }
            begun.get_or_insert_with(Instant::now);
            signals.extend(told.get("signal").cloned());
        }
        anyhow::bail!("the events ended")
    };
    let ends = async {
        // The stream is open only once it is polled.
        tokio::time::sleep(Duration::from_millis(300)).await;
        delete().await
    };
    let (ended, deleted) = tokio::join!(timeout(SOON, collect), ends);
    deleted?;
    ended.context("it does not end")?
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_signal_and_the_grace_are_those_asked_for() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    // SIGUSR1 ends the app at once; SIGWINCH does nothing to it, so its grace passes.
    for (service, signal, number, grace, code) in [
        ("quick", "USR1", "10", 300, "138"),
        ("stubborn", "SIGWINCH", "28", 2, "137"),
    ] {
        let spec = v1::VersionSpec {
            stop_signal: signal.to_owned(),
            stop_grace: duration(Duration::from_secs(grace)),
            ..sample_spec(&[]).await?
        };
        serve_spec(&cluster, service, settings(), spec).await?;
        ensure!(cluster.get(service, "/").await?.status == 200, "no answer");
        let delete = async || cluster.api()?.delete_service(service).await;
        let (signals, exit, took) = how_it_ends(&cluster, service, delete).await?;
        ensure!(
            signals.first().is_some_and(|first| first == number),
            "{signals:?}"
        );
        ensure!(exit == code, "{service} ended with {exit}");
        if service == "stubborn" {
            ensure!(signals == ["28", "9"], "{signals:?}");
            ensure!(took >= Duration::from_millis(1900), "{took:?}");
        } else {
            ensure!(took < Duration::from_secs(10), "{took:?}");
        }
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_gives_its_containers_their_grace() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let spec = v1::VersionSpec {
        stop_signal: "SIGWINCH".to_owned(),
        stop_grace: duration(Duration::from_secs(14)),
        ..sample_spec(&[]).await?
    };
    serve_spec(&cluster, "stubborn", settings(), spec).await?;
    ensure!(
        cluster.get("stubborn", "/").await?.status == 200,
        "no answer"
    );
    let begin = Instant::now();
    // Longer than the 12 s that a node once waited at most.
    cluster.stop_node(0).await?;
    ensure!(
        begin.elapsed() >= Duration::from_secs(14),
        "{:?}",
        begin.elapsed()
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_runs_under_the_runtime_it_is_told_or_not_at_all() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let start = |name: &str, runtime: &str| {
        let file = |end: &str| {
            cluster
                .dir()
                .join(format!("{name}{end}"))
                .display()
                .to_string()
        };
        let args = [
            ("--listen", "127.0.0.1:0"),
            ("--admin", "127.0.0.1:0"),
            ("--control-plane", &format!("http://{}", cluster.grpc())),
            ("--node", name),
            ("--cache-dir", &file("")),
            ("--ready-file", &file(".ready")),
            ("--runtime", runtime),
        ];
        let args: Vec<String> = args
            .iter()
            .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()])
            .collect();
        Program::start("cless-data-plane", &args, cluster.dir(), name)
    };
    let mut unfit = start("unfit", "no-such-runtime")?;
    let status = unfit.wait(SOON).await?;
    let log = unfit.log_tail(10);
    ensure!(!status.success(), "it started");
    ensure!(
        log.contains("`no-such-runtime`") && log.contains("runc"),
        "{log}"
    );

    let mut fit = start("fit", "runc")?;
    fit.ready(&cluster.dir().join("fit.ready")).await?;
    wait::until("the runtime is shown", SOON, async || {
        let shown = cless(&cluster, &["node", "get", "fit"]).await?;
        Ok(shown.stdout.contains("Runtime:    runc").then_some(()))
    })
    .await?;
    ensure!(fit.stop(SOON).await?.success(), "{}", fit.log_tail(10));
    cluster.finish().await
}
