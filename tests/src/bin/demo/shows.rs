//! Measurements of the demo.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_tests::http_client::Connection;
use cless_tests::report::print_line;
use cless_tests::stats::{median, millis};
use cless_tests::{engine, wait};
use tokio::time::Instant;

use crate::{Demo, HOST, SOON, count_greetings, seconds};

impl Demo {
    pub(crate) async fn show_cold_starts(&mut self) -> Result<()> {
        print_line("\nCold starts in ms by phase, as `cless version get` shows them:");
        print_line("  version   pull  queue  create  start  ready  total");
        for number in ["1", "2", "3"] {
            let what = format!("the cold start of version {number} is reported");
            let cold = wait::until(&what, SOON, async || {
                let version = self
                    .cless_json(&["version", "get", "hello", number])
                    .await?;
                let cold = version["status"]["nodes"][0]["lastColdStart"].clone();
                Ok(cold.is_object().then_some(cold))
            })
            .await?;
            let phase = |name: &str| cold[name].as_str().and_then(seconds);
            let shown = |name: &str| match phase(name) {
                Some(s) => format!("{:.0}", s * 1e3),
                None => "-".to_owned(),
            };
            ensure!(phase("total").is_some_and(|s| s > 0.0), "no total: {cold}");
            print_line(&format!(
                "  v{number}       {:>5}  {:>5}  {:>6}  {:>5}  {:>5}  {:>5}",
                shown("pull"),
                shown("queue"),
                shown("create"),
                shown("start"),
                shown("ready"),
                shown("total")
            ));
        }
        Ok(())
    }

    pub(crate) async fn show_warm_latency(&mut self) -> Result<()> {
        // Starts all versions, so that the measurement contains no cold start.
        count_greetings(self.proxy, 100).await?;
        let labels = [
            ("cless.cluster", self.cluster.as_str()),
            ("cless.version", "3"),
        ];
        let containers = engine::containers(&self.docker, &labels).await?;
        let container = containers.first().context("version 3 has no container")?;
        let direct = engine::address(&self.docker, &container.id, 8080).await?;
        let (mut through, mut straight) = (Vec::new(), Vec::new());
        let mut proxied = Connection::open(self.proxy).await?;
        let mut raw = Connection::open(direct).await?;
        for _ in 0..1000 {
            through.push(timed(&mut proxied).await?);
            straight.push(timed(&mut raw).await?);
        }
        let (through, straight) = (median(&through), median(&straight));
        print_line(&format!(
            "\nWarm, median of 1000: {:.2} ms through the proxy, {:.2} ms directly to the container, \
             so {:.2} ms added.",
            millis(through),
            millis(straight),
            millis(through) - millis(straight)
        ));
        if cfg!(debug_assertions) {
            print_line(
                "(This build is not optimized; `make bench-cold` measures a release build.)",
            );
        }
        Ok(())
    }

    /// Moves all traffic back and forth between two running versions.
    pub(crate) async fn show_propagation(&mut self) -> Result<()> {
        let mut api = self.api()?;
        let mut connection = Connection::open(self.proxy).await?;
        let mut times = Vec::new();
        for change in 0..20 {
            let (version, greeting) = if change % 2 == 0 {
                (2, "two\n")
            } else {
                (3, "three\n")
            };
            api.set_traffic("hello", &[(version, 100)]).await?;
            let begin = Instant::now();
            while connection.get(HOST, "/").await?.text() != greeting {
                ensure!(
                    begin.elapsed() < SOON,
                    "a change of traffic does not take effect"
                );
            }
            // The first changes may contain cold starts.
            if change > 1 {
                times.push(begin.elapsed());
            }
        }
        print_line(&format!(
            "\nA change of traffic takes effect {:.1} ms after its write was acknowledged (median of {}).",
            millis(median(&times)),
            times.len()
        ));
        Ok(())
    }
}

async fn timed(connection: &mut Connection) -> Result<Duration> {
    let begin = Instant::now();
    let response = connection.get(HOST, "/").await?;
    let took = begin.elapsed();
    ensure!(response.status == 200, "{response:?}");
    Ok(took)
}
