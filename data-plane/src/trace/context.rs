//! Which trace a request belongs to, and whether it is recorded (W3C Trace Context). Pure.
//!
//! | the request has | ratio says | recorded | the instance is told |
//! |---|---|---|---|
//! | a sampled `traceparent` | | yes | that trace, our span as the parent |
//! | one that is not sampled | | no | what the caller said |
//! | none, or one that is malformed | yes | yes | a new trace, our span as the parent |
//! | none, or one that is malformed | no | no | a new trace that is not sampled |
//!
//! So an instance that traces too is never in another trace than its request, and never records what
//! is not recorded here. `tracestate` passes as it is.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The place of one request in a trace.
#[derive(Debug, Clone)]
pub struct Context {
    /// Of the request's own span.
    pub(super) span: SpanContext,
    /// The caller's span; invalid if there is none.
    pub(super) parent: SpanContext,
}

/// Fields of a request; of one that stands there twice nothing is believed.
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
    /// Of a request with these fields. `random`: the ids of a trace and of a span, should new ones be
    /// needed.
    pub(super) fn begin(fields: &HeaderMap, sampler: &Sampler, random: (u128, u64)) -> Self {
        let said = TraceContextPropagator::new()
            .extract_with_context(&opentelemetry::Context::new(), &Fields(fields));
        let parent = said.span().span_context().clone();
        // An id of zeros says that there is none.
        let trace = match parent.is_valid() {
            true => parent.trace_id(),
            false => TraceId::from(random.0.max(1)),
        };
        let kind = SpanKind::Server;
        let sampled = sampler.should_sample(Some(&said), trace, "", &kind, &[], &[]);
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

    /// Its spans are wanted.
    pub fn is_recorded(&self) -> bool {
        self.span.is_sampled()
    }

    /// Tells the instance, in the fields of the request to it.
    pub fn tell(&self, fields: &mut HeaderMap) {
        if !self.is_recorded() && self.parent.is_valid() {
            return;
        }
        let (trace, span) = (self.span.trace_id(), self.span.span_id());
        let told = format!("00-{trace}-{span}-{:02x}", self.span.trace_flags().to_u8());
        if let Ok(told) = HeaderValue::try_from(told) {
            fields.insert(TRACEPARENT, told);
        }
    }

    /// A new span in the same trace.
    pub(super) fn another(&self, id: u64) -> SpanContext {
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

    /// Whether it is recorded, and what the instance is told.
    fn told(said: &[&'static str], ratio: f64) -> (bool, Option<String>) {
        let mut fields = HeaderMap::new();
        for said in said {
            fields.append(TRACEPARENT, HeaderValue::from_static(said));
        }
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
        let context = Context::begin(&fields, &sampler, IDS);
        context.tell(&mut fields);
        let mut told = fields.get_all(TRACEPARENT).iter();
        let first = told.next().map(|told| told.to_str().unwrap().to_owned());
        assert!(told.next().is_none(), "one at most is passed on");
        (context.is_recorded(), first)
    }

    #[test]
    fn a_trace_is_continued_and_its_callers_decision_kept() {
        let ours = "00-0af7651916cd43dd8448eb211c80319c-0000000000000def-01".to_owned();
        assert_eq!(told(&[SAMPLED], 0.0), (true, Some(ours)));
        assert_eq!(told(&[NOT], 1.0), (false, Some(NOT.to_owned())));
    }

    #[test]
    fn what_is_no_traceparent_begins_a_trace() {
        let new = |flags: &str| format!("00-{:032x}-{:016x}-{flags}", IDS.0, IDS.1);
        for said in [
            &[][..],
            &["none"],
            &["00-00000000000000000000000000000000-b7ad6b7169203331-01"],
            &["00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"],
            &["ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &[SAMPLED, SAMPLED],
        ] {
            assert_eq!(told(said, 1.0), (true, Some(new("01"))), "{said:?}");
            assert_eq!(told(said, 0.0), (false, Some(new("00"))), "{said:?}");
        }
    }
}
