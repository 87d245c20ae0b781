//! Host names, which requests are matched by.
//!
//! Their only spelling is lower case, without port and trailing dot (RFC 1123). The proxy
//! normalizes the Host of a request to the same spelling.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::error::Reason;
use super::id::{LABEL_MAX, ServiceId, Tag};

/// Maximum length of a DNS name in text form (RFC 1035 section 2.3.4, less the root's dot).
const NAME_MAX: usize = 253;

/// A valid DNS name in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostName(String);

impl HostName {
    /// Fails unless `value` is a host name in the normal spelling.
    pub fn parse(value: impl Into<String>) -> Result<Self, Reason> {
        let value = value.into();
        check(&value)?;
        Ok(Self(value))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The domain of default and tag hosts, such as `localhost` or `apps.example.org`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Domain(HostName);

impl Domain {
    /// Fails unless `value` is a host name that leaves room for `NAME.DOMAIN`.
    pub fn parse(value: impl Into<String>) -> Result<Self, Reason> {
        let name = HostName::parse(value)?;
        let most = NAME_MAX - LABEL_MAX - 1;
        if name.0.len() > most {
            return Err(Reason::new(format!(
                "the domain has {} characters, at most {most} leave room for a service's name: choose a shorter one",
                name.0.len()
            )));
        }
        Ok(Self(name))
    }

    /// `NAME.DOMAIN`.
    #[must_use]
    pub fn service_host(&self, service: &ServiceId) -> HostName {
        HostName(format!("{service}.{}", self.0))
    }

    /// `TAG--NAME.DOMAIN`. Fails if tag and service together exceed a DNS label.
    pub fn tag_host(&self, tag: &Tag, service: &ServiceId) -> Result<HostName, Reason> {
        Ok(HostName(format!("{}.{}", tag.label(service)?, self.0)))
    }

    /// Whether the host is the domain or one label below it, which are the hosts of services and
    /// their tags.
    #[must_use]
    pub fn owns(&self, host: &HostName) -> bool {
        match host.0.strip_suffix(self.as_str()) {
            Some("") => true,
            Some(rest) => rest
                .strip_suffix('.')
                .is_some_and(|label| !label.contains('.')),
            None => false,
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn check(value: &str) -> Result<(), Reason> {
    let shown = value.escape_debug();
    let refuse = |text: &str| Err(Reason::new(format!("`{shown}` {text}")));
    if value.is_empty() {
        return Err(Reason::new(
            "the host is empty: give a name such as `shop.example.org`",
        ));
    }
    if value.len() > NAME_MAX {
        return Err(Reason::new(format!(
            "the host has {} characters, a DNS name at most {NAME_MAX}: choose a shorter one",
            value.len()
        )));
    }
    if value.contains("://") || value.contains('/') {
        return refuse("is a URL: give the host alone, such as `shop.example.org`");
    }
    let bare = value.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        return refuse("is an address: give a DNS name");
    }
    if value.contains(':') {
        return refuse("holds a port: hosts are matched without it, leave it out");
    }
    if value.contains('*') {
        return refuse("is a wildcard, which is not routed: name each host");
    }
    if value.chars().any(|c| c.is_ascii_uppercase()) {
        return refuse("has capital letters: hosts are matched in lower case, write it so");
    }
    if value.ends_with('.') {
        return refuse("ends with a dot: leave it out");
    }
    for label in value.split('.') {
        if label.is_empty() {
            return refuse("has an empty label: write one dot between labels");
        }
        if label.len() > LABEL_MAX {
            return refuse("has a label of more than 63 characters: choose a shorter one");
        }
        if !label
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        {
            return refuse(
                "holds a character that is not allowed in a host name: use a-z, 0-9, `-` and `.` (others in punycode, `xn--…`)",
            );
        }
        if label.starts_with('-') || label.ends_with('-') {
            return refuse(
                "has a label that starts or ends with `-`: begin and end with a letter or a digit",
            );
        }
    }
    // URL parsers read a name with a numeric last label as an IPv4 address (WHATWG URL, "ends in a
    // number"), so browsers cannot reach it.
    if value
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
    {
        return refuse("ends in a number, which reads as an address: give a DNS name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_hosts_are_accepted() {
        for good in [
            "a",
            "localhost",
            "shop.example.org",
            "a-b.c1.d2x",
            "xn--bcher-kva.example",
        ] {
            assert!(HostName::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn invalid_hosts_are_refused_with_a_remedy() {
        let long_label = format!("{}.org", "x".repeat(64));
        let long_name = ["abcdefgh"; 30].join(".");
        for bad in [
            "",
            "Shop.example.org",
            "shop.example.org.",
            "shop.example.org:80",
            "*.example.org",
            "10.0.0.1",
            "[::1]",
            "::1",
            "a..b",
            ".a",
            "-a.b",
            "a-.b",
            "a_b.c",
            "b\u{fc}cher.example",
            "https://a.b",
            "a.b/c",
            "1.2.3",
            "a b",
            &long_label,
            &long_name,
        ] {
            let reason = HostName::parse(bad).expect_err(bad).to_string();
            assert!(reason.contains(": ") || reason.contains(", "), "{reason}");
        }
    }

    #[test]
    fn a_domain_leaves_room_for_the_longest_service() {
        let domain = Domain::parse(["abcdefgh"; 21].join(".")).unwrap();
        let service = ServiceId::parse("x".repeat(63)).unwrap();
        assert!(HostName::parse(domain.service_host(&service).as_str()).is_ok());
        assert!(Domain::parse(["abcdefgh"; 22].join(".")).is_err());
    }

    #[test]
    fn a_domain_owns_itself_and_one_label_below() {
        let domain = Domain::parse("apps.example").unwrap();
        let owns = |host: &str| domain.owns(&HostName::parse(host).unwrap());
        for own in [
            "apps.example",
            "a.apps.example",
            "t--a.apps.example",
            "xn--a.apps.example",
        ] {
            assert!(owns(own), "{own}");
        }
        for other in [
            "example",
            "b.a.apps.example",
            "xapps.example",
            "apps.example.org",
        ] {
            assert!(!owns(other), "{other}");
        }
    }

    #[test]
    fn hosts_of_services_and_tags() {
        let domain = Domain::parse("localhost").unwrap();
        let service = ServiceId::parse("hello").unwrap();
        assert_eq!(domain.service_host(&service).as_str(), "hello.localhost");
        let tag = Tag::parse("next").unwrap();
        assert_eq!(
            domain.tag_host(&tag, &service).unwrap().as_str(),
            "next--hello.localhost"
        );
    }
}
