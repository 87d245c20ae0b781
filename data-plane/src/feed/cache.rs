//! The route table on disk, so that a node serves after a restart without its control plane.
//!
//! One file, replaced whole: routes as received, with the last good value of those quarantined.
//! Integers are little-endian, texts and bytes have a 32-bit length before them:
//!
//! ```text
//! "clessrt\n"  schema u32  cluster  epoch  revision i64  digest 32  count u64
//! count x ( uid  received  0 | 1 last-good )
//! SHA-256 of all before, 32
//! ```
//!
//! Laws: what is read is what was written, or an error; no content of the file panics. A damaged
//! file is set aside for a person to look at, and the table is synced anew.

mod codec;
#[cfg(test)]
mod fuzz;
mod keeper;

pub(crate) use keeper::Keeper;

use crate::file::replace;
use crate::route::Table;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

const FILE: &str = "routes";
const DAMAGED: &str = "routes.damaged";

/// Why there is no table on disk to use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// Written by another program version.
    #[error("it has schema {0}, this program reads {supported}", supported = codec::SCHEMA)]
    Schema(u32),
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What was on disk.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// Nothing: a new node.
    Nothing,
    /// A table.
    Table(Table),
    /// Nothing to use; the file is now at this path.
    SetAside { path: PathBuf, error: Error },
}

/// Reads the table in this folder.
pub(crate) fn load(folder: &Path) -> io::Result<Loaded> {
    let path = folder.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Nothing),
        Err(error) => return Err(error),
    };
    match codec::read(BufReader::new(file)) {
        Ok(table) => Ok(Loaded::Table(table)),
        Err(Error::Io(error)) => Err(error),
        Err(error) => {
            let aside = folder.join(DAMAGED);
            fs::rename(&path, &aside)?;
            Ok(Loaded::SetAside { path: aside, error })
        }
    }
}

/// Replaces the table in this folder.
pub(crate) fn store(folder: &Path, table: &Table) -> io::Result<()> {
    replace(&folder.join(FILE), |file| {
        let mut out = BufWriter::new(file);
        codec::write(table, &mut out)?;
        out.flush()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_table_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(load(folder.path()), Ok(Loaded::Nothing)));
        let table = codec::tests::sample();
        store(folder.path(), &table).unwrap();
        let mode = fs::metadata(folder.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let Ok(Loaded::Table(read)) = load(folder.path()) else {
            panic!("no table")
        };
        assert_eq!(read.cursor(), table.cursor());
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "clessrt\nnonsense").unwrap();
        let Ok(Loaded::SetAside { path, .. }) = load(folder.path()) else {
            panic!("not aside")
        };
        assert_eq!(fs::read(path).unwrap(), b"clessrt\nnonsense");
        assert!(matches!(load(folder.path()), Ok(Loaded::Nothing)));
    }
}
