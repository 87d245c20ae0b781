//! Errors of HTTP/1 towards instances, and the header fields that `httparse` found.

use std::io;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::malformation::Malformation;

/// The error of a request body, whose type the codec does not know.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The reason why a response is missing or incomplete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// RFC 9112 section 8.
    #[error("the connection ended before the response did")]
    Incomplete,
    #[error("the response is malformed: {0}")]
    Malformed(Box<Malformation>),
    /// The request body failed. The instance is not at fault.
    #[error("the request body failed: {0}")]
    Body(BoxError),
    /// The request body is longer or shorter than announced. The instance is not at fault.
    #[error("the length of the request body differs from its Content-Length")]
    BodyLength,
}

impl Error {
    pub(crate) fn malformed(cause: &'static str) -> Self {
        Self::Malformed(Malformation::new(cause))
    }

    /// A malformed field of this name.
    pub(crate) fn of_field(cause: &'static str, name: &str) -> Self {
        Self::Malformed(Malformation::of_field(cause, name.as_bytes()))
    }
}

/// Appends the fields that `httparse` found in `section`, without copying their values.
pub(crate) fn append_fields<'a>(
    section: &Bytes,
    found: impl Iterator<Item = httparse::Header<'a>>,
    into: &mut HeaderMap,
) -> Result<(), Error> {
    for field in found {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = match memchr::memchr2(b'\r', b'\n', field.value) {
            None => HeaderValue::from_maybe_shared(section.slice_ref(field.value)),
            Some(_) => HeaderValue::from_maybe_shared(Bytes::from(unfolded(field.value))),
        };
        match (name, value) {
            (Ok(name), Ok(value)) => into.append(name, value),
            (Err(_), _) => return Err(Error::of_field("a field name is invalid", field.name)),
            (_, Err(_)) => return Err(Error::of_field("a field value is invalid", field.name)),
        };
    }
    Ok(())
}

/// Replaces line folding by a space (RFC 9112 section 5.2).
fn unfolded(value: &[u8]) -> Vec<u8> {
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    lines.join(&b' ')
}
