//! `dev`
use crate::error::Error;
use crate::output::Printer;
use clap::Args;
/// x
#[derive(Debug, Args)]
pub(crate) struct DevArgs {}
pub(super) async fn run(_args: DevArgs, _printer: &Printer) -> Result<(), Error> {
    Ok(())
}
