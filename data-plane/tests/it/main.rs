//! Integration tests of the data plane: real sockets, no engine.

mod feed;
mod pools;
