//! What is served: always the same bytes, on every machine.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

/// Files in each path of the closure with many small files, on average 5 KiB.
const FILES: u64 = 40;

/// How much of it there is.
pub(crate) struct Amount {
    /// Paths of the closure with many small files.
    small_paths: u64,
    /// MiB of each large path.
    large: u64,
    /// MiB of the path that ranges are asked of.
    range: u64,
}

/// What is measured: 100 MB of small files, and 1 GiB for ranges.
pub(crate) const ALL: Amount = Amount { small_paths: 500, large: 128, range: 1024 };
/// What shows that the comparison works; ranges are asked of all over some 40 MB.
pub(crate) const LITTLE: Amount = Amount { small_paths: 8, large: 2, range: 48 };

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Words from a small vocabulary with noise between them: zstd makes a third of it, as it does of programs.
    fn fill(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 16);
        while bytes.len() < size {
            let word = self.next();
            if word.is_multiple_of(4) {
                bytes.extend(word.to_le_bytes());
            } else {
                let key = (word >> 16) % 512;
                bytes.extend(key.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
                bytes.extend(b"\0\0\0\0");
            }
        }
        bytes.truncate(size);
        bytes
    }
}

/// `small/<n>`: the closure's trees; `large/<n>`: four paths of one file each, and `large/range`.
pub(crate) fn make(root: &Path, amount: &Amount) {
    let Amount { small_paths, large, range } = *amount;
    for path in 0..small_paths {
        let mut numbers = Numbers(path + 1);
        for file in 0..FILES {
            let directory = root.join(format!("small/path-{path:03}/share/{}", file % 5));
            fs::create_dir_all(&directory).unwrap();
            let size = 64 + numbers.next() % 10_000;
            fs::write(
                directory.join(format!("file-{file}")),
                numbers.fill(usize::try_from(size).unwrap()),
            )
            .unwrap();
        }
    }
    for (name, mebibytes) in
        [("a", large), ("b", large), ("c", large), ("d", large), ("range", range)]
    {
        let directory = root.join("large").join(name);
        fs::create_dir_all(&directory).unwrap();
        let mut file = BufWriter::new(File::create(directory.join("image")).unwrap());
        let mut numbers = Numbers(mebibytes + u64::from(name.as_bytes()[0]));
        for _ in 0..mebibytes {
            file.write_all(&numbers.fill(1 << 20)).unwrap();
        }
        file.flush().unwrap();
    }
}

/// `<n>`: the trees of a closure as pushes have it: a few large paths, some of middling size and many small
/// ones, 1 GB in all; with `little` a hundredth of it.
pub(crate) fn make_push(root: &Path, little: bool) {
    let paths = if little { 20 } else { 499 };
    for path in 0..paths {
        let mut numbers = Numbers(path + 1);
        let kibibytes: u64 = match path {
            _ if path % 100 == 0 => 80 << 10,
            _ if path % 10 == 0 => 6 << 10,
            _ => 100 + numbers.next() % 1200,
        };
        let kibibytes = if little { kibibytes / 20 } else { kibibytes };
        let directory = root.join(format!("path-{path:03}/lib"));
        fs::create_dir_all(&directory).unwrap();
        let mut left = kibibytes << 10;
        let mut file = 0;
        while left > 0 {
            let size = left.min(1 + numbers.next() % (4 << 20));
            let bytes = numbers.fill(usize::try_from(size).unwrap());
            fs::write(directory.join(format!("file-{file}")), bytes).unwrap();
            left -= size;
            file += 1;
        }
    }
}

/// A wrk script that asks for narinfos in turn: those of `hashes`, or ones that are nowhere.
pub(crate) fn wrk_script(hashes: &[String], kind: &str) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let mut numbers = Numbers(7);
    let misses: Vec<String> = (0..20_000)
        .map(|_| {
            (0..32)
                .map(|_| char::from(ALPHABET[usize::try_from(numbers.next() >> 59).unwrap()]))
                .collect()
        })
        .collect();
    let wanted = if kind == "misses" { &misses } else { hashes };
    let mut script = String::from("local asked = {}\n");
    for hash in wanted {
        script.push_str(&format!(
            "asked[#asked + 1] = 'GET /{hash}.narinfo HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'\n"
        ));
    }
    script.push_str("local turn = 0\nfunction request()\n  turn = turn % #asked + 1\n  return asked[turn]\nend\n");
    script
}
