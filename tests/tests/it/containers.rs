//! Containers as people have them: inits, capabilities, mounts, limits, names, ports, HEALTHCHECKs
//! and a database on the same host.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::query_parameters::InspectContainerOptions;
use cless_proto::v1;
use cless_proto::v1::readiness_probe::Kind;
use cless_proto::v1::start_failure::Reason;
use cless_tests::cluster::{Cluster, NodeSetup, duration, settings};
use cless_tests::{engine, firewall, image, wait};
use tokio::time::Instant;

use crate::cli::cless;
use crate::{SOON, reported_failure, sample_spec, serve_spec};

const APP: &str = r#"ENTRYPOINT ["/app"]"#;

/// A version of the BusyBox image with these instructions.
async fn busybox(name: &str, instructions: &[&str]) -> Result<v1::VersionSpec> {
    let docker = engine::connect().await?;
    Ok(v1::VersionSpec {
        image: image::busybox(&docker, name, instructions).await?,
        ..Default::default()
    })
}

/// The output of a shell command in the container of a BusyBox service.
async fn shell(cluster: &Cluster, service: &str, command: &str) -> Result<String> {
    let mut path = "/cgi-bin/run?".to_owned();
    for byte in command.bytes() {
        path.push_str(&format!("%{byte:02x}"));
    }
    let answer = cluster.get(service, &path).await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.text())
}

async fn serves(cluster: &Cluster, service: &str) -> Result<()> {
    let answer = cluster.get(service, "/").await?;
    ensure!(answer.status == 200, "{service}: {}", answer.text());
    Ok(())
}

/// The failure of a service's first start, which its caller does not wait for.
async fn fails_at_once(cluster: &Cluster, service: &str) -> Result<v1::StartFailure> {
    let began = Instant::now();
    let answer = cluster.get(service, "/").await?;
    ensure!(answer.status == 503, "{answer:?}");
    ensure!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    reported_failure(cluster, service).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_of_the_image_runs_as_pid_1_if_asked() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    for (name, init, refusal) in [
        ("s6", "/init", "can only run as pid 1"),
        ("busybox", "/bin/init", "must be run as PID 1"),
    ] {
        let entrypoint = format!(r#"ENTRYPOINT ["{init}"]"#);
        let spec = busybox(name, &[&entrypoint]).await?;
        let child = format!("{name}-child");
        serve_spec(&cluster, &child, settings(), spec.clone()).await?;
        let failure = fails_at_once(&cluster, &child).await?;
        ensure!(failure.log_tail.join("\n").contains(refusal), "{failure:?}");
        let own = v1::VersionSpec {
            no_init: true,
            ..spec
        };
        serve_spec(&cluster, name, settings(), own).await?;
        serves(&cluster, name).await?;
        let first = shell(&cluster, name, "cat /proc/1/comm").await?;
        ensure!(
            !first.contains("docker-init") && !first.contains("tini"),
            "{first}"
        );
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_names_of_any_kind_reach_the_process() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let env = [
        ("spring.datasource.url", "jdbc:x"),
        ("Logging__Level:Default", "Debug"),
        ("a-b", "c=d"),
        ("1", "2"),
    ];
    serve_spec(&cluster, "names", settings(), sample_spec(&env).await?).await?;
    let found = cluster.get("names", "/env").await?.json()?;
    for (name, value) in env {
        ensure!(found[name] == value, "{name}: {found}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capability_is_named_refused_and_added() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let entrypoint = r#"ENTRYPOINT ["/usr/local/bin/httpd", "-f", "-p", "8080", "-h", "/www"]"#;
    let spec = busybox("capable", &[entrypoint]).await?;
    serve_spec(&cluster, "lacking", settings(), spec.clone()).await?;
    let failure = fails_at_once(&cluster, "lacking").await?;
    ensure!(failure.message.contains("--cap-add NET_RAW"), "{failure:?}");
    // Without an init, the engine reports the refused exec.
    let alone = v1::VersionSpec {
        no_init: true,
        ..spec.clone()
    };
    serve_spec(&cluster, "alone", settings(), alone).await?;
    let failure = fails_at_once(&cluster, "alone").await?;
    ensure!(failure.message.contains("--cap-add NET_RAW"), "{failure:?}");

    let asks = v1::VersionSpec {
        cap_add: vec!["cap_net_raw".to_owned(), "FOWNER".to_owned()],
        user: "app".to_owned(),
        ..spec
    };
    serve_spec(&cluster, "asks", settings(), asks.clone()).await?;
    let failure = fails_at_once(&cluster, "asks").await?;
    ensure!(failure.reason() == Reason::NotAllowed, "{failure:?}");
    let remedy = "--allow-capabilities FOWNER,NET_RAW";
    ensure!(failure.message.contains(remedy), "{failure:?}");
    // The node, not the version, is at fault: there is no verdict about the version.
    let verify = ["version", "verify", "asks", "v1"];
    let refused = cless(&cluster, &verify).await?;
    ensure!(refused.code == Some(7), "{refused:?}");
    ensure!(refused.stderr.contains("is unverified"), "{refused:?}");
    ensure!(refused.stderr.contains(remedy), "{refused:?}");
    let node = cluster.node(0).name.clone();
    ensure!(
        cluster
            .api()?
            .node(&node)
            .await?
            .allowed_capabilities
            .is_empty()
    );

    cluster.stop_node(0).await?;
    cluster.node_mut(0).setup = NodeSetup::flags(&[
        "--allow-capabilities",
        "NET_RAW,FOWNER",
        "--keep-containers",
    ]);
    cluster.start_node(0).await?;
    wait::until("the version is allowed", SOON, async || {
        Ok((cluster.get("asks", "/").await?.status == 200).then_some(()))
    })
    .await?;
    let allowed = cluster.api()?.node(&node).await?.allowed_capabilities;
    ensure!(allowed == ["FOWNER", "NET_RAW"], "{allowed:?}");
    let shown = cless(&cluster, &["node", "get", &node]).await?.ok()?;
    ensure!(shown.contains("FOWNER, NET_RAW"), "{shown}");
    cless(&cluster, &verify).await?.ok()?;
    // The user is not root, so the file gives it the capability.
    let caps = shell(&cluster, "asks", "id -u; grep CapEff /proc/$PPID/status").await?;
    ensure!(
        caps.starts_with("1000\n") && caps.contains("0000000000002000"),
        "{caps}"
    );

    let root = v1::VersionSpec {
        user: "root".to_owned(),
        ..asks
    };
    serve_spec(&cluster, "root", settings(), root).await?;
    let change = "touch /tmp/f; chown app /tmp/f; chmod 600 /tmp/f";
    let changed = shell(&cluster, "root", change).await?;
    ensure!(changed == "exit 0\n", "{changed}");
    let plain = busybox("plain", &[APP]).await?;
    serve_spec(&cluster, "plain", settings(), plain).await?;
    let refused = shell(&cluster, "plain", change).await?;
    ensure!(refused.contains("not permitted"), "{refused}");

    // A container with more than a later process of the node allows is not adopted.
    let before = cluster.wait_containers("asks", 1, SOON).await?;
    cluster.stop_node(0).await?;
    ensure!(
        cluster.containers(Some("asks")).await?.len() == 1,
        "it is kept"
    );
    cluster.node_mut(0).setup = NodeSetup::default();
    cluster.start_node(0).await?;
    wait::until("the container is removed", SOON, async || {
        let left = cluster.containers(Some("asks")).await?;
        Ok((!left.contains(&before[0])).then_some(()))
    })
    .await?;
    let answer = cluster.get("asks", "/").await?;
    ensure!(answer.status == 503, "{answer:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_limits_and_names_are_those_of_the_version() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let spec = v1::VersionSpec {
        tmpfs: [
            ("/data".to_owned(), 1 << 20),
            ("/run/x".to_owned(), 1 << 20),
        ]
        .into(),
        tmpfs_exec: vec!["/run/x".to_owned()],
        shm_bytes: 3 << 20,
        ulimits: vec![v1::Ulimit {
            name: "nofile".to_owned(),
            soft: 123,
            hard: 456,
        }],
        extra_hosts: [
            ("db.internal".to_owned(), "192.0.2.7".to_owned()),
            ("node".to_owned(), "host-gateway".to_owned()),
        ]
        .into(),
        dns: vec!["192.0.2.53".to_owned()],
        ..busybox("plain", &[APP]).await?
    };
    serve_spec(&cluster, "own", settings(), spec).await?;
    let shell = async |command: &str| shell(&cluster, "own", command).await;
    let run = "printf '#!/bin/sh\\necho ran\\n' > $d/p; chmod +x $d/p; $d/p";
    let ran = shell(&format!("d=/run/x; {run}")).await?;
    ensure!(ran == "ran\nexit 0\n", "{ran}");
    let refused = shell(&format!("d=/data; {run}")).await?;
    ensure!(refused.contains("ermission denied"), "{refused}");
    let shm = shell("df -k /dev/shm | tail -1").await?;
    ensure!(shm.contains("3072"), "{shm}");
    let limits = shell("grep 'open files' /proc/self/limits").await?;
    let limits: Vec<&str> = limits.split_whitespace().collect();
    ensure!(limits[3..5] == ["123", "456"], "{limits:?}");
    let hosts = shell("cat /etc/hosts").await?;
    ensure!(hosts.contains("192.0.2.7\tdb.internal"), "{hosts}");
    ensure!(
        hosts.lines().any(|line| line.ends_with("\tnode")),
        "{hosts}"
    );
    let found = cluster.wait_containers("own", 1, SOON).await?;
    let options = None::<InspectContainerOptions>;
    let found = cluster
        .docker()
        .inspect_container(&found[0].id, options)
        .await?;
    let dns = found.host_config.and_then(|host| host.dns);
    ensure!(dns == Some(vec!["192.0.2.53".to_owned()]), "{dns:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn several_exposed_ports_fail_at_once_and_the_port_in_force_is_shown() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let several = busybox("several", &[APP, "EXPOSE 8080 9000 53/udp"]).await?;
    serve_spec(&cluster, "several", settings(), several.clone()).await?;
    let failure = fails_at_once(&cluster, "several").await?;
    ensure!(failure.message.contains("(8080, 9000)"), "{failure:?}");
    ensure!(failure.message.contains("--port"), "{failure:?}");

    let given = v1::VersionSpec {
        port: 9000,
        ..several
    };
    serve_spec(&cluster, "given", settings(), given).await?;
    serves(&cluster, "given").await?;
    let single = busybox("single", &[APP, "EXPOSE 3000 53/udp"]).await?;
    serve_spec(&cluster, "single", settings(), single).await?;
    serves(&cluster, "single").await?;
    for (service, port) in [("given", 9000), ("single", 3000)] {
        wait::until("the port is reported", SOON, async || {
            let version = cluster.api()?.version(service, 1).await?;
            let nodes = version.status.unwrap_or_default().nodes;
            Ok(nodes.iter().any(|node| node.port == port).then_some(()))
        })
        .await?;
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn http_readiness_sends_the_host_of_the_service_or_the_given_one() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let spec = |host: &str, allowed: &str, mut spec: v1::VersionSpec| {
        spec.env
            .insert("ALLOWED_HOST".to_owned(), allowed.to_owned());
        spec.readiness = Some(v1::ReadinessProbe {
            kind: Some(Kind::Http(v1::HttpProbe {
                path: "/cgi-bin/host".to_owned(),
                host: host.to_owned(),
                ..Default::default()
            })),
            ..Default::default()
        });
        spec
    };
    let plain = busybox("plain", &[APP]).await?;
    let default = spec("", "default.localhost", plain.clone());
    serve_spec(&cluster, "default", settings(), default).await?;
    serves(&cluster, "default").await?;
    let given = spec("shop.example.org", "shop.example.org", plain.clone());
    serve_spec(&cluster, "given", settings(), given).await?;
    serves(&cluster, "given").await?;
    let short_timeout = v1::ServiceSettings {
        cold_start_timeout: duration(Duration::from_secs(3)),
        ..settings()
    };
    let refused = spec("", "shop.example.org", plain);
    serve_spec(&cluster, "refused", short_timeout, refused).await?;
    let answer = cluster.get("refused", "/").await?;
    ensure!(answer.status == 504, "{answer:?}");
    let failure = reported_failure(&cluster, "refused").await?;
    let found = "with Host refused.localhost: answered 400, expected 200 to 399";
    ensure!(failure.message.contains(found), "{failure:?}");
    ensure!(failure.message.contains("--health-host"), "{failure:?}");
    ensure!(!failure.message.contains("0.0.0.0"), "{failure:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthcheck_at_dockers_default_interval_passes_a_cold_start() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    for (service, check) in [
        ("shell", "HEALTHCHECK CMD test -e /tmp/up && echo fine"),
        ("exec", r#"HEALTHCHECK CMD ["/bin/test", "-e", "/tmp/up"]"#),
    ] {
        let entrypoint = r#"ENTRYPOINT ["/bin/sh", "-c", "(sleep 2; touch /tmp/up) & exec /app"]"#;
        let spec = v1::VersionSpec {
            readiness: Some(v1::ReadinessProbe {
                kind: Some(Kind::Healthcheck(v1::HealthcheckProbe {})),
                ..Default::default()
            }),
            ..busybox(service, &[entrypoint, check]).await?
        };
        serve_spec(&cluster, service, settings(), spec).await?;
        let began = Instant::now();
        serves(&cluster, service).await?;
        let took = began.elapsed();
        let expected = Duration::from_secs(2)..Duration::from_secs(20);
        ensure!(expected.contains(&took), "{service}: {took:?}");
    }
    cluster.finish().await
}

/// An address of this machine other than loopback.
fn host_address() -> Result<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.250:9")?;
    match socket.local_addr()? {
        SocketAddr::V4(address) => Ok(*address.ip()),
        SocketAddr::V6(address) => anyhow::bail!("{address}"),
    }
}

/// The outcome of a connection attempt by a container of a service.
async fn connect(cluster: &Cluster, service: &str, to: &str) -> Result<String> {
    let answer = cluster.get(service, &format!("/connect?to={to}")).await?;
    let outcome = answer.json()?["outcome"].as_str().map(str::to_owned);
    outcome.with_context(|| format!("{service}: {}", answer.text()))
}

/// A server on this host that holds its connections.
struct Database {
    address: String,
    streams: Receiver<TcpStream>,
}

impl Database {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("0.0.0.0:0")?;
        let address = format!("{}:{}", host_address()?, listener.local_addr()?.port());
        let (sender, streams) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut accepted = listener.incoming().filter_map(Result::ok);
            while accepted
                .next()
                .is_some_and(|stream| sender.send(stream).is_ok())
            {}
        });
        Ok(Self { address, streams })
    }
}

/// Whether the client returns a line that is sent to it.
fn echoes(mut stream: &TcpStream) -> bool {
    let mut line = [0; 5];
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .is_ok()
        && stream.write_all(b"ping\n").is_ok()
        && stream.read_exact(&mut line).is_ok()
        && line == *b"ping\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_on_the_host_is_reached_by_the_versions_that_may() -> Result<()> {
    let database = Database::start()?;
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let other = format!("{}:{}", host_address()?, listener.local_addr()?.port());
    let streams = database.streams;
    let database = database.address;
    let flags = ["--allow-egress", &database, "--keep-containers"];
    let mut cluster = Cluster::start_with(1, NodeSetup::flags(&flags)).await?;
    let node = cluster.node(0).name.clone();
    // The first report may come after the node is connected.
    wait::until("the node reports what it allows", SOON, async || {
        let allowed = cluster.api()?.node(&node).await?.allowed_egress;
        Ok((allowed == [database.as_str()]).then_some(()))
    })
    .await?;

    let asks = v1::VersionSpec {
        egress: vec![database.clone()],
        ..sample_spec(&[]).await?
    };
    serve_spec(&cluster, "asks", settings(), asks.clone()).await?;
    serve_spec(&cluster, "plain", settings(), sample_spec(&[]).await?).await?;
    let more = v1::VersionSpec {
        egress: vec![database.clone(), other.clone()],
        ..sample_spec(&[]).await?
    };
    serve_spec(&cluster, "more", settings(), more).await?;
    for (service, to, expected) in [
        ("asks", &database, "connected"),
        ("asks", &other, "refused"),
        ("plain", &database, "refused"),
    ] {
        let outcome = connect(&cluster, service, to).await?;
        ensure!(outcome == expected, "{service} to {to}: {outcome}");
    }
    let failure = fails_at_once(&cluster, "more").await?;
    ensure!(failure.reason() == Reason::NotAllowed, "{failure:?}");
    let remedy = format!("--allow-egress {other} ");
    ensure!(failure.message.contains(&remedy), "{failure:?}");

    // A program may connect first of all, and with names of its own.
    let (ip, port) = database.split_once(':').context("no port")?;
    let script = format!("nc database {port} -e /bin/cat & sleep 1; kill -0 $! && exec /app");
    let first = v1::VersionSpec {
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
        extra_hosts: [("database".to_owned(), ip.to_owned())].into(),
        egress: vec![database.clone()],
        ..busybox("plain", &[APP]).await?
    };
    serve_spec(&cluster, "first", settings(), first).await?;
    serves(&cluster, "first").await?;
    let held = streams.try_iter().find(echoes).context("no connection")?;

    // Another program removes the rules; the node sets them again.
    let chain = format!("{}IN", firewall::chains(&cluster.node_id(0)?));
    let rules = firewall::rules(&cluster.node_id(0)?);
    let tool = rules.iter().find_map(|line| line.split_once(": "));
    let (tool, _) = tool.context("no rules")?;
    let flushed = Command::new(tool)
        .args(["-w", "5", "-F", &chain])
        .status()?;
    ensure!(flushed.success(), "{tool} -F {chain}");
    wait::until("the rules are set again", SOON, async || {
        Ok((connect(&cluster, "plain", &database).await? == "refused").then_some(()))
    })
    .await?;
    ensure!(connect(&cluster, "asks", &database).await? == "connected");

    // A container that the next process adopts keeps its egress, if that process allows it.
    let before = cluster.wait_containers("asks", 1, SOON).await?;
    cluster.stop_node(0).await?;
    cluster.start_node(0).await?;
    ensure!(connect(&cluster, "asks", &database).await? == "connected");
    ensure!(
        cluster.wait_containers("asks", 1, SOON).await? == before,
        "adopted"
    );
    ensure!(echoes(&held), "the connection was cut");
    cluster.stop_node(0).await?;
    cluster.node_mut(0).setup = NodeSetup::default();
    cluster.start_node(0).await?;
    wait::until("the container is removed", SOON, async || {
        let left = cluster.containers(Some("asks")).await?;
        Ok((!left.contains(&before[0])).then_some(()))
    })
    .await?;
    let opened = firewall::rules(&cluster.node_id(0)?);
    let opened = opened
        .iter()
        .filter(|line| line.contains(&format!("--dport {port} ")));
    ensure!(opened.count() == 0, "a rule is left");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compose_file_is_imported_and_answers() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let docker = engine::connect().await?;
    let web = image::busybox(&docker, "imported", &[APP]).await?;
    let s6 = image::busybox(&docker, "s6", &[r#"ENTRYPOINT ["/init"]"#]).await?;
    let text = format!(
        "\
services:
  web:
    image: ${{WEB_IMAGE:-{web}}}
    ports: ['80:3000']
    env_file: web.env
    environment: {{FROM: map}}
    tmpfs: '/run/x:size=1m,exec'
    ulimits: {{nofile: 99}}
    extra_hosts: ['db.internal:192.0.2.7']
    healthcheck: {{test: wget -q --spider http://localhost:3000/ || exit 1}}
    volumes: ['data:/data']
  init:
    image: {s6}
    expose: [8080]
  db: {{image: {web}}}
"
    );
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("compose.yaml");
    std::fs::write(&path, text)?;
    std::fs::write(folder.path().join("web.env"), "FILE='of a file'\n")?;
    let path = path.to_str().context("a path of UTF-8")?;
    let imported = cless(&cluster, &["import", path, "-o", "name"]).await?;
    ensure!(imported.code == Some(0), "{imported:?}");
    ensure!(
        imported.stdout == "services/web/versions/1\nservices/init/versions/1\n",
        "{imported:?}"
    );
    for line in [
        ":11: services.web.volumes: ",
        ":15: services.db: not imported: ",
    ] {
        ensure!(imported.stderr.contains(line), "{line}: {imported:?}");
    }
    for service in ["web", "init"] {
        cless(&cluster, &["version", "verify", service, "v1"])
            .await?
            .ok()?;
        cless(&cluster, &["traffic", "set", service, "v1=100"])
            .await?
            .ok()?;
        cluster.wait_propagated(0).await?;
        serves(&cluster, service).await?;
    }
    let found = shell(
        &cluster,
        "web",
        "echo $FROM $FILE $PORT; ulimit -n; grep db.internal /etc/hosts; grep /run/x /proc/mounts; cat /proc/1/comm",
    )
    .await?;
    let lines: Vec<&str> = found.lines().collect();
    ensure!(lines[..2] == ["map of a file 3000", "99"], "{found}");
    ensure!(lines[2] == "192.0.2.7\tdb.internal", "{found}");
    ensure!(
        lines[3].contains("size=1024k") && !lines[3].contains("noexec"),
        "{found}"
    );
    ensure!(lines[4] == "httpd", "{found}");
    cluster.finish().await
}
