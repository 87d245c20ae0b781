//! The proxy's interface to tracing: sampling, and a buffer per worker.

use http::HeaderMap;
use opentelemetry_sdk::trace::Sampler;

use super::export::ExportQueue;
use super::{Context, FinishedRequest};

/// Requests per batch; together with the flush at the worker's tick, it keeps cross-thread wake-ups
/// rare.
const BATCH: usize = 64;

/// Samples requests. Cheap to clone; the export ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Tracer {
    sampler: Sampler,
    queue: ExportQueue,
}

/// The buffer of one worker.
#[derive(Debug)]
pub struct SpanBuffer {
    queue: ExportQueue,
    buffer: Vec<FinishedRequest>,
}

impl Tracer {
    /// `ratio` is the share of new traces to record, from 0 to 1.
    pub(super) fn new(ratio: f64, queue: ExportQueue) -> Self {
        let ratio = Sampler::TraceIdRatioBased(ratio);
        Self {
            sampler: Sampler::ParentBased(Box::new(ratio)),
            queue,
        }
    }

    /// Determines the trace of a request with these fields, and whether it is recorded.
    pub fn begin(&self, fields: &HeaderMap) -> Context {
        Context::begin(fields, &self.sampler, (rand::random(), rand::random()))
    }

    /// A buffer for one worker.
    pub fn spans(&self) -> SpanBuffer {
        SpanBuffer {
            queue: self.queue.clone(),
            buffer: Vec::with_capacity(BATCH),
        }
    }
}

impl SpanBuffer {
    /// Adds a [recorded](Context::is_recorded) request.
    pub fn add(&mut self, request: FinishedRequest) {
        self.buffer.push(request);
        if self.buffer.len() >= BATCH {
            self.flush();
        }
    }

    /// Sends the buffered requests to the export.
    pub fn flush(&mut self) {
        if !self.buffer.is_empty() {
            let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(BATCH));
            self.queue.send(full);
        }
    }
}

impl Drop for SpanBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}
