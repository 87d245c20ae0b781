//! Trace membership and sampling of a request (W3C Trace Context). Pure.
//!
//! | request has | sampled by ratio | recorded | `traceparent` for the instance |
//! |---|---|---|---|
//! | a sampled `traceparent` | | yes | the same trace, our span as parent |
//! | an unsampled one | | no | unchanged |
//! | none, or a malformed one | yes | yes | a new trace, our span as parent |
//! | none, or a malformed one | no | no | a new, unsampled trace |
//!
//! An instance that traces is therefore always in the trace of its request, and records only if the
//! request is recorded here. `tracestate` passes unchanged.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Position of a request in a trace.
#[derive(Debug, Clone)]
pub struct Context {
    /// Context of the request's own span.
    pub(super) span: SpanContext,
    /// Context of the caller's span; invalid if there is none.
    pub(super) parent: SpanContext,
}

/// Header access for the propagator; repeated fields are ignored.
struct Fields<'a>(&'a HeaderMap);

impl Extractor for Fields<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let mut values = self.0.get_all(key).iter();
        let first = values.next().filter(|_| values.next().is_none());
        first?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

impl Context {
    /// Determines the context of a request. `random` holds ids for a new trace and span.
    pub(super) fn begin(fields: &HeaderMap, sampler: &Sampler, random: (u128, u64)) -> Self {
        let caller = TraceContextPropagator::new()
            .extract_with_context(&opentelemetry::Context::new(), &Fields(fields));
        let parent = caller.span().span_context().clone();
        // An all-zero id is invalid.
        let trace = match parent.is_valid() {
            true => parent.trace_id(),
            false => TraceId::from(random.0.max(1)),
        };
        let kind = SpanKind::Server;
        let sampled = sampler.should_sample(Some(&caller), trace, "", &kind, &[], &[]);
        let recorded = sampled.decision == SamplingDecision::RecordAndSample;
        let span = SpanContext::new(
            trace,
            SpanId::from(random.1.max(1)),
            TraceFlags::default().with_sampled(recorded),
            false,
            sampled.trace_state,
        );
        Self { span, parent }
    }

    /// Whether spans of the request are recorded.
    pub fn is_recorded(&self) -> bool {
        self.span.is_sampled()
    }

    /// Sets the `traceparent` field of the request to the instance.
    pub fn inject(&self, fields: &mut HeaderMap) {
        if !self.is_recorded() && self.parent.is_valid() {
            return;
        }
        let (trace, span) = (self.span.trace_id(), self.span.span_id());
        let traceparent = format!("00-{trace}-{span}-{:02x}", self.span.trace_flags().to_u8());
        if let Ok(traceparent) = HeaderValue::try_from(traceparent) {
            fields.insert(TRACEPARENT, traceparent);
        }
    }

    pub(super) fn child(&self, id: u64) -> SpanContext {
        SpanContext::new(
            self.span.trace_id(),
            SpanId::from(id.max(1)),
            self.span.trace_flags(),
            false,
            TraceState::NONE,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const NOT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    const IDS: (u128, u64) = (0xabc, 0xdef);

    /// Whether the request is recorded, and the instance's `traceparent`.
    fn traceparent(caller: &[&'static str], ratio: f64) -> (bool, Option<String>) {
        let mut fields = HeaderMap::new();
        for caller in caller {
            fields.append(TRACEPARENT, HeaderValue::from_static(caller));
        }
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
        let context = Context::begin(&fields, &sampler, IDS);
        context.inject(&mut fields);
        let mut traceparent = fields.get_all(TRACEPARENT).iter();
        let first = traceparent
            .next()
            .map(|traceparent| traceparent.to_str().unwrap().to_owned());
        assert!(traceparent.next().is_none(), "one at most is passed on");
        (context.is_recorded(), first)
    }

    #[test]
    fn a_trace_is_continued_and_its_callers_decision_kept() {
        let ours = "00-0af7651916cd43dd8448eb211c80319c-0000000000000def-01".to_owned();
        assert_eq!(traceparent(&[SAMPLED], 0.0), (true, Some(ours)));
        assert_eq!(traceparent(&[NOT], 1.0), (false, Some(NOT.to_owned())));
    }

    #[test]
    fn a_malformed_traceparent_starts_a_new_trace() {
        let new = |flags: &str| format!("00-{:032x}-{:016x}-{flags}", IDS.0, IDS.1);
        for caller in [
            &[][..],
            &["none"],
            &["00-00000000000000000000000000000000-b7ad6b7169203331-01"],
            &["00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"],
            &["ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &[SAMPLED, SAMPLED],
        ] {
            assert_eq!(
                traceparent(caller, 1.0),
                (true, Some(new("01"))),
                "{caller:?}"
            );
            assert_eq!(
                traceparent(caller, 0.0),
                (false, Some(new("00"))),
                "{caller:?}"
            );
        }
    }
}
