//! Limits of containers: the defaults as configured in the engine, and those of a version as the
//! app observes them.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::models::{ContainerInspectResponse, HostConfig};
use bollard::query_parameters::EventsOptionsBuilder;
use cless_proto::v1;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::process::Program;
use cless_tests::{engine, wait};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout};

use crate::cli::cless;
use crate::{SOON, check_serves, contains, sample_spec, serve_spec};

/// Inspects the only container of a service.
async fn inspect(cluster: &Cluster, service: &str) -> Result<ContainerInspectResponse> {
    let found = cluster.wait_containers(service, 1, SOON).await?;
    let id = found[0].id.as_str();
    engine::inspect(cluster.docker(), id).await
}

fn empty<T>(list: Option<Vec<T>>) -> bool {
    list.is_none_or(|list| list.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_the_default_limits_and_no_access_to_the_host() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    serve_spec(&cluster, "plain", settings(), sample_spec(&[]).await?).await?;
    check_serves(&cluster, "plain").await?;
    let found = inspect(&cluster, "plain").await?;
    let host: HostConfig = found.host_config.context("no host config")?;
    let sorted = |list: Option<Vec<String>>| {
        let mut list = list.unwrap_or_default();
        list.sort();
        list
    };
    ensure!(sorted(host.security_opt) == ["no-new-privileges"]);
    ensure!(sorted(host.cap_drop) == ["ALL"]);
    let allowed = [
        "CHOWN",
        "DAC_OVERRIDE",
        "KILL",
        "NET_BIND_SERVICE",
        "SETGID",
        "SETUID",
    ];
    ensure!(sorted(host.cap_add) == allowed);
    ensure!(host.pids_limit == Some(512), "{:?}", host.pids_limit);
    ensure!(host.memory == Some(512 << 20), "{:?}", host.memory);
    ensure!(host.memory_swap == host.memory, "{:?}", host.memory_swap);
    let ulimits = host.ulimits.unwrap_or_default();
    ensure!(
        ulimits.len() == 1
            && ulimits[0].name.as_deref() == Some("nofile")
            && ulimits[0]
                .soft
                .is_some_and(|limit| (1024..=65_536).contains(&limit)),
        "{ulimits:?}"
    );
    // The node's own limit is the hard one.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", cluster.node(0).pid()?))?;
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let files: Vec<&str> = files.unwrap_or_default().split_whitespace().collect();
    ensure!(files.len() > 4 && files[3] == files[4], "{files:?}");
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
    for (namespace, mode) in [
        ("network", host.network_mode),
        ("pid", host.pid_mode),
        ("ipc", host.ipc_mode.map(|mode| mode.to_string())),
        ("uts", host.uts_mode),
        ("user", host.userns_mode),
    ] {
        ensure!(
            mode.as_deref() != Some("host"),
            "the host's {namespace} namespace"
        );
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_root_rejects_writes_and_its_tmpfs_has_a_size_limit() -> Result<()> {
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
            // 1777 is the default mode and may not be listed.
            ensure!(
                option == "mode=1777" || line.contains(option),
                "{option}: {line}"
            );
        }
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_and_the_process_limit_are_applied() -> Result<()> {
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
    // The mount belongs to root and is writable for this user.
    let written = cluster.get("small", "/write/data/file").await?;
    ensure!(written.status == 200, "{}", written.text());
    let started: u32 = cluster
        .get("small", "/threads?n=100")
        .await?
        .text()
        .trim()
        .parse()?;
    ensure!((1..32).contains(&started), "{started} threads were started");
    // A line break in a value does not start another variable.
    let env = cluster.get("small", "/env").await?.json()?;
    ensure!(
        env["TEXT"] == "a\nPRIVILEGED=1" && env.get("PRIVILEGED").is_none(),
        "{env}"
    );
    cluster.finish().await
}

/// Runs `delete` and returns the signals sent to the container, its exit code and the time to exit.
async fn watch_exit(
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
        let (mut signals, mut first_signal) = (Vec::new(), None);
        while let Some(event) = events.next().await {
            let event = event?;
            let attributes = event
                .actor
                .and_then(|actor| actor.attributes)
                .unwrap_or_default();
            if event.action.as_deref() == Some("die") {
                let took = first_signal.map_or(Duration::ZERO, |at: Instant| at.elapsed());
                return Ok((
                    signals,
                    attributes.get("exitCode").cloned().unwrap_or_default(),
                    took,
                ));
            }
            first_signal.get_or_insert_with(Instant::now);
            signals.extend(attributes.get("signal").cloned());
        }
        anyhow::bail!("the events ended")
    };
    let ends = async {
        // The event stream opens when it is first polled.
        tokio::time::sleep(Duration::from_millis(300)).await;
        delete().await
    };
    let (ended, deleted) = tokio::join!(timeout(SOON, collect), ends);
    deleted?;
    ended.context("it does not end")?
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_signal_and_the_grace_period_are_applied() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    // SIGUSR1 ends the app at once. It ignores SIGWINCH, so the grace period elapses.
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
        check_serves(&cluster, service).await?;
        let delete = async || cluster.api()?.delete_service(service).await;
        let (signals, exit, took) = watch_exit(&cluster, service, delete).await?;
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
async fn a_stopping_node_waits_for_the_grace_period() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let spec = v1::VersionSpec {
        stop_signal: "SIGWINCH".to_owned(),
        stop_grace: duration(Duration::from_secs(14)),
        ..sample_spec(&[]).await?
    };
    serve_spec(&cluster, "stubborn", settings(), spec).await?;
    check_serves(&cluster, "stubborn").await?;
    let begin = Instant::now();
    // Regression: a node once waited for at most 12 s.
    cluster.stop_node(0).await?;
    ensure!(
        begin.elapsed() >= Duration::from_secs(14),
        "{:?}",
        begin.elapsed()
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_uses_the_configured_runtime_or_fails_to_start() -> Result<()> {
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
            ("--control-plane", &cluster.url()),
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
    contains(&log, "`no-such-runtime`")?;
    contains(&log, "runc")?;

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
