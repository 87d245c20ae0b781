//! How many instances of a version a node runs: the decision is pure, in [`decide`]; the owner task
//! of each pool applies it whenever something changes.

pub mod decide;
