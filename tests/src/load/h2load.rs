//! Closed loops over HTTP/2 by `h2load`: GETs, or gRPC calls of one message.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use super::{Run, Target};
use crate::process;

/// Concurrency of a run.
#[derive(Clone, Copy, Debug)]
pub struct Width {
    /// Connections.
    pub connections: usize,
    /// Concurrent streams per connection.
    pub streams: usize,
}

/// Runs GETs or, with `message`, gRPC calls; the file contains one message with its length prefix.
/// `scratch` is a folder for the latency log.
pub async fn run(
    target: Target<'_>,
    width: Width,
    seconds: u64,
    message: Option<&Path>,
    scratch: &Path,
) -> Result<Run> {
    let log = scratch.join("h2load.log");
    // h2load appends to its log.
    let _ = std::fs::remove_file(&log);
    let mut command = Command::new("h2load");
    command
        .arg("-t1")
        .arg(format!("-c{}", width.connections))
        .arg(format!("-m{}", width.streams))
        .arg(format!("-D{seconds}"))
        .arg(format!("--log-file={}", log.display()))
        .args(["-H", &format!(":authority: {}", target.host)]);
    if let Some(message) = message {
        command.arg("-d").arg(message).args([
            "-H",
            "content-type: application/grpc",
            "-H",
            "te: trailers",
        ]);
    }
    command.arg(target.url());
    let output = process::run(command).await?.ok()?;
    let latencies = std::fs::read_to_string(&log)?;
    parse(&output, &latencies)
}

/// Parses the output, and the log with start time, status and microseconds of one request per line.
fn parse(output: &str, log: &str) -> Result<Run> {
    let requests = output.lines().find(|line| line.starts_with("requests:"));
    let requests = requests.with_context(|| format!("no counts in:\n{output}"))?;
    let count = |what: &str| {
        let part = requests
            .split(',')
            .find(|part| part.trim_end().ends_with(what));
        let word = part.and_then(|part| part.split_whitespace().rev().nth(1));
        word.and_then(|word| word.parse::<u64>().ok())
            .with_context(|| format!("no {what} in: {requests}"))
    };
    for wrong in ["failed", "errored", "timeout"] {
        ensure!(
            count(wrong)? == 0,
            "not every response was successful:\n{output}"
        );
    }
    let finished = output.lines().find(|line| line.starts_with("finished in"));
    let rate = finished
        .and_then(|line| {
            line.split(',')
                .nth(1)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .with_context(|| format!("no rate in:\n{output}"))?;
    let mut latencies = Vec::new();
    for line in log.lines() {
        let mut fields = line.split('\t').skip(1);
        let (status, took) = (fields.next(), fields.next());
        ensure!(status == Some("200"), "a response has status {status:?}");
        let took = took.and_then(|took| took.parse().ok());
        latencies.push(Duration::from_micros(
            took.context("a latency is not a number")?,
        ));
    }
    ensure!(!latencies.is_empty(), "no response:\n{output}");
    let succeeded = count("succeeded")?;
    let run = Run::of(&latencies, Duration::from_secs(1));
    Ok(Run {
        requests: succeeded,
        rate,
        ..run
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "starting benchmark...
finished in 1.00s, 26385.00 req/s, 1.79MB/s
requests: 26385 total, 26393 started, 26385 done, 26385 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 26386 2xx, 0 3xx, 0 4xx, 0 5xx
";

    #[test]
    fn output_and_log_are_parsed() {
        let log = "1795527130974936\t200\t486\n1795527130974937\t200\t510\n1\t200\t237\n";
        let run = parse(OUTPUT, log).unwrap();
        assert_eq!(
            run,
            Run {
                requests: 26385,
                rate: 26385.0,
                p50: Duration::from_micros(486),
                p99: Duration::from_micros(510),
            }
        );
    }

    #[test]
    fn a_run_with_a_failed_request_is_an_error() {
        assert!(parse(&OUTPUT.replace(" 0 failed", " 1 failed"), "1\t200\t5\n").is_err());
        assert!(parse(OUTPUT, "1\t503\t5\n").is_err());
        assert!(parse(OUTPUT, "").is_err());
    }
}
