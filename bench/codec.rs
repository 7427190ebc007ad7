//! The figures behind `FRAME_SIZE` and `LEVEL` in `src/codec/seekable`.
//!
//! `cargo run --release --example measure_codec [FILE]` prints them for the file, or for the first
//! 256 MiB of the host's shared objects.

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use snowbank::codec::seekable::{Encoder, Pool, Reader, Settings};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How much is measured, in bytes.
const SIZE: usize = 256 << 20;
const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

fn main() -> Result<()> {
    let content = match std::env::args_os().nth(1) {
        Some(path) => sample(&[path.into()])?,
        None => sample(&shared_objects(Path::new("/usr/lib/x86_64-linux-gnu"))?)?,
    };
    println!("{} MB", content.len() / 1_000_000);
    for level in [1, 3, 5] {
        let (speed, whole) = rate(&content, || Ok(zstd::stream::encode_all(&*content, level)?))?;
        println!("level {level}, one frame: {}, {speed:.0} MB/s", ratio(&whole, &content));
        for frame_size in [1 << 20, 2 << 20, 4 << 20] {
            let settings = Settings::new(level, frame_size)?;
            let (one, file) =
                rate(&content, || encode(Encoder::new(Vec::new(), settings)?, &content))?;
            let pool = Pool::new(TWO)?;
            let (two, _) = rate(&content, || {
                encode(Encoder::with_pool(Vec::new(), settings, pool.clone()), &content)
            })?;
            let (decoding, _) = rate(&content, || decode(&file))?;
            println!(
                "  {} KiB: {}, {one:.0} MB/s, two threads {two:.0}, decoding {decoding:.0}",
                frame_size >> 10,
                ratio(&file, &content),
            );
        }
    }
    Ok(())
}

fn encode(mut encoder: Encoder<Vec<u8>>, content: &[u8]) -> Result<Vec<u8>> {
    encoder.write_all(content)?;
    Ok(encoder.finish()?.1)
}

fn decode(file: &Vec<u8>) -> Result<usize> {
    let reader = Reader::open(file, file.len() as u64)?;
    let size = reader.size();
    let mut decoded = 0;
    for chunk in reader.into_chunks(0..size)? {
        decoded += chunk?.len();
    }
    Ok(decoded)
}

fn ratio(compressed: &[u8], content: &[u8]) -> String {
    format!("ratio {:.4}", compressed.len() as f64 / content.len() as f64)
}

/// MB/s of content, the best of three, and what the work gave.
fn rate<T>(content: &[u8], mut work: impl FnMut() -> Result<T>) -> Result<(f64, T)> {
    let mut run = || -> Result<(f64, T)> {
        let start = Instant::now();
        let result = work()?;
        Ok((content.len() as f64 / 1e6 / start.elapsed().as_secs_f64(), result))
    };
    let mut best = run()?;
    for _ in 0..2 {
        let next = run()?;
        if next.0 > best.0 {
            best = next;
        }
    }
    Ok(best)
}

fn shared_objects(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() && path.to_string_lossy().contains(".so") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn sample(paths: &[PathBuf]) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    for path in paths {
        let room = SIZE - content.len();
        File::open(path)?.take(room as u64).read_to_end(&mut content)?;
    }
    Ok(content)
}
