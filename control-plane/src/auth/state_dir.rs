//! The folder of a control plane's state files, `--data-dir`.
//!
//! Only its user may enter it (0700). Files are replaced atomically, so that a crash leaves the old
//! or the new one.
//!
//! | file | contents |
//! |---|---|
//! | `master-key` | the master key, see [`master_key`](super::master_key) |
//! | `master-key.next` | the next master key, while keys change |
//! | `admin-token` | the token of the first start |
//! | `ca.pem` | the certificates of the cluster's authorities, for other clients |

use super::Error;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Permissions of group and others.
const OTHERS: u32 = 0o077;
/// Larger than any state file.
const FILE_MAX: u64 = 64 * 1024;

/// An open folder.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Creates the folder if it is missing, and checks that other users cannot enter it.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File {
            path: path.to_owned(),
            source,
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(failed)?;
        let about = fs::metadata(path).map_err(failed)?;
        check_mode(path, about.mode(), 0o700)?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// The path of a file.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The contents of a file that only its user may read; `None` if there is none.
    pub(crate) fn read_secret(&self, name: &str) -> Result<Option<String>, Error> {
        let path = self.path_of(name);
        let failed = |source| Error::File {
            path: path.clone(),
            source,
        };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let about = file.metadata().map_err(failed)?;
        check_mode(&path, about.mode(), 0o600)?;
        let mut text = String::new();
        let mut limited = file.take(FILE_MAX);
        limited.read_to_string(&mut text).map_err(failed)?;
        Ok(Some(text))
    }

    /// Creates a file that only its user may read (0600), unless it exists. Returns whether it was
    /// created; it is then on disk.
    pub(crate) fn create_secret(&self, name: &str, contents: &str) -> Result<bool, Error> {
        let path = self.path_of(name);
        // A link fails where the name exists, and the file is complete when it gets its name.
        let partial = self.write_partial(name, contents, 0o600)?;
        let linked = fs::hard_link(&partial, &path);
        let removed = fs::remove_file(&partial);
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            linked => linked
                .and(removed)
                .and_then(|()| self.sync())
                .map_err(|source| Error::File { path, source })?,
        }
        Ok(true)
    }

    /// Replaces a file, which other users may not read either, because of the folder.
    pub(crate) fn replace(&self, name: &str, contents: &str) -> Result<(), Error> {
        self.replace_with(name, contents, 0o644)
    }

    /// Replaces a file that only its user may read (0600).
    pub(crate) fn replace_secret(&self, name: &str, contents: &str) -> Result<(), Error> {
        self.replace_with(name, contents, 0o600)
    }

    fn replace_with(&self, name: &str, contents: &str, mode: u32) -> Result<(), Error> {
        let path = self.path_of(name);
        let partial = self.write_partial(name, contents, mode)?;
        fs::rename(&partial, &path)
            .and_then(|()| self.sync())
            .map_err(|source| Error::File { path, source })
    }

    /// Renames a file over another one.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let path = self.path_of(to);
        fs::rename(self.path_of(from), &path)
            .and_then(|()| self.sync())
            .map_err(|source| Error::File { path, source })
    }

    /// Removes a file if it exists.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path_of(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| Error::File { path, source }),
        }
    }

    /// Writes a temporary file of a name that no other process uses.
    fn write_partial(&self, name: &str, contents: &str, mode: u32) -> Result<PathBuf, Error> {
        let partial = self.path_of(&format!(".{name}.{}", uuid::Uuid::new_v4()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&partial)
            .and_then(|mut file| {
                file.write_all(contents.as_bytes())?;
                file.sync_all()
            });
        match written {
            Ok(()) => Ok(partial),
            Err(source) => {
                // The error that is returned says more.
                let _removed = fs::remove_file(&partial);
                let path = partial;
                Err(Error::File { path, source })
            }
        }
    }

    /// Makes names in the folder durable.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn check_mode(path: &Path, mode: u32, want: u32) -> Result<(), Error> {
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(Error::Permissions {
        path: path.to_owned(),
        mode: mode & 0o777,
        want,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn folder_and_secrets_are_for_one_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let dir = StateDir::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(dir.read_secret("key").unwrap(), None);
        assert!(dir.create_secret("key", "one").unwrap());
        assert!(!dir.create_secret("key", "two").unwrap());
        assert_eq!(dir.read_secret("key").unwrap().unwrap(), "one");
        assert_eq!(mode(&path.join("key")), 0o600);
        dir.replace("ca.pem", "a").unwrap();
        dir.replace("ca.pem", "b").unwrap();
        let names = fs::read_dir(&path).unwrap().count();
        assert_eq!(names, 2, "temporary files are left");
        dir.remove("key").unwrap();
        dir.remove("key").unwrap();
        assert_eq!(dir.read_secret("key").unwrap(), None);
    }

    #[test]
    fn what_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let dir = StateDir::open(&path).unwrap();
        dir.create_secret("key", "one").unwrap();
        fs::set_permissions(path.join("key"), fs::Permissions::from_mode(0o640)).unwrap();
        let error = dir.read_secret("key").unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains("mode 755"), "{error}");
        assert!(error.contains("chmod 700"), "{error}");
    }
}
