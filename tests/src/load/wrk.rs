//! Closed loops over HTTP/1.1 by `wrk`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use super::{Run, Target};
use crate::process;

/// Sends GETs over `connections` concurrent connections.
pub async fn run(target: Target<'_>, connections: usize, seconds: u64) -> Result<Run> {
    let mut command = Command::new("wrk");
    command
        .args(["-t1", "--latency", "--timeout", "10s"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{seconds}s"))
        .args(["-H", &format!("Host: {}", target.host)])
        .arg(target.url());
    parse(&process::run(command).await?.ok()?)
}

fn parse(output: &str) -> Result<Run> {
    let wrong = output
        .lines()
        .find(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    ensure!(
        wrong.is_none(),
        "not every response was successful:\n{output}"
    );
    let quantile = |percent: &str| {
        let line = output
            .lines()
            .find_map(|line| line.trim().strip_prefix(percent));
        line.and_then(|time| duration(time.trim()))
            .with_context(|| format!("no {percent} in:\n{output}"))
    };
    let word = |line: &str, at: usize| line.split_whitespace().nth(at).map(str::to_owned);
    let requests = output.lines().find(|line| line.contains(" requests in "));
    let requests = requests.and_then(|line| word(line, 0)?.parse().ok());
    let rate = output
        .lines()
        .find(|line| line.starts_with("Requests/sec:"));
    let rate = rate.and_then(|line| word(line, 1)?.parse().ok());
    Ok(Run {
        requests: requests.with_context(|| format!("no count in:\n{output}"))?,
        rate: rate.with_context(|| format!("no rate in:\n{output}"))?,
        p50: quantile("50%")?,
        p99: quantile("99%")?,
    })
}

/// Parses `57.00us`, `1.37ms`, `1.00s` or `1.10m`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().ok()?;
    let unit = match text.get(digits.len()..)? {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 1s test @ http://127.0.0.1:18081/
  1 threads and 4 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   360.50us  838.51us   5.59ms   89.10%
    Req/Sec    41.28k     6.69k   55.86k    81.82%
  Latency Distribution
     50%   57.00us
     75%   65.00us
     90%    1.37ms
     99%    4.02ms
  45131 requests in 1.10s, 6.54MB read
Requests/sec:  41019.01
Transfer/sec:      5.95MB
";

    #[test]
    fn output_is_parsed() {
        let run = parse(OUTPUT).unwrap();
        assert_eq!(
            run,
            Run {
                requests: 45131,
                rate: 41019.01,
                p50: Duration::from_micros(57),
                p99: Duration::from_micros(4020),
            }
        );
    }

    #[test]
    fn a_run_with_an_error_response_is_an_error() {
        let refused = OUTPUT.replace(
            "Requests/sec",
            "  Non-2xx or 3xx responses: 1\nRequests/sec",
        );
        assert!(parse(&refused).is_err());
        assert!(parse("").is_err());
    }
}
