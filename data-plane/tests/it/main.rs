//! Integration tests of the data plane with real sockets and a scripted engine.

mod admin;
mod drain;
mod enrollment;
mod feed;
mod front;
mod hostile;
mod pools;
mod pools_images;
mod pools_life;
mod pools_outage;
mod pools_pause;
mod pools_sandbox;
mod pools_scale;
mod proxy;
mod raw;
