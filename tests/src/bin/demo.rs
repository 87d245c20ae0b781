//! `cless-demo`: runs the main job end to end and prints each step.
//!
//! Everything is real: the `cless dev` process, the `cless` command line, containers and HTTP. The
//! demo fails if any printed claim is wrong. It always removes its processes, containers, images
//! and files.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use cless_tests::access::Access;
use cless_tests::cluster::Api;
use cless_tests::http_client::{Connection, get};
use cless_tests::process::{Program, run};
use cless_tests::report::print_line;
use cless_tests::stats::{binomial_bounds, millis};
use cless_tests::{engine, image, paths, wait};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

#[path = "demo/shows.rs"]
mod shows;

const HOST: &str = "hello.localhost";
const WEIGHTS: [(&str, u32); 3] = [("one", 10), ("two", 30), ("three", 60)];
const REQUESTS: usize = 1000;
const IDLE_TIMEOUT: &str = "3s";
const SOON: Duration = Duration::from_secs(30);

struct Demo {
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
    let mut demo = match Demo::new().await {
        Ok(demo) => demo,
        Err(error) => {
            print_line(&format!("The demo cannot start: {error:#}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = tokio::select! {
        outcome = demo.run() => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let log = demo
        .dev
        .as_ref()
        .map(|dev| dev.log_tail(25))
        .unwrap_or_default();
    let cleaned_up = demo.clean_up().await;
    match outcome.and(cleaned_up) {
        Ok(()) => {
            print_line(&format!(
                "\nAll of it held, in {:.0} s.",
                begin.elapsed().as_secs_f64()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            print_line(&format!(
                "\nThe demo failed: {error:#}\nThe last lines of `cless dev`:\n{log}"
            ));
            ExitCode::FAILURE
        }
    }
}

impl Demo {
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

    async fn run(&mut self) -> Result<()> {
        self.build_images().await?;
        self.start_dev().await?;
        self.deploy().await?;
        self.split().await?;
        self.show_cold_starts().await?;
        self.show_warm_latency().await?;
        self.roll_back().await?;
        self.show_propagation().await?;
        self.wait_until_idle().await?;
        self.start_again().await
    }

    async fn build_images(&mut self) -> Result<()> {
        let version = self.docker.version().await?.version.unwrap_or_default();
        print_line(&format!("The container engine is Docker {version}."));
        let repository = format!("cless-demo-{}/hello", std::process::id());
        for (name, _) in WEIGHTS {
            let image = image::sample_app_release(&self.docker, &repository, name).await?;
            self.images.push(image);
        }
        print_line(&format!(
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
        let mut dev = self.dev.take();
        let serving = wait::until("`cless dev` serves", SOON, async || {
            let running = dev.as_mut().is_some_and(Program::is_running);
            ensure!(running, "`cless dev` exited at start");
            // It first writes the administrator's token.
            let Ok(mut api) = self.api() else {
                return Ok(None);
            };
            let connected = api
                .check_propagation(0)
                .await
                .is_ok_and(|a| a.nodes_applied == 1);
            Ok(match connected {
                true => Some(api.cluster_id().await?),
                false => None,
            })
        })
        .await;
        self.dev = dev;
        self.cluster = serving?;
        print_line("\n$ cless dev");
        print_line(&format!(
            "Both planes are running: requests on {}, the API on {}.",
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
        self.wait_in_force().await?;
        let response = get(self.proxy, HOST, "/").await?;
        ensure!(
            response.status == 200 && response.text() == "three\n",
            "{response:?}"
        );
        print_line(&format!(
            "http://{HOST}:{}/ responds with {:?}.",
            self.proxy.port(),
            response.text().trim()
        ));
        Ok(())
    }

    async fn split(&mut self) -> Result<()> {
        self.cless_shown(&["traffic", "set", "hello", "v1=10", "v2=30", "v3=60"])
            .await?;
        self.wait_in_force().await?;
        let begin = Instant::now();
        let counts = count_greetings(self.proxy, REQUESTS).await?;
        let took = begin.elapsed().as_secs_f64();
        print_line(&format!("Sent {REQUESTS} requests in {took:.1} s:"));
        print_line("  version  greeting  weight  share    expected");
        for (index, (greeting, weight)) in WEIGHTS.into_iter().enumerate() {
            let count = counts.get(greeting).copied().unwrap_or(0);
            let (low, high) = binomial_bounds(REQUESTS, weight);
            let percent = |n: usize| 100.0 * n as f64 / REQUESTS as f64;
            print_line(&format!(
                "  v{}       {greeting:<8}  {weight:>4} %  {:>4.1} %  {:.1} to {:.1} %",
                index + 1,
                percent(count),
                percent(low),
                percent(high)
            ));
            ensure!(
                (low..=high).contains(&count),
                "the share of {greeting} is out of the expected range"
            );
        }
        Ok(())
    }

    async fn roll_back(&mut self) -> Result<()> {
        self.cless_shown(&["rollback", "hello"]).await?;
        self.wait_in_force().await?;
        let counts = count_greetings(self.proxy, 200).await?;
        ensure!(
            counts.keys().eq(["three"]),
            "the rollback has no effect: {counts:?}"
        );
        print_line("200 more requests all reach v3, which had all traffic before the split.");
        let history = self.cless(&["traffic", "history", "hello"]).await?;
        print_line("\n$ cless traffic history hello");
        print_line(history.trim_end());
        Ok(())
    }

    async fn wait_until_idle(&mut self) -> Result<()> {
        print_line(&format!(
            "\nNo more requests: an instance is removed after {IDLE_TIMEOUT} without any."
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
        print_line(&format!(
            "After {took:.1} s the service has no container, and `cless instance list` is empty."
        ));
        Ok(())
    }

    async fn start_again(&self) -> Result<()> {
        let begin = Instant::now();
        let response = get(self.proxy, HOST, "/").await?;
        let took = millis(begin.elapsed());
        ensure!(
            response.status == 200 && response.text() == "three\n",
            "{response:?}"
        );
        print_line(&format!(
            "One more request starts v3 from zero: response after {took:.0} ms."
        ));
        Ok(())
    }

    /// Stops and removes everything that has been started, also after a failure.
    async fn clean_up(&mut self) -> Result<()> {
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
            "`cless dev` exited with {status:?}"
        );
        ensure!(
            left.is_empty(),
            "`cless dev` left containers behind: {left:?}"
        );
        print_line("\nStopped `cless dev` and removed the containers and images.");
        Ok(())
    }

    fn access(&self) -> Result<Access> {
        Access::administrator(&self.dir.path().join("data"))
    }

    fn api(&self) -> Result<Api> {
        Ok(Api::new(self.access()?.channel(self.grpc)?))
    }

    async fn wait_in_force(&self) -> Result<()> {
        let mut api = self.api()?;
        wait::until("the change is applied", SOON, async || {
            let progress = api.check_propagation(0).await?;
            Ok((progress.nodes_applied == 1).then_some(()))
        })
        .await
    }

    async fn cless(&self, args: &[&str]) -> Result<String> {
        let access = self.access()?;
        let mut command = Command::new(paths::program("cless")?);
        command
            .args(["--server", &access.url(self.grpc)])
            .envs(access.variables())
            .args(["--proxy", &format!("http://{}", self.proxy)])
            .args(args);
        let stdout = run(command).await?.ok();
        stdout.with_context(|| format!("cless {}", args.join(" ")))
    }

    async fn cless_shown(&self, args: &[&str]) -> Result<()> {
        print_line(&format!("\n$ cless {}", args.join(" ")));
        let output = self.cless(args).await?;
        print_line(output.trim_end());
        Ok(())
    }

    async fn cless_json(&self, args: &[&str]) -> Result<Value> {
        let output = self.cless(&[&["-o", "json"], args].concat()).await?;
        serde_json::from_str(&output).with_context(|| format!("not JSON: {output}"))
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

async fn count_greetings(proxy: SocketAddr, count: usize) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    let mut connection = Connection::open(proxy).await?;
    for _ in 0..count {
        let response = connection.get(HOST, "/").await?;
        ensure!(response.status == 200, "{response:?}");
        *counts.entry(response.text().trim().to_owned()).or_insert(0) += 1;
    }
    Ok(counts)
}

/// Parses a protobuf JSON duration such as `"0.288s"`.
fn seconds(text: &str) -> Option<f64> {
    text.strip_suffix('s')?.parse().ok()
}
