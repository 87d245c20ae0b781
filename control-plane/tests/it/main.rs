//! The control plane as its clients see it: a real server on a database of its own, real tonic
//! clients, and a proxy that checks every digest itself.

mod bad_input;
mod catalog;
mod database;
mod feed;
mod golden;
mod harness;
mod images;
mod lifecycle;
mod nodes;
mod proofs;
mod propagation;
mod proxy;
mod replicas;
mod traffic;
