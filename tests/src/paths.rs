//! Where the build put things, found from the running test or program itself, so that no caller has
//! to say it.

use std::path::{Path, PathBuf};

/// Why a path could not be found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The running program has no path, or not one inside a target folder.
    #[error("cannot tell the target folder from the running program: {0}")]
    NoTarget(String),
    /// The program was not built.
    #[error("{} is not built: run `cargo build --workspace --all-targets`", .0.display())]
    NotBuilt(PathBuf),
}

/// `target/debug`, or that of another profile: where the programs are.
pub fn profile_dir() -> Result<PathBuf, Error> {
    let exe = std::env::current_exe().map_err(|e| Error::NoTarget(e.to_string()))?;
    let dir = exe
        .parent()
        .ok_or_else(|| Error::NoTarget(exe.display().to_string()))?;
    // Tests run from `target/PROFILE/deps`, programs from `target/PROFILE`.
    let dir = if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir)
    } else {
        dir
    };
    Ok(dir.to_owned())
}

/// `target`: caches that outlive a run, results of benches.
pub fn target_dir() -> Result<PathBuf, Error> {
    let profile = profile_dir()?;
    profile
        .parent()
        .map(Path::to_owned)
        .ok_or_else(|| Error::NoTarget(profile.display().to_string()))
}

/// A folder in which programs are looked for first: a bench runs what is shipped, built by another
/// profile than the bench.
const PROGRAMS: &str = "CLESS_PROGRAMS";

/// A program of this workspace, `cless` say.
pub fn program(name: &str) -> Result<PathBuf, Error> {
    let first = std::env::var_os(PROGRAMS).map(|dir| Path::new(&dir).join(name));
    if let Some(path) = first.filter(|path| path.is_file()) {
        // Whoever starts it may do so from another folder.
        return Ok(path.canonicalize().unwrap_or(path));
    }
    let path = profile_dir()?.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::NotBuilt(path))
    }
}

/// The folder of the crate's sources.
pub fn source_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
