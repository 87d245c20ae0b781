//! Instances: the containers of the versions this node serves.

pub mod report;
