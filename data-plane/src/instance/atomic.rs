//! The atomics of [`admission`](super::admission); `tests/loom` provides loom's in their place.

pub(super) use std::sync::atomic::{AtomicU64, Ordering};
