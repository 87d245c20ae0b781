//! The identity of a node: a random id, stored and locked in the cache folder.
//!
//! The id outlives the process, so a restarted node recognises its own containers. The lock gives a
//! folder to one process: two would remove each other's containers and overwrite each other's
//! table.

use crate::file::replace;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use uuid::Uuid;

const LOCK: &str = "lock";
const ID: &str = "node-id";

/// Reasons why a cache folder is unusable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the lock.
    #[error("another process uses the cache folder {0}: give each node a folder of its own")]
    InUse(PathBuf),
    /// The file does not hold a valid id.
    #[error(
        "{0} does not contain a node id; restore the file, or delete it to create a new id (then \
         remove by hand the containers that still run under the old id)"
    )]
    Damaged(PathBuf),
    /// The folder cannot be read or written.
    #[error("the cache folder: {action} {path}: {source}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The path that it failed on.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The identity of a node. The folder stays locked while this value lives.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: Uuid,
    _lock: File,
}

impl Identity {
    /// Locks the folder, creating it if needed, and reads its id or creates one.
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
    fn a_second_process_is_rejected() {
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
