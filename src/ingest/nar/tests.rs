use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::codec::read_at::ReadAt;
use crate::codec::testing::{DECODED, encode, peak_memory, text, xz_with_a_dictionary, zstd_bomb};
use crate::codec::{CodecError, RATIO_FREE};
use crate::ingest::Class;
use crate::nix::nar::testing::{Tree, tree};
use crate::nix::nar::{Event, NarError};
use crate::nix::store_path::StorePathHash;

static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(NonZeroUsize::new(3).unwrap()).unwrap());

fn try_take(
    input: impl Read,
    compression: Compression,
    limits: &NarLimits,
    keep: Keep,
) -> (Result<Taken, IngestError>, File) {
    let output = tempfile::tempfile().unwrap();
    (take(input, compression, limits, keep, &POOL, Output::new(&output)), output)
}

/// What is stored, and its bytes.
fn stored(input: impl Read, compression: Compression, keep: Keep) -> (VerifiedNar, Vec<u8>) {
    match try_take(input, compression, &NarLimits::default(), keep) {
        (Ok(Taken::Stored(nar)), file) => (nar, bytes_of(&file)),
        (other, _) => panic!("{other:?}"),
    }
}

fn refused(input: impl Read, compression: Compression) -> IngestError {
    refused_with(input, compression, &NarLimits::default())
}

fn refused_with(input: impl Read, compression: Compression, limits: &NarLimits) -> IngestError {
    try_take(input, compression, limits, Keep::Encoded).0.unwrap_err()
}

fn bytes_of(file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    read_back(file).read_to_end(&mut bytes).unwrap();
    bytes
}

/// The stored form, made on this thread alone.
fn seekable(nar: &[u8], settings: Settings) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), settings).unwrap();
    encoder.write_all(nar).unwrap();
    encoder.finish().unwrap().1
}

fn facts_of(bytes: &[u8]) -> FileFacts {
    FileFacts { hash: Sha256::of(bytes), size: bytes.len() as u64 }
}

/// Several frames and many pieces, none of them whole.
static LARGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let large = Tree::File { executable: true, contents: text(5_000_003) };
    Tree::directory([("large", large), ("link", Tree::symlink("large"))]).nar()
});

/// The events of a NAR as bytes, whatever they are.
fn nar(events: &[Event<'_>]) -> Vec<u8> {
    let (mut out, mut encoder) = (Vec::new(), nar::Encoder::default());
    events.iter().for_each(|event| encoder.event(event, &mut out));
    out
}

#[test]
fn every_compression_gives_the_same_stored_file() {
    let expected = seekable(&LARGE, Settings::default());
    for compression in DECODED {
        let upload = encode(compression, &LARGE);
        let (nar, file) = stored(&*upload, compression, Keep::Encoded);
        assert!(file == expected, "{compression}: not what one thread makes");
        assert_eq!((nar.nar_hash, nar.nar_size), (Sha256::of(&LARGE), LARGE.len() as u64));
        assert_eq!(nar.received, facts_of(&upload), "{compression}");
        assert_eq!(nar.stored, facts_of(&file), "{compression}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_nar_is_taken_however_it_comes(
        tree in tree(),
        compression in prop::sample::select(&DECODED[..]),
        size in 1..5000usize,
    ) {
        /// Gives at most so many bytes at once.
        struct Dribble<'a>(&'a [u8], usize);
        impl Read for Dribble<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let size = buffer.len().min(self.1);
                self.0.read(&mut buffer[..size])
            }
        }
        let bytes = tree.nar();
        let upload = encode(compression, &bytes);
        let (nar, file) = stored(Dribble(&upload, size), compression, Keep::Encoded);
        prop_assert_eq!(nar.received, facts_of(&upload));
        prop_assert_eq!(zstd::stream::decode_all(&*file).unwrap(), bytes);
        let Some(listing) = nar.listing else { panic!("a small NAR has a listing") };
        prop_assert_eq!(matches!(listing.root(), nar::Node::Directory(_)), matches!(tree, Tree::Directory(_)));
    }
}

#[test]
fn around_the_size_of_a_piece_it_is_the_same() {
    let overhead = Tree::file("").nar().len();
    for size in [PIECE - 8, PIECE, PIECE + 8, 2 * PIECE] {
        let contents = text(size - overhead);
        let bytes = Tree::File { executable: false, contents }.nar();
        assert_eq!(bytes.len(), size);
        let (nar, file) = stored(&*bytes, Compression::None, Keep::Encoded);
        assert_eq!(nar.received, facts_of(&bytes), "a plain NAR has its NarHash for FileHash");
        assert!(file == seekable(&bytes, Settings::default()));
    }
}

#[test]
fn what_is_in_it_is_listed_and_what_it_refers_to_is_found() {
    let hash = "7rjj86a50146dq4pd5h2fyvnnwxk9m0a";
    let target = format!("/nix/store/{hash}-hello/bin/hello");
    let bytes = Tree::directory([("a", Tree::file("abc")), ("hello", Tree::symlink(&target))]);
    let (nar, _) = stored(&*bytes.nar(), Compression::None, Keep::Encoded);
    let listing = nar.listing.unwrap();
    let Some(&nar::Node::Regular { nar_offset, size: 3, .. }) = listing.lookup([&b"a"[..]]) else {
        panic!("{listing:?}")
    };
    let offset = usize::try_from(nar_offset).unwrap();
    assert_eq!(&bytes.nar()[offset..offset + 3], b"abc");
    assert_eq!(nar.references.contains(&StorePathHash::parse(hash).unwrap()), Some(true));
    assert_eq!(nar.references.count(), Some(1));
}

#[test]
fn a_nar_with_too_much_in_it_for_a_listing_is_stored_without_one() {
    let limits = nar::Limits { max_listing_entries: 2, ..nar::Limits::default() };
    let limits = NarLimits { nar: limits, ..NarLimits::default() };
    let bytes = Tree::directory([("a", Tree::file("")), ("b", Tree::file(""))]).nar();
    let (taken, _) = try_take(&*bytes, Compression::None, &limits, Keep::Encoded);
    let Ok(Taken::Stored(nar)) = taken else { panic!("{taken:?}") };
    assert_eq!(nar.listing, None);
}

#[test]
fn our_own_form_is_kept_as_it_arrives() {
    for settings in [Settings::default(), Settings::new(19, 1 << 20).unwrap()] {
        for bytes in [&LARGE[..], &Tree::file("small").nar()] {
            let upload = seekable(bytes, settings);
            let (nar, file) = stored(&*upload, Compression::Zstd, Keep::IfSeekable);
            assert!(file == upload);
            assert_eq!(nar.nar_hash, Sha256::of(bytes));
            assert_eq!((nar.received, nar.stored), (facts_of(&upload), facts_of(&upload)));
        }
    }
}

#[test]
fn what_lies_in_a_file_already_is_checked_where_it_lies() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&seekable(&LARGE, Settings::default())).unwrap();
    let checked = check(&file, &NarLimits::default()).unwrap();
    let Taken::Stored(nar) = checked else { panic!("{checked:?}") };
    assert_eq!((nar.nar_hash, nar.stored), (Sha256::of(&LARGE), facts_of(&bytes_of(&file))));

    file.write_all(b"more").unwrap();
    let error = check(&file, &NarLimits::default()).unwrap_err();
    assert_eq!(error.class(), Class::Invalid, "{error}");
}

#[test]
fn zstd_in_another_form_is_said_to_be_so_and_then_encoded() {
    let plain = encode(Compression::Zstd, &LARGE);
    let with_a_table_that_lies = {
        let ours = seekable(&LARGE, Settings::default());
        let other = seekable(&text(LARGE.len()), Settings::default());
        let table = 17 + 8 * LARGE.len().div_ceil(2 << 20);
        [&ours[..ours.len() - table], &other[other.len() - table..]].concat()
    };
    for upload in [plain, with_a_table_that_lies] {
        let limits = NarLimits::default();
        let (taken, file) = try_take(&*upload, Compression::Zstd, &limits, Keep::IfSeekable);
        assert!(matches!(taken, Ok(Taken::NotSeekable)), "{taken:?}");
        assert!(bytes_of(&file) == upload, "it lies there as it arrived");
        let (nar, again) = stored(read_back(&file), Compression::Zstd, Keep::Encoded);
        assert!(again == seekable(&LARGE, Settings::default()));
        assert_eq!(nar.received, facts_of(&upload));
    }
    let (_, file) = stored(&**LARGE, Compression::None, Keep::IfSeekable);
    assert!(file == seekable(&LARGE, Settings::default()), "no other compression can be ours");
}

#[test]
fn an_upload_that_ends_early_is_refused_wherever_it_ends() {
    let bytes = Tree::directory([("a", Tree::File { executable: false, contents: text(400_000) })]);
    let bytes = bytes.nar();
    for compression in DECODED {
        let upload = encode(compression, &bytes);
        for percent in 0..100 {
            let error = refused(&upload[..upload.len() * percent / 100], compression);
            assert_eq!(error.class(), Class::Invalid, "{compression} at {percent} %: {error}");
        }
    }
    let upload = seekable(&bytes, Settings::default());
    for percent in 0..100 {
        let part = &upload[..upload.len() * percent / 100];
        let (taken, _) = try_take(part, Compression::Zstd, &NarLimits::default(), Keep::IfSeekable);
        // Without its table it is still sound zstd, once all frames are there.
        let ended = matches!(&taken, Err(error) if error.class() == Class::Invalid);
        assert!(ended || percent == 99, "{percent} %: {taken:?}");
    }
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let before = peak_memory();
    let limits = |max_size| NarLimits {
        nar: nar::Limits { max_size, ..nar::Limits::default() },
        ..NarLimits::default()
    };
    // A NAR that is a file of zeros, so that it is the decoder who has to see it.
    let zeros = |size: usize| Tree::File { executable: false, contents: vec![0; size] }.nar();
    let beyond = (70 << 20) + usize::try_from(RATIO_FREE).unwrap();
    for compression in [Compression::Zstd, Compression::Xz] {
        let error = refused(&*encode(compression, &zeros(beyond)), compression);
        let is_ratio = matches!(error, IngestError::Decode(CodecError::RatioExceeded { .. }));
        assert!(is_ratio, "{compression}: {error}");
        assert_eq!(error.class(), Class::TooLarge);
    }
    for compression in DECODED {
        let upload = encode(compression, &zeros(5 << 20));
        let error = refused_with(&*upload, compression, &limits(1 << 20));
        assert_eq!(error.class(), Class::TooLarge, "{compression}: {error}");
    }
    // What is no NAR at all is not decoded to its end.
    let error = refused(&*zstd_bomb(), Compression::Zstd);
    assert!(matches!(error, IngestError::Nar(NarError::Magic)), "{error}");

    let window_of_2_gib = [0x28, 0xb5, 0x2f, 0xfd, 0, (31 - 10) << 3, 1, 0, 0];
    let error = refused(&window_of_2_gib[..], Compression::Zstd);
    assert_eq!(error.to_string(), "the upload was refused: the window is larger than 2^25 bytes");
    assert_eq!(error.class(), Class::TooLarge);
    let error = refused(&*xz_with_a_dictionary(37), Compression::Xz);
    assert!(matches!(error, IngestError::Decode(CodecError::MemoryLimit { max: 0x200_0000 })));
    assert_eq!(error.class(), Class::TooLarge);

    // Other tests run beside this one, so this sees only what is far too much.
    let grown = peak_memory() - before;
    assert!(grown < 700 << 20, "{} MiB more", grown >> 20);
}

#[test]
fn input_that_goes_on_and_on_and_gives_nothing_is_refused() {
    struct Forever(&'static [u8]);
    impl Read for Forever {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = buffer.len() / self.0.len() * self.0.len();
            buffer[..size].chunks_exact_mut(self.0.len()).for_each(|c| c.copy_from_slice(self.0));
            Ok(size)
        }
    }
    let small = &[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
    let four_gib = [0x5f, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff];
    for keep in [Keep::Encoded, Keep::IfSeekable] {
        let limits = NarLimits::default();
        let refused = |input| try_take(input, Compression::Zstd, &limits, keep).0.unwrap_err();
        let error = refused(Box::new(Forever(small)) as Box<dyn Read>);
        assert!(matches!(error, IngestError::Decode(CodecError::EmptyFrames { .. })), "{error}");
        let error = refused(Box::new(four_gib.chain(io::repeat(0))));
        assert!(matches!(error, IngestError::Decode(CodecError::IdleInput { .. })), "{error}");
        assert_eq!(error.class(), Class::Invalid);
    }
    for compression in &DECODED[1..] {
        let error = refused(&*encode(*compression, b"").repeat(10_000), *compression);
        assert_eq!(error.class(), Class::Invalid, "{compression}: {error}");
    }
}

#[test]
fn a_nar_that_is_not_strictly_one_is_refused_by_name() {
    let file = |size| Event::File { executable: false, size, contents_offset: 0 };
    let directory = |names: &[&[u8]]| {
        let mut events = vec![Event::Directory];
        for name in names {
            events.extend([Event::Entry(name), file(0), Event::FileEnd]);
        }
        events.push(Event::DirectoryEnd);
        nar(&events)
    };
    let deep = |depth| nar(&[Event::Directory, Event::Entry(b"d")].repeat(depth));
    let error = refused(&*deep(1_000_000), Compression::None);
    assert!(matches!(error, IngestError::Nar(NarError::TooDeep { limit: 64, .. })), "{error}");
    let link_then_directory = nar(&[
        Event::Directory,
        Event::Entry(b"a"),
        Event::Symlink { target: b"/etc" },
        Event::Entry(b"a"),
        Event::Directory,
        Event::DirectoryEnd,
        Event::DirectoryEnd,
    ]);
    let with = |part: &[u8], instead: &[u8]| {
        let bytes = Tree::file("abc").nar();
        let at = bytes.windows(part.len()).position(|window| window == part).unwrap();
        [&bytes[..at], instead, &bytes[at + part.len()..]].concat()
    };
    let length = |length: u64| with(b"\x03\0\0\0\0\0\0\0abc", &length.to_le_bytes());
    let good = Tree::file("abc").nar();
    for (what, bytes, class) in [
        ("unsorted", directory(&[b"b", b"a"]), Class::Invalid),
        ("twice", directory(&[b"a", b"a"]), Class::Invalid),
        ("a symlink, then a directory of its name", link_then_directory, Class::Invalid),
        ("no name", directory(&[b""]), Class::Invalid),
        (".", directory(&[b"."]), Class::Invalid),
        ("..", directory(&[b".."]), Class::Invalid),
        ("a slash", directory(&[b"a/b"]), Class::Invalid),
        ("a NUL", directory(&[b"a\0b"]), Class::Invalid),
        ("a long name", directory(&[&[b'a'; 256]]), Class::Invalid),
        ("a NUL in a target", nar(&[Event::Symlink { target: b"a\0" }]), Class::Invalid),
        ("no target", nar(&[Event::Symlink { target: b"" }]), Class::Invalid),
        ("depth 65", deep(65), Class::Invalid),
        ("a length of 2^63", length(1 << 63), Class::TooLarge),
        ("a length of 2^64 - 1", length(u64::MAX), Class::TooLarge),
        ("padding", with(b"abc\0\0\0\0\0", b"abc\0\0\0\0\x01"), Class::Invalid),
        ("trailing bytes", [&good[..], b"\0"].concat(), Class::Invalid),
        ("twice a NAR", good.repeat(2), Class::Invalid),
        ("nothing", vec![], Class::Invalid),
        ("text", b"<html>".to_vec(), Class::Invalid),
    ] {
        for compression in DECODED {
            let error = refused(&*encode(compression, &bytes), compression);
            assert!(matches!(error, IngestError::Nar(_)), "{what} in {compression}: {error}");
            assert_eq!(error.class(), class, "{what} in {compression}: {error}");
        }
        let limits = NarLimits::default();
        let upload = seekable(&bytes, Settings::default());
        let (taken, _) = try_take(&*upload, Compression::Zstd, &limits, Keep::IfSeekable);
        assert!(matches!(taken, Err(IngestError::Nar(_))), "{what} in our own form: {taken:?}");
    }
}

#[test]
fn names_that_mean_something_to_a_mac_are_names_like_any_other() {
    let names = ["A", "a", "a~nix~case~hack~1", "a~nix~case~hack~2"];
    let entries: BTreeMap<_, _> =
        names.iter().map(|name| (name.as_bytes().to_vec(), Tree::symlink("/etc"))).collect();
    let bytes = Tree::Directory(entries).nar();
    let (nar, file) = stored(&*bytes, Compression::None, Keep::Encoded);
    assert_eq!(zstd::stream::decode_all(&*file).unwrap(), bytes);
    let listing = nar.listing.unwrap();
    for name in names {
        assert!(listing.lookup([name.as_bytes()]).is_some(), "{name}");
    }
}

#[test]
fn an_error_is_the_same_each_time_however_the_threads_run() {
    // Wrong as a NAR in the middle, and later as zstd.
    let mut bytes = LARGE.clone();
    let wrong = nar(&[Event::Directory]).len() + 32;
    let end = bytes.len();
    bytes.truncate(end - wrong);
    bytes.extend(text(2 << 20));
    let mut upload = encode(Compression::Zstd, &bytes);
    upload.extend(b"trailing");
    for _ in 0..20 {
        let error = refused(&*upload, Compression::Zstd);
        assert!(matches!(error, IngestError::Nar(NarError::Token { .. })), "{error}");
    }
}

#[test]
fn the_senders_failures_are_told_from_ours() {
    struct Gone;
    impl Read for Gone {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let upload = seekable(&LARGE, Settings::default());
    let full = File::options().read(true).write(true).open("/dev/full").unwrap();
    let no_output = File::open("/dev/null").unwrap();
    for keep in [Keep::Encoded, Keep::IfSeekable] {
        for size in [0, 100, upload.len() / 2, upload.len()] {
            let limits = NarLimits::default();
            let input = upload[..size].chain(Gone);
            let error = try_take(input, Compression::Zstd, &limits, keep).0.unwrap_err();
            assert_eq!(error.class(), Class::Aborted, "{error}");
        }
        let take = |output| {
            take(
                &*upload,
                Compression::Zstd,
                &NarLimits::default(),
                keep,
                &POOL,
                Output::new(output),
            )
        };
        let error = take(&full).unwrap_err();
        assert_eq!(error.class(), Class::NoSpace, "{error}");
        let error = take(&no_output).unwrap_err();
        assert_eq!(error.class(), Class::Failed, "{error}");
    }
    let directory = File::open("/").unwrap();
    let error = check(&directory, &NarLimits::default()).unwrap_err();
    assert_eq!(error.class(), Class::Failed, "{error}");
    let error = refused(&b""[..], Compression::Brotli);
    assert_eq!(error.class(), Class::Unsupported, "{error}");
}

#[test]
fn bytes_that_change_while_they_are_looked_at_are_not_taken() {
    // The table is read from the file, the frames were seen as they passed: both must agree.
    let upload = seekable(&LARGE, Settings::default());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&upload[..upload.len() - 1]).unwrap();
    let arriving = Arriving::hashed(&*upload);
    let error = keep_if_seekable(arriving, &NarLimits::default(), &file).unwrap_err();
    assert_eq!(error.class(), Class::Failed, "{error}");
    assert!(file.read_exact_at(&mut [0], upload.len() as u64 - 1).is_err());
}
