//! Store paths of every kind, made by a real Nix, built once and kept between runs. Tests only read them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    sync::LazyLock,
};

use super::{
    bank,
    nix::{Store, StorePath},
    target, trees,
};

/// The store, the paths in it, and banks of the same paths.
pub(crate) struct Fixtures {
    pub(crate) store: Store,
    root: PathBuf,
    paths: BTreeMap<String, StorePath>,
}

static FIXTURES: LazyLock<Fixtures> = LazyLock::new(Fixtures::open);

/// The fixtures, built on the first call.
pub(crate) fn fixtures() -> &'static Fixtures {
    &FIXTURES
}

/// One path, by its fixture's name.
#[track_caller]
pub(crate) fn path(name: &str) -> &'static StorePath {
    fixtures().paths.get(name).unwrap_or_else(|| panic!("there is no fixture {name}"))
}

/// Every path that the others together need, by name: what is small enough to be asked for everywhere.
pub(crate) const ORDINARY: [&str; 12] = [
    "leaf",
    "refs",
    "top",
    "file",
    "executable",
    "link",
    "fixed",
    "flat",
    "shapes",
    "names",
    "bytes",
    "website",
];

/// The two that take a while.
pub(crate) const LARGE: [&str; 2] = ["big", "small"];

/// What `top` and what it needs are built from. `refs` refers to itself and to `leaf`, and leaves a log.
const EXPRESSION: &str = r#"
  let
    run = name: script: derivation {
      inherit name;
      system = builtins.currentSystem;
      builder = "/bin/sh";
      args = [ "-c" script ];
      PATH = "/usr/bin:/bin";
    };
  in rec {
    leaf = builtins.toFile "leaf" "a leaf\n";
    refs = run "refs-1.0" ''
      echo the log of refs
      mkdir -p $out/bin $out/empty
      echo ${leaf} >$out/uses
      echo $out >$out/self
      ln -s ${leaf} $out/link
      echo 'echo hello' >$out/bin/hello
      chmod +x $out/bin/hello
    '';
    top = run "top" "mkdir $out; ln -s ${refs} $out/refs; cp ${leaf} $out/copy; echo ${leaf} >$out/uses";
    link = run "link" "ln -s /nonexistent $out";
    executable = run "executable" "echo 'exit 0' >$out; chmod +x $out";
  }
"#;

/// The text that building `refs` left in its log.
pub(crate) const LOG: &str = "the log of refs\n";

impl Fixtures {
    fn open() -> Self {
        // Another version of this file makes other fixtures.
        let sources =
            [include_str!("fixtures.rs"), include_str!("trees.rs"), include_str!("bank.rs")];
        let version = fingerprint(&sources.concat());
        let root = target().join("e2e").join(version);
        fs::create_dir_all(&root).unwrap();
        let lock = File::create(root.join("lock")).unwrap();
        lock.lock().unwrap();
        let manifest = root.join("manifest.json");
        if !manifest.exists() {
            Self::build(&root, &manifest);
        }
        let paths: BTreeMap<String, String> =
            serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
        let paths = paths.into_iter().map(|(name, path)| (name, StorePath::new(&path))).collect();
        Self { store: Store::at(&root), root, paths }
    }

    fn build(root: &Path, manifest: &Path) {
        let store = Store::at(root);
        let mut paths = BTreeMap::new();
        let expression = root.join("fixtures.nix");
        fs::write(&expression, EXPRESSION).unwrap();
        for name in ["refs", "top", "link", "executable"] {
            let words = ["--no-out-link", "-A", name, expression.to_str().unwrap()];
            paths.insert(name.to_owned(), store.run("nix-build", &words));
        }
        let leaf =
            store.run("nix-instantiate", &["--eval", "-A", "leaf", expression.to_str().unwrap()]);
        paths.insert("leaf".to_owned(), leaf.trim().trim_matches('"').to_owned());

        let sources = root.join("sources");
        let _ = fs::remove_dir_all(&sources);
        let source = |name: &str, make: &dyn Fn(&Path)| {
            let source = sources.join(name);
            fs::create_dir_all(&source).unwrap();
            make(&source);
            source
        };
        let odd_name =
            source("A+b-c._?=1", &|root| trees::write(&root.join("file"), b"an odd name\n"));
        for (name, source) in [
            ("shapes", source("shapes", &trees::shapes)),
            ("names", source("names", &trees::names)),
            ("bytes", source("bytes", &trees::bytes)),
            ("website", source("website", &trees::website)),
            ("odd-name", odd_name.clone()),
            ("file", odd_name.join("file")),
            ("big", source("big", &|root| trees::big(root, 300))),
            ("small", source("small", &|root| trees::small_files(root, 200))),
        ] {
            paths.insert(name.to_owned(), store.add(&source).as_str().to_owned());
        }
        // A NAR of its own: two paths with the same one are baked together.
        let fixed = source("fixed", &|root| {
            trees::write(&root.join("content"), b"addressed by its content\n")
        });
        for (name, words) in [
            ("fixed", vec!["--add-fixed", "--recursive", "sha256", fixed.to_str().unwrap()]),
            ("flat", vec!["--add-fixed", "sha256", expression.to_str().unwrap()]),
        ] {
            paths.insert(name.to_owned(), store.run("nix-store", &words));
        }
        let paths: BTreeMap<_, _> =
            paths.into_iter().map(|(name, path)| (name, path.trim().to_owned())).collect();

        fs::create_dir_all(root.join("dumps")).unwrap();
        for path in paths.values().map(|path| StorePath::new(path)) {
            let dump = File::create(root.join("dumps").join(path.hash())).unwrap();
            let status = store
                .program("nix-store")
                .args(["--dump", path.as_str()])
                .stdout(Stdio::from(dump))
                .status()
                .unwrap();
            assert!(status.success());
        }
        let all: Vec<&str> = paths.values().map(String::as_str).collect();
        let ordinary: Vec<&str> = ORDINARY.iter().map(|name| paths[*name].as_str()).collect();
        bank::build(&store, &root.join("bank-zstd"), "zstd", &all);
        for compression in ["none", "xz", "gzip", "bzip2"] {
            bank::build(&store, &root.join(format!("bank-{compression}")), compression, &ordinary);
        }
        fs::remove_dir_all(&sources).unwrap();
        // Last, so that an interrupted build is begun again.
        fs::write(manifest, serde_json::to_vec_pretty(&paths).unwrap()).unwrap();
    }

    /// The NAR of a path, as `nix-store --dump` wrote it.
    pub(crate) fn dump(&self, path: &StorePath) -> Vec<u8> {
        fs::read(self.root.join("dumps").join(path.hash())).unwrap()
    }

    pub(crate) fn dump_size(&self, path: &StorePath) -> u64 {
        fs::metadata(self.root.join("dumps").join(path.hash())).unwrap().len()
    }

    /// The NAR hash without its `sha256:`, as the Nix database has it.
    pub(crate) fn nar_hash(&self, path: &StorePath) -> String {
        let hash = self.store.run("nix-store", &["--query", "--hash", path.as_str()]);
        hash.trim().strip_prefix("sha256:").unwrap().to_owned()
    }

    /// The bank that `nix copy --to file://…?compression=…` made of them: all with zstd, else the ordinary ones.
    pub(crate) fn bank(&self, compression: &str) -> PathBuf {
        self.root.join(format!("bank-{compression}"))
    }

    /// The store paths by fixture name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &StorePath)> {
        self.paths.iter().map(|(name, path)| (name.as_str(), path))
    }
}

/// FNV-1a: enough to tell one version of a source file from the next.
fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{hash:016x}")
}
