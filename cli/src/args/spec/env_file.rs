//! Env files as `docker run --env-file` reads them.
//!
//! A line is `NAME=VALUE`; the value is everything after the first `=`, quotes included. `NAME`
//! alone passes the variable of this process, if it is set. Blank lines and lines that begin with
//! `#`, also after white space, are ignored, as is a byte order mark.

use std::path::Path;

use crate::error::Error;
use crate::file;

/// More than any environment that a version may have.
const SIZE_MAX: u64 = 1 << 20;

/// The invalid line, from 1, and the problem.
type InvalidLine = (usize, String);

/// Reads a file; `-` is the standard input.
///
/// # Errors
/// [`Error::Usage`] with the file and the line.
pub(super) fn read(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let shown = match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    };
    let usage = |problem: String| Error::Usage {
        message: format!("--env-file: {shown}{problem}"),
        hint: None,
    };
    let source = file::open(path).map_err(|error| usage(format!(": {error}")))?;
    let bytes = file::read(source, SIZE_MAX).map_err(|problem| usage(format!(": {problem}")))?;
    parse(&bytes, |name| std::env::var(name).ok())
        .map_err(|(line, problem)| usage(format!(":{line}: {problem}")))
}

/// Parses a file. `lookup` returns the variables of this process.
fn parse(
    bytes: &[u8],
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, InvalidLine> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut pairs = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line)
            .map_err(|_| (number, "is not UTF-8: save the file as UTF-8".to_owned()))?;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line.trim_end(), None),
        };
        let problem = if name.is_empty() {
            "has no name before `=`: write NAME=value"
        } else if name.contains(char::is_whitespace) {
            "has white space in the name: write NAME=value without spaces around `=`"
        } else if line.contains('\0') {
            "contains a NUL byte: remove it"
        } else if name == "PORT" {
            "PORT is set by cless: remove the line, and use --port"
        } else if cless_proto::RESERVED_ENV.contains(&name) {
            "is a variable that cless sets: remove the line"
        } else {
            let value = value.or_else(|| lookup(name));
            pairs.extend(value.map(|value| (name.to_owned(), value)));
            continue;
        };
        return Err((number, problem.to_owned()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &[u8]) -> Result<Vec<String>, usize> {
        let lookup = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        let parsed = parse(text, lookup).map_err(|(line, _)| line)?;
        Ok(parsed
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect())
    }

    #[test]
    fn a_file_is_read_as_docker_reads_it() {
        let text = b"\xef\xbb\xbfA=1\r\n\n  # indented\n\t B=a b = c \n#C=1\na.b-c:d=x\nD='q'\nHOME\nUNSET\nE=\n";
        let expected = [
            "A=1",
            "B=a b = c ",
            "a.b-c:d=x",
            "D='q'",
            "HOME=/home/me",
            "E=",
        ];
        assert_eq!(pairs(text).unwrap(), expected);
        assert_eq!(pairs(b""), Ok(vec![]));
        assert_eq!(
            pairs(b"HOME  \nlast=1").unwrap(),
            ["HOME=/home/me", "last=1"]
        );
    }

    #[test]
    fn an_invalid_line_is_named() {
        for (text, line) in [
            (&b"A=1\n=2\n"[..], 2),
            (b"A=1\n\n# x\nexport B=2\n", 4),
            (b"A B\n", 1),
            (b"A =1\n", 1),
            (b"A=1\nB=\xff\n", 2),
            (b"A=\0\n", 1),
            (b"A=1\nPORT=3000\n", 2),
            (b"CLESS_SERVICE\n", 1),
        ] {
            assert_eq!(pairs(text), Err(line), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics_and_names_are_valid(bytes: Vec<u8>) {
            if let Ok(pairs) = parse(&bytes, |_| Some(String::new())) {
                prop_assert!(pairs.iter().all(|(name, _)| !name.is_empty() && !name.contains(['=', ' ', '\0'])));
            }
        }
    }
}
