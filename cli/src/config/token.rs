//! A token of the API, as the CLI keeps it: an opaque text that is not printed.

use std::fmt;
use std::str::FromStr;

/// The beginning of every token of the API.
const PREFIX: &str = "cless_";
/// Longer texts are no tokens: these have 61 characters.
const MAX: usize = 128;

/// A token of the API. `Debug` shows its public id only.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

/// The reason why a text is no token. None of them quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidToken {
    #[error("is empty: give a token of `cless token create`")]
    Empty,
    #[error("is a join token, which nodes use: give a token of `cless token create`")]
    JoinToken,
    #[error("is not a token: give `cless_ID_SECRET` as `cless token create` prints it, whole")]
    Form,
}

impl Token {
    /// The text with the secret.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// The public id.
    pub(crate) fn id(&self) -> &str {
        let parts = self
            .0
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('_'));
        parts.map_or("", |(id, _)| id)
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    /// Reads a token, with white space around it ignored.
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidToken::Empty);
        }
        if text.starts_with("clessjoin_") {
            return Err(InvalidToken::JoinToken);
        }
        let parts = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('_'));
        let is_plain =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
        match parts {
            Some((id, secret)) if text.len() <= MAX && is_plain(id) && is_plain(secret) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidToken::Form),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_…", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_whole_and_not_shown() {
        let token: Token = " cless_AbC_s3cret\n".parse().unwrap();
        assert_eq!((token.expose(), token.id()), ("cless_AbC_s3cret", "AbC"));
        assert_eq!(format!("{token:?}"), "cless_AbC_…");
        for (text, why) in [
            ("", InvalidToken::Empty),
            (" \n", InvalidToken::Empty),
            ("clessjoin_a_b_c", InvalidToken::JoinToken),
            ("cless_a", InvalidToken::Form),
            ("cless_a_", InvalidToken::Form),
            ("cless_a_b_c", InvalidToken::Form),
            ("cless_a_b c", InvalidToken::Form),
            ("cless_a_b\u{1b}", InvalidToken::Form),
            ("secret", InvalidToken::Form),
            (&format!("cless_a_{}", "b".repeat(200)), InvalidToken::Form),
        ] {
            assert_eq!(text.parse::<Token>(), Err(why), "{text}");
        }
    }
}
