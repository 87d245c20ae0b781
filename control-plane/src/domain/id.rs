//! Ids: of services, tags, nodes, versions, and the uids that are never reused.
//!
//! Services and tags become labels of host names, so they are DNS labels (RFC 1123). `--` is kept out of them
//! because it joins the two in a tag's host, `TAG--NAME.DOMAIN`, and because `xn--` means punycode.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::Reason;

/// The most a DNS label holds (RFC 1035 section 2.3.4).
pub const LABEL_MAX: usize = 63;

/// Names that route to something else than a service: the original tutorial served its own API under `admin`.
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
            /// # Errors
            /// If it breaks a rule; the reason says which.
            pub fn parse(value: impl Into<String>) -> Result<Self, Reason> {
                let value = value.into();
                $check($what, &value)?;
                Ok(Self(value))
            }

            /// As written.
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
    /// Makes `TAG--NAME.DOMAIN` reach one version; the rules of a [`ServiceId`].
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
    /// The first label of the tag's host.
    ///
    /// # Errors
    /// If tag and service together are too long for a DNS label.
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

/// A UUID version 7 that names a service or a version for good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(String);

impl Uid {
    /// # Errors
    /// If it is not a UUID in its usual lower-case form.
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

    /// As written.
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

/// Names a request, so that a repeat of it is recognised (AIP-155): 1 to 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// Reads `request_id`; empty is none.
    ///
    /// # Errors
    /// If it is too long or holds control characters.
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

    /// As written.
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
    /// # Errors
    /// If it is below 1.
    pub fn new(number: i32) -> Result<Self, Reason> {
        if number < 1 {
            return Err(Reason::new(format!(
                "{number} is not a version number: they count from 1"
            )));
        }
        Ok(Self(number))
    }

    /// At least 1.
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

    /// # Errors
    /// If it is above 100.
    pub fn new(percent: u32) -> Result<Self, Reason> {
        match u8::try_from(percent) {
            Ok(small @ 0..=100) => Ok(Self(small)),
            _ => Err(Reason::new(format!(
                "{percent} is above 100: give a whole number from 0 to 100"
            ))),
        }
    }

    /// 0 to 100.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether it stands for no requests.
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
    fn labels_that_are_taken() {
        for good in ["a", "0", "hello", "my-shop", "a-b-c", &"x".repeat(63)] {
            assert!(ServiceId::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn labels_that_are_refused() {
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
    fn a_node_may_hold_what_would_be_ambiguous_in_a_host() {
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
    fn numbers_and_percents_have_ends() {
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
