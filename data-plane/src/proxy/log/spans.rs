//! Converts a finished request into the input of its trace spans.

use std::time::SystemTime;

use super::access::AccessRecord;
use crate::pool::Guard;
use crate::trace;

/// `None` if the request is not sampled.
pub(crate) fn finished_request(
    record: &AccessRecord<'_>,
    guard: Option<&Guard>,
    ended: SystemTime,
) -> Option<trace::FinishedRequest> {
    let request = record.request;
    let context = request.trace.as_ref()?;
    let (method, uri) = request.target.as_ref()?;
    if !context.is_recorded() {
        return None;
    }
    Some(trace::FinishedRequest {
        context: context.clone(),
        method: method.clone(),
        uri: uri.clone(),
        protocol: request.version,
        host: request.host.clone(),
        agent: request.agent.clone(),
        client: record.peer.clone(),
        scheme: record.scheme,
        id: record.id.clone(),
        service: record.service.cloned(),
        version: record.version,
        instance: guard.map(|guard| guard.instance().name().to_owned()),
        status: record.status,
        bytes: record.bytes,
        reason: record.reason,
        ended,
        took: record.took,
        waited: record.waited,
        start: guard.and_then(Guard::waited_for_start).cloned(),
        wake: guard.and_then(Guard::waited_for_resume),
    })
}
