//! Ids of services, tags, nodes and versions, and uids, which are never reused.
//!
//! Services and tags become labels of host names, so they are DNS labels (RFC 1123). They must not
//! contain `--`, which joins the two in a tag host (`TAG--NAME.DOMAIN`) and marks punycode
//! (`xn--`).

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::Reason;

/// Maximum length of a DNS label (RFC 1035 section 2.3.4).
pub const LABEL_MAX: usize = 63;

/// Reserved names: the original tutorial served its own API under `admin`.
const RESERVED: &[&str] = &["admin"];

fn check_label(what: &str, value: &str) -> Result<(), Reason> {
    let example = "use 1 to 63 characters of a-z, 0-9 and `-`, such as `hello` or `my-shop`";
    if value.is_empty() {
        return Err(Reason::new(format!("{what} is missing: {example}")));
    }
    if value.len() > LABEL_MAX {
        return Err(Reason::new(format!(
            "{what} has {} characters, at most {LABEL_MAX} fit into a host name: choose a shorter one",
            value.len()
        )));
    }
    if let Some(bad) = value
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
    {
        return Err(Reason::new(format!(
            "{what} `{}` holds {bad:?}: {example}",
            value.escape_debug()
        )));
    }
    if value.starts_with('-') || value.ends_with('-') {
        return Err(Reason::new(format!(
            "{what} `{value}` starts or ends with `-`: begin and end with a letter or a digit"
        )));
    }
    Ok(())
}

fn check_routed_label(what: &str, value: &str) -> Result<(), Reason> {
    check_label(what, value)?;
    if value.contains("--") {
        return Err(Reason::new(format!(
            "{what} `{value}` holds `--`, which joins tag and service in a host name: use a single `-`"
        )));
    }
    if RESERVED.contains(&value) {
        return Err(Reason::new(format!(
            "{what} `{value}` is reserved: choose another one"
        )));
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:path, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Fails if `value` violates a rule.
            pub fn parse(value: impl Into<String>) -> Result<Self, Reason> {
                let value = value.into();
                $check($what, &value)?;
                Ok(Self(value))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// The last segment of `services/{service}`: a DNS label without `--`, not `admin`.
    ServiceId,
    check_routed_label,
    "the service id"
);
text_id!(
    /// A tag, which makes `TAG--NAME.DOMAIN` reach one version. Same rules as a [`ServiceId`].
    Tag,
    check_routed_label,
    "the tag"
);
text_id!(
    /// The last segment of `nodes/{node}`: a DNS label.
    NodeName,
    check_label,
    "the node name"
);

impl Tag {
    /// The first label of the tag host. Fails if tag and service together exceed a DNS label.
    pub fn label(&self, service: &ServiceId) -> Result<String, Reason> {
        let label = format!("{}--{}", self.0, service.0);
        if label.len() > LABEL_MAX {
            return Err(Reason::new(format!(
                "`{label}` has {} characters, at most {LABEL_MAX} fit into a host name: choose a tag of at most {} characters",
                label.len(),
                LABEL_MAX.saturating_sub(service.0.len() + 2)
            )));
        }
        Ok(label)
    }
}

/// A UUID version 7 that permanently identifies a service or a version. Pools, container labels and
/// the feed use it as their key, so a recreated service never adopts containers of the deleted one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(String);

impl Uid {
    /// Fails unless `value` is a lower-case UUID.
    pub fn parse(value: impl Into<String>) -> Result<Self, Reason> {
        let value = value.into();
        match Uuid::try_parse(&value) {
            Ok(uuid) if uuid.hyphenated().to_string() == value => Ok(Self(value)),
            _ => Err(Reason::new(format!(
                "`{}` is not a uid: give it as the server wrote it",
                value.escape_debug()
            ))),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Uuid> for Uid {
    fn from(uuid: Uuid) -> Self {
        Self(uuid.hyphenated().to_string())
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identifies a request, so that its repeat is recognised (AIP-155): 1 to 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// Parses `request_id`; `None` if it is empty. Fails if it is too long or contains control
    /// characters.
    pub fn parse(value: impl Into<String>) -> Result<Option<Self>, Reason> {
        let value = value.into();
        if value.is_empty() {
            return Ok(None);
        }
        if value.chars().count() > 64 || value.chars().any(char::is_control) {
            return Err(Reason::new(
                "the request id has more than 64 characters or a control character: use a UUID",
            ));
        }
        Ok(Some(Self(value)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The number of a version within its service: 1, 2, 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionNumber(i32);

impl VersionNumber {
    /// Fails below 1.
    pub fn new(number: i32) -> Result<Self, Reason> {
        if number < 1 {
            return Err(Reason::new(format!(
                "{number} is not a version number: they count from 1"
            )));
        }
        Ok(Self(number))
    }

    /// The number, at least 1.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A share of a service's requests, 0 to 100.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Percent(u8);

impl Percent {
    /// No requests.
    pub const ZERO: Self = Self(0);
    /// All requests.
    pub const ALL: Self = Self(100);

    /// Fails above 100.
    pub fn new(percent: u32) -> Result<Self, Reason> {
        match u8::try_from(percent) {
            Ok(small @ 0..=100) => Ok(Self(small)),
            _ => Err(Reason::new(format!(
                "{percent} is above 100: give a whole number from 0 to 100"
            ))),
        }
    }

    /// The share, 0 to 100.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether it is 0.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_labels_are_accepted() {
        for good in ["a", "0", "hello", "my-shop", "a-b-c", &"x".repeat(63)] {
            assert!(ServiceId::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn invalid_labels_are_refused() {
        let long = "x".repeat(64);
        for bad in [
            "", "Hello", "a.b", "a_b", "-a", "a-", "a--b", "admin", "ä", "a b", "a\n", &long,
        ] {
            let reason = ServiceId::parse(bad).unwrap_err().to_string();
            assert!(reason.contains(':'), "no remedy for {bad:?}: {reason}");
            assert!(Tag::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_name_may_contain_two_hyphens_and_reserved_names() {
        assert!(NodeName::parse("ip--10-0-0-1").is_ok());
        assert!(NodeName::parse("admin").is_ok());
        assert!(NodeName::parse("a.b").is_err());
    }

    #[test]
    fn tag_and_service_share_one_label() {
        let service = ServiceId::parse("x".repeat(60)).unwrap();
        assert!(Tag::parse("a").unwrap().label(&service).is_ok());
        assert!(Tag::parse("ab").unwrap().label(&service).is_err());
    }

    #[test]
    fn numbers_and_percents_have_limits() {
        assert!(VersionNumber::new(0).is_err());
        assert!(VersionNumber::new(-1).is_err());
        assert_eq!(VersionNumber::new(1).unwrap().get(), 1);
        assert!(Percent::new(100).is_ok());
        assert!(Percent::new(101).is_err());
        assert!(Percent::new(356).is_err());
    }

    #[test]
    fn uids_have_one_spelling() {
        let uid = Uid::from(Uuid::now_v7());
        assert_eq!(Uid::parse(uid.as_str()).unwrap(), uid);
        assert!(
            Uid::parse(uid.as_str().to_uppercase()).is_err()
                || !uid.as_str().contains(|c: char| c.is_alphabetic())
        );
        assert!(Uid::parse("").is_err());
    }
}
