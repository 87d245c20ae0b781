//! What the end-to-end tests, the demo and the benches of cless share.
//!
//! - [`image`]: images made through the engine's API, without a registry: the sample app and Debian's
//!   nginx.
//! - [`paths`]: where the build put things.

pub mod image;
pub mod paths;
