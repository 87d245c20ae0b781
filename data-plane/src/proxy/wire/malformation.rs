//! A violation of HTTP by an instance: its cause, and the field that it is in. Pure.
//!
//! The cause is text of cless. The field name comes from the instance, so it is escaped and cut.
//!
//! Law: a field name contains printable ASCII alone, at most [`MAX_NAME`] bytes of it.

use std::fmt;

/// Limit of a field name that is shown, in bytes.
const MAX_NAME: usize = 64;

/// The reason why a response is malformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformation {
    cause: &'static str,
    field: Option<Box<str>>,
}

impl Malformation {
    pub(crate) fn new(cause: &'static str) -> Box<Self> {
        Box::new(Self { cause, field: None })
    }

    /// A violation in the field of this name, which may be any bytes.
    pub(crate) fn of_field(cause: &'static str, name: &[u8]) -> Box<Self> {
        let escaped = name
            .iter()
            .take(MAX_NAME)
            .flat_map(|byte| byte.escape_ascii());
        let mut field: String = escaped.map(char::from).take(MAX_NAME).collect();
        field.make_ascii_lowercase();
        Box::new(Self {
            cause,
            field: Some(field.into()),
        })
    }

    /// The cause; text of cless.
    pub(crate) fn cause(&self) -> &'static str {
        self.cause
    }

    /// The name of the field, in printable ASCII; `None` if it is in none, or unknown.
    pub(crate) fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }
}

impl fmt::Display for Malformation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause)?;
        match &self.field {
            Some(field) => write!(f, " (field \"{field}\")"),
            None => Ok(()),
        }
    }
}

/// Describes the error of `httparse` in `lines`, a head without its first line, or trailers.
pub(crate) fn of_parser(error: httparse::Error, lines: &[u8]) -> Box<Malformation> {
    use httparse::Error as Parse;
    let (cause, is_fault): (_, fn(&[u8]) -> bool) = match error {
        Parse::HeaderName => ("a field name is no token", is_bad_name),
        Parse::HeaderValue => ("a field value contains a control byte", is_bad_value),
        Parse::NewLine => ("a line does not end with CR LF", is_bad_value),
        Parse::TooManyHeaders => return Malformation::new("it has too many fields"),
        Parse::Version => return Malformation::new("the version is not HTTP/1"),
        Parse::Status | Parse::Token => return Malformation::new("the status line is malformed"),
    };
    let mut name: &[u8] = b"";
    for line in lines.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // A folded line belongs to the field before it.
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let colon = memchr::memchr(b':', line);
            name = line[..colon.unwrap_or(line.len())].trim_ascii_end();
        }
        if !line.is_empty() && is_fault(line) {
            return Malformation::of_field(cause, name);
        }
    }
    Malformation::new(cause)
}

fn is_bad_name(line: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', line) else {
        return true;
    };
    let name = line[..colon].trim_ascii_end();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    name.is_empty() || !name.iter().all(is_token)
}

fn is_bad_value(line: &[u8]) -> bool {
    let colon = memchr::memchr(b':', line).map_or(0, |colon| colon + 1);
    let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    line[colon..].iter().any(is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_field_at_fault_is_named() {
        use httparse::Error as Parse;
        for (error, lines, field) in [
            (Parse::HeaderName, "a: 1\r\nX Y: 2\r\n\r\n", Some("x y")),
            (
                Parse::HeaderName,
                "a: 1\r\nno colon\r\n\r\n",
                Some("no colon"),
            ),
            (Parse::HeaderName, "a: 1\r\n\0: 2\r\n\r\n", Some("\\x00")),
            (Parse::HeaderValue, "a: 1\r\nB: x\0y\r\n\r\n", Some("b")),
            (
                Parse::HeaderValue,
                "a: 1\r\nB: x\r\n y\x7f\r\n\r\n",
                Some("b"),
            ),
            (Parse::HeaderValue, "a: 1\r\n\r\n", None),
            (Parse::TooManyHeaders, "a: 1\r\nB: x\0y\r\n\r\n", None),
        ] {
            let found = of_parser(error, lines.as_bytes());
            assert_eq!(found.field(), field, "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_short_and_printable(name: Vec<u8>, lines: Vec<u8>) {
            let found = [
                Malformation::of_field("x", &name),
                of_parser(httparse::Error::HeaderName, &lines),
                of_parser(httparse::Error::HeaderValue, &lines),
            ];
            for found in found {
                let field = found.field().unwrap_or_default();
                prop_assert!(field.len() <= MAX_NAME);
                prop_assert!(field.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            }
        }
    }
}
