//! Scaling of a version's instances on one node. Pure: the pool's actor applies the decision of
//! [`decide`] on every change; [`window`] remembers the peak of the recent load.

pub mod decide;
pub mod window;
