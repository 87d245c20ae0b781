//! What the proxy holds of traces: who decides, and a worker's records.

use http::HeaderMap;
use opentelemetry_sdk::trace::Sampler;

use super::export::Queue;
use super::{Context, Request};

/// Records are handed over this many at a time, or at the worker's tick, so that few of them wake
/// another thread.
const BATCH: usize = 64;

/// Decides which requests are recorded. Cheap to clone; the export ends when the last is dropped.
#[derive(Debug, Clone)]
pub struct Tracer {
    sampler: Sampler,
    queue: Queue,
}

/// One worker's records.
#[derive(Debug)]
pub struct Spans {
    queue: Queue,
    buffer: Vec<Request>,
}

impl Tracer {
    /// `ratio`: the share of the traces that begin here which are recorded, 0 to 1.
    pub(super) fn new(ratio: f64, queue: Queue) -> Self {
        let ratio = Sampler::TraceIdRatioBased(ratio);
        Self {
            sampler: Sampler::ParentBased(Box::new(ratio)),
            queue,
        }
    }

    /// Which trace a request with these fields belongs to, and whether it is recorded.
    pub fn begin(&self, fields: &HeaderMap) -> Context {
        Context::begin(fields, &self.sampler, (rand::random(), rand::random()))
    }

    /// For one worker.
    pub fn spans(&self) -> Spans {
        Spans {
            queue: self.queue.clone(),
            buffer: Vec::with_capacity(BATCH),
        }
    }
}

impl Spans {
    /// Adds a request that is [recorded](Context::is_recorded).
    pub fn add(&mut self, request: Request) {
        self.buffer.push(request);
        if self.buffer.len() >= BATCH {
            self.flush();
        }
    }

    /// Hands over what there is.
    pub fn flush(&mut self) {
        if !self.buffer.is_empty() {
            let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(BATCH));
            self.queue.send(full);
        }
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        self.flush();
    }
}
