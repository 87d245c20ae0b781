//! Integration tests of the data plane: real sockets, no engine.

mod feed;
mod front;
mod hostile;
mod pools;
mod pools_scale;
mod pools_sleep;
mod proxy;
mod raw;
