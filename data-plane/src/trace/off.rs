//! Traces of a build without the feature `otlp`: the same interface, without flags; a tracer is never
//! made, so nothing else here is called.

use http::HeaderMap;
use prometheus_client::metrics::counter::Counter;

use super::{Node, Request};

/// No flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TraceOptions {}

/// There is none.
#[derive(Debug, Clone)]
pub struct Tracer(());

/// There is none.
#[derive(Debug, Clone)]
pub struct Context(());

/// There are none.
#[derive(Debug)]
pub struct Spans(());

/// There is none.
#[derive(Debug)]
pub struct Exporting(());

/// Nothing can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// No traces.
///
/// # Errors
/// None.
pub fn start(
    _: &TraceOptions,
    _: Node<'_>,
    _: Counter,
) -> Result<Option<(Tracer, Exporting)>, Error> {
    Ok(None)
}

impl Tracer {
    /// In no trace.
    pub fn begin(&self, _: &HeaderMap) -> Context {
        Context(())
    }

    /// For one worker.
    pub fn spans(&self) -> Spans {
        Spans(())
    }
}

impl Context {
    /// Never.
    pub fn is_recorded(&self) -> bool {
        false
    }

    /// Nothing is told.
    pub fn tell(&self, _: &mut HeaderMap) {}
}

impl Spans {
    /// Nothing is kept.
    pub fn add(&mut self, _: Request) {}

    /// There is nothing.
    pub fn flush(&mut self) {}
}

impl Exporting {
    /// At once.
    pub async fn end(self) {}
}
