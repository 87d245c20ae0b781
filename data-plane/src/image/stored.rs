//! A value of the node in one JSON file of the cache folder, replaced atomically.
//!
//! A file that cannot be read as the value is moved aside for inspection, and the value starts empty.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::file::replace;

/// The content of a file. The default is empty.
pub(super) trait Content:
    serde::Serialize + serde::de::DeserializeOwned + Clone + Default + PartialEq
{
    /// Name of the file.
    const FILE: &str;
    /// Name that a damaged file gets.
    const DAMAGED: &str;

    /// Whether the values of the fields are those that this version writes.
    fn is_valid(&self) -> bool;
}

/// See the module. The default has no file.
#[derive(Debug, Default)]
pub(super) struct Stored<T> {
    path: Option<PathBuf>,
    value: Mutex<T>,
    /// The value in the file. Held during a write, so that older content never replaces newer.
    written: tokio::sync::Mutex<T>,
}

impl<T: Content> Stored<T> {
    /// Reads the file in the folder. The second value is the path of a damaged file, if it was one.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Option<PathBuf>)> {
        let path = folder.join(T::FILE);
        let (value, damaged) = match std::fs::read(&path) {
            Ok(bytes) => match parse(&bytes) {
                Some(value) => (value, None),
                None => {
                    let aside = folder.join(T::DAMAGED);
                    std::fs::rename(&path, &aside)?;
                    (T::default(), Some(aside))
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (T::default(), None),
            Err(error) => return Err(error),
        };
        let stored = Self {
            path: Some(path),
            value: Mutex::new(value.clone()),
            written: tokio::sync::Mutex::new(value),
        };
        Ok((stored, damaged))
    }

    pub(super) fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.value.lock())
    }

    /// Changes the value, and returns once the file holds it. After a failed write, the value keeps
    /// the change, and the next call writes it.
    pub(super) async fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> io::Result<R> {
        let result = change(&mut self.value.lock());
        let mut written = self.written.lock().await;
        let value = self.value.lock().clone();
        let Some(path) = self.path.clone().filter(|_| value != *written) else {
            return Ok(result);
        };
        let text = serde_json::to_vec(&value)?;
        tokio::task::spawn_blocking(move || replace(&path, |file| file.write_all(&text)))
            .await
            .map_err(io::Error::other)??;
        *written = value;
        Ok(result)
    }
}

/// The schema of a file, of which there is one so far. Another number does not parse.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub(super) struct Schema;

impl TryFrom<u32> for Schema {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self),
            _ => Err("the schema is not 1"),
        }
    }
}

impl From<Schema> for u32 {
    fn from(_: Schema) -> Self {
        1
    }
}

pub(super) fn parse<T: Content>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    value.is_valid().then_some(value)
}

/// Whether the text is an image id of an engine: `sha256:` and 64 hexadecimal digits.
pub(super) fn is_image_id(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
