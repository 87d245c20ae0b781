//! `cless-demo`: the main job, end to end, told as it happens.
//!
//! Everything is real: `cless dev` as a process, the `cless` command line, containers, HTTP. The
//! program ends non-zero if any claim it prints does not hold, and removes what it started however it
//! ends: processes, containers, images, files.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use cless_tests::cluster::Api;
use cless_tests::http_client::{Connection, get};
use cless_tests::process::{Program, run};
use cless_tests::stats::{binomial_bounds, millis};
use cless_tests::{engine, image, paths, wait};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;
use tonic::transport::Endpoint;

#[path = "demo/shows.rs"]
mod shows;

const HOST: &str = "hello.localhost";
const WEIGHTS: [(&str, u32); 3] = [("one", 10), ("two", 30), ("three", 60)];
const REQUESTS: usize = 1000;
const IDLE_TIMEOUT: &str = "3s";
const SOON: Duration = Duration::from_secs(30);

/// A line of the story.
fn say(line: &str) {
    // Nobody left to tell is no reason to leave containers behind.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// What the demo has started.
struct Stage {
    docker: Docker,
    dir: TempDir,
    proxy: SocketAddr,
    grpc: SocketAddr,
    dev: Option<Program>,
    images: Vec<String>,
    cluster: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let begin = Instant::now();
    let mut stage = match Stage::new().await {
        Ok(stage) => stage,
        Err(error) => {
            say(&format!("The demo cannot begin: {error:#}"));
            return ExitCode::FAILURE;
        }
    };
    let story = tokio::select! {
        outcome = stage.tell() => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let log = stage
        .dev
        .as_ref()
        .map(|dev| dev.log_tail(25))
        .unwrap_or_default();
    let cleared = stage.clear().await;
    match story.and(cleared) {
        Ok(()) => {
            say(&format!(
                "\nAll of it held, in {:.0} s.",
                begin.elapsed().as_secs_f64()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!(
                "\nThe demo failed: {error:#}\nThe last lines of `cless dev`:\n{log}"
            ));
            ExitCode::FAILURE
        }
    }
}

impl Stage {
    async fn new() -> Result<Self> {
        Ok(Self {
            docker: engine::connect().await?,
            dir: tempfile::Builder::new().prefix("cless-demo-").tempdir()?,
            proxy: free_address()?,
            grpc: free_address()?,
            dev: None,
            images: Vec::new(),
            cluster: String::new(),
        })
    }

    async fn tell(&mut self) -> Result<()> {
        self.build_images().await?;
        self.start_dev().await?;
        self.deploy().await?;
        self.split().await?;
        self.show_cold_starts().await?;
        self.show_warm_latency().await?;
        self.roll_back().await?;
        self.show_way_of_a_change().await?;
        self.wait_until_idle().await?;
        self.wake().await
    }

    async fn build_images(&mut self) -> Result<()> {
        let version = self.docker.version().await?.version.unwrap_or_default();
        say(&format!("The container engine is Docker {version}."));
        let repository = format!("cless-demo-{}/hello", std::process::id());
        for (name, _) in WEIGHTS {
            let image = image::sample_app_release(&self.docker, &repository, name).await?;
            self.images.push(image);
        }
        say(&format!(
            "Built three images of a small web app: {}",
            self.images.join(", ")
        ));
        Ok(())
    }

    async fn start_dev(&mut self) -> Result<()> {
        let args = [
            "dev",
            "--listen",
            &self.proxy.to_string(),
            "--grpc",
            &self.grpc.to_string(),
            "--admin",
            &free_address()?.to_string(),
            "--data-dir",
            &self.dir.path().join("data").display().to_string(),
        ];
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.dev = Some(Program::start(
            "cless",
            &args,
            self.dir.path(),
            "cless-dev",
        )?);
        let api = self.api()?;
        self.cluster = wait::until("`cless dev` serves", SOON, async || {
            let running = self.dev.as_mut().is_some_and(Program::is_running);
            ensure!(running, "`cless dev` ended at start");
            let mut api = api.clone();
            let connected = api
                .check_propagation(0)
                .await
                .is_ok_and(|a| a.nodes_applied == 1);
            Ok(if connected {
                Some(api.cluster_id().await?)
            } else {
                None
            })
        })
        .await?;
        say("\n$ cless dev");
        say(&format!(
            "Both planes run: requests on {}, the API on {}.",
            self.proxy, self.grpc
        ));
        Ok(())
    }

    async fn deploy(&mut self) -> Result<()> {
        for (index, image) in self.images.iter().enumerate() {
            let greeting = format!("GREETING={}", WEIGHTS[index].0);
            let mut args = vec!["deploy", "hello", "--image", image, "-e", &greeting];
            if index == 0 {
                args.extend(["--idle-timeout", IDLE_TIMEOUT]);
            }
            self.cless_shown(&args).await?;
        }
        self.in_force().await?;
        let answer = get(self.proxy, HOST, "/").await?;
        ensure!(
            answer.status == 200 && answer.text() == "three\n",
            "{answer:?}"
        );
        say(&format!(
            "http://{HOST}:{}/ answers {:?}.",
            self.proxy.port(),
            answer.text().trim()
        ));
        Ok(())
    }

    async fn split(&mut self) -> Result<()> {
        self.cless_shown(&["traffic", "set", "hello", "v1=10", "v2=30", "v3=60"])
            .await?;
        self.in_force().await?;
        let begin = Instant::now();
        let counts = count_answers(self.proxy, REQUESTS).await?;
        let took = begin.elapsed().as_secs_f64();
        say(&format!("Sent {REQUESTS} requests in {took:.1} s:"));
        say("  version  greeting  weight  share    may be");
        for (index, (greeting, weight)) in WEIGHTS.into_iter().enumerate() {
            let count = counts.get(greeting).copied().unwrap_or(0);
            let (low, high) = binomial_bounds(REQUESTS, weight);
            let percent = |n: usize| 100.0 * n as f64 / REQUESTS as f64;
            say(&format!(
                "  v{}       {greeting:<8}  {weight:>4} %  {:>4.1} %  {:.1} to {:.1} %",
                index + 1,
                percent(count),
                percent(low),
                percent(high)
            ));
            ensure!(
                (low..=high).contains(&count),
                "the share of {greeting} is out of bounds"
            );
        }
        Ok(())
    }

    async fn roll_back(&mut self) -> Result<()> {
        self.cless_shown(&["rollback", "hello"]).await?;
        self.in_force().await?;
        let counts = count_answers(self.proxy, 200).await?;
        ensure!(
            counts.keys().eq(["three"]),
            "the rollback has no effect: {counts:?}"
        );
        say("200 requests later: all answered by v3, which had all traffic before the split.");
        let history = self.cless(&["traffic", "history", "hello"]).await?;
        say("\n$ cless traffic history hello");
        say(history.trim_end());
        Ok(())
    }

    async fn wait_until_idle(&mut self) -> Result<()> {
        say(&format!(
            "\nNo more requests; an instance idle for {IDLE_TIMEOUT} is removed."
        ));
        let begin = Instant::now();
        let labels = [
            ("cless.cluster", self.cluster.as_str()),
            ("cless.service", "hello"),
        ];
        wait::until("all containers are removed", SOON, async || {
            let left = engine::containers(&self.docker, &labels).await?;
            Ok(left.is_empty().then_some(()))
        })
        .await?;
        wait::until("no instance is listed", SOON, async || {
            let list = self.cless(&["-o", "name", "instance", "list"]).await?;
            Ok(list.trim().is_empty().then_some(()))
        })
        .await?;
        let took = begin.elapsed().as_secs_f64();
        say(&format!(
            "After {took:.1} s the engine has no container of the service, and `cless instance list` \
             is empty."
        ));
        Ok(())
    }

    async fn wake(&self) -> Result<()> {
        let begin = Instant::now();
        let answer = get(self.proxy, HOST, "/").await?;
        let took = millis(begin.elapsed());
        ensure!(
            answer.status == 200 && answer.text() == "three\n",
            "{answer:?}"
        );
        say(&format!(
            "One more request wakes v3 from zero: answered after {took:.0} ms."
        ));
        Ok(())
    }

    /// Stops and removes everything; also after a failure, as far as it got.
    async fn clear(&mut self) -> Result<()> {
        let stopped = match &mut self.dev {
            Some(dev) => dev.stop(SOON).await.map(Some),
            None => Ok(None),
        };
        let mut left = Vec::new();
        if !self.cluster.is_empty() {
            let labels = [("cless.cluster", self.cluster.as_str())];
            left = engine::containers(&self.docker, &labels).await?;
            engine::sweep(&self.docker, &labels).await?;
        }
        for image in &self.images {
            image::remove(&self.docker, image).await?;
        }
        let status = stopped?;
        ensure!(
            status.is_none_or(|s| s.success()),
            "`cless dev` ended with {status:?}"
        );
        ensure!(
            left.is_empty(),
            "`cless dev` left containers behind: {left:?}"
        );
        say("\nStopped `cless dev` and removed the images; nothing is left.");
        Ok(())
    }

    fn api(&self) -> Result<Api> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc))?;
        Ok(Api::new(endpoint.connect_lazy()))
    }

    /// Waits until the node has applied all that was written.
    async fn in_force(&self) -> Result<()> {
        let mut api = self.api()?;
        wait::until("the change is in force", SOON, async || {
            let answer = api.check_propagation(0).await?;
            Ok((answer.nodes_applied == 1).then_some(()))
        })
        .await
    }

    async fn cless(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(paths::program("cless")?);
        command.arg("--server").arg(format!("http://{}", self.grpc));
        command
            .arg("--proxy")
            .arg(format!("http://{}", self.proxy))
            .args(args);
        let outcome = run(command).await?;
        outcome
            .ok()
            .with_context(|| format!("cless {}", args.join(" ")))
    }

    async fn cless_shown(&self, args: &[&str]) -> Result<()> {
        say(&format!("\n$ cless {}", args.join(" ")));
        let output = self.cless(args).await?;
        say(output.trim_end());
        Ok(())
    }

    async fn cless_json(&self, args: &[&str]) -> Result<Value> {
        let output = self.cless(&[&["-o", "json"], args].concat()).await?;
        serde_json::from_str(&output).with_context(|| format!("not JSON: {output}"))
    }
}

/// An address that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Sends requests one by one and counts the answers by their greeting.
async fn count_answers(proxy: SocketAddr, count: usize) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    let mut connection = Connection::open(proxy).await?;
    for _ in 0..count {
        let answer = connection.get(HOST, "/").await?;
        ensure!(answer.status == 200, "{answer:?}");
        *counts.entry(answer.text().trim().to_owned()).or_insert(0) += 1;
    }
    Ok(counts)
}

/// A protobuf JSON duration, `"0.288s"`.
fn seconds(text: &str) -> Option<f64> {
    text.strip_suffix('s')?.parse().ok()
}
