//! Files that are read as input, of limited size.

use std::io::{self, Read};
use std::path::Path;

/// Opens a file; `-` is the standard input.
pub(crate) fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    match path.as_os_str() == "-" {
        true => Ok(Box::new(io::stdin())),
        false => Ok(Box::new(std::fs::File::open(path)?)),
    }
}

/// Reads at most `max` bytes.
///
/// # Errors
/// The problem, for a person.
pub(crate) fn read(source: impl Read, max: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = source.take(max + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > max {
        return Err(format!("is larger than {max} bytes"));
    }
    Ok(bytes)
}

/// Like [`read`], for text.
///
/// # Errors
/// The problem, for a person.
pub(crate) fn read_text(source: impl Read, max: u64) -> Result<String, String> {
    String::from_utf8(read(source, max)?)
        .map_err(|_| "is not UTF-8: save the file as UTF-8".to_owned())
}
