//! Interface of the module in a build without the feature `otlp`: no flags, and no tracer is ever
//! created.

use http::HeaderMap;
use prometheus_client::metrics::counter::Counter;

use super::{FinishedRequest, NodeResource};

/// No flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TraceOptions {}

/// Never constructed.
#[derive(Debug, Clone)]
pub struct Tracer(());

/// Never constructed.
#[derive(Debug, Clone)]
pub struct Context(());

/// Never constructed.
#[derive(Debug)]
pub struct SpanBuffer(());

/// Never constructed.
#[derive(Debug)]
pub struct TraceExport(());

/// Cannot occur.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// Returns no tracer.
///
/// # Errors
/// None.
pub fn start(
    _: &TraceOptions,
    _: NodeResource<'_>,
    _: Counter,
) -> Result<Option<(Tracer, TraceExport)>, Error> {
    Ok(None)
}

impl Tracer {
    /// Unreachable.
    pub fn begin(&self, _: &HeaderMap) -> Context {
        Context(())
    }

    /// Unreachable.
    pub fn spans(&self) -> SpanBuffer {
        SpanBuffer(())
    }
}

impl Context {
    /// Always false.
    pub fn is_recorded(&self) -> bool {
        false
    }

    /// No effect.
    pub fn inject(&self, _: &mut HeaderMap) {}
}

impl SpanBuffer {
    /// No effect.
    pub fn add(&mut self, _: FinishedRequest) {}

    /// No effect.
    pub fn flush(&mut self) {}
}

impl TraceExport {
    /// Returns at once.
    pub async fn end(self) {}
}
