//! A node's identity: a random id, kept and locked in its cache folder.
//!
//! The id outlives the process, so that a restarted node finds its own containers. The lock makes
//! sure that one process uses a folder: two would remove each other's containers and overwrite each
//! other's table.

use crate::file::replace;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use uuid::Uuid;

const LOCK: &str = "lock";
const ID: &str = "node-id";

/// Why a cache folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("another process uses the cache folder {0}: give each node a folder of its own")]
    InUse(PathBuf),
    /// What should be the id is not.
    #[error(
        "{0} does not hold a node's id; restore it, or delete it to take a new id (containers \
         that the node left running under the old one are then to be removed by hand)"
    )]
    Damaged(PathBuf),
    /// The folder cannot be read or written.
    #[error("the cache folder: {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
}

/// The identity of a node, its folder locked while this lives.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: Uuid,
    _lock: File,
}

impl Identity {
    /// Locks the folder, made if need be, and reads the id in it or mints one.
    pub(crate) fn claim(folder: &Path) -> Result<Self, Error> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("create", folder))?;
        let path = folder.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(folder.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
        let id = match read(&folder.join(ID))? {
            Some(id) => id,
            None => mint(folder)?,
        };
        Ok(Self { id, _lock: lock })
    }
}

fn read(path: &Path) -> Result<Option<Uuid>, Error> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(64).read_to_string(&mut text)) {
        Ok(_) => match text.trim().parse() {
            Ok(id) => Ok(Some(id)),
            Err(_) => Err(Error::Damaged(path.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(Error::Damaged(path.to_owned()))
        }
        Err(source) => Err(failed("read", path)(source)),
    }
}

fn mint(folder: &Path) -> Result<Uuid, Error> {
    let id = Uuid::new_v4();
    let path = folder.join(ID);
    replace(&path, |file| writeln!(file, "{id}")).map_err(failed("write", &path))?;
    Ok(id)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/cache");
        let first = Identity::claim(&path).unwrap().id;
        assert_eq!(Identity::claim(&path).unwrap().id, first);
    }

    #[test]
    fn a_second_process_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let held = Identity::claim(folder.path()).unwrap();
        let error = Identity::claim(folder.path()).unwrap_err();
        assert!(matches!(error, Error::InUse(_)));
        assert!(
            error
                .to_string()
                .contains("give each node a folder of its own")
        );
        drop(held);
        Identity::claim(folder.path()).unwrap();
    }

    #[test]
    fn a_damaged_id_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for damage in [&b"not an id"[..], b"", b"\xff\xff"] {
            fs::write(folder.path().join(ID), damage).unwrap();
            assert!(matches!(
                Identity::claim(folder.path()),
                Err(Error::Damaged(_))
            ));
        }
    }
}
