use std::io::Write;
use std::num::NonZeroUsize;

use super::*;

const SMALL: u32 = MIN_FRAME_SIZE;

fn encode(content: &[u8], settings: Settings) -> (Vec<u8>, Summary) {
    let mut encoder = Encoder::new(Vec::new(), settings).unwrap();
    encoder.write_all(content).unwrap();
    let (summary, file) = encoder.finish().unwrap();
    (file, summary)
}

#[test]
fn a_file_is_read_back_from_anywhere() {
    let content: Vec<u8> = (0..5000u32).flat_map(|n| (n * n).to_le_bytes()).collect();
    let settings = Settings::new(LEVEL, SMALL).unwrap();
    let (file, summary) = encode(&content, settings);
    let mut reader = Reader::open(&file, file.len() as u64).unwrap();
    assert_eq!(**reader.table(), summary.table);
    let mut buffer = vec![0; 3000];
    assert_eq!(reader.read_at(1500, &mut buffer).unwrap(), 3000);
    assert_eq!(buffer, content[1500..4500]);
    let chunks: Vec<_> = reader.into_chunks(100..9000).unwrap().map(Result::unwrap).collect();
    assert_eq!(chunks.concat(), content[100..9000]);
    assert_eq!(zstd::stream::decode_all(&*file).unwrap(), content);

    let pool = Pool::new(NonZeroUsize::new(2).unwrap()).unwrap();
    let mut encoder = Encoder::with_pool(Vec::new(), settings, pool);
    encoder.write_all(&content).unwrap();
    assert_eq!(encoder.finish().unwrap(), (summary, file));
}
