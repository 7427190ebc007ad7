//! Base 64 with padding, in its one form.

use data_encoding::BASE64;

/// Reads exactly `N` bytes, as [`BASE64`] writes them.
///
/// The library also reads several padded pieces in a row, so that one value would have many texts.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let bytes: [u8; N] = BASE64.decode(text.as_bytes()).ok()?.try_into().ok()?;
    (BASE64.encode(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_text() {
        assert_eq!(decode("AAAA"), Some([0; 3]));
        assert_eq!(decode::<2>("AA=="), None);
        assert_eq!(decode("AAA="), Some([0; 2]));
        // Two pieces, each padded: found by fuzzing.
        assert_eq!(decode::<2>("AA==AA=="), None);
    }
}
