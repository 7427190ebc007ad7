//! The figures behind [`super::FRAME_SIZE`] and [`super::LEVEL`].
//!
//! `cargo test --lib codec::seekable::measure -- --ignored --nocapture` prints them for the first
//! 256 MiB of the host's shared objects, or for the file that `SNOWBANK_MEASURE` names.

use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use super::*;

const SIZE: u64 = 256 << 20;

fn sample() -> Vec<u8> {
    let mut content = Vec::new();
    let mut add = |path: &std::path::Path| {
        let room = SIZE - content.len() as u64;
        let _ = std::fs::File::open(path).unwrap().take(room).read_to_end(&mut content);
    };
    if let Some(path) = std::env::var_os("SNOWBANK_MEASURE") {
        add(path.as_ref());
        return content;
    }
    let mut paths: Vec<_> = std::fs::read_dir("/usr/lib/x86_64-linux-gnu")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && path.to_string_lossy().contains(".so"))
        .collect();
    paths.sort();
    paths.iter().for_each(|path| add(path));
    content
}

/// MB/s and what the work gave, the best of three.
fn rate<T>(size: usize, mut work: impl FnMut() -> T) -> (f64, T) {
    let mut best: Option<(f64, T)> = None;
    for _ in 0..3 {
        let start = Instant::now();
        let result = work();
        let rate = size as f64 / 1e6 / start.elapsed().as_secs_f64();
        if best.as_ref().is_none_or(|(before, _)| rate > *before) {
            best = Some((rate, result));
        }
    }
    best.unwrap()
}

#[test]
#[ignore = "prints figures; takes a minute and both processors"]
fn ratio_and_speed_of_levels_and_frame_sizes() {
    let content = sample();
    println!("{} MB", content.len() / 1_000_000);
    for level in [1, 3, 5, 8] {
        let (speed, whole) =
            rate(content.len(), || zstd::stream::encode_all(&*content, level).unwrap().len());
        let ratio = |size| size as f64 / content.len() as f64;
        println!("level {level}, one frame: ratio {:.4}, {speed:.0} MB/s", ratio(whole));
        for frame_size in [256 << 10, 1 << 20, 2 << 20, 4 << 20] {
            let settings = Settings::new(level, frame_size).unwrap();
            let run = |mut encoder: Encoder<Vec<u8>>| {
                encoder.write_all(&content).unwrap();
                encoder.finish().unwrap().1
            };
            let (one, file) =
                rate(content.len(), || run(Encoder::new(Vec::new(), settings).unwrap()));
            let pool = Pool::new(NonZeroUsize::new(2).unwrap()).unwrap();
            let (two, _) =
                rate(content.len(), || run(Encoder::with_pool(Vec::new(), settings, pool.clone())));
            let (decode, _) = rate(content.len(), || {
                let reader = Reader::open(&file, file.len() as u64).unwrap();
                let size = reader.size();
                reader
                    .into_chunks(0..size)
                    .unwrap()
                    .map(|chunk| chunk.unwrap().len())
                    .sum::<usize>()
            });
            println!(
                "  {:4} KiB: ratio {:.4} ({:+.2} %), {one:.0} MB/s, two threads {two:.0}, decode {decode:.0}",
                frame_size >> 10,
                ratio(file.len()),
                (file.len() as f64 / whole as f64 - 1.0) * 100.0,
            );
        }
    }
}
