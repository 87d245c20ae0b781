//! Programs of Debian's packages, unpacked without being installed: nothing of the machine changes,
//! and no package starts a service of its own.

use std::path::Path;
use std::process::Command;

use crate::image::{Error, create_dir, run};

/// Unpacks packages into `root`, by way of a folder beside it.
pub(crate) fn unpack(packages: &[&str], root: &Path) -> Result<(), Error> {
    let downloads = root.with_extension("packages");
    create_dir(&downloads)?;
    create_dir(root)?;
    let download = || {
        run(Command::new("apt-get")
            .args(["download", "-q"])
            .args(packages)
            .current_dir(&downloads))
    };
    // A fresh machine has no package lists, an old one outdated ones.
    if download().is_err() {
        run(Command::new("apt-get").args(["update", "-qq"]))?;
        download()?;
    }
    let failed = |error| Error::File {
        path: downloads.clone(),
        error,
    };
    for package in std::fs::read_dir(&downloads).map_err(failed)?.flatten() {
        run(Command::new("dpkg-deb")
            .arg("-x")
            .arg(package.path())
            .arg(root))?;
    }
    std::fs::remove_dir_all(&downloads).map_err(failed)
}
