//! The route table on disk: a restarted node serves without its control plane.
//!
//! One file, replaced atomically. It holds the routes as received, plus the last good value of each
//! quarantined route. Integers are little-endian; strings and byte fields have a 32-bit length
//! prefix:
//!
//! ```text
//! "clessrt\n"  schema u32  cluster  epoch  revision i64  digest 32  count u64
//! count x ( uid  received  0 | 1 last-good )
//! SHA-256 of all preceding bytes, 32
//! ```
//!
//! Laws: reading returns exactly the written table or an error, and no file content causes a panic.
//! A damaged file is moved aside for inspection and the table is synced again.

mod codec;
#[cfg(test)]
mod fuzz;
mod writer;

pub(crate) use writer::CacheWriter;

use crate::file::replace;
use crate::route::Table;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

const FILE: &str = "routes";
const DAMAGED: &str = "routes.damaged";

/// Reasons why the table on disk is unusable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The content is not a table as written by [`store`].
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// The file has the schema of another program version.
    #[error("it has schema {0}, this program reads {supported}", supported = codec::SCHEMA)]
    Schema(u32),
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[derive(Debug)]
pub(crate) enum Loaded {
    /// No file exists: the node is new.
    Nothing,
    Table(Table),
    /// The file was unusable and was moved to `path`.
    SetAside {
        path: PathBuf,
        error: Error,
    },
}

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
