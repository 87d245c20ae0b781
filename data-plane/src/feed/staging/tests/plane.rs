//! A control plane that produces messages to stage.

use std::collections::BTreeMap;

use super::super::*;
use crate::route::Cursor;

/// Routes of a control plane by uid.
#[derive(Clone, Debug, Default)]
pub(super) struct Plane {
    pub(super) revision: i64,
    pub(super) routes: BTreeMap<String, Bytes>,
}

impl Plane {
    pub(super) fn cursor(&self) -> Cursor {
        let digest = self
            .routes
            .values()
            .fold(Digest::ZERO, |sum, bytes| sum.plus(Digest::of(bytes)));
        Cursor {
            epoch: "e".into(),
            revision: self.revision,
            digest,
        }
    }

    pub(super) fn put(&mut self, uid: &str, bytes: Bytes) {
        self.revision += 1;
        self.routes.insert(uid.to_owned(), bytes);
    }

    pub(super) fn change(
        &self,
        txn: u64,
        from: Option<&Self>,
        upserts: Vec<(String, Bytes)>,
        removed: Vec<String>,
    ) -> Vec<Message> {
        let mut messages = vec![Message::Begin(Begin {
            txn,
            cluster: "c".into(),
            scope: if from.is_some() {
                Scope::Delta
            } else {
                Scope::Snapshot
            },
            from: from.map(Self::cursor),
            to: self.cursor(),
        })];
        // One route per chunk, so that tests can reorder chunks.
        let chunks = upserts
            .into_iter()
            .map(|upsert| (vec![upsert], Vec::new()))
            .chain(removed.into_iter().map(|uid| (Vec::new(), vec![uid])));
        for (part, (upserts, removed)) in (0..).zip(chunks) {
            messages.push(Message::Chunk(Chunk {
                txn,
                part,
                upserts,
                removed,
            }));
        }
        let count = self.routes.len() as u64;
        messages.push(Message::Commit(Commit {
            txn,
            to: self.cursor(),
            count,
        }));
        messages
    }

    pub(super) fn snapshot(&self, txn: u64) -> Vec<Message> {
        self.change(
            txn,
            None,
            self.routes.clone().into_iter().collect(),
            Vec::new(),
        )
    }

    pub(super) fn delta(&self, txn: u64, from: &Self) -> Vec<Message> {
        let upserts = self
            .routes
            .iter()
            .filter(|(uid, bytes)| from.routes.get(*uid) != Some(bytes))
            .map(|(uid, bytes)| (uid.clone(), bytes.clone()))
            .collect();
        let removed = from
            .routes
            .keys()
            .filter(|uid| !self.routes.contains_key(*uid))
            .cloned()
            .collect();
        self.change(txn, Some(from), upserts, removed)
    }
}
