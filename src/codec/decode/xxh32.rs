//! XXH32, the checksum in LZ4 frames.
//!
//! Written from the specification, `doc/xxhash_spec.md` in Cyan4973/xxHash; the seed is always 0
//! here.

const PRIME_1: u32 = 0x9E37_79B1;
const PRIME_2: u32 = 0x85EB_CA77;
const PRIME_3: u32 = 0xC2B2_AE3D;
const PRIME_4: u32 = 0x27D4_EB2F;
const PRIME_5: u32 = 0x1656_67B1;

/// Bytes that the four lanes take together.
const STRIPE: usize = 16;

/// An XXH32 that is still being fed.
#[derive(Clone)]
pub(super) struct Xxh32 {
    lanes: [u32; 4],
    /// Bytes that do not make a stripe yet.
    held: Vec<u8>,
    /// Modulo 2^32, as the result takes it, and whether it ever reached a stripe.
    length: u32,
    has_stripe: bool,
}

impl Xxh32 {
    pub(super) fn new() -> Self {
        let lanes = [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, 0u32.wrapping_sub(PRIME_1)];
        Self { lanes, held: Vec::with_capacity(STRIPE), length: 0, has_stripe: false }
    }

    /// The digest of `bytes`.
    pub(super) fn of(bytes: &[u8]) -> u32 {
        let mut state = Self::new();
        state.update(bytes);
        state.finish()
    }

    /// Takes the next bytes.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        let [a, b, c, d, ..] = (bytes.len() as u64).to_le_bytes();
        self.length = self.length.wrapping_add(u32::from_le_bytes([a, b, c, d]));
        if !self.held.is_empty() {
            let missing = (STRIPE - self.held.len()).min(bytes.len());
            let (taken, rest) = bytes.split_at(missing);
            self.held.extend_from_slice(taken);
            bytes = rest;
            if let Some(stripe) = self.held.first_chunk().copied() {
                self.stripe(&stripe);
                self.held.clear();
            }
        }
        let (stripes, rest) = bytes.as_chunks();
        for stripe in stripes {
            self.stripe(stripe);
        }
        self.held.extend_from_slice(rest);
    }

    /// The digest of all bytes.
    pub(super) fn finish(&self) -> u32 {
        let [a, b, c, d] = self.lanes;
        let mut hash = if self.has_stripe {
            a.rotate_left(1)
                .wrapping_add(b.rotate_left(7))
                .wrapping_add(c.rotate_left(12))
                .wrapping_add(d.rotate_left(18))
        } else {
            PRIME_5
        };
        hash = hash.wrapping_add(self.length);
        let (words, bytes) = self.held.as_chunks();
        for &word in words {
            hash = hash.wrapping_add(u32::from_le_bytes(word).wrapping_mul(PRIME_3));
            hash = hash.rotate_left(17).wrapping_mul(PRIME_4);
        }
        for &byte in bytes {
            hash = hash.wrapping_add(u32::from(byte).wrapping_mul(PRIME_5));
            hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
        }
        hash = (hash ^ (hash >> 15)).wrapping_mul(PRIME_2);
        hash = (hash ^ (hash >> 13)).wrapping_mul(PRIME_3);
        hash ^ (hash >> 16)
    }

    fn stripe(&mut self, stripe: &[u8; STRIPE]) {
        self.has_stripe = true;
        let (words, _) = stripe.as_chunks();
        for (lane, &word) in self.lanes.iter_mut().zip(words) {
            let mixed = lane.wrapping_add(u32::from_le_bytes(word).wrapping_mul(PRIME_2));
            *lane = mixed.rotate_left(13).wrapping_mul(PRIME_1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_published_one() {
        assert_eq!(Xxh32::of(b""), 0x02CC_5D05);
    }

    #[test]
    fn it_is_the_same_however_the_bytes_are_cut() {
        let bytes: Vec<u8> = (0..100).collect();
        for cut in 0..bytes.len() {
            let mut state = Xxh32::new();
            state.update(&bytes[..cut]);
            state.update(&bytes[cut..]);
            assert_eq!(state.finish(), Xxh32::of(&bytes), "{cut}");
        }
    }
}
