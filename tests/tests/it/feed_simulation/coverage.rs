//! Coverage of code paths: a simulation without faults would verify nothing.

use cless_proto::v1 as pb;
use parking_lot::Mutex;
use pb::stream_routes_request::Message as Up;
use pb::stream_routes_response::Message as Down;
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::Status;

/// Counts by code path; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Coverage(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Coverage {
    pub(super) fn count(&self, path: &'static str) {
        *self.0.lock().entry(path).or_default() += 1;
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().clone()
    }
}

/// Counts the code paths of one stream.
#[derive(Debug)]
pub(super) struct StreamObserver {
    coverage: Coverage,
    name: String,
    have: Option<pb::Cursor>,
    begun: bool,
    node_left: bool,
    has_reason: bool,
}

impl StreamObserver {
    pub(super) fn new(coverage: Coverage) -> Self {
        Self {
            coverage,
            name: String::new(),
            have: None,
            begun: false,
            node_left: false,
            has_reason: false,
        }
    }

    /// Counts a request and returns the name of its node.
    pub(super) fn request(&mut self, request: &pb::StreamRoutesRequest) -> String {
        match &request.message {
            Some(Up::Hello(hello)) => {
                let node = hello.node.clone().unwrap_or_default();
                self.name = node.name;
                self.have.clone_from(&hello.have);
                self.coverage.count(match hello.have {
                    Some(_) => "hello with a table",
                    None => "hello without a table",
                });
            }
            Some(Up::Ack(ack)) => {
                self.coverage.count("ack");
                if !ack.quarantined.is_empty() {
                    self.coverage.count("ack with quarantine");
                }
            }
            Some(Up::Nack(nack)) => self.coverage.count(match nack.kind() {
                pb::nack::Kind::Corrupt => "nack: corrupt",
                _ if nack.message.contains("cluster") => "nack: rejected, another cluster",
                _ => "nack: rejected, older",
            }),
            None => {}
        }
        self.name.clone()
    }

    /// Counts a response and returns the name of its node.
    pub(super) fn response(
        &mut self,
        response: &Result<pb::StreamRoutesResponse, Status>,
    ) -> String {
        let message = match response {
            Ok(response) => response.message.as_ref(),
            Err(status) => {
                self.has_reason = true;
                let known = [
                    ("no Ack or Nack", "closed: no ack in time"),
                    ("has not reached", "closed: replica behind"),
                    ("out of order", "closed: out of order"),
                    ("no Hello", "closed: no hello"),
                    ("used by another", "closed: name taken"),
                ];
                let reason = known
                    .iter()
                    .find(|(text, _)| status.message().contains(text));
                self.coverage
                    .count(reason.map_or("closed: other reason", |(_, path)| path));
                return self.name.clone();
            }
        };
        match message {
            Some(Down::Begin(begin)) => {
                let first = !std::mem::replace(&mut self.begun, true);
                self.coverage.count(match (begin.kind(), &self.have) {
                    (pb::begin::Kind::Delta, _) if first && begin.from == begin.to => {
                        "resume at the head"
                    }
                    (pb::begin::Kind::Delta, _) if first => "resume by delta",
                    (pb::begin::Kind::Delta, _) => "delta",
                    (_, None) if first => "snapshot to a new node",
                    (_, Some(have))
                        if first && have.epoch != begin.to.clone().unwrap_or_default().epoch =>
                    {
                        "snapshot: unknown epoch"
                    }
                    (_, Some(_)) if first => "snapshot: compacted",
                    _ => "snapshot again",
                });
            }
            Some(Down::Chunk(chunk)) if chunk.part > 0 => {
                self.coverage.count("more than one chunk")
            }
            Some(Down::Heartbeat(_)) => self.coverage.count("heartbeat"),
            Some(Down::GoAway(_)) => {
                self.has_reason = true;
                self.coverage.count("go away");
            }
            _ => {}
        }
        self.name.clone()
    }

    /// Records that the node closed its side.
    pub(super) fn half_closed(&mut self) {
        self.node_left = true;
    }

    /// Records that the control plane closed its side.
    pub(super) fn ended(&mut self) {
        if !self.has_reason && !self.node_left {
            self.coverage.count("cancelled: stalled");
        }
    }
}
