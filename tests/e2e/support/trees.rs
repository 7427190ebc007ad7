//! Source trees for store paths, always the same ones.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::Path,
};

/// xorshift64*: the same numbers on every machine, and no crate for it.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn from(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % bound
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub(crate) fn write_executable(path: &Path, bytes: &[u8]) {
    write(path, bytes);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// One file of `mebibytes`, half of which compresses.
pub(crate) fn big(root: &Path, mebibytes: u64) {
    fs::create_dir_all(root).unwrap();
    let mut file = BufWriter::new(File::create(root.join("big")).unwrap());
    let mut numbers = Numbers::from(300);
    let text: Vec<u8> =
        b"a line that compresses well\n".iter().copied().cycle().take(1 << 20).collect();
    for index in 0..mebibytes {
        if index % 2 == 0 {
            file.write_all(&numbers.bytes(1 << 20)).unwrap();
        } else {
            file.write_all(&text).unwrap();
        }
    }
    file.flush().unwrap();
}

/// `directories` × 100 small files.
pub(crate) fn small_files(root: &Path, directories: usize) {
    let mut numbers = Numbers::from(20_000);
    for directory in 0..directories {
        let directory = root.join(format!("share/part-{directory:03}"));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..100 {
            // Every size around the padding of eight, and some larger ones.
            let size = if file % 2 == 0 { file / 2 } else { numbers.below(3000) };
            fs::write(directory.join(format!("file-{file:02}")), numbers.bytes(size)).unwrap();
        }
    }
}

/// All that a NAR can hold: links of every kind, executables, empty files and directories, depth.
pub(crate) fn shapes(root: &Path) {
    for directory in ["empty", "nested/empty", "bin", "lib"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    write(&root.join("lib/empty-file"), b"");
    for size in 1..=17 {
        write(&root.join(format!("lib/of-{size:02}-bytes")), &vec![b'x'; size]);
    }
    write_executable(&root.join("bin/run"), b"#!/bin/sh\nexit 0\n");
    write_executable(&root.join("bin/empty"), b"");
    symlink("bin/run", root.join("relative-link")).unwrap();
    symlink("/nonexistent/target", root.join("dangling-link")).unwrap();
    symlink("bin", root.join("directory-link")).unwrap();
    symlink("..", root.join("nested/up-link")).unwrap();
    symlink("self-link", root.join("self-link")).unwrap();
    symlink("x".repeat(4000), root.join("long-link")).unwrap();
    symlink("/etc/passwd", root.join("escape-link")).unwrap();
    let deep: String = (0..40).map(|level| format!("level-{level}/")).collect();
    write(&root.join(deep).join("bottom"), b"forty levels down\n");
}

/// Names that are text, and none of them tame.
pub(crate) fn names(root: &Path) {
    let mut names: Vec<String> = (0x20_u8..0x7f)
        .filter(|&byte| byte != b'/')
        .map(|byte| format!("a{}z", char::from(byte)))
        .collect();
    names.extend(
        [
            "-leading-dash",
            "..dots",
            "...",
            "~",
            " ",
            "trailing.",
            "con",
            "%2e%2e",
            "%00",
            "a\nb",
            "a\tb",
            "\u{1}",
        ]
        .map(String::from),
    );
    names.extend(
        ["grüße", "日本語", "🙂", "e\u{301}", "\u{202e}txt.exe", "A", "AA", "aa", "Aa"]
            .map(String::from),
    );
    names.extend(
        ["<script>alert(1)<", "{{7*7}}", "\"quoted\" & 'so'", "?query=1#part"].map(String::from),
    );
    names.push("n".repeat(255));
    for name in names {
        write(&root.join(&name), name.as_bytes());
    }
}

/// Every byte that a file name can hold, so names that are no text at all.
pub(crate) fn bytes(root: &Path) {
    for byte in (1..=255_u8).filter(|&byte| byte != b'/') {
        write(&root.join(OsStr::from_bytes(&[b'b', byte, b'e'])), &[byte]);
        if byte != b'.' {
            write(&root.join("alone").join(OsStr::from_bytes(&[byte])), &[byte]);
        }
    }
}

/// What a browser might be made to run, and a debug file under its build id.
pub(crate) fn website(root: &Path) {
    write(&root.join("index.html"), b"<!doctype html><script>document.title='ran'</script>\n");
    write(
        &root.join("page.svg"),
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>\n",
    );
    write(&root.join("plain.txt"), b"plain\n");
    write(&root.join("dir/<img src=x onerror=alert(1)>"), b"x");
    write(
        &root.join(format!("lib/debug/.build-id/{}/{}.debug", &BUILD_ID[..2], &BUILD_ID[2..])),
        b"not really ELF\n",
    );
}

/// The build id that [`website`] has a debug file for.
pub(crate) const BUILD_ID: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

/// A tree made by chance, small, of any shape: for comparing many of them with what Nix makes of them.
pub(crate) fn any(root: &Path, seed: u64) {
    let mut numbers = Numbers::from(seed);
    any_node(root, &mut numbers, 0);
}

fn any_node(path: &Path, numbers: &mut Numbers, depth: usize) {
    match numbers.below(10) {
        0 => {
            let target = any_name(numbers);
            symlink(OsStr::from_bytes(&target), path).unwrap();
        }
        1..=3 => {
            let size = [0, 1, 7, 8, 9, 100, 4096, 70_000][numbers.below(8)];
            let bytes = numbers.bytes(size);
            if numbers.below(3) == 0 {
                write_executable(path, &bytes);
            } else {
                write(path, &bytes);
            }
        }
        _ => {
            fs::create_dir(path).unwrap();
            let entries = if depth > 4 { 0 } else { numbers.below(6) };
            for _ in 0..entries {
                let child = path.join(OsStr::from_bytes(&any_name(numbers)));
                if fs::symlink_metadata(&child).is_err() {
                    any_node(&child, numbers, depth + 1);
                }
            }
        }
    }
}

fn any_name(numbers: &mut Numbers) -> Vec<u8> {
    let length = 1 + numbers.below(12);
    let mut name: Vec<u8> = numbers.bytes(length);
    for byte in &mut name {
        // Mostly text, sometimes anything; case and prefixes are what sorting goes wrong over.
        if numbers.below(8) > 0 {
            *byte = b"aAbB-._09"[numbers.below(9)];
        }
        if matches!(*byte, 0 | b'/') {
            *byte = b'_';
        }
    }
    if name == b"." || name == b".." {
        name.push(b'x');
    }
    name
}
