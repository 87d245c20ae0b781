//! A tour of the API with a real grpcurl and reflection only, as by a client without our code.

use anyhow::{Context as _, Result, ensure};
use cless_tests::cluster::Cluster;
use cless_tests::paths;
use cless_tests::process::{Outcome, run};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{contains, sample};

struct Grpcurl {
    server: String,
}

impl Grpcurl {
    async fn run(&self, before: &[&str], after: &[&str]) -> Result<Outcome> {
        let program = paths::target_dir()?.join("tools/bin/grpcurl");
        ensure!(
            program.is_file(),
            "grpcurl is missing; `make tools` installs it"
        );
        let mut command = Command::new(program);
        command
            .args(["-plaintext", "-max-time", "20"])
            .args(before)
            .arg(&self.server)
            .args(after);
        run(command).await
    }

    async fn call(&self, method: &str, request: &Value) -> Result<Value> {
        let stdout = self
            .run(&["-d", &request.to_string()], &[method])
            .await?
            .ok()?;
        serde_json::from_str(&stdout).with_context(|| format!("{method}: not JSON: {stdout}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_usable_by_reflection_alone() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let grpcurl = Grpcurl {
        server: cluster.grpc().to_string(),
    };

    let services = grpcurl.run(&[], &["list"]).await?.ok()?;
    for service in [
        "CatalogService",
        "TrafficService",
        "NodeService",
        "RouteFeedService",
    ] {
        let name = format!("cless.v1.{service}");
        ensure!(services.lines().any(|line| line == name), "{services}");
        let described = grpcurl.run(&[], &["describe", &name]).await?.ok()?;
        ensure!(described.contains("rpc "), "{described}");
    }
    let health = grpcurl
        .call("grpc.health.v1.Health/Check", &json!({}))
        .await?;
    ensure!(health["status"] == "SERVING", "{health}");

    let catalog = |method: &str| format!("cless.v1.CatalogService/{method}");
    let create = json!({"service_id": "hello", "service": {"settings": {"concurrency": 20}}});
    let service = grpcurl.call(&catalog("CreateService"), &create).await?;
    ensure!(service["defaultHost"] == "hello.localhost", "{service}");
    ensure!(service["settings"]["concurrency"] == 20, "{service}");
    let image = sample().await?;
    for greeting in ["one", "two"] {
        let spec = json!({"image": image, "env": {"GREETING": greeting}});
        let request = json!({"parent": "services/hello", "version": {"spec": spec}});
        grpcurl.call(&catalog("CreateVersion"), &request).await?;
    }
    let list = grpcurl
        .call(
            &catalog("ListVersions"),
            &json!({"parent": "services/hello"}),
        )
        .await?;
    ensure!(
        list["versions"][0]["name"] == "services/hello/versions/2",
        "{list}"
    );

    let traffic = |method: &str| format!("cless.v1.TrafficService/{method}");
    let name = "services/hello/traffic";
    for (version, actor) in [(1, "first"), (2, "second")] {
        let targets = json!([{"version": version, "percent": 100}]);
        let traffic_of = json!({"name": name, "targets": targets});
        let request = json!({"traffic": traffic_of, "actor": actor, "allow_unverified": true});
        grpcurl.call(&traffic("UpdateTraffic"), &request).await?;
    }
    let back = grpcurl
        .call(&traffic("RollbackTraffic"), &json!({"name": name}))
        .await?;
    ensure!(
        back["targets"][0]["version"] == 1 && back["revision"] == 3,
        "{back}"
    );
    let history = grpcurl
        .call(&traffic("ListTrafficRevisions"), &json!({"parent": name}))
        .await?;
    ensure!(
        history["revisions"]
            .as_array()
            .is_some_and(|list| list.len() == 3),
        "{history}"
    );
    ensure!(history["revisions"][0]["rolledBackFrom"] == 1, "{history}");

    cluster.wait_propagated(0).await?;
    ensure!(
        cluster.get("hello", "/").await?.text() == "one\n",
        "the traffic is not applied"
    );
    let nodes = grpcurl
        .call("cless.v1.NodeService/ListNodes", &json!({}))
        .await?;
    ensure!(nodes["nodes"][0]["name"] == "nodes/node-0", "{nodes}");
    let spread = grpcurl
        .call("cless.v1.NodeService/CheckPropagation", &json!({}))
        .await?;
    ensure!(spread["nodesApplied"] == 1, "{spread}");

    // The first message of the endless feed is the whole table.
    let watch = grpcurl
        .run(
            &["-max-time", "2", "-d", "{}"],
            &["cless.v1.RouteFeedService/WatchRoutes"],
        )
        .await?;
    let mut messages = serde_json::Deserializer::from_str(&watch.stdout).into_iter::<Value>();
    let table = messages.next().context("no message from the feed")??;
    ensure!(table["snapshot"] == true, "{table}");
    ensure!(
        table["routes"][0]["hosts"][0] == "hello.localhost",
        "{table}"
    );
    ensure!(
        table["routes"][0]["slots"]
            .as_array()
            .is_some_and(|s| s.len() == 100),
        "{table}"
    );

    // Error details are readable because reflection includes their types.
    let request = json!({"parent": "services/hello", "version": {"spec": {"image": ""}}});
    let refused = grpcurl
        .run(&["-d", &request.to_string()], &[&catalog("CreateVersion")])
        .await?;
    ensure!(refused.code != Some(0), "an empty image was accepted");
    for part in [
        "InvalidArgument",
        "google.rpc.BadRequest",
        "version.spec.image",
    ] {
        contains(&refused.stderr, part)?;
    }

    grpcurl
        .call(
            &catalog("DeleteService"),
            &json!({"name": "services/hello"}),
        )
        .await?;
    let gone = grpcurl
        .run(
            &["-d", r#"{"name": "services/hello"}"#],
            &[&catalog("GetService")],
        )
        .await?;
    ensure!(gone.stderr.contains("NotFound"), "{}", gone.stderr);
    cluster.finish().await
}
