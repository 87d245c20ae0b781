//! The demo of the README.

use anyhow::{Result, ensure};
use cless_tests::paths;
use cless_tests::process::run;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_succeeds_and_prints_plain_text_without_a_terminal() -> Result<()> {
    let output = run(Command::new(paths::program("cless-demo")?))
        .await?
        .ok()?;
    ensure!(output.contains("All of it held"), "{output}");
    ensure!(
        !output.contains('\x1b'),
        "colour codes without a terminal: {output:?}"
    );
    Ok(())
}
