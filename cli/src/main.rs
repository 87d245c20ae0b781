//! The program `cless`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cless_cli::run()
}
