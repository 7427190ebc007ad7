//! Writes the seeds of the fuzz targets into `fuzz/corpus`: `cargo run --example fuzz_corpus`.
//!
//! The same code writes the same seeds, so a seed changes only with the format that it is of.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

use snowbank::codec::Compression;
use snowbank::codec::seekable::{Encoder, Settings};
use snowbank::index::holdings::{Arrivals, Known};
use snowbank::nix::hash::Sha256;
use snowbank::nix::nar::{self, Event, Limits, ListingBuilder, Parser};
use snowbank::nix::narinfo::NarInfo;
use snowbank::nix::store_path::{StoreDir, StorePathHash};

use compress::encode;
use push_fixture::{THERE, WAITS};

#[path = "compress.rs"]
mod compress;
#[path = "push_fixture.rs"]
mod push_fixture;

type Seed = (String, Vec<u8>);
type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    for (target, seeds) in [
        ("seekable", seekable()?),
        ("decode", decode()?),
        ("holdings", holdings()),
        ("ingest", ingest()?),
        ("nar", nar()?),
        ("narinfo", narinfo()?),
        ("push", push()?),
        ("range_url", range_url()),
        ("zfs", zfs()),
    ] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        fs::create_dir_all(&directory)?;
        for (name, bytes) in seeds {
            fs::write(directory.join(name), bytes)?;
        }
    }
    Ok(())
}

/// Stored files of none, one and several frames.
fn seekable() -> Result<Vec<Seed>> {
    [0, 10, 1024, 5000]
        .into_iter()
        .map(|size| {
            let mut encoder = Encoder::new(Vec::new(), Settings::new(3, 1024)?)?;
            encoder.write_all(&text(size))?;
            Ok((format!("{size}"), encoder.finish()?.1))
        })
        .collect()
}

/// Each compression, once and twice in a row, behind the two bytes that the target wants first.
fn decode() -> Result<Vec<Seed>> {
    let mut seeds = Vec::new();
    for (number, compression) in (0u8..).zip(Compression::ALL) {
        for size in [0, 2000] {
            let stream = encode(compression, &text(size))?;
            let once = [&[number, 16], &stream[..]].concat();
            let twice = [&once, &stream[..]].concat();
            seeds.push((format!("{compression}-{size}"), once));
            seeds.push((format!("{compression}-{size}-twice"), twice));
        }
    }
    Ok(seeds)
}

/// Something that compresses, but not to nothing.
fn text(size: usize) -> Vec<u8> {
    (0u32..).flat_map(|number| format!("{:x} ", number * number).into_bytes()).take(size).collect()
}

/// A file, a symlink and a directory of each, as NARs and as listings, behind the byte that says how
/// they are cut.
fn nar() -> Result<Vec<Seed>> {
    let file = |executable, size| Event::File { executable, size, contents_offset: 0 };
    let link = Event::Symlink { target: b"../lib" };
    let trees: [(&str, &[Event<'_>]); 4] = [
        ("empty-file", &[file(false, 0), Event::FileEnd]),
        ("program", &[file(true, 5), Event::Contents(b"#!/x\n"), Event::FileEnd]),
        ("symlink", &[link]),
        (
            "directory",
            &[
                Event::Directory,
                Event::Entry(b"bin"),
                Event::Directory,
                Event::Entry(b"\xe9"),
                link,
                Event::DirectoryEnd,
                Event::Entry(b"share"),
                file(false, 8),
                Event::Contents(b"contents"),
                Event::FileEnd,
                Event::DirectoryEnd,
            ],
        ),
    ];
    let mut seeds = Vec::new();
    for (name, events) in trees {
        let bytes = nar_of(events);
        let mut parser = Parser::new(Limits::default());
        let mut listing = ListingBuilder::new(Limits::default());
        parser.push(&bytes, &mut |event| listing.event(&event))?;
        parser.finish()?;
        seeds.push((format!("{name}-listing"), [b"\0", &listing.finish()?.to_json()[..]].concat()));
        seeds.push((name.into(), [b"\x2a", &bytes[..]].concat()));
    }
    Ok(seeds)
}

fn nar_of(events: &[Event<'_>]) -> Vec<u8> {
    let mut encoder = nar::Encoder::default();
    let mut bytes = Vec::new();
    for event in events {
        encoder.event(event, &mut bytes);
    }
    bytes
}

/// A NAR as an upload in each compression and in our own form, and as the target compresses it itself,
/// behind the byte that says what and the byte that says how it is cut.
fn ingest() -> Result<Vec<Seed>> {
    let contents = [&text(3000)[..], b"/nix/store/", PATH.as_bytes()].concat();
    let size = contents.len() as u64;
    let nar = nar_of(&[
        Event::Directory,
        Event::Entry(b"a"),
        Event::File { executable: true, size, contents_offset: 0 },
        Event::Contents(&contents),
        Event::FileEnd,
        Event::Entry(b"b"),
        Event::Symlink { target: b"a" },
        Event::DirectoryEnd,
    ]);
    let mut seekable = Encoder::new(Vec::new(), Settings::new(3, 1024)?)?;
    seekable.write_all(&nar)?;
    let seekable = seekable.finish()?.1;
    let as_it_is = |kind, upload: &[u8]| [&[kind, 255], upload].concat();
    let mut seeds = vec![
        ("seekable".into(), as_it_is(AS_IT_IS | KEEP, &seekable)),
        ("nar-seekable".into(), as_it_is(KEEP, &nar)),
    ];
    for (number, compression) in (0u8..).zip(Compression::ALL) {
        seeds.push((format!("nar-{compression}"), as_it_is(number, &nar)));
        let upload = encode(compression, &nar)?;
        seeds.push((format!("{compression}"), as_it_is(AS_IT_IS | number, &upload)));
    }
    let zstd = encode(Compression::Zstd, &nar)?;
    seeds.push(("zstd-kept".into(), as_it_is(AS_IT_IS | KEEP, &zstd)));
    Ok(seeds)
}

/// What the first byte of an input of the target `ingest` may say beside the compression: that what
/// follows is the upload and not the NAR, and that it may be in our own form.
const AS_IT_IS: u8 = 0x80;
const KEEP: u8 = 0x40;

const PATH: &str = "0c3x5p8yivwdvpr6h7vs8cl2z8r0xwpl-hello-2.12.1";
const NAR_HASH: &str = "1b4yrsihzgm9wcl0vlaqj48ajxxnclcyynj9lbh3w2zh9cc6w4vp";

/// A narinfo with every field, one with none that may be missing, and a signature.
fn narinfo() -> Result<Vec<Seed>> {
    let signature = format!("cache.example.org-1:{}==", "A".repeat(86));
    let least = format!(
        "StorePath: /nix/store/{PATH}\nURL: nar/{NAR_HASH}.nar\nNarHash: sha256:{NAR_HASH}\nNarSize: 120\n"
    );
    let all = format!(
        "{least}Compression: zstd\nFileHash: sha256:{NAR_HASH}\nFileSize: 100\nReferences: {PATH} \
         {PATH}-lib\nDeriver: {PATH}.drv\nSig: {signature}\nSig: {signature}\nCA: fixed:r:sha256:{NAR_HASH}\n"
    );
    for text in [&least, &all] {
        NarInfo::parse(text.as_bytes(), &StoreDir::default())?;
    }
    let seeds = [("least", least), ("all", all), ("signature", signature)];
    Ok(seeds.map(|(name, text)| (name.into(), text.into_bytes())).into())
}

/// A good request of each kind, behind the byte that says which.
fn push() -> Result<Vec<Seed>> {
    let hash = Sha256::of(&push_fixture::nar(WAITS));
    let size = push_fixture::nar(WAITS).len();
    let info = format!(
        r#"{{"path":"{WAITS}","nar_hash":"{hash}","nar_size":{size},"references":["{THERE}"],"ca":null}}"#
    );
    let seeds = [
        ("narinfo", 0, push_fixture::narinfo(WAITS, THERE)),
        ("narinfo-there", 1, push_fixture::narinfo(THERE, "")),
        ("commit", 2, format!(r#"{{"paths":[{info}],"upstream":[{info}]}}"#)),
        (
            "missing",
            3,
            format!(r#"{{"paths":["{}","{}"],"verify":true}}"#, &THERE[..32], &WAITS[..32]),
        ),
        ("upload", 4, format!(r#"{{"nar_hash":"{hash}","nar_size":{size},"form":"zstd-3"}}"#)),
        (
            "realisation",
            5,
            format!(r#"{{"outPath":"{THERE}","signatures":[],"dependentRealisations":{{}}}}"#),
        ),
        ("build-trace", 6, format!(r#"{{"outPath":"{THERE}","signatures":[]}}"#)),
        ("listing", 7, r#"{"version":1,"root":{"type":"regular","size":5}}"#.into()),
    ];
    for (name, _, text) in seeds.iter().filter(|(name, ..)| !name.starts_with("narinfo")) {
        serde_json::from_str::<serde_json::Value>(text)
            .map_err(|error| format!("{name}: {error}"))?;
    }
    let seed =
        |(name, kind, text): (&str, u8, String)| (name.into(), [&[kind], text.as_bytes()].concat());
    Ok(seeds.map(seed).into())
}

/// The whole of some and of no paths, what came since, and a question.
fn holdings() -> Vec<Seed> {
    let arrivals = Arrivals::default();
    let hash = |number: u8| StorePathHash::from_bytes([number; 20]);
    let none = arrivals.whole(|_| ());
    let whole = arrivals.whole(|each| (0..=255).step_by(3).for_each(|number| each(hash(number))));
    arrivals.came(hash(7));
    let since = arrivals.since(none.known).map(|news| news.to_bytes()).unwrap_or_default();
    // The epoch is another one each time.
    let seed = |name: &str, mut bytes: Vec<u8>| {
        bytes[8..16].fill(1);
        (name.to_owned(), bytes)
    };
    let question = Known { epoch: 1, next: 2 }.query().into_bytes();
    vec![
        seed("none", none.to_bytes()),
        seed("whole", whole.to_bytes()),
        seed("since", since),
        ("question".to_owned(), question),
    ]
}

/// Each form that a range, a tag, a name under `nar/` and a key has, behind a size.
fn range_url() -> Vec<Seed> {
    let hash = &PATH[..32];
    let texts = [
        ("range", "bytes=10-20".into()),
        ("range-open", "bytes=10-".into()),
        ("range-suffix", "bytes=-10".into()),
        ("range-several", "bytes=0-1, 5-6".into()),
        ("tags", "W/\"a\", \"tag\"".into()),
        ("nar", format!("{NAR_HASH}.nar.zst")),
        ("nar-harmonia", format!("{NAR_HASH}.nar?hash={hash}")),
        ("nar-nix-serve", format!("{hash}-{NAR_HASH}.nar")),
        ("nar-attic", format!("{hash}.nar")),
        ("store-path", PATH.into()),
        ("store-path-hash", hash.into()),
        ("store-directory", "/nix/store".into()),
        ("realisation", format!("sha256:{}!out", "0f".repeat(32))),
        ("build-trace", format!("{PATH}.drv/out")),
        ("hash", format!("sha256:{NAR_HASH}")),
        ("hash-sri", format!("sha256-{}=", "A".repeat(43))),
    ];
    let size = 1000u64.to_le_bytes();
    let seed = |(name, text): (&str, String)| (name.into(), [&size, text.as_bytes()].concat());
    texts.map(seed).into()
}

/// What OpenZFS printed, behind the byte that says what it is.
fn zfs() -> Vec<Seed> {
    let dataset = "tank/a\tfilesystem\t13206706146866910822\t98304\t1258192896\t98304\t43008\t1572864000\t0\t\
                   1.87\t0\tyes\toff\ttank/b@c\t1-f4e2-110-78\t/store\n";
    let snapshot =
        "tank/a@s1\t7650925001590171103\t27\t1795249033\t0\t34725888\t34725888\t1\tdaily\n";
    let pool = "tank\t2952790016\t589824\t2952200192\t-\t0\t1.00\tONLINE\t17110714527718625116\toff\t1\t2\n";
    let mounts = "30 22 0:25 / /a\\040b rw,noatime shared:9 - zfs tank/store rw,xattr\n";
    let seeds: [(&str, u8, &str); 9] = [
        ("name", 0, "tank/snowbank/main@daily-2026-11-25"),
        ("place", 0, "root@host:tank/a"),
        ("dataset", 1, dataset),
        ("snapshot", 1, snapshot),
        ("pool", 1, pool),
        ("json", 2, include_str!("../src/zfs/samples/2.3.9/status_after_corrupt_j.out")),
        ("text", 3, include_str!("../src/zfs/samples/2.1.11/data_err_scrub.out")),
        ("mounts", 4, mounts),
        ("arc", 5, include_str!("../src/zfs/samples/2.1.11/arcstats.out")),
    ];
    seeds.map(|(name, kind, text)| (name.into(), [&[kind], text.as_bytes()].concat())).into()
}
