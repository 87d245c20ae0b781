//! The cless data plane: follows the route feed and serves HTTP from containers.

pub mod feed;
pub mod instance;
pub mod route;
