//! Which paths ran: a simulation that is too kind proves nothing.

use cless_proto::v1 as pb;
use parking_lot::Mutex;
use pb::stream_routes_request::Message as Up;
use pb::stream_routes_response::Message as Down;
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::Status;

/// How often each happened; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Tally {
    pub(super) fn count(&self, what: &'static str) {
        *self.0.lock().entry(what).or_default() += 1;
    }

    pub(super) fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().clone()
    }
}

/// Watches one stream.
#[derive(Debug)]
pub(super) struct Watcher {
    tally: Tally,
    name: String,
    have: Option<pb::Cursor>,
    begun: bool,
    node_left: bool,
    told: bool,
}

impl Watcher {
    pub(super) fn new(tally: Tally) -> Self {
        Self {
            tally,
            name: String::new(),
            have: None,
            begun: false,
            node_left: false,
            told: false,
        }
    }

    /// Takes note of a request; whose stream it is.
    pub(super) fn request(&mut self, request: &pb::StreamRoutesRequest) -> String {
        match &request.message {
            Some(Up::Hello(hello)) => {
                let node = hello.node.clone().unwrap_or_default();
                self.name = node.name;
                self.have.clone_from(&hello.have);
                self.tally.count(match hello.have {
                    Some(_) => "hello with a table",
                    None => "hello without a table",
                });
            }
            Some(Up::Ack(ack)) => {
                self.tally.count("ack");
                if !ack.quarantined.is_empty() {
                    self.tally.count("ack with quarantine");
                }
            }
            Some(Up::Nack(nack)) => self.tally.count(match nack.kind() {
                pb::nack::Kind::Corrupt => "nack: corrupt",
                _ if nack.message.contains("cluster") => "nack: rejected, another cluster",
                _ => "nack: rejected, older",
            }),
            None => {}
        }
        self.name.clone()
    }

    /// Takes note of a response; whose stream it is.
    pub(super) fn response(
        &mut self,
        response: &Result<pb::StreamRoutesResponse, Status>,
    ) -> String {
        let message = match response {
            Ok(response) => response.message.as_ref(),
            Err(status) => {
                self.told = true;
                let known = [
                    ("no Ack or Nack", "closed: no ack in time"),
                    ("has not reached", "closed: replica behind"),
                    ("out of order", "closed: out of order"),
                    ("no Hello", "closed: no hello"),
                    ("used by another", "closed: name taken"),
                ];
                let of = known
                    .iter()
                    .find(|(words, _)| status.message().contains(words));
                self.tally
                    .count(of.map_or("closed: replaced, or otherwise", |(_, what)| what));
                return self.name.clone();
            }
        };
        match message {
            Some(Down::Begin(begin)) => {
                let first = !std::mem::replace(&mut self.begun, true);
                self.tally.count(match (begin.kind(), &self.have) {
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
            Some(Down::Chunk(chunk)) if chunk.part > 0 => self.tally.count("more than one chunk"),
            Some(Down::Heartbeat(_)) => self.tally.count("heartbeat"),
            Some(Down::GoAway(_)) => {
                self.told = true;
                self.tally.count("go away");
            }
            _ => {}
        }
        self.name.clone()
    }

    /// The node's side ended.
    pub(super) fn half_closed(&mut self) {
        self.node_left = true;
    }

    /// The plane's side ended.
    pub(super) fn ended(&mut self) {
        if !self.told && !self.node_left {
            self.tally.count("given up: stalled");
        }
    }
}
