//! Counters and flags of one client's connection, shared by its socket, its requests and its
//! worker.
//!
//! Everything runs on one thread. The fields are atomics only because hyper requires an upgraded
//! connection to be `Send`.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::Poll;

use crate::proxy::wire::h1_framing::{FramingError, Inspector, ReadPhase};

#[derive(Debug, Default)]
pub(crate) struct ConnCounters {
    /// Bytes read.
    pub(super) read: AtomicU64,
    pub(super) written: AtomicU64,
    /// A write waits for the client.
    pub(super) blocked: AtomicBool,
    phase: AtomicU8,
    pub(super) heads: AtomicU32,
    /// Requests that have ended, whose responses are complete or abandoned.
    ended: AtomicU32,
    /// Requests that hyper gave to the handler, responses that it got, and those of which it has the
    /// whole body.
    begun: AtomicU32,
    answered: AtomicU32,
    completed: AtomicU32,
    /// The status of a response of hyper that the socket holds back; 0: none.
    refused: AtomicU16,
    /// The client closed its sending side; the worker then wakes the connection at each tick.
    is_half_closed: AtomicBool,
    /// An upgrade request was read; later bytes wait for its outcome.
    upgrade_pending: AtomicBool,
    upgrade_outcome: AtomicU8,
    /// The framing error that ended the inspection, and the index of its request.
    framing_error: OnceLock<(u32, FramingError)>,
    /// The current response is broken: the socket writes what it has, and then fails.
    is_cut: AtomicBool,
    /// Interim responses that the socket is to write.
    has_interim: AtomicBool,
    interim: Mutex<Vec<u8>>,
    /// A response to write before the connection is closed.
    final_response: OnceLock<Vec<u8>>,
}

/// Adds 1 without a locked instruction: all runs on one thread. Returns the value before.
fn increment(counter: &AtomicU32) -> u32 {
    let before = counter.load(Ordering::Relaxed);
    counter.store(before.wrapping_add(1), Ordering::Relaxed);
    before
}

const OUTCOME_UNKNOWN: u8 = 0;
const OUTCOME_SWITCHED: u8 = 1;
const OUTCOME_REFUSED: u8 = 2;

impl ConnCounters {
    /// The part of a request that the client is to send next.
    pub(crate) fn phase(&self) -> ReadPhase {
        match self.phase.load(Ordering::Relaxed) {
            0 => ReadPhase::Idle,
            1 => ReadPhase::Head,
            _ => ReadPhase::Body,
        }
    }

    /// Counts a request whose response is complete or abandoned.
    pub(super) fn end_request(&self) {
        increment(&self.ended);
    }

    /// Counts a request; returns its index, from 0.
    pub(super) fn begin_request(&self) -> u32 {
        increment(&self.begun)
    }

    /// Counts a response that is given to hyper.
    pub(crate) fn answer(&self) {
        increment(&self.answered);
    }

    /// Counts a response whose body has ended.
    pub(crate) fn complete_response(&self) {
        increment(&self.completed);
    }

    /// Requests so far.
    pub(crate) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    /// hyper has nothing to write: it has got and taken the responses to all requests so far.
    pub(crate) fn is_idle(&self) -> bool {
        let answered = self.answered.load(Ordering::Relaxed);
        answered == self.begun() && answered == self.completed.load(Ordering::Relaxed)
    }

    /// Holds back a response that hyper made for a request that it cannot parse.
    pub(crate) fn set_refused(&self, status: u16) {
        self.refused.store(status, Ordering::Relaxed);
    }

    /// The status of the response that is held back. The caller provides another one, with
    /// [`Self::add_interim`].
    pub(crate) fn take_refused(&self) -> Option<u16> {
        let status = self.refused.load(Ordering::Relaxed);
        if status == 0 {
            return None;
        }
        self.refused.store(0, Ordering::Relaxed);
        Some(status)
    }

    /// Requests that have ended.
    pub(crate) fn ended(&self) -> u32 {
        self.ended.load(Ordering::Relaxed)
    }

    pub(crate) fn set_half_closed(&self) {
        self.is_half_closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_half_closed(&self) -> bool {
        self.is_half_closed.load(Ordering::Relaxed)
    }

    /// Part of a head was read, and no response is being written.
    pub(crate) fn is_in_head(&self) -> bool {
        self.phase() == ReadPhase::Head && !self.blocked.load(Ordering::Relaxed)
    }

    /// The framing error of the request with this index, or of one before it.
    pub(crate) fn framing_error(&self, request: u32) -> Option<FramingError> {
        let (head, error) = self.framing_error.get()?;
        (*head <= request).then_some(*error)
    }

    pub(crate) fn set_framing_error(&self, request: u32, error: FramingError) {
        let _ = self.framing_error.set((request, error));
    }

    /// Has the socket write `response` at its next read, and then close. Valid only between a
    /// response and the next request, when nothing else is being written.
    pub(crate) fn set_final_response(&self, response: Vec<u8>) {
        let _ = self.final_response.set(response);
    }

    pub(crate) fn final_response(&self) -> Option<&[u8]> {
        self.final_response.get().map(Vec::as_slice)
    }

    /// Decides the protocol of the bytes behind an upgrade request: the new one, or HTTP/1.
    /// Returns true if the reader waits for that, so that it must be woken.
    pub(crate) fn resolve_upgrade(&self, switched: bool) -> bool {
        let pending = self.upgrade_pending.swap(false, Ordering::Relaxed);
        if pending {
            let outcome = match switched {
                true => OUTCOME_SWITCHED,
                false => OUTCOME_REFUSED,
            };
            self.upgrade_outcome.store(outcome, Ordering::Relaxed);
        }
        pending
    }

    /// Whether the pending upgrade switched protocols; `None` while that is unknown.
    pub(crate) fn take_upgrade_outcome(&self) -> Option<bool> {
        match self
            .upgrade_outcome
            .swap(OUTCOME_UNKNOWN, Ordering::Relaxed)
        {
            OUTCOME_UNKNOWN => None,
            outcome => Some(outcome == OUTCOME_SWITCHED),
        }
    }

    pub(crate) fn update(&self, inspector: &Inspector) {
        self.phase.store(inspector.phase() as u8, Ordering::Relaxed);
        self.heads.store(inspector.heads(), Ordering::Relaxed);
        if inspector.is_upgrade_pending() {
            self.upgrade_pending.store(true, Ordering::Relaxed);
        }
    }

    /// Bytes written to the client so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(crate) fn add_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Has the socket fail once all bytes so far are written. hyper drops its buffer when a body
    /// fails, so a body that breaks reports this and stays pending.
    pub(crate) fn cut_after_flush(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }

    /// Has the socket write an interim response, at the next flush, or one that it waits for. Valid
    /// only before the response.
    pub(crate) fn add_interim(&self, bytes: &[u8]) {
        let mut interim = self.interim.lock().unwrap_or_else(PoisonError::into_inner);
        interim.extend_from_slice(bytes);
        self.has_interim.store(true, Ordering::Relaxed);
    }

    /// Interim responses are not written yet.
    pub(crate) fn has_interim(&self) -> bool {
        self.has_interim.load(Ordering::Relaxed)
    }

    pub(crate) fn take_interim(&self) -> Vec<u8> {
        std::mem::take(&mut *self.interim.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn interim_written(&self) {
        let interim = self.interim.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_interim
            .store(!interim.is_empty(), Ordering::Relaxed);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// A write waits for the client.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    pub(crate) fn add_written(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.set_blocked(true),
            Poll::Ready(Ok(bytes)) => {
                self.written.fetch_add(*bytes as u64, Ordering::Relaxed);
                self.set_blocked(false);
            }
            Poll::Ready(Err(_)) => {}
        }
    }
}
