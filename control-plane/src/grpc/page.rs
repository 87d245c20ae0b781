//! Pages of a list (AIP-158): sizes, and opaque tokens.
//!
//! A token is base64 of *format, checksum, list name, 0, key*. The list name (`versions of hello`)
//! is part of it, so that the token of another list is rejected.

use crate::store::Page;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
/// A screenful.
const SIZE_DEFAULT: i32 = 50;
/// Keeps a response well below the 4 MiB that clients accept.
const SIZE_MAX: i32 = 1000;

/// The size of a requested page: 0 means the default, and large values are capped.
pub(crate) fn size(requested: i32) -> Result<u32, InvalidPage> {
    match requested {
        0 => Ok(SIZE_DEFAULT.unsigned_abs()),
        1.. => Ok(requested.min(SIZE_MAX).unsigned_abs()),
        _ => Err(InvalidPage::Size),
    }
}

/// An invalid field of a list request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidPage {
    /// The size is negative.
    #[error("must not be negative: 0 means 50, values above 1000 mean 1000")]
    Size,
    /// The token is malformed or of another list.
    #[error("is not a token of this list: send back `next_page_token` as it came, or none")]
    Token,
}

impl InvalidPage {
    /// The invalid field of the request.
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
    URL_SAFE_NO_PAD.encode([&[FORMAT], &check[..CHECKSUM_BYTES], &body].concat())
}

/// The token of the page after this one. Empty on the last page.
pub(crate) fn next_token<T>(page: &Page<T>, list: &str, key: impl FnOnce(&T) -> String) -> String {
    match page.items.last() {
        Some(last) if page.more => token(list, &key(last)),
        _ => String::new(),
    }
}

/// A page of a sorted in-memory list. `after` is the key of the previous page's last item.
pub(crate) fn paginate<T>(
    items: impl IntoIterator<Item = T>,
    size: u32,
    after: Option<&str>,
    key: impl Fn(&T) -> String,
) -> Page<T> {
    let mut rest = items
        .into_iter()
        .filter(|item| after.is_none_or(|after| *key(item) > *after));
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
    let (check, body) = rest.split_at_checked(CHECKSUM_BYTES)?;
    if format != FORMAT || check != &Sha256::digest(body)[..CHECKSUM_BYTES] {
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
    fn the_token_of_another_list_is_rejected() {
        let foreign = token("versions of hello", "3");
        assert_eq!(key("versions of hello", &foreign), Ok(Some("3".into())));
        assert_eq!(key("versions of hell", &foreign), Err(InvalidPage::Token));
        assert_eq!(key("services", &foreign), Err(InvalidPage::Token));
    }

    proptest! {
        #[test]
        fn a_token_returns_its_key(list in "[a-z ]{0,20}", at in "\\PC{0,40}") {
            prop_assert_eq!(key(&list, &token(&list, &at)), Ok(Some(at)));
        }

        #[test]
        fn a_corrupt_token_is_rejected(at in "[a-z0-9]{1,30}", position in 0usize..60, by in 1u8..255) {
            let mut bytes = token("services", &at).into_bytes();
            let position = position % bytes.len();
            bytes[position] = bytes[position].wrapping_add(by);
            let corrupt = String::from_utf8_lossy(&bytes).into_owned();
            prop_assert_eq!(key("services", &corrupt), Err(InvalidPage::Token));
        }

        #[test]
        fn no_input_panics(token in "\\PC{0,80}") {
            let _ = key("services", &token);
        }
    }
}
