//! A finished request as its spans tell of it: what its line in the log has, and what it waited for.

use std::time::SystemTime;

use super::access::Entry;
use crate::instance::Guard;
use crate::trace;

/// `None`: it is not recorded.
pub(super) fn request(
    entry: &Entry<'_>,
    guard: Option<&Guard>,
    ended: SystemTime,
) -> Option<trace::Request> {
    let asked = entry.asked;
    let context = asked.trace.as_ref()?;
    if !context.is_recorded() {
        return None;
    }
    Some(trace::Request {
        context: context.clone(),
        method: asked.method.clone(),
        uri: asked.uri.clone(),
        protocol: asked.version,
        host: asked.host.clone(),
        agent: asked.agent.clone(),
        client: entry.peer.clone(),
        scheme: entry.scheme,
        id: entry.id.clone(),
        version: entry.service.map(Into::into).zip(entry.version),
        instance: guard.map(|guard| guard.instance().name().to_owned()),
        status: entry.status,
        bytes: entry.bytes,
        reason: entry.reason,
        ended,
        took: entry.took,
        waited: entry.waited,
        start: guard.and_then(Guard::waited_for_start).cloned(),
        wake: guard.and_then(Guard::waited_for_wake),
    })
}
