//! `import`: compose files of public projects, written from their documentation.

use crate::plane::{Plane, assert_run, assert_session};

/// A compose file in a folder of its own.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("compose.yaml");
    std::fs::write(&path, text).expect("the file is written");
    let path = path.to_str().expect("UTF-8").to_owned();
    (folder, path)
}

/// A session of one command, with `FILE` for the path.
async fn run_file(plane: &Plane, command: &str, path: &str) -> String {
    let run = plane.run(&command.replace("FILE", path)).await;
    format!("$ cless {command}\n{}", run.replace(path, "FILE"))
}

#[tokio::test]
async fn gitea() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless import tests/compose/gitea.yaml --dry-run
    SERVICE  VERSION  IMAGE                        PORT
    server   -        docker.gitea.com/gitea:1.24  3000
    ! tests/compose/gitea.yaml:5: services.server.container_name: containers are named by the node: remove it
    ! tests/compose/gitea.yaml:10: services.server.environment: GITEA__database__HOST names the service `db`, and services do not find each other by name: give an address, with `extra_hosts` and --egress if it is on the node
    ! tests/compose/gitea.yaml:15: services.server.networks: services do not find each other by name: use the URL of a service, or --egress and `extra_hosts` for a server on the node
    ! tests/compose/gitea.yaml:17: services.server.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/gitea.yaml:18: services.server.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/gitea.yaml:19: services.server.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/gitea.yaml:22: services.server.ports: only port 3000 is served, as the first: for port 22, deploy another service with --port 22
    ! tests/compose/gitea.yaml:23: services.server.depends_on: instances start on a request, in no order: let the app retry its connections
    ! tests/compose/gitea.yaml:25: services.db: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! dry run: nothing was changed
    ");
}

#[tokio::test]
async fn nextcloud() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless import tests/compose/nextcloud.yaml --dry-run
    SERVICE  VERSION  IMAGE                PORT
    app      -        nextcloud:31-apache  80
    ! tests/compose/nextcloud.yaml:6: services.app.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/nextcloud.yaml:8: services.app.environment.MYSQL_HOST: MYSQL_HOST names the service `db`, and services do not find each other by name: give an address, with `extra_hosts` and --egress if it is on the node
    ! tests/compose/nextcloud.yaml:12: services.app.environment.REDIS_HOST: REDIS_HOST names the service `redis`, and services do not find each other by name: give an address, with `extra_hosts` and --egress if it is on the node
    ! tests/compose/nextcloud.yaml:15: services.db: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! tests/compose/nextcloud.yaml:23: services.redis: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! tests/compose/nextcloud.yaml:34: services.app.depends_on: instances start on a request, in no order: let the app retry its connections
    ! tests/compose/nextcloud.yaml:38: services.cron: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! dry run: nothing was changed
    ");
}

#[tokio::test]
async fn plausible() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless import tests/compose/plausible.yaml --dry-run
    SERVICE    VERSION  IMAGE                                       PORT
    plausible  -        ghcr.io/plausible/community-edition:v3.0.1  8000
    ! tests/compose/plausible.yaml:3: services.plausible_db: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! tests/compose/plausible.yaml:14: services.plausible_events_db: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! tests/compose/plausible.yaml:32: services.plausible.depends_on: instances start on a request, in no order: let the app retry its connections
    ! tests/compose/plausible.yaml:38: services.plausible.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/plausible.yaml:48: services.plausible.environment: the variable SECRET_KEY_BASE is not set, and so empty: set it, or write it to .env
    ! tests/compose/plausible.yaml:49: services.plausible.environment: TOTP_VAULT_KEY is not set here, and so left out: set it, or write it to .env
    ! dry run: nothing was changed
    ");
}

#[tokio::test]
async fn umami() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless import tests/compose/umami.yaml --dry-run
    SERVICE  VERSION  IMAGE                                           PORT
    umami    -        ghcr.io/umami-software/umami:postgresql-latest  3000
    ! tests/compose/umami.yaml:8: services.umami.environment.DATABASE_URL: DATABASE_URL names the service `db`, and services do not find each other by name: give an address, with `extra_hosts` and --egress if it is on the node
    ! tests/compose/umami.yaml:10: services.umami.depends_on: instances start on a request, in no order: let the app retry its connections
    ! tests/compose/umami.yaml:17: services.umami.healthcheck.interval: not used: a starting instance is probed at least every 50 ms
    ! tests/compose/umami.yaml:19: services.umami.healthcheck.retries: not used: a starting instance is probed at least every 50 ms
    ! tests/compose/umami.yaml:21: services.db: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! dry run: nothing was changed
    ");
}

#[tokio::test]
async fn ghost() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless import tests/compose/ghost.yaml --dry-run
    SERVICE  VERSION  IMAGE           PORT
    ghost    -        ghost:5-alpine  2368
    ! tests/compose/ghost.yaml:12: services.ghost.environment.database__connection__host: database__connection__host names the service `db`, and services do not find each other by name: give an address, with `extra_hosts` and --egress if it is on the node
    ! tests/compose/ghost.yaml:19: services.ghost.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/ghost.yaml:21: services.db: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! dry run: nothing was changed
    ");
}

#[tokio::test]
async fn vaultwarden() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless import tests/compose/vaultwarden.yaml --dry-run
    SERVICE      VERSION  IMAGE                      PORT
    vaultwarden  -        vaultwarden/server:latest  80
    ! tests/compose/vaultwarden.yaml:5: services.vaultwarden.container_name: containers are named by the node: remove it
    ! tests/compose/vaultwarden.yaml:12: services.vaultwarden.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/vaultwarden.yaml:24: services.vaultwarden.tmpfs: the options mode=1777 are not supported: use size and exec
    ! dry run: nothing was changed
    ");
}

#[tokio::test]
async fn uptime_kuma() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless import tests/compose/uptime-kuma.yaml --dry-run
    SERVICE      VERSION  IMAGE                   PORT
    uptime-kuma  -        louislam/uptime-kuma:1  3001
    ! tests/compose/uptime-kuma.yaml:7: services.uptime-kuma.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/uptime-kuma.yaml:18: services.uptime-kuma.healthcheck.test: a command cannot be given here: build it into the image as HEALTHCHECK and use --health-check, or probe with --health-path
    ! tests/compose/uptime-kuma.yaml:19: services.uptime-kuma.healthcheck.interval: not used: a starting instance is probed at least every 50 ms
    ! tests/compose/uptime-kuma.yaml:20: services.uptime-kuma.healthcheck.retries: not used: a starting instance is probed at least every 50 ms
    ! tests/compose/uptime-kuma.yaml:28: services.uptime-kuma.deploy.resources.reservations: nothing is reserved: use `limits`
    ! tests/compose/uptime-kuma.yaml:30: services.uptime-kuma.logging: logs are those of the node's engine: configure it there
    ! dry run: nothing was changed
    ");
}

#[tokio::test]
async fn monitoring() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless import tests/compose/monitoring.yaml --dry-run
    SERVICE     VERSION  IMAGE                             PORT
    prometheus  -        prom/prometheus:v3.1.0            9090
    cadvisor    -        gcr.io/cadvisor/cadvisor:v0.49.1  8080
    grafana     -        grafana/grafana:11.4.0            3000
    ! tests/compose/monitoring.yaml:11: services.prometheus.configs: files are not mounted: build them into the image, or pass the value in `environment`
    ! tests/compose/monitoring.yaml:14: services.prometheus.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/monitoring.yaml:20: services.prometheus.networks: services do not find each other by name: use the URL of a service, or --egress and `extra_hosts` for a server on the node
    ! tests/compose/monitoring.yaml:22: services.node-exporter: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! tests/compose/monitoring.yaml:32: services.cadvisor.privileged: not possible: name the capabilities in `cap_add`
    ! tests/compose/monitoring.yaml:34: services.cadvisor.devices: devices are not passed: remove it
    ! tests/compose/monitoring.yaml:38: services.cadvisor.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/monitoring.yaml:47: services.grafana.secrets: files are not mounted: build them into the image, or pass the value in `environment`
    ! tests/compose/monitoring.yaml:50: services.grafana.networks: services do not find each other by name: use the URL of a service, or --egress and `extra_hosts` for a server on the node
    ! tests/compose/monitoring.yaml:54: services.grafana.depends_on: instances start on a request, in no order: let the app retry its connections
    ! dry run: nothing was changed
    ");
}

#[tokio::test]
async fn paperless_ngx() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless import tests/compose/paperless-ngx.yaml --dry-run
    SERVICE    VERSION  IMAGE                                       PORT
    webserver  -        ghcr.io/paperless-ngx/paperless-ngx:latest  8000
    ! tests/compose/paperless-ngx.yaml:3: services.broker: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! tests/compose/paperless-ngx.yaml:9: services.db: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! tests/compose/paperless-ngx.yaml:22: services.webserver.depends_on: instances start on a request, in no order: let the app retry its connections
    ! tests/compose/paperless-ngx.yaml:26: services.webserver.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/paperless-ngx.yaml:27: services.webserver.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/paperless-ngx.yaml:28: services.webserver.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/paperless-ngx.yaml:29: services.webserver.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/paperless-ngx.yaml:32: services.webserver.environment.PAPERLESS_REDIS: PAPERLESS_REDIS names the service `broker`, and services do not find each other by name: give an address, with `extra_hosts` and --egress if it is on the node
    ! tests/compose/paperless-ngx.yaml:33: services.webserver.environment.PAPERLESS_DBHOST: PAPERLESS_DBHOST names the service `db`, and services do not find each other by name: give an address, with `extra_hosts` and --egress if it is on the node
    ! tests/compose/paperless-ngx.yaml:35: services.webserver.environment.PAPERLESS_TIKA_GOTENBERG_ENDPOINT: PAPERLESS_TIKA_GOTENBERG_ENDPOINT names the service `gotenberg`, and services do not find each other by name: give an address, with `extra_hosts` and --egress if it is on the node
    ! tests/compose/paperless-ngx.yaml:36: services.webserver.environment.PAPERLESS_TIKA_ENDPOINT: PAPERLESS_TIKA_ENDPOINT names the service `tika`, and services do not find each other by name: give an address, with `extra_hosts` and --egress if it is on the node
    ! tests/compose/paperless-ngx.yaml:38: services.gotenberg: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! tests/compose/paperless-ngx.yaml:46: services.tika: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! dry run: nothing was changed
    ");
}

#[tokio::test]
async fn n8n() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless import tests/compose/n8n.yaml --dry-run
    exit: 2
    ! error: tests/compose/n8n.yaml:10: services.traefik.command: needs the variable SSL_EMAIL: the address for certificates: set it, or write it to .env

    $ cless import tests/compose/n8n.yaml --service n8n --dry-run
    SERVICE  VERSION  IMAGE                    PORT
    n8n      -        docker.n8n.io/n8nio/n8n  5678
    ! tests/compose/n8n.yaml:36: services.n8n.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! tests/compose/n8n.yaml:37: services.n8n.volumes: files do not outlive an instance: use a database or an object store, or `tmpfs` for scratch
    ! dry run: nothing was changed
    ");
}

#[tokio::test]
async fn services_and_versions_are_created_without_traffic() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless import tests/compose/umami.yaml
    SERVICE  VERSION  IMAGE                                           PORT
    umami    v1       ghcr.io/umami-software/umami:postgresql-latest  3000
    ! tests/compose/umami.yaml:8: services.umami.environment.DATABASE_URL: DATABASE_URL names the service `db`, and services do not find each other by name: give an address, with `extra_hosts` and --egress if it is on the node
    ! tests/compose/umami.yaml:10: services.umami.depends_on: instances start on a request, in no order: let the app retry its connections
    ! tests/compose/umami.yaml:17: services.umami.healthcheck.interval: not used: a starting instance is probed at least every 50 ms
    ! tests/compose/umami.yaml:19: services.umami.healthcheck.retries: not used: a starting instance is probed at least every 50 ms
    ! tests/compose/umami.yaml:21: services.db: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one
    ! created services/umami
    ! created services/umami/versions/1 of ghcr.io/umami-software/umami:postgresql-latest
    ! to send traffic: cless version verify umami v1, then cless traffic set umami v1=100

    $ cless version get umami v1
    Name:       services/umami/versions/1
    Image:      ghcr.io/umami-software/umami:postgresql-latest
    Traffic:    0%
    Port:       3000
    CPU:        1
    Memory:     512Mi
    Processes:  512
    Stop:       10s grace period
    Readiness:  GET /api/heartbeat with Host localhost:3000 returns 200-399 (timeout 5s)
    Pull:       missing
    Protocol:   auto
    Created:    [TIME]

    Environment:
      APP_SECRET=replace-me-with-a-random-string
      DATABASE_URL=postgresql://umami:umami@db:5432/umami

    $ cless import tests/compose/umami.yaml -o name --quiet
    services/umami/versions/2

    $ cless import tests/compose/uptime-kuma.yaml --quiet
    SERVICE      VERSION  IMAGE                   PORT
    uptime-kuma  v1       louislam/uptime-kuma:1  3001

    $ cless service get uptime-kuma
    Name:     uptime-kuma
    State:    NO_TRAFFIC
    URL:      http://uptime-kuma.localhost:8080
    Created:  [TIME]
    Updated:  [TIME]
    Etag:     [ID]

    Settings:
      min-instances:       0
      max-instances:       1
      concurrency:         80
      idle-timeout:        2m
      pause-after:         off
      cold-start-timeout:  3m
      request-timeout:     5m
      total-timeout:       off
      queue-limit:         1000
      affinity:            none
      version-header:      false
      server-timing:       false

    $ cless import tests/compose/uptime-kuma.yaml --dry-run -o yaml --quiet
    name: services/uptime-kuma/versions/-
    uid: [ID]
    number: 0
    spec:
      image: louislam/uptime-kuma:1
      port: 3001
      env: {}
      command: []
      args: []
      cpuMillis: 500
      memoryBytes: '536870912'
      pullPolicy: PULL_POLICY_UNSPECIFIED
      pidsLimit: 0
      readOnlyRoot: false
      tmpfs: {}
      user: ''
      stopSignal: ''
      protocol: PROTOCOL_UNSPECIFIED
      noInit: true
      capAdd:
      - NET_RAW
      tmpfsExec: []
      shmBytes: '0'
      ulimits: []
      extraHosts:
        host.docker.internal: host-gateway
      dns:
      - 1.1.1.1
      - 9.9.9.9
      egress: []
    imageDigest: ''
    etag: [ID]
    percent: 0
    tags: []
    carriedTraffic: false

    $ cless import tests/compose/umami.yaml --service web
    exit: 2
    ! error: tests/compose/umami.yaml:2: has no service `web`: it has umami, db

    $ cless import tests/compose/none.yaml
    exit: 2
    ! error: tests/compose/none.yaml: does not exist

    $ cless import tests/compose
    exit: 2
    ! error: tests/compose: is not a regular file: give a file
    ");
}

#[tokio::test]
async fn a_version_as_printed_is_created_by_version_create() {
    let plane = Plane::start().await;
    plane.ok("service create web").await;
    let text = "services: {web: {image: 'app:1', ports: [80], environment: {A: '1'}}}";
    let (folder, path) = file(text);
    let printed = plane.ok(&format!("import {path} --dry-run -o yaml")).await;
    let version = folder.path().join("version.yaml");
    std::fs::write(&version, printed).expect("the file is written");
    let created = plane
        .ok(&format!(
            "version create web -f {} -o yaml",
            version.display()
        ))
        .await;
    for line in ["image: app:1", "port: 80", "A: '1'", "noInit: true"] {
        assert!(created.contains(line), "{line}: {created}");
    }
}

#[tokio::test]
async fn what_the_control_plane_refuses_is_told_by_line() {
    let plane = Plane::start().await;
    let text = "\
services:
  web:
    image: App:1
    ports: [80]
    mem_limit: 1m
    cap_add:
      - NET_RAW
      - ALL
    ulimits: {nice: 1}
    tmpfs: [/proc]
    deploy: {replicas: 5000}
  admin:
    image: a
    ports: [80]
";
    let (_folder, path) = file(text);
    assert_run!(run_file(&plane, "import FILE", &path).await, @r"
    $ cless import FILE
    exit: 2
    ! error: FILE:11: services.web.deploy.replicas: 5000 is out of range: give 1 to 1000
    ");
    std::fs::write(&path, text.replace("5000", "5")).expect("the file is written");
    assert_run!(run_file(&plane, "import FILE", &path).await, @r"
    $ cless import FILE
    exit: 2
    ! error: FILE:3: services.web.image: the image's name has the part `App`: use a-z and 0-9, joined by `.`, `_`, `__` or `-`
    ! error: FILE:5: services.web.mem_limit: 1048576 is out of range: give 6291456 to 1099511627776, or 0 for the default of 536870912
    ! error: FILE:10: services.web.tmpfs: `/proc` belongs to the kernel: mount it elsewhere
    ! error: FILE:8: services.web.cap_add: `ALL` is not a capability: give names of capabilities(7) one by one, such as `NET_RAW` or `FOWNER`
    ! error: FILE:9: services.web.ulimits.nice: `nice` would let the version delay other containers: leave it out
    ");
    assert_run!(run_file(&plane, "import FILE --service admin", &path).await, @r"
    $ cless import FILE --service admin
    exit: 2
    ! error: FILE:12: services.admin: the service id `admin` is reserved: choose another one
    ");
    assert_run!(run_file(&plane, "service list", &path).await, @r"
    $ cless service list
    ! no services
    ");
    std::fs::write(&path, "services: {web: {image: a, ports: {}}}").expect("the file is written");
    assert_run!(run_file(&plane, "import FILE -o json", &path).await, @r#"
    $ cless import FILE -o json
    exit: 2
    ! {"error":{"code":"INVALID_ARGUMENT","exitCode":2,"hints":[],"message":"FILE:1: services.web.ports: expected a list of ports","reason":"USAGE"}}
    "#);
    std::fs::write(&path, b"services: \xff").expect("the file is written");
    assert_run!(run_file(&plane, "import FILE", &path).await, @r"
    $ cless import FILE
    exit: 2
    ! error: FILE: is not UTF-8: save the file as UTF-8
    ");
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("the file is written");
    assert_run!(run_file(&plane, "import FILE", &path).await, @r"
    $ cless import FILE
    exit: 2
    ! error: FILE: is larger than 1048576 bytes
    ");
}

#[tokio::test]
async fn variables_come_from_the_file_beside() {
    let plane = Plane::start().await;
    let (folder, path) = file("services: {web: {image: 'app:${TAG:?}', ports: ['$PORT']}}");
    let dotenv = folder.path().join(".env");
    std::fs::write(&dotenv, "TAG=2 # newest\nPORT=80\n").expect("the file is written");
    assert_run!(run_file(&plane, "import FILE --dry-run", &path).await, @r"
    $ cless import FILE --dry-run
    SERVICE  VERSION  IMAGE  PORT
    web      -        app:2  80
    ! dry run: nothing was changed
    ");
    std::fs::write(&dotenv, "TAG=2\nPORT='80\n").expect("the file is written");
    assert_run!(run_file(&plane, "import FILE --dry-run", &path).await, @r"
    $ cless import FILE --dry-run
    exit: 2
    ! error: FILE: .env:2: a quote is not closed: add it
    ");
}
