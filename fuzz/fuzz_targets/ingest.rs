//! Any bytes as an upload, and any bytes as a NAR that is then uploaded: the first byte says in which
//! compression and which of the two, the second how they are cut. What is accepted is what the strict
//! parser accepts, and lies in the output in a form from which the same NAR is read again.

#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::num::NonZeroUsize;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use snowbank::codec::Compression;
use snowbank::codec::seekable::{Encoder, MIN_FRAME_SIZE, Pool, Reader, Settings};
use snowbank::ingest::nar::{FileFacts, Keep, NarLimits, Output, Taken, VerifiedNar, read_back, take};
use snowbank::ingest::{Class, IngestError};
use snowbank::nix::hash::Sha256;
use snowbank::nix::nar::{Limits, Parser};

#[path = "../compress.rs"]
mod compress;

/// In the first byte: what follows is the upload, not the NAR.
const AS_IT_IS: u8 = 0x80;
/// In the first byte: it is zstd that may be in our own form; a NAR is brought into it.
const KEEP: u8 = 0x40;

static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(NonZeroUsize::MIN).expect("a thread"));

thread_local! {
    static OUTPUT: RefCell<File> = RefCell::new(tempfile::tempfile().expect("a file"));
}

fuzz_target!(|bytes: &[u8]| {
    let [kind, piece, input @ ..] = bytes else { return };
    let keep = if kind & KEEP == 0 { Keep::Encoded } else { Keep::IfSeekable };
    let compression = match keep {
        Keep::IfSeekable => Compression::Zstd,
        Keep::Encoded => Compression::ALL[usize::from(kind & 0x3f) % Compression::ALL.len()],
    };
    let nar = (kind & AS_IT_IS == 0).then_some(input);
    let upload = match (nar, keep) {
        (None, _) => input.to_vec(),
        (Some(nar), Keep::IfSeekable) => seekable(nar),
        (Some(nar), Keep::Encoded) => compress::encode(compression, nar).expect("it compresses"),
    };
    OUTPUT.with_borrow_mut(|output| {
        let pieces = InPieces { bytes: &upload, most: usize::from(*piece) * 16 + 1 };
        let result = ingest(pieces, compression, keep, output);
        if let (Some(nar), false) = (nar, compression == Compression::Brotli) {
            assert_eq!(result.is_ok(), is_strict(nar), "it is the NAR that decides: {result:?}");
        }
        match result {
            Ok(Taken::Stored(verified)) => {
                check(&verified, &upload, nar, output);
                let kept = keep == Keep::IfSeekable;
                assert!(!kept || verified.stored == verified.received);
            }
            Ok(Taken::NotSeekable) => {
                assert!(keep == Keep::IfSeekable && nar.is_none());
                assert_eq!(facts_of(output), facts(&upload), "it lies there as it came");
            }
            Err(error) => {
                let ours = [Class::NoSpace, Class::Aborted, Class::Failed];
                assert!(!ours.contains(&error.class()), "nothing failed here: {error}");
                assert!(!error.to_string().contains('\n'), "one line: {error}");
            }
        }
    });
});

fn limits() -> NarLimits {
    NarLimits {
        nar: Limits { max_size: 1 << 20, max_entries: 1000, ..Limits::default() },
        decoder_memory: 8 << 20,
        encoding: Settings::new(1, MIN_FRAME_SIZE).expect("settings that are allowed"),
        ..NarLimits::default()
    }
}

fn ingest(
    input: impl Read,
    compression: Compression,
    keep: Keep,
    output: &mut File,
) -> Result<Taken, IngestError> {
    output.set_len(0).expect("a file can be emptied");
    output.rewind().expect("a file can be rewound");
    take(input, compression, &limits(), keep, &POOL, Output::new(output))
}

fn check(verified: &VerifiedNar, upload: &[u8], nar: Option<&[u8]>, output: &File) {
    assert_eq!(verified.received, facts(upload));
    assert_eq!(verified.stored, facts_of(output));
    let reader = Reader::open(output, verified.stored.size).expect("it is of our own form");
    let chunks = reader.into_chunks(0..verified.nar_size).expect("it is as long as it says");
    let content: Vec<u8> = chunks.flat_map(|chunk| chunk.expect("it is whole")).collect();
    assert_eq!(Sha256::of(&content), verified.nar_hash);
    assert!(is_strict(&content), "nothing else is accepted");
    assert!(verified.listing.is_some(), "a small NAR has a listing");
    assert!(nar.is_none_or(|nar| nar == content));
}

fn is_strict(nar: &[u8]) -> bool {
    let mut parser = Parser::new(limits().nar);
    parser.push(nar, &mut |_| {}).is_ok() && parser.finish().is_ok()
}

fn seekable(content: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), limits().encoding).expect("there is memory");
    encoder.write_all(content).expect("memory does not fail");
    encoder.finish().expect("memory does not fail").1
}

fn facts(bytes: &[u8]) -> FileFacts {
    FileFacts { hash: Sha256::of(bytes), size: bytes.len() as u64 }
}

fn facts_of(file: &File) -> FileFacts {
    let mut bytes = Vec::new();
    read_back(file).read_to_end(&mut bytes).expect("a file can be read");
    facts(&bytes)
}

/// Gives at most so many bytes at once.
struct InPieces<'a> {
    bytes: &'a [u8],
    most: usize,
}

impl Read for InPieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let size = buffer.len().min(self.most);
        self.bytes.read(&mut buffer[..size])
    }
}
