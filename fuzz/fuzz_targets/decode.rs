//! Any bytes as an upload: the first says in which compression, the second how it is cut.

#![no_main]

use std::io::{BufRead, BufReader, Read};

use libfuzzer_sys::fuzz_target;
use snowbank::codec::{CodecError, Compression, Decoder, Limits};

const MAX_OUTPUT: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let [which, piece, input @ ..] = bytes else { return };
    let compression = Compression::ALL[usize::from(*which) % Compression::ALL.len()];
    let whole = decode(compression, input);
    let in_pieces = BufReader::with_capacity(usize::from(*piece) + 1, input);
    let in_pieces = decode(compression, in_pieces);
    if let (Some(whole), Some(in_pieces)) = (whole, in_pieces) {
        assert!(whole == in_pieces, "{compression} depends on how it is cut");
    }
});

fn decode(compression: Compression, input: impl BufRead) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(compression, input, Limits::output(MAX_OUTPUT)).ok()?;
    let mut content = Vec::new();
    let result = decoder.read_to_end(&mut content);
    assert!(content.len() as u64 <= MAX_OUTPUT);
    match result {
        Ok(size) => {
            assert_eq!(size as u64, decoder.output_bytes());
            Some(content)
        }
        Err(error) => {
            assert!(CodecError::of(&error).is_some(), "a slice does not fail: {error}");
            None
        }
    }
}
