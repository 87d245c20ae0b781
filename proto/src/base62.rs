//! Bytes as digits and letters: base 62 of a fixed number of bytes, PURE.
//!
//! Law: [`decode`] accepts exactly the texts that [`encode`] makes, so that a secret has one
//! spelling. Property tests below verify it.

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The number of characters of `bytes` bytes.
pub const fn width(bytes: usize) -> usize {
    // log2(62), rounded down, in millionths; exact for more bytes than any secret has.
    (bytes * 8 * 1_000_000).div_ceil(5_954_196)
}

/// Text of the bytes, read as a number with the highest byte first; always [`width`] characters.
pub fn encode<const N: usize>(mut bytes: [u8; N]) -> String {
    let mut text = vec![b'0'; width(N)];
    for place in text.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in &mut bytes {
            let value = (rest << 8) | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        *place = DIGITS[rest as usize];
    }
    text.into_iter().map(char::from).collect()
}

/// Bytes of a text of [`encode`]; `None` for any other text.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != width(N) {
        return None;
    }
    let mut bytes = [0_u8; N];
    for digit in text.bytes() {
        let mut carry = match digit {
            b'0'..=b'9' => u32::from(digit - b'0'),
            b'A'..=b'Z' => u32::from(digit - b'A') + 10,
            b'a'..=b'z' => u32::from(digit - b'a') + 36,
            _ => return None,
        };
        for byte in bytes.iter_mut().rev() {
            let value = u32::from(*byte) * 62 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn widths() {
        for (bytes, characters) in [(1, 2), (8, 11), (16, 22), (32, 43), (64, 86)] {
            assert_eq!(width(bytes), characters, "{bytes} bytes");
        }
        assert_eq!(encode([0_u8; 32]), "0".repeat(43));
        assert_eq!(decode(&encode([0xff_u8; 32])), Some([0xff_u8; 32]));
        assert_eq!(
            decode::<32>(&"z".repeat(43)),
            None,
            "above the greatest number"
        );
    }

    proptest! {
        #[test]
        fn round_trip(bytes: [u8; 32], id: [u8; 8]) {
            prop_assert_eq!(decode(&encode(bytes)), Some(bytes));
            prop_assert_eq!(decode(&encode(id)), Some(id));
        }

        #[test]
        fn one_spelling(text in "[0-9A-Za-z]{11}|\\PC{0,12}") {
            if let Some(bytes) = decode::<8>(&text) {
                prop_assert_eq!(encode(bytes), text);
            }
        }
    }
}
