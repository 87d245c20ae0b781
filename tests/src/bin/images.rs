//! `cless-images`: builds the test images and prints their references as JSON; `--remove` removes
//! all images that were ever built.

use std::io::Write as _;

use clap::Parser;
use cless_tests::{engine, image};
use serde_json::json;

/// Builds the images of the tests without a registry.
#[derive(Parser)]
struct Args {
    /// Remove all images built by this program, the tests, the demo or the benches.
    #[arg(long)]
    remove: bool,
    /// Also build the image of Debian's nginx.
    #[arg(long)]
    nginx: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let docker = engine::connect().await?;
    let mut output = json!({});
    if args.remove {
        output["removed"] = image::remove_all(&docker).await?.into();
    } else {
        output["sample"] = image::sample_app(&docker).await?.into();
        if args.nginx {
            output["nginx"] = image::nginx(&docker).await?.into();
        }
    }
    writeln!(std::io::stdout(), "{output}")?;
    Ok(())
}
