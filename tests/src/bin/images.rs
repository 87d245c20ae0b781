//! `cless-images`: makes the test images and prints their references as JSON; `--remove` removes all
//! that were ever made.

use std::io::Write as _;

use bollard::Docker;
use clap::Parser;
use cless_tests::image;

/// Makes the images that tests and trials by hand run, without a registry.
#[derive(Parser)]
struct Args {
    /// Remove every image made by this program, the tests, the demo or the benches.
    #[arg(long)]
    remove: bool,
    /// Also make the image of Debian's nginx.
    #[arg(long)]
    nginx: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let docker = Docker::connect_with_defaults()?.negotiate_version().await?;
    let mut answer = serde_json::Map::new();
    if args.remove {
        answer.insert(
            "removed".to_owned(),
            image::remove_all(&docker).await?.into(),
        );
    } else {
        answer.insert(
            "sample".to_owned(),
            image::sample_app(&docker).await?.into(),
        );
        if args.nginx {
            answer.insert("nginx".to_owned(), image::nginx(&docker).await?.into());
        }
    }
    writeln!(std::io::stdout(), "{}", serde_json::Value::Object(answer))?;
    Ok(())
}
