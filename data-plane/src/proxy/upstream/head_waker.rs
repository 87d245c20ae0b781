//! Wakes the request that is next in line for a stream of an instance.

use std::cell::RefCell;
use std::task::{Context, Waker};

/// The waker of the head of the queue, if one waits.
#[derive(Debug, Default)]
pub(super) struct HeadWaker(RefCell<Option<Waker>>);

impl HeadWaker {
    pub(super) fn set(&self, cx: &Context<'_>) {
        self.0.replace(Some(cx.waker().clone()));
    }

    pub(super) fn clear(&self) {
        self.0.take();
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}
