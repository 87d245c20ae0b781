//! The control plane from outside: a real server on its own database, tonic clients, and a feed
//! client that checks every digest.

mod audit;
mod authorization;
mod bad_input;
mod calls;
mod catalog;
mod control;
mod database;
mod enrollment;
mod feed;
mod feed_client;
mod filters;
mod harness;
mod images;
mod lifecycle;
mod nodes;
mod propagation;
mod replicas;
mod retries;
mod schema_upgrades;
mod secure;
mod tls;
mod traffic;
mod verification;
