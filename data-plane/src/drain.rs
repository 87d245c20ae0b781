//! Whether the node is drained: a file in the cache folder, so that it survives a restart.
//!
//! A drained node serves the requests that reach it. It is not ready (`/readyz`), verifies no
//! version, and keeps no instance for `min_instances`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use crate::file::replace;

const FILE: &str = "drained";

/// The stored state. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    path: PathBuf,
    drained: watch::Sender<bool>,
    /// Held while the file is written, so that the last change is the one that stays.
    writing: Arc<Mutex<()>>,
}

impl Drain {
    /// Reads the state of a cache folder, which need not exist yet.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let drained = path.try_exists()?;
        Ok(Self {
            path,
            drained: watch::Sender::new(drained),
            writing: Arc::default(),
        })
    }

    pub(crate) fn is_drained(&self) -> bool {
        *self.drained.borrow()
    }

    /// Stores a change, then calls `apply` with it before the next change may begin.
    pub(crate) async fn set(&self, drained: bool, apply: impl FnOnce(bool)) -> io::Result<()> {
        let _writing = self.writing.lock().await;
        let path = self.path.clone();
        let stored = tokio::task::spawn_blocking(move || store(&path, drained)).await;
        stored.map_err(io::Error::other)??;
        self.drained.send_replace(drained);
        apply(drained);
        Ok(())
    }
}

fn store(path: &Path, drained: bool) -> io::Result<()> {
    if drained {
        return replace(path, |file| file.write_all(b"drained\n"));
    }
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let drain = Drain::open(folder.path()).unwrap();
        assert!(!drain.is_drained());
        let mut applied = None;
        drain.set(true, |now| applied = Some(now)).await.unwrap();
        assert_eq!((applied, drain.is_drained()), (Some(true), true));
        let drain = Drain::open(folder.path()).unwrap();
        assert!(drain.is_drained());
        for _ in 0..2 {
            drain.set(false, |_| {}).await.unwrap();
            assert!(!Drain::open(folder.path()).unwrap().is_drained());
        }
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_stored_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let drain = Drain::open(&folder.path().join("missing")).unwrap();
        let mut applied = None;
        assert!(drain.set(true, |now| applied = Some(now)).await.is_err());
        assert_eq!((applied, drain.is_drained()), (None, false));
    }
}
