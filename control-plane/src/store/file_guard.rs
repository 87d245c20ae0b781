//! Notices that the files of a SQLite database were deleted or replaced while they are open.
//!
//! SQLite keeps writing to files that have no name any more, and what it acknowledges is lost when
//! they are closed. Device and inode behind each name are compared with those found first: before
//! each transaction, after its commit, and once a second for the health of the process. A check is
//! three calls of `stat`. The write-ahead log and its index belong to the database as long as it is
//! open. Not noticed: a file that is overwritten in place.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::Error;
use super::sqlite::with_suffix;

/// The files of an open database.
#[derive(Debug)]
pub(super) struct FileGuard {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    /// Device and inode, once the file exists.
    known: OnceLock<(u64, u64)>,
}

impl FileGuard {
    /// Remembers the files of the database at `path`, which is open.
    pub(super) fn new(path: &Path) -> Self {
        // The process may change its folder; the database stays where it is.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let part = |suffix| Part {
            path: with_suffix(&path, suffix),
            known: OnceLock::new(),
        };
        let guard = Self {
            parts: ["", "-wal", "-shm"].map(part).into(),
        };
        // Remembers the files. Nothing is known yet, so nothing can differ.
        let _ = guard.check();
        guard
    }

    /// # Errors
    /// [`Error::FileGone`] if a file was deleted, moved away or replaced.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.parts.iter().try_for_each(Part::check)
    }
}

impl Part {
    fn check(&self) -> Result<(), Error> {
        let gone = |event| {
            Err(Error::FileGone {
                path: self.path.display().to_string(),
                event,
            })
        };
        match (identity(&self.path), self.known.get()) {
            (Ok(found), _) if *self.known.get_or_init(|| found) != found => gone("replaced"),
            (Err(error), Some(_)) if error.kind() == io::ErrorKind::NotFound => gone("deleted"),
            // Other errors say nothing about the open file.
            _ => Ok(()),
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(path)?;
    Ok((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_moved_or_replaced_file_is_noticed_until_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cless.db");
        std::fs::write(&path, "a").unwrap();
        let guard = FileGuard::new(&path);
        let event = || match guard.check() {
            Ok(()) => "",
            Err(Error::FileGone { event, .. }) => event,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(event(), "");
        let aside = folder.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        assert_eq!(event(), "deleted");
        std::fs::write(&path, "a").unwrap();
        assert_eq!(event(), "replaced");
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(event(), "");
        // The log appears with the first write.
        let wal = with_suffix(&path, "-wal");
        std::fs::write(&wal, "").unwrap();
        assert_eq!(event(), "");
        std::fs::remove_file(&wal).unwrap();
        assert_eq!(event(), "deleted");
    }
}
