//! Flags of tracing.

use http::Uri;

/// Standard variables in order of precedence (OpenTelemetry Protocol Exporter, "Endpoint URLs").
const STANDARD: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Destination and sampling of traces.
#[derive(Debug, Clone, clap::Args)]
pub struct TraceOptions {
    /// Send a trace of each request to this collector by OTLP over gRPC: `http://HOST:4317`
    /// [default: OTEL_EXPORTER_OTLP_ENDPOINT, else off]
    #[arg(long, env = "CLESS_NODE_OTLP_ENDPOINT", value_name = "URL", value_parser = endpoint)]
    pub otlp_endpoint: Option<Uri>,

    /// Share of the traces to record, from 0 to 1; for requests that already carry a trace, the
    /// caller decides.
    #[arg(long, env = "CLESS_NODE_OTLP_SAMPLE_RATIO", value_name = "RATIO", default_value_t = 1.0, value_parser = ratio)]
    pub otlp_sample_ratio: f64,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            otlp_sample_ratio: 1.0,
        }
    }
}

impl TraceOptions {
    /// The collector from the flag or a standard variable, which `variable` reads; `None` disables
    /// tracing.
    ///
    /// # Errors
    /// The problem with the variable.
    pub(super) fn collector(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Uri>, String> {
        if let Some(given) = &self.otlp_endpoint {
            return Ok(Some(given.clone()));
        }
        for name in STANDARD {
            if let Some(text) = variable(name).filter(|text| !text.is_empty()) {
                let collector = endpoint(&text).map_err(|why| format!("{name}={text}: {why}"))?;
                return Ok(Some(collector));
            }
        }
        Ok(None)
    }
}

fn endpoint(given: &str) -> Result<Uri, String> {
    let uri = given.parse::<Uri>().ok();
    uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
        .ok_or_else(|| "write http://HOST:PORT or https://HOST:PORT".to_owned())
}

fn ratio(given: &str) -> Result<f64, String> {
    let ratio = given.parse().ok();
    ratio
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "write a number from 0 to 1, as in 0.1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_goes_before_the_variables_and_traces_before_all_signals() {
        let all = |name: &str| Some(format!("http://{}", name.to_lowercase().replace('_', "-")));
        let flag = TraceOptions {
            otlp_endpoint: Some(Uri::from_static("http://flag:4317")),
            ..TraceOptions::default()
        };
        let host = |options: &TraceOptions, variable: &dyn Fn(&str) -> Option<String>| {
            let collector = options.collector(variable).expect("URLs");
            collector.and_then(|uri| uri.host().map(str::to_owned))
        };
        assert_eq!(host(&flag, &all).as_deref(), Some("flag"));
        let none = TraceOptions::default();
        let known = "otel-exporter-otlp-traces-endpoint";
        assert_eq!(host(&none, &all).as_deref(), Some(known));
        let one = |name: &str| all(name).filter(|_| name == "OTEL_EXPORTER_OTLP_ENDPOINT");
        let known = "otel-exporter-otlp-endpoint";
        assert_eq!(host(&none, &one).as_deref(), Some(known));
        assert_eq!(host(&none, &|_| None), None);
        assert_eq!(host(&none, &|_| Some(String::new())), None);
        assert!(none.collector(|_| Some("collector".to_owned())).is_err());
    }

    #[test]
    fn invalid_values_are_refused() {
        for bad in ["", "collector", "collector:4317", "ftp://collector", "/x"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
        assert!(endpoint("https://collector.example.com:4317").is_ok());
        for bad in ["", "-0.1", "1.1", "10%", "NaN"] {
            assert!(ratio(bad).is_err(), "{bad}");
        }
        assert_eq!(ratio("0.25"), Ok(0.25));
    }
}
