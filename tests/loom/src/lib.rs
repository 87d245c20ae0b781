//! The admission word of the data plane, compiled on loom's atomics instead of the processor's.
//!
//! The file is included, not copied: it names its atomics `super::atomic`, which is loom's here. So
//! neither the data plane nor what it depends on is built a second time, and no flag is needed; the
//! models in `tests/` run with all other tests.

use loom::sync::atomic;

#[path = "../../../data-plane/src/instance/admission.rs"]
pub mod admission;
