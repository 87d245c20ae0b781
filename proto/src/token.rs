//! API tokens: their text, `cless_ID_SECRET`, and the comparison of their secrets.
//!
//! The id is public and names the token in the API. The secret is 32 random bytes in base62, always
//! 43 digits. A control plane stores its SHA-256 only. Every token has one spelling: parsing a text
//! and writing the token gives the same text.
//!
//! Pure: random bytes are arguments.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::base62;

/// The beginning of every token, by which scanners recognise one.
pub const PREFIX: &str = "cless_";
/// Characters of an id: 60 bits, so that random ids do not collide.
const ID_CHARS: usize = 12;
const ID_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A text that is no token. The text itself is never shown, because it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It begins with something else.
    #[error("a token begins with `cless_`: copy it as `cless token create` printed it")]
    Prefix,
    /// The id has another length or alphabet.
    #[error("the id of the token is not 12 characters a-z and 2-7: copy the whole token")]
    Id,
    /// The secret has another length or alphabet, or a value that 32 bytes cannot hold.
    #[error("the secret of the token is not 43 letters and digits: copy the whole token")]
    Secret,
}

/// The public part of a token, the last segment of `tokens/{token}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(String);

impl TokenId {
    /// An id from random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; ID_CHARS]) -> Self {
        let digit = |byte: u8| ID_ALPHABET.get(usize::from(byte % 32)).copied();
        Self(
            bytes
                .into_iter()
                .filter_map(digit)
                .map(char::from)
                .collect(),
        )
    }

    /// Parses an id.
    ///
    /// # Errors
    /// [`Malformed::Id`].
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let valid = text.len() == ID_CHARS && text.bytes().all(|byte| ID_ALPHABET.contains(&byte));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::Id)
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A token with its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken {
    id: TokenId,
    secret: [u8; 32],
}

impl ApiToken {
    /// A token from random bytes.
    #[must_use]
    pub fn from_random(id: [u8; ID_CHARS], secret: [u8; 32]) -> Self {
        Self {
            id: TokenId::from_random(id),
            secret,
        }
    }

    /// Parses a token.
    ///
    /// # Errors
    /// [`Malformed`], which does not hold the text.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let rest = text.strip_prefix(PREFIX).ok_or(Malformed::Prefix)?;
        let (id, secret) = rest.split_once('_').ok_or(Malformed::Id)?;
        Ok(Self {
            id: TokenId::parse(id)?,
            secret: base62::decode(secret).ok_or(Malformed::Secret)?,
        })
    }

    /// The public part.
    #[must_use]
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// SHA-256 of the secret, which is what a control plane stores.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        secret_hash(&self.secret)
    }

    /// The token as a call presents it. The only way to its secret.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, base62::encode(self.secret))
    }
}

/// Shows the id alone, so that no log line can hold a secret.
impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({}, …)", self.id)
    }
}

/// SHA-256 of a secret of 32 random bytes. A slow hash adds nothing: the secret cannot be guessed.
#[must_use]
pub fn secret_hash(secret: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Whether two hashes are equal, in a time that does not depend on where they differ.
#[must_use]
pub fn hashes_equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.ct_eq(other).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> String {
        ApiToken::from_random([7; 12], [9; 32]).reveal()
    }

    #[test]
    fn malformed_tokens_are_refused_with_a_remedy_and_without_their_text() {
        let whole = token();
        let secret = whole.rsplit('_').next().expect("a secret").to_owned();
        for (bad, expected) in [
            (String::new(), Malformed::Prefix),
            ("Bearer".to_owned(), Malformed::Prefix),
            (whole.to_uppercase(), Malformed::Prefix),
            (format!(" {whole}"), Malformed::Prefix),
            (whole.replacen("cless", "clessjoin", 1), Malformed::Prefix),
            ("cless_".to_owned(), Malformed::Id),
            (format!("cless__{secret}"), Malformed::Id),
            (format!("cless_hhhhhhhhhhh1_{secret}"), Malformed::Id),
            (format!("cless_hhhhhhhhhhhhh_{secret}"), Malformed::Id),
            (whole[..whole.len() - 1].to_owned(), Malformed::Secret),
            (format!("{whole}0"), Malformed::Secret),
            (format!("{whole}\n"), Malformed::Secret),
            (
                format!("cless_hhhhhhhhhhhh_{}", "z".repeat(43)),
                Malformed::Secret,
            ),
            (
                format!("cless_hhhhhhhhhhhh_{}ä", "0".repeat(41)),
                Malformed::Secret,
            ),
        ] {
            let error = ApiToken::parse(&bad).expect_err(&bad);
            assert_eq!(error, expected, "{bad}");
            assert!(error.to_string().contains(": "), "{error}");
            assert!(!error.to_string().contains(&secret), "{error}");
        }
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let token = ApiToken::from_random([1; 12], [2; 32]);
        let secret = token.reveal().rsplit('_').next().map(str::to_owned);
        assert!(!format!("{token:?}").contains(&secret.expect("a secret")));
    }

    #[test]
    fn hashes_compare_by_value() {
        let hash = ApiToken::from_random([1; 12], [2; 32]).hash();
        assert!(hashes_equal(&hash, &secret_hash(&[2; 32])));
        assert!(!hashes_equal(&hash, &secret_hash(&[3; 32])));
    }

    proptest! {
        #[test]
        fn a_token_reads_back_as_written(id: [u8; 12], secret: [u8; 32]) {
            let token = ApiToken::from_random(id, secret);
            let text = token.reveal();
            prop_assert_eq!(text.len(), PREFIX.len() + ID_CHARS + 1 + base62::width(32));
            prop_assert_eq!(ApiToken::parse(&text).expect("a token"), token);
        }

        #[test]
        fn a_token_has_one_spelling(text in "cless_[a-z2-7]{11,13}_[0-9A-Za-z]{42,44}") {
            if let Ok(token) = ApiToken::parse(&text) {
                prop_assert_eq!(token.reveal(), text);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,120}", tail in "\\PC{0,60}") {
            let _ = ApiToken::parse(&text);
            let _ = ApiToken::parse(&format!("cless_{text}_{tail}"));
        }
    }
}
