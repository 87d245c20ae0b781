//! Join tokens, with which a node joins a cluster once (EnrollmentService), PURE.
//!
//! ```text
//! clessjoin_0AbCdEfGhIj_<secret, 43 characters>_<authority, 64 characters>
//!           id: 8 bytes   32 bytes in base 62      SHA-256 of the authority's certificate
//! ```
//!
//! The authority tells the node which control plane to send the secret to. Laws, verified by the
//! property tests below: a token has one spelling, and no error and no `Debug` output holds any
//! part of a secret.

use std::fmt;

use crate::base62;

/// The beginning of every join token.
pub const PREFIX: &str = "clessjoin_";

/// Longer texts are no join tokens: 10 + 11 + 1 + 43 + 1 + 64 characters.
pub const TEXT_BYTES: usize = PREFIX.len() + base62::width(8) + 1 + base62::width(32) + 1 + 64;

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: [u8; 8],
    secret: [u8; 32],
    authority: [u8; 32],
}

/// The reason why a text is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It begins like a token of the API.
    ApiToken,
    /// It does not begin with [`PREFIX`].
    Prefix,
    /// It has another number of parts.
    Parts,
    /// The named part has another length, or characters that it cannot have.
    Part(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiToken => f.write_str(
                "this is a token of the API; a node joins with a join token (`cless node token create`)",
            ),
            Self::Prefix => write!(
                f,
                "a join token begins with `{PREFIX}`; create one with `cless node token create`"
            ),
            Self::Parts => write!(
                f,
                "a join token reads `{PREFIX}ID_SECRET_AUTHORITY`; copy the whole token"
            ),
            Self::Part(part) => write!(
                f,
                "the {part} of the join token is damaged; copy the whole token"
            ),
        }
    }
}

impl std::error::Error for Error {}

impl JoinToken {
    /// Token of random bytes and the SHA-256 of the authority's certificate in DER.
    pub fn new(id: [u8; 8], secret: [u8; 32], authority: [u8; 32]) -> Self {
        Self {
            id,
            secret,
            authority,
        }
    }

    /// Token of a text, with white space around it ignored.
    ///
    /// # Errors
    ///
    /// Any text that [`Self::expose`] does not make.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix(PREFIX) else {
            return Err(if text.starts_with("cless_") {
                Error::ApiToken
            } else {
                Error::Prefix
            });
        };
        let mut parts = rest.splitn(4, '_');
        let (Some(id), Some(secret), Some(authority), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::Parts);
        };
        Ok(Self {
            id: base62::decode(id).ok_or(Error::Part("id"))?,
            secret: base62::decode(secret).ok_or(Error::Part("secret"))?,
            authority: unhex(authority).ok_or(Error::Part("authority"))?,
        })
    }

    /// Text of the token, secret included.
    pub fn expose(&self) -> String {
        let mut text = format!("{PREFIX}{}_{}_", self.id(), base62::encode(self.secret));
        for byte in self.authority {
            text.push(hex_digit(byte >> 4));
            text.push(hex_digit(byte & 0xf));
        }
        text
    }

    /// Public id, under which the control plane stores the hash of the secret.
    pub fn id(&self) -> String {
        base62::encode(self.id)
    }

    /// Secret; the control plane stores only its SHA-256.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// SHA-256 of the certificate, in DER, of the authority that the node trusts first.
    pub fn authority(&self) -> [u8; 32] {
        self.authority
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id())
    }
}

fn hex_digit(value: u8) -> char {
    char::from(if value < 10 {
        b'0' + value
    } else {
        b'a' + value - 10
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn malformed() {
        let good = JoinToken::new([1; 8], [2; 32], [3; 32]).expose();
        assert_eq!(good.len(), TEXT_BYTES);
        assert!(JoinToken::parse(&format!(" {good}\n")).is_ok());
        let cases = [
            (String::new(), Error::Prefix),
            ("secret".to_owned(), Error::Prefix),
            ("cless_0_1".to_owned(), Error::ApiToken),
            (PREFIX.to_owned(), Error::Parts),
            (format!("{good}_"), Error::Parts),
            (format!("{good}0"), Error::Part("authority")),
            (good.to_uppercase(), Error::Prefix),
            (good[..good.len() - 1].to_owned(), Error::Part("authority")),
            (good[..good.len() - 65].to_owned(), Error::Parts),
            (
                good.replacen("clessjoin_0", "clessjoin_", 1),
                Error::Part("id"),
            ),
            (
                format!(
                    "{PREFIX}{}_{}_{}",
                    "0".repeat(11),
                    "z".repeat(43),
                    "0".repeat(64)
                ),
                Error::Part("secret"),
            ),
        ];
        for (text, error) in cases {
            assert_eq!(JoinToken::parse(&text), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(id: [u8; 8], secret: [u8; 32], authority: [u8; 32]) {
            let token = JoinToken::new(id, secret, authority);
            prop_assert_eq!(JoinToken::parse(&token.expose()), Ok(token.clone()));
            let debug = format!("{token:?}");
            prop_assert!(!debug.contains(&base62::encode(secret)));
        }

        #[test]
        fn one_spelling_and_no_panic(
            text in "clessjoin_[0-9A-Za-z]{11}_[0-9A-Za-z]{43}_[0-9a-f]{64}|clessjoin_\\PC{0,200}|\\PC*"
        ) {
            match JoinToken::parse(&text) {
                Ok(token) => prop_assert_eq!(token.expose(), text.trim()),
                // Every error is a fixed text.
                Err(error) => prop_assert!(text.len() < 24 || !error.to_string().contains(&text)),
            }
        }
    }
}
