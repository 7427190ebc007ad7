//! Holds the code to its own map: what may import what, and who may do what.
//!
//! Each rule is a function from the sources to complaints, `file:line: what to do`, so that the tests
//! below can show both that the tree keeps it and that it notices a breach. The sources are read as
//! text, line by line: this is a fence for honest people, and one that explains itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the tree says so by failing")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The modules in the order in which they may import each other. Those that come with a later part of
/// the design have their place already.
const ORDER: [&str; 22] = [
    "fault", "nix", "codec", "error", "metrics", "sign", "zfs", "bank", "index", "source",
    "native", "ingest", "keep", "auth", "tls", "http", "client", "config", "format", "service",
    "app", "cli",
];

/// No file longer than this, in any language of ours that is compiled.
const MAX_LINES: usize = 600;
/// `src/main.rs` turns an error into an exit code and knows nothing else.
const MAX_LINES_OF_MAIN: usize = 40;

/// Words that a part of the tree may not name.
struct Ban {
    name: &'static str,
    words: &'static [&'static str],
    /// Where they are allowed: beginnings of paths. All of `src` but these is forbidden ground.
    allowed: &'static [&'static str],
    instead: &'static str,
}

const BANS: [Ban; 5] = [
    Ban {
        name: "R2",
        words: &["axum", "hyper", "hyper_util", "tower_service"],
        allowed: &["src/http/", "src/service", "src/app"],
        instead: "only src/http speaks HTTP; answer with a type of your own and translate it there",
    },
    Ban {
        name: "R3",
        words: &["rusqlite"],
        allowed: &["src/source/local/", "src/index/"],
        instead: "only src/source/local and src/index open databases; ask one of them",
    },
    Ban {
        name: "R4",
        words: &["process::Command", "duct"],
        allowed: &["src/zfs/"],
        instead: "only src/zfs starts processes",
    },
    Ban {
        name: "R5",
        words: &[
            "File::create",
            "File::options",
            "OpenOptions",
            "create_new",
            "fs::write",
            "fs::copy",
            "fs::rename",
            "fs::hard_link",
            "fs::remove_file",
            "fs::remove_dir",
            "fs::remove_dir_all",
            "fs::set_permissions",
            "fs::symlink",
            "OFlags::CREATE",
            "OFlags::TMPFILE",
            "renameat",
            "renameat_with",
            "linkat",
            "unlinkat",
            "symlinkat",
        ],
        // The client's queue and roots lie on the machine that builds, in no data directory; the lock of
        // `snowbank format`, and its note that it has stopped the Nix daemon, in /run; what moves /nix
        // writes to a dataset that nobody uses yet.
        allowed: &[
            "src/bank/publish/",
            "src/sign.rs",
            "src/http/listen/socket.rs",
            "src/client/spool.rs",
            "src/client/roots.rs",
            "src/client/hold.rs",
            // A bank that was a directory moves into its dataset, before any server has it there.
            "src/zfs/layout/",
            // A lock beside the state database.
            "src/zfs/replicate/lock.rs",
            "src/format/lock.rs",
            "src/format/move_nix/copy",
            "src/format/move_nix/writers.rs",
        ],
        instead: "only src/bank/publish makes, renames and removes files; stage it there",
    },
    Ban {
        name: "R5",
        words: &["fs::create_dir", "fs::create_dir_all", "DirBuilder", "mkdirat"],
        allowed: &[
            "src/bank/publish/",
            "src/app/mod.rs",
            "src/client/spool.rs",
            "src/client/hold.rs",
            "src/zfs/layout/",
            "src/format/move_nix/copy",
        ],
        instead: "directories are made by src/bank/publish and, on start, by src/app",
    },
];

/// What `src/nix` may not name: it is pure, so that it can be fuzzed, and lifted out one day.
const IMPURE: [&str; 9] = [
    "std::fs",
    "std::time",
    "std::net",
    "std::env",
    "std::thread",
    "tokio",
    "rustix",
    "Instant",
    "SystemTime",
];

/// One file, without what only explains or only tests.
struct Source {
    /// From the root of the project, with slashes.
    path: String,
    lines: Vec<Line>,
}

struct Line {
    /// The code of the line: comments are gone.
    code: String,
    /// Inside `#[cfg(test)]`.
    test: bool,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let mut lines = Vec::new();
        // The line that ends the item after a `#[cfg(test)]`; items of a file stand at its left edge.
        let mut test = false;
        for line in text.lines() {
            if line == "#[cfg(test)]" {
                test = true;
            }
            let code = if line.trim_start().starts_with("//") {
                String::new()
            } else {
                line.split(" // ").next().unwrap_or_default().to_owned()
            };
            lines.push(Line { code, test });
            let at_the_edge = line.starts_with(|first: char| first.is_alphabetic());
            if line.starts_with('}') || (at_the_edge && line.ends_with(';')) {
                test = false;
            }
        }
        Self { path: path.to_owned(), lines }
    }

    /// The module of `src` that the file is part of, if it is part of one.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let name = inside.split('/').next()?.trim_end_matches(".rs");
        (!["lib", "main"].contains(&name)).then_some(name)
    }

    /// How many `super::` lead from the file to the root of the crate.
    fn depth(&self) -> usize {
        let names = self.path.trim_start_matches("src/").trim_end_matches(".rs").split('/');
        names.filter(|name| *name != "mod").count()
    }

    fn complain(&self, index: usize, why: &str) -> String {
        format!("{}:{}: {why}", self.path, index + 1)
    }

    /// The numbers, from 0, and the code of the lines that are not tests.
    fn working_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let working = self.lines.iter().enumerate().filter(|(_, line)| !line.test);
        working.map(|(index, line)| (index, line.code.as_str()))
    }
}

/// Whether `code` names `word` as a word, not as a part of another one.
fn names(code: &str, word: &str) -> bool {
    let part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    code.match_indices(word).any(|(start, _)| {
        !code[..start].ends_with(part_of_word)
            && !code[start + word.len()..].starts_with(part_of_word)
    })
}

/// The modules of the crate that a line names from its root.
fn roots(source: &Source, line: &Line) -> Vec<String> {
    let mut found = Vec::new();
    let up = "super::".repeat(source.depth() + usize::from(line.test));
    for root in ["crate::", up.as_str()] {
        for (start, _) in line.code.match_indices(root) {
            if line.code[..start].ends_with("super::") {
                continue;
            }
            let rest = &line.code[start + root.len()..];
            let end = rest.find(|character: char| !character.is_alphanumeric() && character != '_');
            found.push(rest[..end.unwrap_or(rest.len())].to_owned());
        }
    }
    found
}

fn imports_only_from_above(sources: &[Source]) -> Vec<String> {
    let place = |module: &str| ORDER.iter().position(|name| *name == module);
    let mut complaints = Vec::new();
    for source in sources {
        let Some(module) = source.module() else { continue };
        let Some(own) = place(module) else {
            let why = format!("give `{module}` its place in ORDER of tests/architecture.rs");
            complaints.push(source.complain(0, &why));
            continue;
        };
        for (index, line) in source.lines.iter().enumerate() {
            for target in roots(source, line) {
                let why = match place(&target) {
                    Some(other) if other <= own => continue,
                    Some(_) => format!(
                        "`{target}` stands below `{module}` in src/lib.rs: move what is shared up, \
                         or pass it in"
                    ),
                    None => "name one module after `crate::`, so that the order can be read".into(),
                };
                complaints.push(source.complain(index, &why));
            }
        }
    }
    complaints
}

fn nix_is_pure(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| source.module() == Some("nix")) {
        for (index, code) in source.working_lines() {
            for word in IMPURE.iter().filter(|word| names(code, word)) {
                let why = format!("R1: src/nix is pure: do what needs `{word}` in the caller");
                complaints.push(source.complain(index, &why));
            }
        }
    }
    complaints
}

fn keeps_to_its_own(ban: &Ban, sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        if source.module().is_none()
            || ban.allowed.iter().any(|allowed| source.path.starts_with(allowed))
        {
            continue;
        }
        for (index, code) in source.working_lines() {
            for word in ban.words.iter().filter(|word| names(code, word)) {
                let why = format!("{}: `{word}`: {}", ban.name, ban.instead);
                complaints.push(source.complain(index, &why));
            }
        }
    }
    complaints
}

fn is_short(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let most = if source.path == "src/main.rs" { MAX_LINES_OF_MAIN } else { MAX_LINES };
        if source.lines.len() > most {
            let why = format!("a file has at most {most} lines: split it by what it is about");
            complaints.push(source.complain(most, &why));
        }
    }
    complaints
}

fn is_listed_in_order(sources: &[Source]) -> Vec<String> {
    let Some(library) = sources.iter().find(|source| source.path == "src/lib.rs") else {
        return vec!["src/lib.rs:1: it is not there".into()];
    };
    let mut complaints = Vec::new();
    let mut last = 0;
    for (index, code) in library.working_lines() {
        let Some(name) = code.strip_prefix("pub mod ") else { continue };
        let name = name.trim_end_matches(';');
        match ORDER.iter().position(|known| *known == name) {
            Some(place) if place >= last => last = place,
            Some(_) => {
                let why = format!("put `{name}` before `{}`, as in ORDER", ORDER[last]);
                complaints.push(library.complain(index, &why));
            }
            None => {
                let why = format!("give `{name}` its place in ORDER of tests/architecture.rs");
                complaints.push(library.complain(index, &why));
            }
        }
    }
    complaints
}

/// All Rust files of ours; whole files that a `#[cfg(test)] mod` names count as tests throughout.
fn tree() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = BTreeMap::new();
    for directory in ["src", "tests", "bench", "fuzz"] {
        read_below(root, &root.join(directory), &mut texts);
    }
    let mut sources: Vec<Source> =
        texts.iter().map(|(path, text)| Source::new(path, text)).collect();
    let tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let stem = source.path.trim_end_matches(".rs");
        if tests.iter().any(|test| stem == test || stem.starts_with(&format!("{test}/"))) {
            source.lines.iter_mut().for_each(|line| line.test = true);
        }
    }
    sources
}

/// Where the files are of the test modules that `source` declares, without their `.rs`.
fn test_modules(source: &Source) -> Vec<String> {
    let stem = source.path.trim_end_matches(".rs");
    let directory = stem.strip_suffix("/mod").unwrap_or(stem);
    let declared = source.lines.iter().filter(|line| line.test).filter_map(|line| {
        let (_, name) = line.code.split_once("mod ")?;
        name.strip_suffix(';')
    });
    declared.map(|name| format!("{directory}/{name}")).collect()
}

fn read_below(root: &Path, directory: &Path, texts: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        // Under fuzz/ lies also what is built from it.
        if path.is_dir() && !path.ends_with("target") {
            read_below(root, &path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            texts.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// Fails with all complaints, one a line.
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn a_module_imports_only_from_those_above_it() {
    assert_none(&imports_only_from_above(&tree()));
}

#[test]
fn the_nix_module_is_pure() {
    assert_none(&nix_is_pure(&tree()));
}

#[test]
fn http_databases_processes_and_files_each_have_one_home() {
    let tree = tree();
    let complaints: Vec<_> = BANS.iter().flat_map(|ban| keeps_to_its_own(ban, &tree)).collect();
    assert_none(&complaints);
}

#[test]
fn no_file_is_too_long_to_read() {
    assert_none(&is_short(&tree()));
}

#[test]
fn the_map_of_the_code_lists_the_modules_in_their_order() {
    assert_none(&is_listed_in_order(&tree()));
}

/// The complaints of a rule about one file, without their reasons.
fn places(rule: impl Fn(&[Source]) -> Vec<String>, path: &str, text: &str) -> Vec<String> {
    let complaints = rule(&[Source::new(path, text)]);
    complaints.iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect()
}

#[test]
fn an_import_from_below_is_noticed() {
    let rule = imports_only_from_above;
    let text =
        "use crate::nix;\nuse crate::http::state::State;\n// crate::http\nuse super::source::Nar;";
    assert_eq!(places(rule, "src/bank/mod.rs", text), ["src/bank/mod.rs:2", "src/bank/mod.rs:4"]);
    assert_eq!(places(rule, "src/app.rs", text), [""; 0]);
    assert_eq!(places(rule, "src/bank/publish.rs", "use super::source::Nar;"), [""; 0]);
    assert_eq!(places(rule, "src/bank/a.rs", "super::super::cli::run()"), ["src/bank/a.rs:1"]);
    assert_eq!(places(rule, "src/app.rs", "use crate::{bank, cli};"), ["src/app.rs:1"]);
    let inside = "#[cfg(test)]\nmod tests {\n    use super::cli;\n    use super::super::cli;\n}";
    assert_eq!(places(rule, "src/app.rs", inside), ["src/app.rs:4"]);
    assert_eq!(places(rule, "src/unheard_of.rs", ""), ["src/unheard_of.rs:1"]);
}

#[test]
fn an_impure_nix_module_is_noticed() {
    let text = "use std::fmt;\nuse std::fs::File;\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\nlet now = Instant::now();";
    assert_eq!(places(nix_is_pure, "src/nix/a.rs", text), ["src/nix/a.rs:2", "src/nix/a.rs:7"]);
    assert_eq!(places(nix_is_pure, "src/codec/a.rs", text), [""; 0]);
}

#[test]
fn what_has_its_home_elsewhere_is_noticed() {
    for ban in &BANS {
        let rule = |sources: &[Source]| keeps_to_its_own(ban, sources);
        for word in ban.words {
            let text = format!("a();\nlet x = {word}();\nlet y = not_{word}s();");
            assert_eq!(places(rule, "src/keep.rs", &text), ["src/keep.rs:2"], "{word}");
            for home in ban.allowed {
                assert_eq!(places(rule, &format!("{home}a.rs"), &text), [""; 0], "{word}");
            }
        }
    }
}

#[test]
fn a_long_file_is_noticed() {
    assert_eq!(places(is_short, "tests/a.rs", &"x\n".repeat(MAX_LINES)), [""; 0]);
    assert_eq!(places(is_short, "tests/a.rs", &"x\n".repeat(MAX_LINES + 1)), ["tests/a.rs:601"]);
    assert_eq!(places(is_short, "src/main.rs", &"x\n".repeat(41)), ["src/main.rs:41"]);
}

#[test]
fn a_module_out_of_its_order_is_noticed() {
    let rule = is_listed_in_order;
    assert_eq!(places(rule, "src/lib.rs", "pub mod nix;\n\npub mod bank;"), [""; 0]);
    assert_eq!(places(rule, "src/lib.rs", "pub mod bank;\n\npub mod nix;"), ["src/lib.rs:3"]);
    assert_eq!(places(rule, "src/lib.rs", "pub mod unheard_of;"), ["src/lib.rs:1"]);
    assert_eq!(places(rule, "src/other.rs", ""), ["src/lib.rs:1"]);
}
