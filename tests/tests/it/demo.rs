//! The demo is a promise of the README: it must hold.

use anyhow::{Result, ensure};
use cless_tests::paths;
use cless_tests::process::run;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_holds_and_is_plain_text_off_a_terminal() -> Result<()> {
    let story = run(Command::new(paths::program("cless-demo")?))
        .await?
        .ok()?;
    ensure!(story.contains("All claims hold"), "{story}");
    ensure!(
        !story.contains('\x1b'),
        "colour codes off a terminal: {story:?}"
    );
    Ok(())
}
