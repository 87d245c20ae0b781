//! Traces over OTLP, by flag: a span for each request, and under it what it waited for.
//!
//! ```text
//!  head ─► Tracer::begin ─► Context ── tell ─► the `traceparent` that the instance sees
//!                              │
//!  end  ─► Request ─► Spans: a worker's ─► queue ─► export: `span` makes them, OTLP/gRPC sends them
//! ```
//!
//! - `context` (PURE): which trace a request belongs to, and whether it is recorded.
//! - `span` (PURE): the spans of a request that has ended, by OpenTelemetry's semantic conventions.
//! - `tracer`: what the proxy holds; `export`: the queue, and the task that sends.
//! - `options`: the flags.
//!
//! Without the flag there is no [`Tracer`], and a request does nothing of this. With it, spans are made
//! off the request's path, once it is over. A collector that is away or slow costs spans, which are
//! counted, and no time. A build without the feature `otlp` has `off.rs` instead: no flags, no tracer.

#[cfg(feature = "otlp")]
mod context;
#[cfg(feature = "otlp")]
mod export;
#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod options;
#[cfg(feature = "otlp")]
mod span;
#[cfg(feature = "otlp")]
mod tracer;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Uri, Version};

#[cfg(feature = "otlp")]
pub use self::context::Context;
#[cfg(feature = "otlp")]
pub use self::export::{Error, Exporting, start};
#[cfg(not(feature = "otlp"))]
pub use self::off::{Context, Error, Exporting, Spans, TraceOptions, Tracer, start};
#[cfg(feature = "otlp")]
pub use self::options::TraceOptions;
#[cfg(feature = "otlp")]
pub use self::tracer::{Spans, Tracer};
use crate::report::ColdStart;

/// Whose spans they are.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// Its name in the cluster.
    pub name: &'a str,
    /// Its id.
    pub id: &'a str,
}

/// A request that has ended, as its spans tell of it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its place in the trace.
    pub context: Context,
    /// What it asked for.
    pub method: Method,
    /// The target, as the client wrote it.
    pub uri: Uri,
    /// What the client spoke.
    pub protocol: Version,
    /// The host it asked for.
    pub host: Option<HeaderValue>,
    /// `User-Agent`.
    pub agent: Option<HeaderValue>,
    /// The other end of the connection.
    pub client: HeaderValue,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The request id, which logs have too.
    pub id: HeaderValue,
    /// The service, and the number of its version, once they were known.
    pub version: Option<(Arc<str>, u32)>,
    /// The instance's name.
    pub instance: Option<String>,
    /// The status that the client was given.
    pub status: u16,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// Why cless answered itself; empty if it did not.
    pub reason: &'static str,
    /// When it ended: both bodies over, or given up.
    pub ended: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// How long it waited for an instance.
    pub waited: Option<Duration>,
    /// The start that it waited for.
    pub start: Option<ColdStart>,
    /// How long the engine took for the wake that it waited for.
    pub wake: Option<Duration>,
}
