//! The nearest of several names. Pure.

/// Similarity (Jaro-Winkler, 0 to 1) from which a name is likely meant.
const LIKELY: f64 = 0.8;

/// The name most like `typed`; `None` if none is likely meant, or `typed` is among them.
pub(crate) fn nearest<'a>(
    typed: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let alike = names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(typed, name), name));
    let (likeness, name) = alike.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (likeness >= LIKELY && name != typed).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_likely_name_is_found_and_an_unlike_one_not() {
        let names = ["hello", "world", "shop"];
        assert_eq!(nearest("helo", names), Some("hello"));
        assert_eq!(nearest("wrold", names), Some("world"));
        assert_eq!(nearest("payment", names), None);
        assert_eq!(nearest("shop", names), None);
        assert_eq!(nearest("x", []), None);
    }
}
