//! Image references and digests, in the grammar of the distribution project's `reference` package.
//!
//! ```text
//! reference := name [":" tag] ["@" digest]       name := [registry "/"] component ("/" component)*
//! registry  := host [":" port]                   component := [a-z0-9]+ (sep [a-z0-9]+)*
//! tag       := [A-Za-z0-9_][A-Za-z0-9_.-]{0,127} sep := "." | "_" | "__" | "-"+
//! digest    := "sha256:" 64 lower-case hex digits
//! ```
//!
//! The first component is a registry if it contains `.` or `:`, or is `localhost`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::Reason;
use super::id::NodeName;
use super::time::Timestamp;

/// No registry accepts a longer one, and a route has a size limit.
const REFERENCE_MAX: usize = 512;
/// Limit of the grammar for a repository name.
const NAME_MAX: usize = 255;

/// An image reference, such as `hello:1` or `registry.example/team/app@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageRef(String);

impl ImageRef {
    /// Fails if `value` violates the grammar.
    pub fn parse(value: impl Into<String>) -> Result<Self, Reason> {
        let value = value.into();
        check_reference(&value)?;
        Ok(Self(value))
    }

    /// The reference as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names one image for ever.
    #[must_use]
    pub fn has_digest(&self) -> bool {
        self.0.contains('@')
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A digest: `sha256:` and 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageDigest(String);

impl ImageDigest {
    /// # Errors
    /// If it has another form.
    pub fn parse(value: impl Into<String>) -> Result<Self, Reason> {
        let value = value.into();
        check_digest(&value)?;
        Ok(Self(value))
    }

    /// The reference as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The origin of a resolved image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ImageSource {
    /// The registry of the reference.
    Registry,
    /// The node's copy, with its digest, because the registry did not respond.
    LocalCopy,
    /// The node's image, which was never in a registry and has no digest.
    LocalImage,
}

/// The image that a reference named when its version was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedImage {
    /// The origin.
    pub source: ImageSource,
    /// The image id on the node; `None` if the node has not pulled it.
    pub id: Option<ImageDigest>,
    /// Build time of the image; `None` if unknown.
    pub create_time: Option<Timestamp>,
    /// Time of the resolution.
    pub resolve_time: Timestamp,
    /// The node that resolved it.
    pub node: NodeName,
    /// A doubt, as text for people; empty if there is none.
    pub warning: String,
}

impl ResolvedImage {
    /// The image id that every node prefers; `None` if the image has a digest.
    #[must_use]
    pub fn pinned_id(&self) -> Option<&ImageDigest> {
        self.id
            .as_ref()
            .filter(|_| self.source == ImageSource::LocalImage)
    }
}

fn check_digest(digest: &str) -> Result<(), Reason> {
    let good = digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    });
    if good {
        return Ok(());
    }
    Err(Reason::new(
        "the digest is not `sha256:` and 64 lower-case hex digits: copy it as the registry shows it",
    ))
}

fn check_reference(value: &str) -> Result<(), Reason> {
    if value.is_empty() {
        return Err(Reason::new(
            "the image is missing: give a reference such as `hello:1` or `registry.example/team/app:2`",
        ));
    }
    if value.len() > REFERENCE_MAX {
        return Err(Reason::new(format!(
            "the image reference has {} characters, at most {REFERENCE_MAX} are allowed: use a shorter name",
            value.len()
        )));
    }
    let (rest, digest) = match value.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (value, None),
    };
    if let Some(digest) = digest {
        check_digest(digest)?;
    }
    // A colon after the last slash starts a tag; one before it, a port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    check_name(name)
}

fn check_tag(tag: &str) -> Result<(), Reason> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    let good = bytes.len() <= 128
        && bytes.first().copied().is_some_and(word)
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-');
    if good {
        return Ok(());
    }
    Err(Reason::new(format!(
        "the image's tag `{}` is not valid: use 1 to 128 letters, digits, `_`, `.` and `-`, not starting with `.` or `-`",
        tag.escape_debug()
    )))
}

fn check_name(name: &str) -> Result<(), Reason> {
    if name.is_empty() {
        return Err(Reason::new(
            "the image has no name before its tag or digest: write `NAME:TAG`",
        ));
    }
    if name.len() > NAME_MAX {
        return Err(Reason::new(format!(
            "the image's name has {} characters, at most {NAME_MAX} are allowed: use a shorter one",
            name.len()
        )));
    }
    if name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Reason::new(
            "a bare image id is not a reference: tag the image and give the tag",
        ));
    }
    let path = match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
            check_registry(first)?;
            path
        }
        _ => name,
    };
    for component in path.split('/') {
        check_component(component)?;
    }
    Ok(())
}

fn check_registry(registry: &str) -> Result<(), Reason> {
    let refuse = || {
        Reason::new(format!(
            "the image's registry `{}` is not `HOST` or `HOST:PORT`: correct it",
            registry.escape_debug()
        ))
    };
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    if port.is_some_and(|port| {
        port.bytes().any(|b| !b.is_ascii_digit()) || port.parse::<u16>().is_err()
    }) {
        return Err(refuse());
    }
    if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return v6
            .parse::<std::net::Ipv6Addr>()
            .map(|_| ())
            .map_err(|_| refuse());
    }
    let good = host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    });
    if good { Ok(()) } else { Err(refuse()) }
}

fn check_component(component: &str) -> Result<(), Reason> {
    let refuse = || {
        Reason::new(format!(
            "the image's name has the part `{}`: use a-z and 0-9, joined by `.`, `_`, `__` or `-`",
            component.escape_debug()
        ))
    };
    let mut separator = String::new();
    let mut started = false;
    for c in component.chars() {
        match c {
            'a'..='z' | '0'..='9' => {
                let joined = match separator.as_str() {
                    "" | "." | "_" | "__" => true,
                    dashes => dashes.bytes().all(|b| b == b'-'),
                };
                if !joined || (!started && !separator.is_empty()) {
                    return Err(refuse());
                }
                separator.clear();
                started = true;
            }
            '.' | '_' | '-' => separator.push(c),
            _ => return Err(refuse()),
        }
    }
    if started && separator.is_empty() {
        Ok(())
    } else {
        Err(refuse())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn valid_references_are_accepted() {
        for good in [
            "hello".to_owned(),
            "hello:1".to_owned(),
            "a/b/c:v1.2-rc_3".to_owned(),
            "localhost/app".to_owned(),
            "localhost:5000/app:1".to_owned(),
            "registry.example/team/app".to_owned(),
            "Registry.Example:443/team/app".to_owned(),
            "[::1]:5000/app".to_owned(),
            "a--b/c__d.e_f".to_owned(),
            format!("hello@sha256:{HEX}"),
            format!("registry.example:5000/team/app:2@sha256:{HEX}"),
        ] {
            assert!(ImageRef::parse(good.as_str()).is_ok(), "{good}");
        }
    }

    #[test]
    fn invalid_references_are_refused() {
        for bad in [
            String::new(),
            "Hello".to_owned(),
            "hello:".to_owned(),
            ":1".to_owned(),
            "hello:-x".to_owned(),
            "a//b".to_owned(),
            "/a".to_owned(),
            "a/".to_owned(),
            "a___b".to_owned(),
            "a..b".to_owned(),
            "-a".to_owned(),
            "a-".to_owned(),
            "hello world".to_owned(),
            "https://registry.example/app".to_owned(),
            "hello@sha256:abc".to_owned(),
            format!("hello@sha512:{HEX}"),
            "reg.example:port/app".to_owned(),
            "reg.example:99999/app".to_owned(),
            HEX.to_owned(),
            format!("hello:{}", "x".repeat(129)),
            "x".repeat(256),
            "a/".repeat(300),
        ] {
            assert!(ImageRef::parse(bad.as_str()).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_have_one_form() {
        assert!(ImageDigest::parse(format!("sha256:{HEX}")).is_ok());
        assert!(ImageDigest::parse(format!("sha256:{}", HEX.to_uppercase())).is_err());
        assert!(ImageDigest::parse(HEX).is_err());
    }
}
