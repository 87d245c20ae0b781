//! Normalises the authority of a request to a key of the host table.
//!
//! Law: normalisation is idempotent, does not allocate for lower-case input, and never panics.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Maximum length of a host name (RFC 1035 section 2.3.4, without the root label).
const MAX_HOST: usize = 253;

/// Reasons why an authority is not a valid host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The host or one of its labels is empty.
    #[error("the host or one of its labels is empty")]
    Empty,
    /// The host exceeds [`MAX_HOST`].
    #[error("the host is longer than 253 characters")]
    TooLong,
    /// `user@host`.
    #[error("a host must not carry user information")]
    UserInfo,
    /// The host contains a character outside of letters, digits, `-`, `_` and `.`.
    #[error("the host contains an invalid character")]
    Character,
    /// The brackets do not contain an IPv6 address.
    #[error("the host in brackets is not an IPv6 address")]
    Ipv6,
    /// The text after the colon is not a port.
    #[error("the port is not a number from 0 to 65535")]
    Port,
}

/// Normalises a `Host` field or an authority: lower-case, without the port and without one trailing
/// dot.
///
/// The grammar is stricter than `reg-name` (RFC 3986 section 3.2.2): letters, digits, `-`, `_`, and
/// dots between labels. Nothing else can be routed, and a comma would mean two merged hosts. IPv6
/// literals keep their brackets.
///
/// # Errors
/// [`Error`] if the authority is not a valid host; the proxy responds with 400.
pub fn normalize(authority: &str) -> Result<Cow<'_, str>, Error> {
    if authority.bytes().any(|byte| byte == b'@') {
        return Err(Error::UserInfo);
    }
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or(Error::Ipv6)?;
        address.parse::<Ipv6Addr>().map_err(|_| Error::Ipv6)?;
        match after.strip_prefix(':') {
            Some(port) => check_port(port)?,
            None if after.is_empty() => {}
            None => return Err(Error::Character),
        }
        return Ok(lower(&authority[..address.len() + 2]));
    }
    let name = match authority.split_once(':') {
        Some((name, port)) => {
            check_port(port)?;
            name
        }
        None => authority,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > MAX_HOST {
        return Err(Error::TooLong);
    }
    // One pass checks the characters and that no label is empty.
    let mut after_dot = true;
    for byte in name.bytes() {
        match byte {
            b'.' if after_dot => return Err(Error::Empty),
            b'.' => after_dot = true,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => after_dot = false,
            _ => return Err(Error::Character),
        }
    }
    if after_dot {
        Err(Error::Empty)
    } else {
        Ok(lower(name))
    }
}

/// A port consists of digits, possibly none (RFC 3986 section 3.2.3).
fn check_port(port: &str) -> Result<(), Error> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if port.is_empty() || (digits && port.parse::<u16>().is_ok()) {
        Ok(())
    } else {
        Err(Error::Port)
    }
}

fn lower(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn drops_case_port_and_one_dot() {
        for (authority, host) in [
            ("hello.localhost", "hello.localhost"),
            ("Hello.LocalHost:8080", "hello.localhost"),
            ("hello.localhost.", "hello.localhost"),
            ("hello.localhost.:80", "hello.localhost"),
            ("hello.localhost:", "hello.localhost"),
            ("v2--hello.example.com", "v2--hello.example.com"),
            ("10.0.0.1:65535", "10.0.0.1"),
            ("my_app", "my_app"),
            ("[::1]:8080", "[::1]"),
            ("[FE80::1]", "[fe80::1]"),
        ] {
            assert_eq!(normalize(authority).as_deref(), Ok(host), "{authority}");
        }
    }

    #[test]
    fn refuses_what_is_no_host() {
        let long = "a".repeat(254);
        for (authority, error) in [
            ("", Error::Empty),
            (".", Error::Empty),
            (":80", Error::Empty),
            ("a..b", Error::Empty),
            (".a", Error::Empty),
            ("a..", Error::Empty),
            ("user@host", Error::UserInfo),
            ("user:pass@host", Error::UserInfo),
            ("a b", Error::Character),
            (" a", Error::Character),
            ("a,b", Error::Character),
            ("a/b", Error::Character),
            ("a%41", Error::Character),
            ("h\u{e9}llo", Error::Character),
            ("a:b", Error::Port),
            ("a:+1", Error::Port),
            ("a:65536", Error::Port),
            ("a:80:80", Error::Port),
            ("::1", Error::Port),
            ("[::1", Error::Ipv6),
            ("[]", Error::Ipv6),
            ("[fe80::1%eth0]", Error::Ipv6),
            ("[::1]80", Error::Character),
            (long.as_str(), Error::TooLong),
        ] {
            assert_eq!(normalize(authority), Err(error), "{authority}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_is_a_fixed_point(authority in "\\PC{0,300}") {
            if let Ok(host) = normalize(&authority) {
                prop_assert!(matches!(normalize(&host), Ok(Cow::Borrowed(again)) if again == host));
            }
        }

        #[test]
        fn lower_case_is_not_copied(host in "[a-z0-9-]{1,20}(\\.[a-z0-9-]{1,20}){0,3}", port: u16) {
            let authority = format!("{host}:{port}");
            prop_assert!(matches!(normalize(&authority), Ok(Cow::Borrowed(key)) if key == host));
            let upper = authority.to_ascii_uppercase();
            let lowered = normalize(&upper);
            prop_assert_eq!(lowered.as_deref(), Ok(host.as_str()));
        }
    }
}
