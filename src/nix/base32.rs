//! Nix's own base 32: 32 digits without `e o t u`, written most significant digit first.
//!
//! Unlike RFC 4648 the digits are taken from the *end* of the bytes, five bits at a time, and there
//! is no padding. Only lower case is valid. Source: the format printed by `nix hash to-base32`.

/// The digits in the order of their values.
pub const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// The value of each byte as a digit, 0xff where it is none.
const VALUES: [u8; 256] = {
    let mut values = [0xff; 256];
    let mut digit: u8 = 0;
    while digit < 32 {
        values[ALPHABET[digit as usize] as usize] = digit;
        digit += 1;
    }
    values
};

/// The value of a byte as a digit, if it is one.
pub(super) const fn digit(byte: u8) -> Option<u8> {
    let value = VALUES[byte as usize];
    if value == 0xff { None } else { Some(value) }
}

/// How many digits `bytes` bytes take.
pub const fn encoded_len(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// Writes `bytes` as Nix base 32.
pub fn encode(bytes: &[u8]) -> String {
    let digits = encoded_len(bytes.len());
    let mut text = String::with_capacity(digits);
    for position in (0..digits).rev() {
        let bit = position * 5;
        let (byte, shift) = (bit / 8, bit % 8);
        let low = u16::from(bytes[byte]);
        let high = u16::from(bytes.get(byte + 1).copied().unwrap_or(0));
        let digit = (((high << 8) | low) >> shift) & 0x1f;
        text.push(char::from(ALPHABET[usize::from(digit)]));
    }
    text
}

/// Reads exactly `N` bytes written as Nix base 32.
///
/// Returns `None` for another length, a byte outside the alphabet, or bits beyond the last byte.
pub fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != encoded_len(N) {
        return None;
    }
    let mut bytes = [0u8; N];
    for (position, &character) in text.iter().rev().enumerate() {
        let digit = digit(character)?;
        let bit = position * 5;
        let (byte, shift) = (bit / 8, bit % 8);
        let wide = u16::from(digit) << shift;
        let [low, high] = wide.to_le_bytes();
        bytes[byte] |= low;
        match bytes.get_mut(byte + 1) {
            Some(next) => *next |= high,
            None if high != 0 => return None,
            None => {}
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_empty_sha256_is_written_as_nix_writes_it() {
        // `printf '' | nix-hash --type sha256 --base32 --flat /dev/stdin`
        let digest = data_encoding::HEXLOWER
            .decode(b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
            .unwrap();
        assert_eq!(encode(&digest), "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73");
    }

    #[test]
    fn bits_beyond_the_last_byte_are_refused() {
        // 52 digits carry 260 bits; the first digit of a 32-byte hash is 0 or 1.
        assert_eq!(decode::<32>("z".repeat(52).as_bytes()), None);
        assert_eq!(decode::<32>(format!("2{}", "0".repeat(51)).as_bytes()), None);
    }

    #[test]
    fn letters_that_nix_leaves_out_and_upper_case_are_refused() {
        for bad in ["e", "o", "t", "u", "A", "-", "/", "\0"] {
            assert_eq!(decode::<20>(format!("{bad:0>32}").as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same_bytes(bytes: [u8; 20], digest: [u8; 32]) {
            prop_assert_eq!(decode::<20>(encode(&bytes).as_bytes()), Some(bytes));
            prop_assert_eq!(decode::<32>(encode(&digest).as_bytes()), Some(digest));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_text(text in "[0-9a-z]{32}") {
            if let Some(bytes) = decode::<20>(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
