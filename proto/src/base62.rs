//! 32 bytes as 43 digits of base62, `0-9A-Za-z`, the most significant first.
//!
//! Law: `decode(encode(bytes)) == bytes`, and a text that decodes is what its bytes encode to.

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^43 is the first power above 2^256.
pub(crate) const DIGITS: usize = 43;

/// The digits of a number of 256 bits, big-endian.
pub(crate) fn encode(bytes: &[u8; 32]) -> String {
    let mut number = *bytes;
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in &mut number {
            let value = rest * 256 + u32::from(*byte);
            // Below 256, because `rest` is below 62.
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        *digit = ALPHABET[rest as usize];
    }
    digits.into_iter().map(char::from).collect()
}

/// The number of these digits. `None`: another length or alphabet, or a number above 256 bits.
pub(crate) fn decode(text: &str) -> Option<[u8; 32]> {
    if text.len() != DIGITS {
        return None;
    }
    let mut number = [0_u8; 32];
    for digit in text.bytes() {
        let mut carry = match digit {
            b'0'..=b'9' => u32::from(digit - b'0'),
            b'A'..=b'Z' => u32::from(digit - b'A') + 10,
            b'a'..=b'z' => u32::from(digit - b'a') + 36,
            _ => return None,
        };
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 62 + carry;
            *byte = (value % 256) as u8;
            carry = value / 256;
        }
        if carry > 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bounds_are_exact() {
        assert_eq!(encode(&[0; 32]), "0".repeat(DIGITS));
        let most = encode(&[255; 32]);
        assert_eq!(decode(&most), Some([255; 32]));
        let mut above = most.into_bytes();
        let last = above.last_mut().expect("digits");
        assert_ne!(*last, b'z');
        *last += 1;
        assert_eq!(decode(&String::from_utf8(above).expect("ASCII")), None);
    }

    proptest! {
        #[test]
        fn bytes_read_back_as_written(bytes: [u8; 32]) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn a_text_that_decodes_is_the_only_one(text in "[0-9A-Za-z]{43}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
