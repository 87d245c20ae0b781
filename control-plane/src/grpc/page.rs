//! Pages of a list (AIP-158): sizes, and tokens that only this program can read.
//!
//! A token is base64 of *format, check sum, list, 0, key*. The list's name (`versions of hello`)
//! is in it, so that a token of one list is refused by another instead of skipping at random.

use crate::store::Page;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

const FORMAT: u8 = 1;
const CHECK: usize = 4;
/// AIP-158 leaves it to us: a screenful.
const DEFAULT_SIZE: i32 = 50;
/// Bounds one answer well below the 4 MiB a client accepts.
const MOST: i32 = 1000;

/// The size of a page that a client asked for: 0 takes the default, too many are capped.
pub(crate) fn size(asked: i32) -> Result<u32, InvalidPage> {
    match asked {
        0 => Ok(DEFAULT_SIZE.unsigned_abs()),
        1.. => Ok(asked.min(MOST).unsigned_abs()),
        _ => Err(InvalidPage::Size),
    }
}

/// Why a page cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidPage {
    /// A negative size.
    #[error("must not be negative: 0 takes 50, more than 1000 takes 1000")]
    Size,
    /// Not made by `token`, or made for another list.
    #[error("is not a token of this list: send back `next_page_token` as it came, or none")]
    Token,
}

impl InvalidPage {
    /// The request's field that is to blame.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::Size => "page_size",
            Self::Token => "page_token",
        }
    }
}

/// The token of the page that starts after `key` in `list`.
pub(crate) fn token(list: &str, key: &str) -> String {
    let body = [list.as_bytes(), &[0], key.as_bytes()].concat();
    let check = Sha256::digest(&body);
    URL_SAFE_NO_PAD.encode([&[FORMAT], &check[..CHECK], &body].concat())
}

/// The token of the page after this one; empty on the last.
pub(crate) fn next<T>(page: &Page<T>, list: &str, key: impl FnOnce(&T) -> String) -> String {
    match page.items.last() {
        Some(last) if page.more => token(list, &key(last)),
        _ => String::new(),
    }
}

/// A page of a list that is kept in memory and in order; `after` is the key of the last item seen.
pub(crate) fn of<T>(
    items: impl IntoIterator<Item = T>,
    size: u32,
    after: Option<&str>,
    key: impl Fn(&T) -> String,
) -> Page<T> {
    let mut rest = items
        .into_iter()
        .filter(|item| after.is_none_or(|seen| *key(item) > *seen));
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let items = rest.by_ref().take(size).collect();
    Page {
        items,
        more: rest.next().is_some(),
    }
}

/// The key in a token of `list`; `None` for the first page.
pub(crate) fn key(list: &str, token: &str) -> Result<Option<String>, InvalidPage> {
    parsed_key(list, token, |key| Some(key.to_owned()))
}

/// The key in a token of `list`, read by `parse`; `None` for the first page.
pub(crate) fn parsed_key<T>(
    list: &str,
    token: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, InvalidPage> {
    if token.is_empty() {
        return Ok(None);
    }
    let key = decode(list, token).ok_or(InvalidPage::Token)?;
    parse(&key).map(Some).ok_or(InvalidPage::Token)
}

fn decode(list: &str, token: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (&format, rest) = bytes.split_first()?;
    let (check, body) = rest.split_at_checked(CHECK)?;
    if format != FORMAT || check != &Sha256::digest(body)[..CHECK] {
        return None;
    }
    let key = body.strip_prefix(list.as_bytes())?.strip_prefix(&[0])?;
    String::from_utf8(key.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_defaulted_capped_and_never_negative() {
        assert_eq!(size(0), Ok(50));
        assert_eq!(size(1), Ok(1));
        assert_eq!(size(5000), Ok(1000));
        assert_eq!(size(-1), Err(InvalidPage::Size));
        assert_eq!(size(i32::MIN), Err(InvalidPage::Size));
    }

    #[test]
    fn another_lists_token_is_refused() {
        let foreign = token("versions of hello", "3");
        assert_eq!(key("versions of hello", &foreign), Ok(Some("3".into())));
        assert_eq!(key("versions of hell", &foreign), Err(InvalidPage::Token));
        assert_eq!(key("services", &foreign), Err(InvalidPage::Token));
    }

    proptest! {
        #[test]
        fn a_token_gives_its_key_back(list in "[a-z ]{0,20}", at in "\\PC{0,40}") {
            prop_assert_eq!(key(&list, &token(&list, &at)), Ok(Some(at)));
        }

        #[test]
        fn a_damaged_token_is_refused(at in "[a-z0-9]{1,30}", position in 0usize..60, by in 1u8..255) {
            let mut bytes = token("services", &at).into_bytes();
            let position = position % bytes.len();
            bytes[position] = bytes[position].wrapping_add(by);
            let damaged = String::from_utf8_lossy(&bytes).into_owned();
            prop_assert_eq!(key("services", &damaged), Err(InvalidPage::Token));
        }

        #[test]
        fn no_input_panics(token in "\\PC{0,80}") {
            let _ = key("services", &token);
        }
    }
}
