//! Root file systems from Debian packages, unpacked without installation, and the additional files
//! of an image.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Error, create_dir, file_error, run};
use crate::debian::unpack;
use crate::paths;

/// Builds a tar: unpacks `packages` and lets `complete` add files under the root. Returns the path
/// under `target/`; a tar of an earlier run is reused.
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
        .args(["--numeric-owner", "--owner=0", "--group=0"])
        .args(["--xattrs", "--xattrs-include=security.capability", "."]))?;
    std::fs::rename(&partial, &tar).map_err(file_error(&tar))?;
    // Failing to remove scratch files is harmless.
    let _ = std::fs::remove_dir_all(&work);
    Ok(tar)
}

pub(super) fn write(root: &Path, name: &str, content: &str) -> Result<(), Error> {
    let path = root.join(name);
    if let Some(folder) = path.parent() {
        create_dir(folder)?;
    }
    std::fs::write(&path, content).map_err(file_error(&path))
}
