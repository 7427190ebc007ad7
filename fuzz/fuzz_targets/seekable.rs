//! Any bytes as a stored file: a table is refused or true, and what is read does not depend on how.

#![no_main]

use libfuzzer_sys::fuzz_target;
use snowbank::codec::seekable::Reader;

/// Content beyond this is not looked at, so that a run stays fast.
const MAX_SIZE: u64 = 16 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(reader) = Reader::open(bytes, bytes.len() as u64) else { return };
    let end = reader.size().min(MAX_SIZE);
    let mut chunks = reader.into_chunks(0..end).expect("the range lies within the content");
    let mut content = Vec::new();
    for chunk in chunks.by_ref() {
        let Ok(chunk) = chunk else { return };
        assert!(!chunk.is_empty());
        content.extend(chunk);
    }
    assert_eq!(content.len() as u64, end);

    let mut reader = chunks.into_reader();
    let start = content.len() / 3;
    let mut buffer = vec![0; content.len() / 2];
    let read = reader.read_at(start as u64, &mut buffer).expect("what was read is read again");
    assert_eq!(read, buffer.len());
    assert_eq!(buffer, content[start..start + buffer.len()]);
});
