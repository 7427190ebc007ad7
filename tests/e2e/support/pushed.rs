//! Pushing by script, as stock Nix and as our own client do it, and what must hold afterwards.

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::json;
use snowbank::nix::{hash::Sha256, narinfo::NarInfo, store_path::StoreDir};

use super::{
    http::{Connection, Response},
    made::{Form, Made},
    nix::{Scratch, tempdir},
    server::{Server, Setup},
};

/// The data directory of a server that anybody may push to, over many starts.
pub(crate) struct Pushed {
    own: Scratch,
    settings: String,
}

/// Why a push did not come to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The server is gone.
    Gone(io::Error),
    /// It said no.
    Refused(Response),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

/// What was acknowledged.
#[derive(Clone, Default, Debug)]
pub(crate) struct Acknowledged {
    /// Paths that were said to be visible.
    pub(crate) paths: BTreeSet<String>,
    /// Signatures that were said to be taken, with their paths.
    pub(crate) signatures: Vec<(String, String)>,
    /// Logs, by the name of their derivation.
    pub(crate) logs: Vec<String>,
}

impl Pushed {
    /// A new one; `settings` are lines of the configuration, of `[cache.default]` first.
    pub(crate) fn new(settings: &str) -> Self {
        Self::with("", settings)
    }

    /// The same; `general` are lines that belong to no cache.
    pub(crate) fn with(general: &str, settings: &str) -> Self {
        let settings = format!("{general}\n[cache.default]\npush = \"open\"\n{settings}\n");
        Self { own: tempdir(), settings }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.own.path().join("data")
    }

    pub(crate) fn bank(&self) -> PathBuf {
        self.data().join("default")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.own.path().join(name)
    }

    /// A server on it, with these faults if they are not empty.
    pub(crate) fn setup(&self, faults: &str) -> Setup {
        let config = self.file("config.toml");
        fs::write(&config, &self.settings).unwrap();
        let setup = Setup::on(&self.data())
            .argument("--store")
            .argument("none")
            .argument("--config")
            .argument(config);
        if faults.is_empty() { setup } else { setup.environment("SNOWBANK_FAULT", faults) }
    }

    #[track_caller]
    pub(crate) fn start(&self) -> Server {
        self.setup("").start()
    }
}

/// One who pushes, over one connection.
pub(crate) struct Pusher {
    connection: Connection,
    pub(crate) acknowledged: Acknowledged,
}

impl Pusher {
    pub(crate) fn to(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { connection: Connection::try_open(address)?, acknowledged: <_>::default() })
    }

    /// A request with a body, and its answer, whatever it is.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let length = body.len().to_string();
        let headers = [headers, &[("Content-Length", length.as_str())]].concat();
        self.connection.send_request(method, path, &headers)?;
        // A server that refuses may answer before it has read everything.
        let sent = self.connection.send(body);
        self.connection.response(false).map_err(|error| sent.err().unwrap_or(error))
    }

    fn must(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Stop> {
        let answer = self.ask(method, path, headers, body)?;
        if answer.status / 100 == 2 { Ok(answer) } else { Err(Stop::Refused(answer)) }
    }

    /// Sends a NAR as stock Nix does.
    pub(crate) fn stock_nar(&mut self, made: &Made, form: Form) -> Result<(), Stop> {
        let bytes = made.bytes(form);
        self.must("PUT", &format!("/{}", url(&bytes, form)), &[], &bytes).map(drop)
    }

    /// Sends the narinfo that belongs to it.
    pub(crate) fn stock_narinfo(&mut self, made: &Made, form: Form) -> Result<(), Stop> {
        let text = narinfo(made, form);
        self.must("PUT", &format!("/{}.narinfo", made.hash()), &[], text.as_bytes())?;
        self.acknowledged.paths.insert(made.hash());
        Ok(())
    }

    /// Both, in the order of stock Nix.
    pub(crate) fn stock(&mut self, made: &Made, form: Form) -> Result<(), Stop> {
        self.stock_nar(made, form)?;
        self.stock_narinfo(made, form)
    }

    /// The narinfo once more, with a signature.
    pub(crate) fn sign(&mut self, made: &Made, form: Form) -> Result<(), Stop> {
        let signature = format!("test-1:{}==", "A".repeat(86));
        let text = format!("{}Sig: {signature}\n", narinfo(made, form));
        self.must("PUT", &format!("/{}.narinfo", made.hash()), &[], text.as_bytes())?;
        self.acknowledged.signatures.push((made.hash(), signature));
        Ok(())
    }

    /// The log of the derivation that could have made it.
    pub(crate) fn log(&mut self, made: &Made) -> Result<(), Stop> {
        let name = format!("{}.drv", made.info.path);
        self.must("PUT", &format!("/log/{name}"), &[], name.as_bytes())?;
        self.acknowledged.logs.push(name);
        Ok(())
    }

    /// A NAR in one request of the native API.
    pub(crate) fn whole(&mut self, made: &Made, form: Form) -> Result<(), Stop> {
        let path = format!("/_snowbank/v1/nar/{}", made.info.nar_hash.to_nix32());
        let size = made.nar.len().to_string();
        self.must("PUT", &path, &[("Nar-Size", &size)], &made.bytes(form)).map(drop)
    }

    /// Begins an upload, or finds one: its name and how far it is; `None` where nothing is to be sent.
    pub(crate) fn begin(
        &mut self,
        made: &Made,
        form: Form,
    ) -> Result<Option<(String, usize)>, Stop> {
        let form = if form == Form::Seekable { "seekable" } else { "plain" };
        let hash = made.info.nar_hash;
        let new = json!({"nar_hash": hash, "nar_size": made.nar.len(), "form": form});
        let new = serde_json::to_vec(&new).unwrap();
        let state = self.must("POST", "/_snowbank/v1/uploads", &[], &new)?.json();
        if state["complete"] == true {
            return Ok(None);
        }
        let offset = usize::try_from(state["offset"].as_u64().unwrap()).unwrap();
        Ok(Some((state["upload"].as_str().unwrap().to_owned(), offset)))
    }

    pub(crate) fn part(&mut self, id: &str, offset: usize, part: &[u8]) -> Result<(), Stop> {
        let (path, hash) = (format!("/_snowbank/v1/uploads/{id}"), Sha256::of(part).to_string());
        let headers = [("Upload-Offset", offset.to_string()), ("Part-Hash", hash)];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        self.must("PATCH", &path, &headers, part).map(drop)
    }

    pub(crate) fn finish(&mut self, id: &str, bytes: &[u8]) -> Result<(), Stop> {
        let end = json!({"file_size": bytes.len(), "file_hash": Sha256::of(bytes)});
        let (path, end) =
            (format!("/_snowbank/v1/uploads/{id}/finish"), serde_json::to_vec(&end).unwrap());
        self.must("POST", &path, &[], &end).map(drop)
    }

    /// A NAR in three parts.
    pub(crate) fn parts(&mut self, made: &Made, form: Form) -> Result<(), Stop> {
        let Some((id, mut offset)) = self.begin(made, form)? else { return Ok(()) };
        let bytes = made.bytes(form);
        while offset < bytes.len() {
            let end = bytes.len().min(offset + bytes.len() / 3 + 1);
            self.part(&id, offset, &bytes[offset..end])?;
            offset = end;
        }
        self.finish(&id, &bytes)
    }

    /// Makes all of them visible.
    pub(crate) fn commit(&mut self, paths: &[&Made]) -> Result<(), Stop> {
        let infos: Vec<_> = paths.iter().map(|made| &made.info).collect();
        let request = serde_json::to_vec(&json!({"paths": infos})).unwrap();
        let answer = self.must("POST", "/_snowbank/v1/commit", &[], &request)?.json();
        for list in ["published", "present"] {
            let hashes = answer[list].as_array().unwrap().iter();
            self.acknowledged.paths.extend(hashes.map(|hash| hash.as_str().unwrap().to_owned()));
        }
        Ok(())
    }

    /// A whole closure ([`super::made::closure`]) as stock Nix sends it, with more signatures and a log.
    pub(crate) fn stock_closure(&mut self, paths: &[Made]) -> Result<(), Stop> {
        let forms = [Form::Bare, Form::Zstd, Form::Seekable, Form::Zstd];
        for (made, form) in paths.iter().zip(forms) {
            self.stock(made, form)?;
        }
        self.sign(&paths[0], forms[0])?;
        self.log(&paths[0])
    }

    /// The same as our own client sends it: one NAR whole, others in parts, one of them not at all.
    pub(crate) fn native_closure(&mut self, paths: &[Made]) -> Result<(), Stop> {
        self.whole(&paths[0], Form::Zstd)?;
        self.parts(&paths[1], Form::Seekable)?;
        self.parts(&paths[2], Form::Zstd)?;
        self.commit(&paths.iter().collect::<Vec<_>>())
    }
}

fn url(bytes: &[u8], form: Form) -> String {
    let ending = if form == Form::Bare { "" } else { ".zst" };
    format!("nar/{}.nar{ending}", Sha256::of(bytes).to_nix32())
}

/// What stock Nix says of a path.
pub(crate) fn narinfo(made: &Made, form: Form) -> String {
    let bytes = made.bytes(form);
    let narinfo = NarInfo {
        info: made.info.clone(),
        url: url(&bytes, form),
        compression: if form == Form::Bare { "none" } else { "zstd" }.to_owned(),
        file_hash: Some(Sha256::of(&bytes)),
        file_size: Some(bytes.len() as u64),
    };
    narinfo.to_text(&StoreDir::default())
}

/// The paths that have a narinfo on disk.
pub(crate) fn narinfos(bank: &Path) -> BTreeSet<String> {
    names(bank)
        .into_iter()
        .filter_map(|name| name.strip_suffix(".narinfo").map(str::to_owned))
        .collect()
}

/// The names in a directory; none where it is not there.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// Holds what must hold at every moment of a server to which nobody pushes just now: what can be seen is whole, what
/// was acknowledged is there, and nothing else is.
#[track_caller]
pub(crate) fn check(server: &Server, bank: &Path, acknowledged: &Acknowledged) {
    check_visible(server, bank, acknowledged);
    check_left_over(bank);
}

/// The same of what can be seen alone.
#[track_caller]
pub(crate) fn check_visible(server: &Server, bank: &Path, acknowledged: &Acknowledged) {
    let visible = narinfos(bank);
    let mut connection = server.connect();
    for hash in &visible {
        verify(&mut connection, hash, &visible);
    }
    for hash in &acknowledged.paths {
        assert!(visible.contains(hash), "{hash} was acknowledged and is gone");
    }
    for (hash, signature) in &acknowledged.signatures {
        let text = connection.request("GET", &format!("/{hash}.narinfo"), &[]).expect(200).text();
        assert!(text.contains(signature.as_str()), "a signature of {hash} is gone:\n{text}");
    }
    for log in &acknowledged.logs {
        let text = connection.request("GET", &format!("/log/{log}"), &[]).expect(200).text();
        assert_eq!(&text, log, "a log is gone");
    }
}

/// Fetches a path as a client does, and holds it against its narinfo.
#[track_caller]
pub(crate) fn verify(connection: &mut Connection, hash: &str, visible: &BTreeSet<String>) {
    verify_at(connection, "/", hash, visible);
}

/// The same from a cache that answers at `base`, which ends with a slash.
#[track_caller]
pub(crate) fn verify_at(
    connection: &mut Connection,
    base: &str,
    hash: &str,
    visible: &BTreeSet<String>,
) {
    let answer = connection.request("GET", &format!("{base}{hash}.narinfo"), &[]).expect(200);
    let narinfo = NarInfo::parse(&answer.body, &StoreDir::default()).unwrap();
    let file = connection.request("GET", &format!("{base}{}", narinfo.url), &[]).expect(200).body;
    assert_eq!(narinfo.file_size, Some(file.len() as u64), "the FileSize of {hash}");
    assert_eq!(narinfo.file_hash, Some(Sha256::of(&file)), "the FileHash of {hash}");
    let nar = zstd::stream::decode_all(file.as_slice()).unwrap();
    assert_eq!(narinfo.info.nar_hash, Sha256::of(&nar), "the NarHash of {hash}");
    assert_eq!(narinfo.info.nar_size, nar.len() as u64, "the NarSize of {hash}");
    for reference in &narinfo.info.references {
        assert!(visible.contains(&reference.hash().to_string()), "{hash} refers to {reference}");
    }
}

/// No temporary file, no journal, and nothing that waits without what belongs to it.
#[track_caller]
pub(crate) fn check_left_over(bank: &Path) {
    assert_eq!(names(&bank.join("tmp")), [""; 0], "temporary files are left");
    let pending = names(&bank.join("pending"));
    for name in &pending {
        let stem = name.strip_suffix(".facts").or_else(|| name.strip_suffix(".ls"));
        let needed = stem.map_or_else(|| format!("{name}.facts"), str::to_owned);
        assert!(pending.contains(&needed), "{name} without {needed} in {pending:?}");
    }
    let uploads = names(&bank.join("uploads"));
    for name in &uploads {
        let (stem, ending) = name.split_once('.').unwrap();
        let needed = format!("{stem}.{}", if ending == "part" { "state" } else { "part" });
        assert!(uploads.contains(&needed), "{name} without {needed} in {uploads:?}");
    }
}
