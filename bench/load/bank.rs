//! A cache of many small paths, as it lies on disk: each with a NAR of one file, a listing, and what it refers to.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use snowbank::{
    codec::seekable::{Encoder, Settings},
    nix::{
        hash::Sha256,
        nar::{Encoder as NarEncoder, Event},
        nar_url::NarFileName,
        narinfo::NarInfo,
        path_info::PathInfo,
        store_path::{StoreDir, StorePath},
    },
};

/// Paths that refer to each other, each to up to three of those before it.
const CLOSURE: usize = 10;
/// How long ago half of the closures came.
const OLD: Duration = Duration::from_secs(60 * 24 * 3600);

/// Makes `count` paths in `bank`, of which the first has the number `first`. Every second closure came long ago; of the
/// others the hashes are listed in `list`.
pub(crate) fn make(bank: &Path, list: &Path, count: usize, first: usize) {
    fs::create_dir_all(bank.join("nar")).unwrap();
    fs::write(bank.join("nix-cache-info"), "StoreDir: /nix/store\nWantMassQuery: 1\n").unwrap();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let end = first + count;
    let closures = first / CLOSURE..end.div_ceil(CLOSURE);
    let hashes: Vec<String> = thread::scope(|scope| {
        let share = |number: usize| {
            let mine = closures.clone().skip(number).step_by(threads);
            scope.spawn(move || {
                mine.flat_map(|closure| make_closure(bank, closure, end)).collect::<Vec<_>>()
            })
        };
        let shares: Vec<_> = (0..threads).map(share).collect();
        shares.into_iter().flat_map(|share| share.join().unwrap()).collect()
    });
    let mut file = BufWriter::new(File::create(list).unwrap());
    for hash in hashes {
        writeln!(file, "{hash}").unwrap();
    }
    file.flush().unwrap();
}

fn make_closure(bank: &Path, closure: usize, end: usize) -> Vec<String> {
    let first = closure * CLOSURE;
    let paths: Vec<StorePath> = (first..end.min(first + CLOSURE)).map(path).collect();
    let came = closure.is_multiple_of(2).then(|| SystemTime::now() - OLD);
    for (index, path) in paths.iter().enumerate() {
        let references = &paths[index.saturating_sub(3)..index];
        write_path(bank, path, references, came);
    }
    // What is asked for is in use, and would stay.
    if came.is_some() {
        return Vec::new();
    }
    paths.iter().map(|path| path.hash().to_string()).collect()
}

fn path(number: usize) -> StorePath {
    let digits = Sha256::of(&number.to_le_bytes()).to_nix32();
    StorePath::parse(&format!("{}-path-{number}", &digits[..32])).unwrap()
}

fn write_path(bank: &Path, path: &StorePath, references: &[StorePath], came: Option<SystemTime>) {
    // Not of its own path, which would be a reference to itself.
    let mut text = format!("the contents of {}\n", path.name());
    for reference in references {
        text.push_str(&format!("/nix/store/{reference}\n"));
    }
    let nar = nar(text.as_bytes());
    let mut encoder = Encoder::new(Vec::new(), Settings::default()).unwrap();
    encoder.write_all(&nar).unwrap();
    let file = encoder.finish().unwrap().1;
    let mut info = PathInfo::new(path.clone(), Sha256::of(&nar), nar.len() as u64);
    info.references = references.to_vec();
    info.references.sort_unstable();
    let name = NarFileName::zstd(info.nar_hash);
    let narinfo = NarInfo {
        info,
        url: name.url(),
        compression: "zstd".into(),
        file_hash: Some(Sha256::of(&file)),
        file_size: Some(file.len() as u64),
    };
    fs::write(bank.join(name.url()), file).unwrap();
    let listing = format!(
        "{{\"version\":1,\"root\":{{\"type\":\"regular\",\"size\":{},\"narOffset\":96}}}}",
        text.len()
    );
    fs::write(bank.join(format!("{}.ls", path.hash())), listing).unwrap();
    let mut file = File::create(bank.join(format!("{}.narinfo", path.hash()))).unwrap();
    file.write_all(narinfo.to_text(&StoreDir::default()).as_bytes()).unwrap();
    if let Some(came) = came {
        file.set_modified(came).unwrap();
    }
}

fn nar(contents: &[u8]) -> Vec<u8> {
    let (mut encoder, mut out) = (NarEncoder::default(), Vec::new());
    let size = contents.len() as u64;
    encoder.event(&Event::File { executable: false, size, contents_offset: 0 }, &mut out);
    encoder.event(&Event::Contents(contents), &mut out);
    encoder.event(&Event::FileEnd, &mut out);
    out
}
