//! Answers to requests without a parsed head: no handler sees them, yet each has a request id, a
//! `Proxy-Status`, a line in the access log and its place in the metrics.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Version};
use rand::RngExt as _;

use super::error::Error;
use super::headers;
use crate::proxy::client::ClientConn;
use crate::proxy::log::access::{AccessRecord, LoggedRequest};
use crate::proxy::worker::Worker;

/// The error for which hyper answers with `status`.
pub(crate) fn error(client: &ClientConn, status: u16) -> Error {
    let counters = &client.counters;
    match status {
        431 => Error::HeadTooLarge,
        414 => Error::TargetTooLong,
        // hyper names no field; the inspection of its framing may know more.
        _ => match counters.framing_error(counters.begun()) {
            Some(error) => Error::Ambiguous(error),
            None => Error::BadRequest("the head is malformed".to_owned()),
        },
    }
}

/// The response to a request over HTTP/1, as bytes. Counts and logs the request.
pub(crate) fn answer(worker: &Worker, client: &ClientConn, error: &Error) -> Vec<u8> {
    let random = worker.rng.borrow_mut().random();
    let id = headers::request_id(&HeaderMap::new(), false, random);
    let (bytes, body) = error.to_http1_bytes(&id, SystemTime::now());
    let (status, reason) = (error.status().as_u16(), error.reason());
    let took = Duration::ZERO;
    worker.proxy.metrics.rejected(reason, None, None);
    worker.unrouted.record(status, took, [0, body as u64]);
    if worker.has_log() {
        let record = AccessRecord {
            request: &LoggedRequest::unparsed(Version::HTTP_11),
            peer: &client.peer_text,
            scheme: client.scheme(),
            id: &id,
            service: None,
            version: None,
            status,
            bytes: body as u64,
            took,
            waited: None,
            reason,
        };
        worker.log(&record, None);
    }
    bytes
}
