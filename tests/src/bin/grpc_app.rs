//! `cless-grpc-app`: the service of [`cless_tests::grpc`], for containers.
//!
//! Environment: `PORT` (8080), `GREETING`.

use std::net::Ipv4Addr;

use anyhow::Result;
use cless_tests::grpc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let port = std::env::var("PORT").ok();
    let port = port.and_then(|port| port.parse().ok()).unwrap_or(8080);
    let greeting = std::env::var("GREETING").unwrap_or_else(|_| "hello".to_owned());
    grpc::serve((Ipv4Addr::UNSPECIFIED, port).into(), greeting).await
}
