//! Fuzzing of untrusted authorities.

use super::normalize;
use crate::fuzz::{Target, lines};
use std::borrow::Cow;

#[test]
fn fuzz_authority() {
    let target = Target {
        corpus: lines(include_str!("../../tests/corpus/authority.txt")),
        words: &[
            b"localhost",
            b"[::1]",
            b"[::ffff:1.2.3.4]",
            b":80",
            b"@",
            b"xn--",
            b"%41",
            b"--",
            b"..",
        ],
    };
    target.hold(|input| {
        let text = String::from_utf8_lossy(input);
        let Ok(host) = normalize(&text) else { return };
        // The result is a fixed point, returned without a copy.
        assert!(matches!(normalize(&host), Ok(Cow::Borrowed(again)) if again == host));
        // Case and port do not change the result.
        assert_eq!(normalize(&host.to_ascii_uppercase()).as_deref(), Ok(&*host));
        assert_eq!(normalize(&format!("{host}:65535")).as_deref(), Ok(&*host));
        // No byte ends a field, a target or a log line, and the length is bounded.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() && !byte.is_ascii_uppercase();
        assert!(
            host.bytes()
                .all(|byte| plain(byte) || b"-_.:[]".contains(&byte)),
            "{host}"
        );
        assert!(!host.is_empty() && host.len() <= 255);
        if host.starts_with('[') {
            return;
        }
        assert_eq!(normalize(&format!("{host}.")).as_deref(), Ok(&*host));
        assert!(!host.contains([':', '[', ']']) && host.split('.').all(|label| !label.is_empty()));
    });
}
