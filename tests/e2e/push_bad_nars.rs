//! NARs that are none, and streams that break, grow or never end.

use std::{
    fs,
    io::{self, Write},
    thread,
};

use crate::support::{
    push::{
        COMPRESSIONS, Made, Sent, Snapshot, assert_refused, compress, nar_of_file, scripted,
        string, strings,
    },
    server::Server,
    trees::Numbers,
};

/// What a process may grow by while it refuses something, in KiB.
const GROWTH: u64 = 160 << 10;

/// Each of these is refused, says why in one line, and changes nothing at all.
#[track_caller]
fn refuses(server: &Server, statuses: &[u16], what: &str, sent: &Sent) {
    let before = Snapshot::of(server.data());
    let answer = server.connect().put(&sent.url, &sent.bytes);
    assert_refused(&answer, statuses, what);
    before.assert_same(server.data(), what);
}

/// A directory of these entries, as they are given.
fn directory(entries: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    let mut nar = strings(&["nix-archive-1"]);
    nar.extend(directory_node(entries));
    nar
}

fn directory_node(entries: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    let mut node = strings(&["(", "type", "directory"]);
    for (name, child) in entries {
        node.extend(strings(&["entry", "(", "name"]));
        node.extend(string(name));
        node.extend(strings(&["node"]));
        node.extend(child);
        node.extend(strings(&[")"]));
    }
    node.extend(strings(&[")"]));
    node
}

fn file() -> Vec<u8> {
    nar_of_file(b"x").split_off(strings(&["nix-archive-1"]).len())
}

fn symlink(target: &[u8]) -> Vec<u8> {
    let mut node = strings(&["(", "type", "symlink", "target"]);
    node.extend(string(target));
    node.extend(strings(&[")"]));
    node
}

/// Directories within one another.
fn nested(depth: usize) -> Vec<u8> {
    let mut nar = strings(&["nix-archive-1"]);
    for _ in 0..depth {
        nar.extend(strings(&["(", "type", "directory", "entry", "(", "name", "a", "node"]));
    }
    nar.extend(file());
    for _ in 0..depth {
        nar.extend(strings(&[")", ")"]));
    }
    nar
}

/// The NAR of a file whose content claims to be so long.
fn of_length(length: u64) -> Vec<u8> {
    let mut nar = strings(&["nix-archive-1", "(", "type", "regular", "contents"]);
    nar.extend(length.to_le_bytes());
    nar.extend(b"not so long");
    nar
}

fn changed(mut nar: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    nar[at] = byte;
    nar
}

#[test]
fn push_of_a_nar_that_is_none_is_refused_and_leaves_nothing() {
    let server = scripted("");
    let there = Made::file("there", b"here before\n");
    there.push(&server);
    let good = nar_of_file(b"x");
    let magic = strings(&["nix-archive-1"]);
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("not a NAR", b"<!doctype html>".to_vec()),
        ("only a magic", magic),
        ("cut", good[..good.len() - 1].to_vec()),
        ("trailing", [good.clone(), vec![0]].concat()),
        ("twice", [good.clone(), good.clone()].concat()),
        ("padding", changed(good.clone(), good.len() - 17, 1)),
        ("dot", directory(&[(b".", file())])),
        ("dot dot", directory(&[(b"..", file())])),
        ("slash", directory(&[(b"a/b", file())])),
        ("nul", directory(&[(b"a\0b", file())])),
        ("no name", directory(&[(b"", file())])),
        ("long name", directory(&[(&[b'a'; 256], file())])),
        ("unsorted", directory(&[(b"b", file()), (b"a", file())])),
        ("duplicate", directory(&[(b"a", file()), (b"a", file())])),
        (
            "link, then directory",
            directory(&[(b"a", symlink(b"/etc")), (b"a", directory_node(&[]))]),
        ),
        ("no target", directory(&[(b"a", symlink(b""))])),
        ("nul in target", directory(&[(b"a", symlink(b"a\0b"))])),
        ("long target", directory(&[(b"a", symlink(&[b'a'; 5000]))])),
        ("65 deep", nested(65)),
        ("20,000 deep", nested(20_000)),
        ("2^63", of_length(1 << 63)),
        ("2^64 - 1", of_length(u64::MAX)),
        (
            "executable twice",
            strings(&["nix-archive-1", "(", "type", "regular", "executable", "", "executable", ""]),
        ),
        ("unknown type", strings(&["nix-archive-1", "(", "type", "device", ")"])),
    ];
    let resident = server.resident();
    for (what, nar) in bad {
        for compression in ["none", "zstd"] {
            let sent = Sent::of(compress(compression, &nar), compression);
            let before = Snapshot::of(server.data());
            let answer = server.connect().put(&sent.url, &sent.bytes);
            assert_refused(&answer, &[413, 422], "");
            before.assert_same(server.data(), what);
        }
    }
    let grown = server.resident().saturating_sub(resident);
    assert!(grown < 64 << 10, "{grown} KiB");
    // A link may point anywhere: it is kept as data, and never followed.
    let link = Made::of_nar("link", directory(&[(b"passwd", symlink(b"../../../../etc/passwd"))]));
    link.push(&server);
    link.assert_served(&server);
    there.assert_served(&server);
}

#[test]
fn push_of_a_stream_that_is_cut_or_corrupt_or_goes_on_is_refused_in_every_compression() {
    let server = scripted("");
    let nar = nar_of_file(&Numbers::from(1).bytes(200_000));
    for compression in COMPRESSIONS {
        let good = compress(compression, &nar);
        let half = good.len() / 2;
        for (what, bytes) in [
            ("cut at the first byte", good[..1].to_vec()),
            ("cut in the middle", good[..half].to_vec()),
            ("cut before the last byte", good[..good.len() - 1].to_vec()),
            ("followed by junk", [good.clone(), b"junk".to_vec()].concat()),
            ("nothing", Vec::new()),
        ] {
            let before = Snapshot::of(server.data());
            let sent = Sent::of(bytes, compression);
            let answer = server.connect().put(&sent.url, &sent.bytes);
            assert_refused(&answer, &[422], "");
            before.assert_same(server.data(), &format!("{compression} {what}"));
        }
        // One bit, and the name is that of what should have come: some part of it must notice.
        let sent = Sent::of(good.clone(), compression);
        let flipped = changed(good.clone(), half, good[half] ^ 1);
        let before = Snapshot::of(server.data());
        let answer = server.connect().put(&sent.url, &flipped);
        assert_refused(&answer, &[413, 422], "");
        before.assert_same(server.data(), &format!("{compression} with one bit flipped"));
    }
    // Another compression than its name says.
    let sent = Sent::of(compress("xz", &nar), "zstd");
    refuses(&server, &[422], "zstd", &sent);
}

#[test]
fn push_under_a_compression_that_is_not_read_is_refused() {
    let server = scripted("");
    let name = "1yd4chmx87891gv3rsjpd5780skwaia0g7vimrqic87wxz4hadpa";
    let before = Snapshot::of(server.data());
    for ending in ["br", "lzip"] {
        let answer = server.connect().put(&format!("/nar/{name}.nar.{ending}"), b"x");
        assert_refused(&answer, &[415], ending);
    }
    before.assert_same(server.data(), "a compression that is not read");
}

/// A gibibyte of zeros in a NAR, compressed.
fn bomb(compression: &str) -> Vec<u8> {
    const SIZE: u64 = 1 << 30;
    let mut head = strings(&["nix-archive-1", "(", "type", "regular", "contents"]);
    head.extend(SIZE.to_le_bytes());
    let zeros = vec![0; 1 << 20];
    let fill = |writer: &mut dyn Write| -> io::Result<()> {
        writer.write_all(&head)?;
        for _ in 0..SIZE >> 20 {
            writer.write_all(&zeros)?;
        }
        writer.write_all(&strings(&[")"]))
    };
    match compression {
        "zstd" => {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            fill(&mut encoder).unwrap();
            encoder.finish().unwrap()
        }
        "xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
            fill(&mut encoder).unwrap();
            encoder.finish().unwrap()
        }
        "gzip" => {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            fill(&mut encoder).unwrap();
            encoder.finish().unwrap()
        }
        "bzip2" => {
            let level = bzip2::Compression::best();
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), level);
            fill(&mut encoder).unwrap();
            encoder.finish().unwrap()
        }
        other => panic!("no bomb of {other}"),
    }
}

/// The most that was resident at any time, in KiB.
fn peak(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// What gzip makes of zeros is within the ratio, and is refused by size.
fn refuses_a_bomb(compression: &str) {
    let server = scripted("[limits]\nmax_nar_size = \"256 MiB\"");
    let there = Made::file("there", b"here before\n");
    there.push(&server);
    let sent = Sent::of(bomb(compression), compression);
    let resident = server.resident();
    // Two at once, so that what one may take is not all there is to take.
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let answer = server.connect().put(&sent.url, &sent.bytes);
                assert_refused(&answer, &[413], "refused");
            });
        }
    });
    let grown = peak(&server).saturating_sub(resident);
    assert!(grown < GROWTH, "{compression}: grown by {grown} KiB");
    there.assert_served(&server);
}

#[test]
fn push_of_a_bomb_of_zstd_is_refused_with_little_memory() {
    refuses_a_bomb("zstd");
}

#[test]
fn push_of_a_bomb_of_xz_is_refused_with_little_memory() {
    refuses_a_bomb("xz");
}

#[test]
fn push_of_a_bomb_of_gzip_is_refused_with_little_memory() {
    refuses_a_bomb("gzip");
}

#[test]
fn push_of_a_bomb_of_bzip2_is_refused_with_little_memory() {
    refuses_a_bomb("bzip2");
}

#[test]
fn push_of_frames_of_nothing_for_ever_is_refused() {
    let server = scripted("");
    let good = compress("zstd", &nar_of_file(b"x"));
    let skippable = |size: u32| {
        let mut frame = vec![0x50, 0x2a, 0x4d, 0x18];
        frame.extend(size.to_le_bytes());
        frame.resize(8 + size as usize, 0);
        frame
    };
    let empty = zstd::encode_all(&b""[..], 1).unwrap();
    let bz_empty = compress("bzip2", b"");
    let gz_empty = compress("gzip", b"");
    let resident = server.resident();
    for (what, compression, bytes) in [
        ("skippable frames", "zstd", skippable(0).repeat(1 << 20)),
        ("skippable frames before", "zstd", [skippable(1000).repeat(20_000), good].concat()),
        ("empty frames", "zstd", empty.repeat(1 << 20)),
        ("empty streams", "bzip2", bz_empty.repeat(100_000)),
        ("empty members", "gzip", gz_empty.repeat(100_000)),
    ] {
        let before = Snapshot::of(server.data());
        let sent = Sent::of(bytes, compression);
        let answer = server.connect().put(&sent.url, &sent.bytes);
        assert_refused(&answer, &[413, 422], "refused");
        before.assert_same(server.data(), what);
    }
    // A window of 2 GiB, and an xz dictionary of 1.5 GiB: nobody allocates what is only claimed.
    let window = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8][..], &[0x01, 0x00, 0x00]].concat();
    refuses(&server, &[413, 422], "refused", &Sent::of(window, "zstd"));
    let options = {
        let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
        options.dict_size(1_536 << 20);
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(&options);
        filters
    };
    let stream =
        liblzma::stream::Stream::new_stream_encoder(&options, liblzma::stream::Check::Crc32);
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream.unwrap());
    encoder.write_all(&nar_of_file(b"x")).unwrap();
    let sent = Sent::of(encoder.finish().unwrap(), "xz");
    refuses(&server, &[413], "refused", &sent);
    let grown = peak(&server).saturating_sub(resident);
    assert!(grown < GROWTH, "grown by {grown} KiB");
}
