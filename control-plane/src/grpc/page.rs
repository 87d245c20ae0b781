//! Pages of a list (AIP-158): sizes, and opaque tokens.
//!
//! A token is base64 of *format, checksum, list name, 0, key*. The list name (`versions of hello`)
//! is part of it, so that the token of another list is rejected.

use crate::store::{Error, Page};
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

/// The token of the page after the item with this key. Empty without `more`.
pub(crate) fn continued(more: bool, list: &str, last: Option<impl ToString>) -> String {
    match last {
        Some(last) if more => token(list, &last.to_string()),
        _ => String::new(),
    }
}

/// The token of the page after this one. Empty on the last page.
pub(crate) fn next_token<T>(page: &Page<T>, list: &str, key: impl FnOnce(&T) -> String) -> String {
    continued(page.more, list, page.items.last().map(key))
}

/// Number of items that a filter reads from the store for one page, at most; the page may then have
/// fewer items than requested (AIP-158).
const SCAN_MAX: usize = 10_000;

/// The name of a list in its page tokens, which are bound to the filter.
pub(crate) fn list(name: &str, filter: &str) -> String {
    if filter.is_empty() {
        return name.to_owned();
    }
    format!("{name} where {filter}")
}

/// A page of those items of a stored list that match a filter. `read` reads up to so many items
/// after a key. Also returns the key of the last item that was read, where the next page starts.
pub(crate) async fn filtered<T, K: Clone, F: Future<Output = Result<Page<T>, Error>>>(
    size: u32,
    after: Option<K>,
    everything: bool,
    key: impl Fn(&T) -> K,
    read: impl Fn(u32, Option<K>) -> F,
    matches: impl Fn(&T) -> bool,
) -> Result<(Page<T>, Option<K>), Error> {
    let wanted = usize::try_from(size).unwrap_or(usize::MAX);
    // Without a filter every item is wanted.
    let chunk = if everything {
        size
    } else {
        SIZE_MAX.unsigned_abs()
    };
    let (mut items, mut last, mut scanned) = (Vec::new(), after, 0);
    loop {
        let found = read(chunk, last.clone()).await?;
        let mut rest = found.items.into_iter();
        for item in rest.by_ref() {
            last = Some(key(&item));
            scanned += 1;
            if everything || matches(&item) {
                items.push(item);
            }
            if items.len() >= wanted {
                break;
            }
        }
        let more = found.more || rest.len() > 0;
        if !more || items.len() >= wanted || scanned >= SCAN_MAX {
            return Ok((Page { items, more }, last));
        }
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

    #[tokio::test]
    async fn pages_of_a_filter_hold_every_match_once_and_read_a_bounded_number() {
        let read = |limit: u32, after: Option<u32>| async move {
            let all = after.map_or(0, |after| after + 1)..25_000;
            Page::cut(all.take(limit as usize + 1).collect(), limit, Ok)
        };
        let pages = async |size, divisor: u32| {
            let (mut all, mut after, mut calls) = (Vec::new(), None, 0);
            loop {
                let one = divisor == 1;
                let page = filtered(size, after, one, |n: &u32| *n, read, |n| n % divisor == 0);
                let (page, last) = page.await.expect("no error");
                all.extend(page.items);
                (after, calls) = (last, calls + 1);
                if !page.more {
                    return (all, calls);
                }
            }
        };
        for (size, divisor, calls) in [(1000, 1, 25), (10, 5000, 3), (1000, 30_000, 3)] {
            let (all, made) = pages(size, divisor).await;
            assert!(all.into_iter().eq((0..25_000).filter(|n| n % divisor == 0)));
            assert_eq!(made, calls, "{size} {divisor}");
        }
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
