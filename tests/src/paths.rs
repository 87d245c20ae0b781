//! Locations of build results, derived from the path of the running program.

use std::path::{Path, PathBuf};

/// A failure to locate a build result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path of the running program is unknown or not inside a target folder.
    #[error("cannot derive the target folder from the running program: {0}")]
    NoTarget(String),
    /// The program was not built.
    #[error("{} is not built; run `cargo build --workspace --all-targets`", .0.display())]
    NotBuilt(PathBuf),
}

/// The folder of the programs: `target/debug`, or that of another profile.
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

/// The target folder, for caches and bench results.
pub fn target_dir() -> Result<PathBuf, Error> {
    let profile = profile_dir()?;
    profile
        .parent()
        .map(Path::to_owned)
        .ok_or_else(|| Error::NoTarget(profile.display().to_string()))
}

/// Environment variable with a folder of preferred programs: a bench may measure programs built
/// with another profile than its own.
const PROGRAMS: &str = "CLESS_PROGRAMS";

/// The path of a program of this workspace, such as `cless`.
pub fn program(name: &str) -> Result<PathBuf, Error> {
    let first = std::env::var_os(PROGRAMS).map(|dir| Path::new(&dir).join(name));
    if let Some(path) = first.filter(|path| path.is_file()) {
        // The program may be started from another folder.
        return Ok(path.canonicalize().unwrap_or(path));
    }
    let path = profile_dir()?.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::NotBuilt(path))
    }
}

/// The folder of this crate.
pub fn source_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
