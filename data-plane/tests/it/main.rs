//! Integration tests of the data plane: real sockets, no engine.

mod feed;
mod pools;
mod pools_sandbox;
mod pools_scale;
mod pools_sleep;
