//! What is pushed by a script: store paths that no Nix has made, and requests that no Nix would send.

use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
};

use snowbank::{
    nix::{
        base32,
        hash::Sha256,
        path_info::PathInfo,
        signature::fingerprint,
        store_path::{StoreDir, StorePath},
    },
    sign::SecretKey,
};

use super::{
    http::{Connection, Response},
    nix::tempdir_in_memory,
    server::{Server, Setup},
};

/// The store directory of what is scripted.
pub(crate) const STORE: &str = "/nix/store";
/// Every compression that a NAR may come in.
pub(crate) const COMPRESSIONS: [&str; 6] = ["zstd", "none", "xz", "bzip2", "gzip", "lz4"];

impl Setup {
    /// A server that anybody may push to, that serves its bank only, for this store directory. `more` are
    /// further lines of the default cache's settings, and further tables.
    pub(crate) fn pushed_to(self, store_dir: &Path, more: &str) -> Self {
        let bank = self.data().join("default");
        fs::create_dir_all(&bank).unwrap();
        let info = bank.join("nix-cache-info");
        if !info.exists() {
            let text = format!("StoreDir: {}\nWantMassQuery: 1\n", store_dir.display());
            fs::write(info, text).unwrap();
        }
        let file = self.data().with_extension("toml");
        fs::write(&file, format!("[cache.default]\npush = \"open\"\n{more}\n")).unwrap();
        self.argument("--store").argument("none").argument("--config").argument(file)
    }
}

/// A server for scripted pushes.
#[track_caller]
pub(crate) fn scripted(more: &str) -> Server {
    Setup::within(tempdir_in_memory()).pushed_to(Path::new(STORE), more).start()
}

/// Every file under a directory, with what is in it: two of these are equal when nothing has changed.
/// The state database is left out: what was refused is kept on record there. So is what the server writes by its
/// clock alone, to learn whether the disk answers.
#[derive(PartialEq, Eq)]
pub(crate) struct Snapshot(BTreeMap<PathBuf, Option<Sha256>>);

impl Snapshot {
    pub(crate) fn of(directory: &Path) -> Self {
        let mut found = BTreeMap::new();
        let mut directories = vec![directory.to_path_buf()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                if path.ends_with("state") || path.ends_with(".probe") {
                    continue;
                }
                let content = if path.is_dir() {
                    directories.push(path.clone());
                    None
                } else {
                    // A temporary file may go between the two calls, and is named all the same.
                    Some(Sha256::of(&fs::read(&path).unwrap_or_default()))
                };
                found.insert(path, content);
            }
        }
        Self(found)
    }

    #[track_caller]
    pub(crate) fn assert_same(&self, directory: &Path, what: &str) {
        let now = Self::of(directory);
        let differs = |(path, content): &(&PathBuf, &Option<Sha256>), other: &Self| {
            (other.0.get(*path) != Some(content)).then(|| (*path).clone())
        };
        let gone: Vec<_> = self.0.iter().filter_map(|entry| differs(&entry, &now)).collect();
        let came: Vec<_> = now.0.iter().filter_map(|entry| differs(&entry, self)).collect();
        assert!(
            gone.is_empty() && came.is_empty(),
            "{what}: gone or changed {gone:?}, new or changed {came:?}"
        );
    }
}

/// A store path that no Nix has made, and what is said of it.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) info: PathInfo,
    pub(crate) nar: Vec<u8>,
}

impl Made {
    /// A path of this NAR, whatever it is.
    pub(crate) fn of_nar(name: &str, nar: Vec<u8>) -> Self {
        let info = PathInfo::new(path_of(name), Sha256::of(&nar), nar.len() as u64);
        Self { info, nar }
    }

    /// A file. The same name gives the same path, whatever is in it.
    pub(crate) fn file(name: &str, content: &[u8]) -> Self {
        Self::of_nar(name, nar_of_file(content))
    }

    /// A file that refers to other paths.
    pub(crate) fn referring(name: &str, to: &[&Self]) -> Self {
        let mut text = String::new();
        for made in to {
            text.push_str(&format!("{STORE}/{}\n", made.info.path));
        }
        let mut made = Self::file(name, text.as_bytes());
        made.info.references = to.iter().map(|made| made.info.path.clone()).collect();
        made.info.references.sort();
        made
    }

    pub(crate) fn hash(&self) -> String {
        self.info.path.hash().to_string()
    }

    /// `/<hash>.narinfo`
    pub(crate) fn url(&self) -> String {
        format!("/{}.narinfo", self.hash())
    }

    /// Where the server keeps the NAR.
    pub(crate) fn nar_url(&self) -> String {
        format!("/nar/{}.nar.zst", self.info.nar_hash.to_nix32())
    }

    pub(crate) fn signed(mut self, key: &SecretKey) -> Self {
        self.info.signatures.push(key.sign(&fingerprint(&store_dir(), &self.info)));
        self
    }

    /// The NAR as a client sends it.
    pub(crate) fn sent(&self, compression: &str) -> Sent {
        Sent::of(compress(compression, &self.nar), compression)
    }

    /// The narinfo, as Nix writes it for a NAR sent so.
    pub(crate) fn narinfo(&self, sent: &Sent) -> String {
        let info = &self.info;
        let mut text = format!(
            "StorePath: {STORE}/{}\nURL: {}\nCompression: {}\nFileHash: {}\nFileSize: {}\nNarHash: {}\n\
             NarSize: {}\nReferences: {}\n",
            info.path,
            sent.url.trim_start_matches('/'),
            sent.compression,
            Sha256::of(&sent.bytes),
            sent.bytes.len(),
            info.nar_hash,
            info.nar_size,
            info.references.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        );
        if let Some(deriver) = &info.deriver {
            text.push_str(&format!("Deriver: {deriver}\n"));
        }
        for signature in &info.signatures {
            text.push_str(&format!("Sig: {signature}\n"));
        }
        if let Some(ca) = &info.ca {
            text.push_str(&format!("CA: {ca}\n"));
        }
        text
    }

    /// Pushes it as Nix would, and expects the server to take it.
    #[track_caller]
    pub(crate) fn push(&self, server: &Server) {
        let sent = self.sent("zstd");
        let mut connection = server.connect();
        connection.put(&sent.url, &sent.bytes).expect(201);
        connection.put(&self.url(), self.narinfo(&sent).as_bytes()).expect(201);
    }

    /// Asserts that it is there with its own bytes.
    #[track_caller]
    pub(crate) fn assert_served(&self, server: &Server) {
        let narinfo = server.get(&self.url()).expect(200).text();
        let expected = format!("NarHash: {}\n", self.info.nar_hash);
        assert!(narinfo.contains(&expected), "{expected} is not in\n{narinfo}");
        let bare = self.nar_url();
        let served = server.get(bare.trim_end_matches(".zst")).expect(200).body;
        assert!(served == self.nar, "{} is served with other bytes", self.info.path);
        let compressed = server.get(&self.nar_url()).expect(200).body;
        assert!(zstd::decode_all(&*compressed).unwrap() == self.nar);
    }
}

/// A file as it goes over the wire, under its name.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) bytes: Vec<u8>,
    pub(crate) url: String,
    compression: String,
}

impl Sent {
    /// Under the name that Nix gives it.
    pub(crate) fn of(bytes: Vec<u8>, compression: &str) -> Self {
        let ending = match compression {
            "zstd" => ".zst",
            "bzip2" => ".bz2",
            "xz" => ".xz",
            "lz4" => ".lz4",
            // Nix has no ending for gzip.
            _ => "",
        };
        let url = format!("/nar/{}.nar{ending}", Sha256::of(&bytes).to_nix32());
        Self { bytes, url, compression: compression.to_owned() }
    }
}

impl Connection {
    /// PUT and its answer.
    #[track_caller]
    pub(crate) fn put(&mut self, path: &str, body: &[u8]) -> Response {
        self.send_with_body("PUT", path, &[], body)
    }

    /// A request with a body, and its whole answer.
    #[track_caller]
    pub(crate) fn send_with_body(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: cache.test\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        // In one piece: a small body that follows its head waits for the head's acknowledgement. A server
        // that refuses need not read to the end; its answer is what counts.
        let _ = self.send(&[request.as_bytes(), body].concat());
        self.response(false).unwrap_or_else(|error| {
            panic!("{method} {path}: the answer is cut or missing: {error}")
        })
    }

    /// A request of the native API.
    #[track_caller]
    pub(crate) fn native(&mut self, path: &str, body: &serde_json::Value) -> Response {
        let json = [("Content-Type", "application/json")];
        let path = format!("/_snowbank/v1{path}");
        self.send_with_body("POST", &path, &json, body.to_string().as_bytes())
    }
}

/// Asserts a refusal: of that status, in one line that says `what`, and naming no file of the server.
#[track_caller]
pub(crate) fn assert_refused(response: &Response, statuses: &[u16], what: &str) {
    let text = response.text();
    assert!(statuses.contains(&response.status), "{what}: {} {text}", response.status);
    assert_eq!(text.trim_end().lines().count(), 1, "{what}: not one line: {text:?}");
    assert!(text.contains(what), "{what} is not in {text:?}");
    assert!(!text.contains("e2e-") && !text.contains("default/"), "a file is named: {text}");
}

/// Asserts that the server keeps nothing but what it has published.
#[track_caller]
pub(crate) fn assert_nothing_waits(server: &Server) {
    for directory in ["pending", "tmp", "uploads"] {
        let entries = fs::read_dir(server.bank().join(directory)).unwrap();
        let left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
}

/// The path of a name: the same one each time.
pub(crate) fn path_of(name: &str) -> StorePath {
    let digest = Sha256::of(name.as_bytes()).0;
    StorePath::parse(&format!("{}-{name}", base32::encode(&digest[..20]))).unwrap()
}

pub(crate) fn store_dir() -> StoreDir {
    StoreDir::parse(STORE).unwrap()
}

/// The NAR of a regular file.
pub(crate) fn nar_of_file(content: &[u8]) -> Vec<u8> {
    let mut nar = strings(&["nix-archive-1", "(", "type", "regular", "contents"]);
    nar.extend(string(content));
    nar.extend(string(b")"));
    nar
}

/// Strings as a NAR holds them: what any NAR, good or bad, is made of.
pub(crate) fn strings(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| string(text.as_bytes())).collect()
}

/// One string of a NAR.
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

pub(crate) fn compress(compression: &str, bytes: &[u8]) -> Vec<u8> {
    match compression {
        "none" => bytes.to_vec(),
        "zstd" => zstd::encode_all(bytes, 1).unwrap(),
        "xz" => written(liblzma::write::XzEncoder::new(Vec::new(), 1), bytes, |it| it.finish()),
        "bzip2" => {
            let level = bzip2::Compression::fast();
            written(bzip2::write::BzEncoder::new(Vec::new(), level), bytes, |it| it.finish())
        }
        "gzip" => {
            let level = flate2::Compression::fast();
            written(flate2::write::GzEncoder::new(Vec::new(), level), bytes, |it| it.finish())
        }
        "lz4" => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Cursor::new(Vec::new()));
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap().into_inner()
        }
        other => panic!("{other} is no compression"),
    }
}

fn written<W: Write>(
    mut encoder: W,
    bytes: &[u8],
    finish: impl FnOnce(W) -> std::io::Result<Vec<u8>>,
) -> Vec<u8> {
    encoder.write_all(bytes).unwrap();
    finish(encoder).unwrap()
}
