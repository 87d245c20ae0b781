//! Root file systems of Debian's packages: the packages' own files, unpacked without being installed,
//! and what an image needs besides.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Error, create_dir, run};
use crate::debian::unpack;
use crate::paths;

/// The tar of `packages` unpacked and then completed by `complete`, which is given the root. Kept
/// under `target/` as `NAME.tar` once made.
pub(super) fn root_file_system(
    name: &str,
    packages: &[&str],
    complete: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    let dir = paths::target_dir()?.join("sample");
    let tar = dir.join(format!("{name}.tar"));
    if tar.is_file() {
        return Ok(tar);
    }
    let work = dir.join(format!("{name}-{}", std::process::id()));
    let root = work.join("root");
    unpack(packages, &root)?;
    complete(&root)?;
    let partial = work.join("root.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-cf")
        .arg(&partial)
        .args(["--numeric-owner", "--owner=0", "--group=0", "."]))?;
    std::fs::rename(&partial, &tar).map_err(|error| Error::File {
        path: tar.clone(),
        error,
    })?;
    // What is left is scratch; a failure to remove it changes nothing.
    let _ = std::fs::remove_dir_all(&work);
    Ok(tar)
}

/// Writes a file under the root, and the folders above it.
pub(super) fn write(root: &Path, name: &str, content: &str) -> Result<(), Error> {
    let path = root.join(name);
    if let Some(folder) = path.parent() {
        create_dir(folder)?;
    }
    std::fs::write(&path, content).map_err(|error| Error::File { path, error })
}
