//! How many instances of a version a node runs, and which of them sleep: the decision is pure, in
//! [`decide`], and so is the memory of the load that it looks at, in [`window`]; the owner task of
//! each pool applies it whenever something changes.

pub mod decide;
pub mod window;
