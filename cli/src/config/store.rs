//! The file of the contexts: `$XDG_CONFIG_HOME/cless/config.toml`, else `~/.config/cless/`.
//!
//! It holds tokens, so only its owner may read it. A change is written to a new file, which then
//! takes the place of the old one, under a lock; so a reader sees one of both, whole, and two
//! commands at once lose no change.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::contexts::Config;
use super::parse::{parse, print};
use crate::error::Error;
use crate::file;

/// Far more than anybody has contexts.
const MAX_BYTES: u64 = 1 << 20;
/// Permissions of others.
const OTHERS: u32 = 0o077;

/// The file, at its place.
#[derive(Debug, Clone)]
pub(crate) struct ConfigFile {
    path: PathBuf,
}

impl ConfigFile {
    /// The file of this user (XDG base directory specification); `None` without a home directory.
    pub(crate) fn of_user() -> Option<Self> {
        Self::below(&|name| std::env::var_os(name))
    }

    fn below(var: &dyn Fn(&str) -> Option<OsString>) -> Option<Self> {
        // The specification declares relative paths invalid.
        let absolute = |name| {
            var(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let home = || absolute("HOME").map(|home| home.join(".config"));
        let base = absolute("XDG_CONFIG_HOME").or_else(home)?;
        Some(Self {
            path: base.join("cless/config.toml"),
        })
    }

    /// The contexts; none if there is no file.
    ///
    /// # Errors
    /// If others may read the file, or it is not valid.
    pub(crate) fn read(&self) -> Result<Config, Error> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(source) => return Err(self.failed("read", source)),
        };
        let metadata = file
            .metadata()
            .map_err(|source| self.failed("read", source))?;
        let mode = metadata.mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(Error::Usage {
                message: format!(
                    "{} holds tokens, and others may read or change it (mode {mode:03o})",
                    self.path.display()
                ),
                hint: Some(format!(
                    "make it private with `chmod 600 {}`",
                    self.path.display()
                )),
            });
        }
        let invalid = |reason: &str| Error::File {
            lines: vec![format!("{}: {reason}", self.path.display())],
        };
        let bytes = file::read(file, MAX_BYTES).map_err(|error| invalid(&error))?;
        let text = String::from_utf8(bytes).map_err(|_| invalid("is not UTF-8"))?;
        parse(&text).map_err(|problem| invalid(&problem.to_string()))
    }

    /// Reads the contexts, changes them and writes them. An error of `change` changes nothing.
    ///
    /// # Errors
    /// Those of [`Self::read`], of `change` and of the file system.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Config) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // A link to a file elsewhere stays.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().unwrap_or(Path::new("/"));
        let failed = |source| self.failed("write", source);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let private = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options
        };
        let lock = private()
            .open(path.with_extension("lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut config = self.read()?;
        let before = config.clone();
        let result = change(&mut config)?;
        if config == before {
            return Ok(result);
        }
        let new = path.with_extension("new");
        // One that was left behind may have other permissions.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let written = private().create_new(true).open(&new).and_then(|mut file| {
            file.write_all(print(&config).as_bytes())?;
            file.sync_all()
        });
        written
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(failed)?;
        Ok(result)
    }

    fn failed(&self, operation: &str, source: io::Error) -> Error {
        Error::Io {
            operation: format!("{operation} {}", self.path.display()),
            source,
        }
    }
}

/// The contexts of this user; none without a home directory.
///
/// # Errors
/// If the file is not valid.
pub(crate) fn read() -> Result<Config, Error> {
    ConfigFile::of_user().map_or_else(|| Ok(Config::default()), |file| file.read())
}

/// The file of this user.
///
/// # Errors
/// Without a home directory.
pub(crate) fn file() -> Result<ConfigFile, Error> {
    ConfigFile::of_user().ok_or_else(|| Error::Usage {
        message: "no directory for contexts: HOME is not set".to_owned(),
        hint: Some("set HOME or XDG_CONFIG_HOME, or use CLESS_SERVER and CLESS_TOKEN".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::contexts::tests::context;
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(dir: &Path) -> ConfigFile {
        let dir = dir.as_os_str().to_owned();
        ConfigFile::below(&|name| (name == "XDG_CONFIG_HOME").then(|| dir.clone())).unwrap()
    }

    fn add(file: &ConfigFile, name: &str) -> Result<(), Error> {
        let context = context("https://a:1", Some("cless_a_b"));
        file.change(|config| {
            config.adopt(name.parse().unwrap(), context);
            Ok(())
        })
    }

    #[test]
    fn the_place_follows_xdg() {
        let path = |xdg: Option<&str>, home: Option<&str>| {
            let var = |name: &str| if name == "HOME" { home } else { xdg }.map(OsString::from);
            ConfigFile::below(&var).map(|file| file.path)
        };
        assert_eq!(
            path(Some("/x"), Some("/h")),
            Some("/x/cless/config.toml".into())
        );
        assert_eq!(
            path(Some("x"), Some("/h")),
            Some("/h/.config/cless/config.toml".into())
        );
        assert_eq!(path(None, None), None);
    }

    #[test]
    fn a_change_is_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        assert_eq!(file.read().unwrap(), Config::default());
        // Left by a process that was killed.
        fs::create_dir_all(dir.path().join("cless")).unwrap();
        fs::write(dir.path().join("cless/config.new"), "half").unwrap();
        add(&file, "one").unwrap();
        let mode = fs::metadata(&file.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(file.read().unwrap().contexts().count(), 1);
        // An error in a change leaves the file as it is.
        let before = fs::read(&file.path).unwrap();
        let refused = file.change(|config| {
            config.adopt("two".parse().unwrap(), context("https://b:1", None));
            Err::<(), _>(Error::Declined)
        });
        assert!(refused.is_err());
        assert_eq!(fs::read(&file.path).unwrap(), before);
    }

    #[test]
    fn changes_at_once_are_all_kept_and_a_reader_never_sees_half() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        std::thread::scope(|scope| {
            for n in 0..8 {
                let file = &file;
                scope.spawn(move || add(file, &format!("c{n}")).unwrap());
                scope.spawn(move || file.read().unwrap());
            }
        });
        assert_eq!(file.read().unwrap().contexts().count(), 8);
    }

    #[test]
    fn a_file_that_others_read_or_that_is_malformed_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        add(&file, "one").unwrap();
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o644)).unwrap();
        let report = file.read().unwrap_err().report();
        assert!(
            report.errors[0].ends_with("others may read or change it (mode 644)"),
            "{report:?}"
        );
        assert!(report.hints[0].contains("chmod 600"), "{report:?}");
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file.path, "current = 1\n").unwrap();
        let report = add(&file, "two").unwrap_err().report();
        assert!(
            report.errors[0].ends_with(
                "config.toml: line 1: current: invalid type: integer `1`, expected a string"
            ),
            "{report:?}"
        );
        assert_eq!(report.exit, 2);
        assert_eq!(fs::read_to_string(&file.path).unwrap(), "current = 1\n");
        fs::write(&file.path, [0xff]).unwrap();
        assert!(
            file.read()
                .unwrap_err()
                .to_string()
                .ends_with("is not UTF-8")
        );
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real.toml");
        fs::write(&real, "").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
        let file = file(dir.path());
        fs::create_dir_all(file.path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&real, &file.path).unwrap();
        add(&file, "one").unwrap();
        assert!(fs::symlink_metadata(&file.path).unwrap().is_symlink());
        assert!(fs::read_to_string(&real).unwrap().contains("cless_a_b"));
    }
}
