//! The admission word of the data plane, compiled on loom's atomics instead of the processor's.
//!
//! The file is included, and its `super::atomic` is loom's here. So the data plane is not built a
//! second time, no flag is needed, and the models in `tests/` run with all other tests.

use loom::sync::atomic;

#[path = "../../../data-plane/src/instance/admission.rs"]
pub mod admission;
