//! Tests on real files.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::nix::hash::Sha256;
use crate::nix::nar::testing::{Tree, tree};
use crate::nix::nar::{ListingBuilder, Parser};

const NAME: &str = "7rjj86a50146dq4pd5h2fyvnnwxk9m0a-test";

/// A store with one path in it, and a pool.
struct Fixture {
    directory: tempfile::TempDir,
    store: StoreHandle,
    pool: Arc<ReadPool>,
}

impl Fixture {
    fn new(tree: &Tree) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = StoreHandle::open(directory.path()).unwrap();
        let fixture = Self { directory, store, pool: ReadPool::start(4).unwrap() };
        write_tree(tree, &fixture.path(""));
        fixture
    }

    /// What is at `path` in the store path.
    fn path(&self, path: &str) -> PathBuf {
        let root = self.directory.path().join(NAME);
        if path.is_empty() { root } else { root.join(path) }
    }

    fn tree(&self) -> StoreTree {
        self.tree_with(Limits::default())
    }

    fn tree_with(&self, limits: Limits) -> StoreTree {
        StoreTree::new(&self.store, &StorePath::parse(NAME).unwrap(), limits)
    }

    fn start(&self, range: Option<Range<u64>>, expected: Option<Expected>) -> NarStream {
        NarStream::start(&self.pool, self.tree(), range, expected)
    }

    fn nar(&self) -> Result<Vec<u8>, TreeError> {
        collect(self.start(None, None)).1
    }

    fn error(&self) -> TreeError {
        self.nar().unwrap_err()
    }
}

/// Writes a tree to disk.
fn write_tree(tree: &Tree, path: &Path) {
    match tree {
        Tree::File { executable, contents } => {
            fs::write(path, contents).unwrap();
            let mode = if *executable { 0o555 } else { 0o444 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        Tree::Symlink(target) => symlink(OsStr::from_bytes(target), path).unwrap(),
        Tree::Directory(entries) => {
            fs::create_dir(path).unwrap();
            for (name, tree) in entries {
                write_tree(tree, &path.join(OsStr::from_bytes(name)));
            }
        }
    }
}

/// Everything that a stream gives, and how it ends.
fn collect(mut stream: NarStream) -> (Vec<u8>, Result<Vec<u8>, TreeError>) {
    let mut bytes = Vec::new();
    while let Some(item) = stream.next_blocking() {
        match item {
            Ok(chunk) => {
                assert!(!chunk.is_empty());
                bytes.extend_from_slice(&chunk);
            }
            Err(error) => {
                assert_eq!(stream.next_blocking(), None, "nothing comes after an error");
                return (bytes, Err(error));
            }
        }
    }
    assert_eq!(stream.next_blocking(), None);
    (bytes.clone(), Ok(bytes))
}

fn expected(nar: &[u8]) -> Expected {
    Expected { nar_hash: Sha256::of(nar), nar_size: nar.len() as u64 }
}

/// Bytes without a period that any segment or record has.
fn noise(length: usize) -> String {
    (0..)
        .map(|index: u32| char::from(b'a' + (index.wrapping_mul(2_654_435_761) >> 24) as u8 % 26))
        .take(length)
        .collect()
}

/// A tree of many segments: small files, files around the stride, and a large one.
fn large_tree() -> Tree {
    let mut entries = std::collections::BTreeMap::new();
    for (index, length) in
        [700_000, 262_144, 262_143, 262_145, 524_288, 100_000, 200_000, 300_000].iter().enumerate()
    {
        entries.insert(format!("large-{index}").into_bytes(), Tree::file(&noise(*length)));
    }
    for index in 0..1000 {
        let name = format!("small-{index}").into_bytes();
        entries.insert(name, Tree::file(&noise(index * 3)));
    }
    Tree::directory([("data", Tree::Directory(entries)), ("link", Tree::symlink("data"))])
}

fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long");
        std::thread::yield_now();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_tree_on_disk_streams_as_its_nar(tree in tree()) {
        let fixture = Fixture::new(&tree);
        let nar = tree.nar();
        prop_assert_eq!(&fixture.nar().unwrap(), &nar);
        let verified = collect(fixture.start(None, Some(expected(&nar)))).1;
        prop_assert_eq!(&verified.unwrap(), &nar);
        prop_assert_eq!(nar_size(fixture.tree()).unwrap(), nar.len() as u64);
        if tree.is_text() {
            let mut theirs = Vec::new();
            nix_nar::Encoder::new(fixture.path("")).unwrap().read_to_end(&mut theirs).unwrap();
            prop_assert_eq!(&theirs, &nar);
        }
    }

    #[test]
    fn the_listing_from_metadata_is_that_of_the_nar(tree in tree()) {
        let fixture = Fixture::new(&tree);
        let mut builder = ListingBuilder::new(Limits::default());
        let mut parser = Parser::new(Limits::default());
        parser.push(&tree.nar(), &mut |event| builder.event(&event)).unwrap();
        parser.finish().unwrap();
        prop_assert_eq!(listing(fixture.tree()).unwrap().unwrap(), builder.finish().unwrap());
    }

    #[test]
    fn a_range_is_a_slice_of_the_whole(
        tree in tree(),
        ends in any::<(proptest::sample::Index, proptest::sample::Index)>(),
    ) {
        let fixture = Fixture::new(&tree);
        let nar = tree.nar();
        let ends = (ends.0.index(nar.len() + 1), ends.1.index(nar.len() + 1));
        let (start, end) = (ends.0.min(ends.1), ends.0.max(ends.1));
        let range = start as u64..end as u64;
        let slice = collect(fixture.start(Some(range), Some(expected(&nar)))).1;
        prop_assert_eq!(slice.unwrap(), &nar[start..end]);
    }
}

#[test]
fn a_tree_of_many_segments_streams_as_its_nar() {
    let tree = large_tree();
    let (fixture, nar) = (Fixture::new(&tree), tree.nar());
    assert!(fixture.nar().unwrap() == nar);
    assert!(collect(fixture.start(None, Some(expected(&nar)))).1.unwrap() == nar);
    let whole = Some(0..nar.len() as u64);
    assert!(collect(fixture.start(whole, Some(expected(&nar)))).1.unwrap() == nar);
}

#[test]
fn ranges_of_a_tree_of_many_segments_are_slices_of_the_whole() {
    let tree = large_tree();
    let (fixture, nar) = (Fixture::new(&tree), tree.nar());
    let mut seed = 7_usize;
    for _ in 0..200 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let start = (seed >> 16) % nar.len();
        let end = start + ((seed >> 40) % (nar.len() - start + 1)).min(seed % 600_000);
        let slice = collect(fixture.start(Some(start as u64..end as u64), None)).1.unwrap();
        assert!(slice == nar[start..end], "{start}..{end}");
    }
}

#[test]
fn many_streams_at_once_are_all_right() {
    let tree = large_tree();
    let (fixture, nar) = (Fixture::new(&tree), tree.nar());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                assert!(collect(fixture.start(None, Some(expected(&nar)))).1.unwrap() == nar);
            });
        }
    });
}

#[tokio::test]
async fn a_task_can_await_the_chunks() {
    let tree = Tree::file("hello");
    let fixture = Fixture::new(&tree);
    let mut stream = fixture.start(None, Some(expected(&tree.nar())));
    assert_eq!(stream.next().await.unwrap().unwrap(), tree.nar());
    assert_eq!(stream.next().await, None);
}

#[test]
fn a_wrong_hash_holds_back_the_last_chunk() {
    for tree in [Tree::file("hello"), large_tree()] {
        let (fixture, nar) = (Fixture::new(&tree), tree.nar());
        let expected = Expected { nar_hash: Sha256::of(b"other"), ..expected(&nar) };
        let (bytes, result) = collect(fixture.start(None, Some(expected)));
        let got = Sha256::of(&nar);
        let error = TreeError::HashMismatch { expected: expected.nar_hash, got };
        assert_eq!(result.unwrap_err(), error);
        assert!(bytes.len() < nar.len() && nar.starts_with(&bytes));
    }
}

#[test]
fn a_wrong_size_is_never_a_clean_end() {
    let tree = large_tree();
    let (fixture, nar) = (Fixture::new(&tree), tree.nar());
    for nar_size in [0, 1, 1 << 20, nar.len() as u64 - 1, nar.len() as u64 + 1] {
        let (bytes, result) =
            collect(fixture.start(None, Some(Expected { nar_size, ..expected(&nar) })));
        assert!(matches!(result, Err(TreeError::SizeMismatch { .. })), "{nar_size}: {result:?}");
        assert!(bytes.is_empty() || (bytes.len() as u64) < nar_size, "{nar_size}");
    }
}

#[test]
fn a_range_beyond_the_end_is_an_error() {
    let tree = Tree::file("hello");
    let (fixture, size) = (Fixture::new(&tree), tree.nar().len() as u64);
    let error = collect(fixture.start(Some(10..size + 1), None)).1.unwrap_err();
    assert_eq!(error, TreeError::SizeMismatch { expected: size + 1, got: size });
}

#[test]
fn a_path_that_is_not_there_is_named() {
    let fixture = Fixture::new(&Tree::file(""));
    fs::remove_file(fixture.path("")).unwrap();
    assert_eq!(fixture.error(), TreeError::NotFound { path: NAME.into() });
    assert!(matches!(nar_size(fixture.tree()), Err(TreeError::NotFound { .. })));
}

#[test]
fn what_no_nar_can_hold_is_named() {
    let fixture = Fixture::new(&Tree::directory([("a", Tree::file(""))]));
    let _socket = std::os::unix::net::UnixListener::bind(fixture.path("socket")).unwrap();
    assert_eq!(fixture.error(), TreeError::SpecialFile { path: "socket".into() });
    let found = open_file(&fixture.tree(), [&b"socket"[..]]);
    assert!(matches!(found, Err(TreeError::SpecialFile { .. })));
}

#[test]
fn limits_hold_for_trees_on_disk() {
    let fixture = Fixture::new(&Tree::nested(64));
    assert!(fixture.nar().is_ok());
    let beyond = |limits| {
        let stream = NarStream::start(&fixture.pool, fixture.tree_with(limits), None, None);
        collect(stream).1.unwrap_err()
    };
    for limits in [
        Limits { max_depth: 63, ..Limits::default() },
        Limits { max_entries: 63, ..Limits::default() },
        Limits { max_name: 0, ..Limits::default() },
        Limits { max_size: 1000, ..Limits::default() },
    ] {
        assert!(matches!(beyond(limits), TreeError::BeyondLimits { .. }), "{limits:?}");
    }
    fs::create_dir(fixture.path(&(["d"; 63].join("/") + "/d"))).unwrap();
    assert!(matches!(fixture.error(), TreeError::BeyondLimits { .. }));
}

/// Starts a stream of a tree whose first file is far longer than what is read ahead, takes one
/// chunk, makes a change, and gives the error that the rest of the stream ends with.
fn error_after(change: impl FnOnce(&Fixture)) -> TreeError {
    let tree = Tree::directory([
        ("first", Tree::file(&noise(40 << 18))),
        ("second", Tree::file("second")),
        ("third", Tree::directory([("in", Tree::file("third"))])),
    ]);
    let fixture = Fixture::new(&tree);
    let mut stream = fixture.start(None, Some(expected(&tree.nar())));
    stream.next_blocking().unwrap().unwrap();
    change(&fixture);
    collect(stream).1.unwrap_err()
}

fn rewrite(path: &Path, length: u64) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

#[test]
fn a_file_that_grows_while_it_is_read_is_named() {
    let error = error_after(|fixture| rewrite(&fixture.path("first"), 41 << 18));
    let path = "first".to_owned();
    assert_eq!(error, TreeError::Grown { path, expected: 40 << 18, got: 41 << 18 });
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_named() {
    let error = error_after(|fixture| rewrite(&fixture.path("first"), 1 << 18));
    assert!(matches!(error, TreeError::Shrunk { path, .. } if path == "first"));
}

#[test]
fn a_file_that_changes_its_bytes_only_is_a_wrong_hash() {
    let error = error_after(|fixture| {
        let path = fixture.path("first");
        rewrite(&path, 40 << 18);
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"X", (40 << 18) - 1).unwrap();
    });
    assert!(matches!(error, TreeError::HashMismatch { .. }), "{error}");
}

#[test]
fn a_directory_that_gains_or_loses_files_before_it_is_walked_is_a_wrong_size() {
    // The walk is not there yet: it is bounded.
    let error = error_after(|fixture| fs::write(fixture.path("third/new"), "new").unwrap());
    assert!(matches!(error, TreeError::SizeMismatch { .. }), "{error}");
    let error = error_after(|fixture| fs::remove_file(fixture.path("third/in")).unwrap());
    assert!(matches!(error, TreeError::SizeMismatch { .. }), "{error}");
}

#[test]
fn a_file_that_is_removed_before_it_is_walked_is_named() {
    let error = error_after(|fixture| fs::remove_file(fixture.path("second")).unwrap());
    assert_eq!(error, TreeError::Vanished { path: "second".into() });
}

#[test]
fn a_directory_that_becomes_a_symlink_is_named() {
    let error = error_after(|fixture| {
        fs::rename(fixture.path("third"), fixture.path("elsewhere")).unwrap();
        symlink("elsewhere", fixture.path("third")).unwrap();
    });
    assert_eq!(error, TreeError::Replaced { path: "third".into() });
}

/// Plans a tree, changes it, and fills the plan.
fn error_between_plan_and_fill(change: impl FnOnce(&Fixture)) -> TreeError {
    let tree = Tree::directory([("d", Tree::directory([("f", Tree::file("hello"))]))]);
    let fixture = Fixture::new(&tree);
    let mut planner = plan::Planner::new(fixture.tree(), 0..u64::MAX, None);
    let plan::Planned::End(Some(segment)) = planner.next().unwrap() else { panic!() };
    change(&fixture);
    fill::fill(&segment, &mut fixture.pool.shared().buffers.take()).unwrap_err()
}

#[test]
fn a_small_file_that_changes_between_plan_and_reading_is_named() {
    let path = || "d/f".to_owned();
    let error = error_between_plan_and_fill(|fixture| rewrite(&fixture.path("d/f"), 6));
    assert_eq!(error, TreeError::Grown { path: path(), expected: 5, got: 6 });
    let error = error_between_plan_and_fill(|fixture| rewrite(&fixture.path("d/f"), 4));
    assert_eq!(error, TreeError::Shrunk { path: path(), expected: 5, got: 4 });
    let error =
        error_between_plan_and_fill(|fixture| fs::remove_file(fixture.path("d/f")).unwrap());
    assert_eq!(error, TreeError::Vanished { path: path() });
    let error = error_between_plan_and_fill(|fixture| {
        fs::remove_file(fixture.path("d/f")).unwrap();
        fs::create_dir(fixture.path("d/f")).unwrap();
    });
    assert_eq!(error, TreeError::Replaced { path: path() });
    let error = error_between_plan_and_fill(|fixture| {
        fs::rename(fixture.path("d/f"), fixture.path("d/g")).unwrap();
        symlink("g", fixture.path("d/f")).unwrap();
    });
    assert_eq!(error, TreeError::Replaced { path: path() });
    let error = error_between_plan_and_fill(|fixture| {
        fs::rename(fixture.path("d"), fixture.path("e")).unwrap();
        symlink("e", fixture.path("d")).unwrap();
    });
    assert_eq!(error, TreeError::Replaced { path: path() });
}

#[test]
fn a_stream_that_nobody_reads_stops_and_gives_everything_back() {
    let fixture = Fixture::new(&large_tree());
    for chunks in 0..6 {
        let mut stream = fixture.start(None, None);
        let core = stream.core();
        let taken: Vec<_> = (0..chunks).map(|_| stream.next_blocking().unwrap()).collect();
        drop(stream);
        until(|| Arc::strong_count(&core) == 1);
        drop(taken);
    }
    until(|| fixture.pool.buffers_in_use() == 0);
}

#[test]
fn a_slow_consumer_bounds_what_is_read_ahead() {
    let fixture = Fixture::new(&Tree::file(&noise(100 << 18)));
    let mut stream = fixture.start(None, None);
    stream.next_blocking().unwrap().unwrap();
    let core = stream.core();
    // Only the stream and this test hold it: no job is queued or running.
    until(|| Arc::strong_count(&core) == 2);
    assert_eq!(fixture.pool.buffers_in_use(), 8);
    assert_eq!(
        collect(stream).1.unwrap().len() as u64,
        nar_size(fixture.tree()).unwrap() - (1 << 18) - 96
    );
}

#[test]
fn the_threads_end_with_the_pool_and_leave_nothing() {
    let fixture = Fixture::new(&large_tree());
    let shared = fixture.pool.shared().clone();
    let streams: Vec<_> = (0..50).map(|_| fixture.start(None, None)).collect();
    drop(fixture);
    drop(streams);
    until(|| Arc::strong_count(&shared) == 1);
}

#[test]
fn a_file_in_a_tree_is_opened_by_its_components() {
    let fixture = Fixture::new(&Tree::directory([
        ("bin", Tree::directory([("sh", Tree::File { executable: true, contents: b"#!".into() })])),
        ("link", Tree::symlink("bin")),
    ]));
    let open = |path: &str| {
        let components = path.split('/').filter(|_| !path.is_empty()).map(str::as_bytes);
        open_file(&fixture.tree(), components)
    };
    let Ok(Opened::File { mut file, size: 2, executable: true }) = open("bin/sh") else { panic!() };
    let mut contents = String::new();
    file.read_to_string(&mut contents).unwrap();
    assert_eq!(contents, "#!");
    assert!(matches!(open("link"), Ok(Opened::Symlink(target)) if target == b"bin"));
    let Ok(Opened::Directory(names)) = open("") else { panic!() };
    assert_eq!(names, [b"bin".to_vec(), b"link".to_vec()]);
    for path in ["nothing", "bin/sh/x", "bin/", "/", "..", "bin/../bin/sh", "./bin", "a\0"] {
        assert!(matches!(open(path), Err(TreeError::NotFound { .. })), "{path:?}");
    }
    assert!(matches!(open("link/sh"), Err(TreeError::ThroughSymlink { .. })));
}
