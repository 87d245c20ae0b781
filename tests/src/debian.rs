//! Programs from Debian packages, unpacked without installation: the machine stays unchanged, and
//! no package starts a service.

use std::path::Path;
use std::process::Command;

use tokio::sync::OnceCell;

use crate::image::{Error, create_dir, file_error, run};
use crate::paths;

/// The library of Debian's libfaketime, which moves the clock of a process that preloads it.
pub async fn faketime() -> anyhow::Result<String> {
    static LIBRARY: OnceCell<String> = OnceCell::const_new();
    let unpacked = async || {
        let root = paths::target_dir()?.join("tools/faketime");
        let library = root.join("usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1");
        if !library.exists() {
            let target = root.clone();
            tokio::task::spawn_blocking(move || unpack(&["libfaketime"], &target)).await??;
        }
        anyhow::Ok(library.display().to_string())
    };
    Ok(LIBRARY.get_or_try_init(unpacked).await?.clone())
}

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
    // Package lists may be missing or outdated.
    if download().is_err() {
        run(Command::new("apt-get").args(["update", "-qq"]))?;
        download()?;
    }
    let found = std::fs::read_dir(&downloads).map_err(file_error(&downloads))?;
    for package in found.flatten() {
        run(Command::new("dpkg-deb")
            .arg("-x")
            .arg(package.path())
            .arg(root))?;
    }
    std::fs::remove_dir_all(&downloads).map_err(file_error(&downloads))
}
