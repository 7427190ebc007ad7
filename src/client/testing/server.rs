//! As much of a server as a client has to deal with: it keeps what it is sent, hashes it, refuses
//! what is not right, and fails when it is told to.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::json;

use super::super::remote::{Destination, Remote};
use crate::native::{
    CommitRequest, CommitResponse, FinishUpload, MissingRequest, MissingResponse, NewUpload,
    Refusal, Refusals, UploadState,
};
use crate::nix::hash::Sha256;
use crate::nix::store_path::StorePathHash;

/// A server on loopback, until the test ends.
pub(in super::super) struct Server {
    address: String,
    state: Arc<Mutex<State>>,
}

/// What it has, and what it was asked.
#[derive(Default)]
pub(in super::super) struct State {
    pub(in super::super) visible: HashSet<StorePathHash>,
    /// By NarHash, as they were sent.
    pub(in super::super) nars: HashMap<Sha256, Vec<u8>>,
    pub(in super::super) uploads: HashMap<String, (NewUpload, Vec<u8>)>,
    pub(in super::super) upstream_keys: Vec<String>,
    pub(in super::super) commits: Vec<CommitRequest>,
    /// `METHOD path`, without what names a NAR or an upload.
    pub(in super::super) log: Vec<String>,
    /// Requests whose line begins so are failed so, each once, in this order.
    pub(in super::super) failures: VecDeque<(&'static str, Failure)>,
    /// Paths that a commit refuses, with the reason.
    pub(in super::super) refused: HashMap<StorePathHash, String>,
    /// A NAR that it answers with 500, always.
    pub(in super::super) chokes_on: Option<Sha256>,
}

#[derive(Clone, Copy)]
pub(in super::super) enum Failure {
    /// Answers with a status.
    Status(u16),
    /// Does it, and then hangs up instead of answering.
    HangUp,
    /// Has lost every NAR that is not visible, and answers accordingly.
    LoseNars,
}

type Answer = (u16, Vec<u8>);

impl Server {
    pub(in super::super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream.unwrap(), &shared));
            }
        });
        Self { address, state }
    }

    pub(in super::super) fn remote(&self) -> Remote {
        let destination = Destination::parse(&self.address, None).unwrap();
        Remote::new(&destination, None, None, 4, &|_| None).unwrap()
    }

    pub(in super::super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How many requests there were whose line begins so.
    pub(in super::super) fn count(&self, beginning: &str) -> usize {
        self.state().log.iter().filter(|line| line.starts_with(beginning)).count()
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let length = header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let mut words = head.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        let path = path.strip_prefix("/_snowbank/v1").unwrap_or("?");
        let mut state = state.lock().unwrap();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let line = format!(
            "{method} {}{}",
            parts[0],
            parts.get(2).map_or(String::new(), |end| format!("/{end}"))
        );
        state.log.push(line.clone());
        let position = state.failures.iter().position(|(beginning, _)| line.starts_with(beginning));
        let failure = position.and_then(|position| state.failures.remove(position));
        let (status, text) = match failure {
            Some((_, Failure::Status(status))) => (status, b"scripted".to_vec()),
            other => {
                if matches!(other, Some((_, Failure::LoseNars))) {
                    state.nars.clear();
                }
                let answer = state.answer(method, &parts, &header, &body);
                if matches!(other, Some((_, Failure::HangUp))) {
                    return None;
                }
                answer
            }
        };
        drop(state);
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", text.len());
        let mut stream = stream;
        stream.write_all(&[head.as_bytes(), &text].concat()).ok()?;
    }
}

fn ok(value: impl serde::Serialize) -> Answer {
    (200, serde_json::to_vec(&value).unwrap())
}

fn refuse(status: u16, errors: Vec<Refusal>) -> Answer {
    (status, serde_json::to_vec(&Refusals { errors }).unwrap())
}

fn no(status: u16, reason: &str) -> Answer {
    refuse(status, vec![Refusal { reason: reason.into(), ..Refusal::default() }])
}

impl State {
    fn answer(
        &mut self,
        method: &str,
        path: &[&str],
        header: &dyn Fn(&str) -> Option<String>,
        body: &[u8],
    ) -> Answer {
        match (method, path) {
            ("POST", ["missing"]) => {
                let MissingRequest { mut paths, mut nars, .. } =
                    serde_json::from_slice(body).unwrap();
                paths.retain(|path| !self.visible.contains(path));
                nars.retain(|nar| self.nars.contains_key(nar));
                let (store_dir, upstream_keys) = ("/nix/store".into(), self.upstream_keys.clone());
                ok(MissingResponse { missing: paths, store_dir, upstream_keys, waiting: nars })
            }
            ("PUT", ["nar", hash]) => {
                let hash = Sha256::from_nix32(hash).unwrap();
                if self.chokes_on == Some(hash) {
                    return no(500, "it choked");
                }
                let size = header("nar-size").unwrap().parse().unwrap();
                self.keep(hash, size, body)
            }
            ("POST", ["uploads"]) => {
                let request: NewUpload = serde_json::from_slice(body).unwrap();
                if self.nars.contains_key(&request.nar_hash) {
                    return ok(state_of("", &request, 0, true));
                }
                let found = self.uploads.iter().find(|(_, (known, _))| {
                    (known.nar_hash, &known.form) == (request.nar_hash, &request.form)
                });
                let id = found.map_or_else(|| format!("u{}", self.log.len()), |(id, _)| id.clone());
                let (request, bytes) = self.uploads.entry(id.clone()).or_insert((request, vec![]));
                ok(state_of(&id, request, bytes.len(), false))
            }
            (_, ["uploads", id, ..]) => {
                let Some((request, bytes)) = self.uploads.get_mut(*id) else {
                    return no(404, "no such upload");
                };
                let request = request.clone();
                match (method, path.get(2)) {
                    ("GET", None) => ok(state_of(id, &request, bytes.len(), false)),
                    ("PATCH", None) => {
                        if header("upload-offset").unwrap() != bytes.len().to_string() {
                            return no(409, "another offset");
                        }
                        if header("part-hash").unwrap() != Sha256::of(body).to_string() {
                            return no(400, "another hash");
                        }
                        bytes.extend_from_slice(body);
                        ok(state_of(id, &request, bytes.len(), false))
                    }
                    ("DELETE", None) => {
                        self.uploads.remove(*id);
                        ok(json!({}))
                    }
                    ("POST", Some(&"finish")) => {
                        let finish: FinishUpload = serde_json::from_slice(body).unwrap();
                        let (_, bytes) = self.uploads.remove(*id).unwrap();
                        if finish.file_size != bytes.len() as u64 {
                            return no(422, "not what was promised");
                        }
                        self.keep(request.nar_hash, request.nar_size, &bytes)
                    }
                    _ => no(405, "what?"),
                }
            }
            ("POST", ["commit"]) => self.commit(serde_json::from_slice(body).unwrap()),
            _ => no(404, "what?"),
        }
    }

    fn keep(&mut self, hash: Sha256, size: u64, body: &[u8]) -> Answer {
        let nar = zstd::decode_all(body).unwrap_or_default();
        if (Sha256::of(&nar), nar.len() as u64) != (hash, size) {
            return no(422, "not what was promised");
        }
        self.nars.insert(hash, body.to_vec());
        let request = NewUpload { nar_hash: hash, nar_size: size, form: String::new() };
        ok(state_of("", &request, 0, true))
    }

    fn commit(&mut self, request: CommitRequest) -> Answer {
        let mut errors = Vec::new();
        let mut known: HashSet<StorePathHash> = self.visible.clone();
        known.extend(request.paths.iter().chain(&request.upstream).map(|info| info.path.hash()));
        for info in &request.paths {
            let path = Some(info.path.hash());
            if let Some(reason) = self.refused.get(&info.path.hash()) {
                errors.push(Refusal { path, reason: reason.clone(), send_again: false });
            }
            if !self.nars.contains_key(&info.nar_hash) {
                let reason = "its NAR is not here".into();
                errors.push(Refusal { path, reason, send_again: true });
            }
            for reference in info.references.iter().filter(|one| !known.contains(&one.hash())) {
                let reason = format!("reference {reference} is not here");
                errors.push(Refusal { path, reason, send_again: true });
            }
        }
        if !errors.is_empty() {
            return refuse(409, errors);
        }
        let published = request.paths.iter().map(|info| info.path.hash()).collect::<Vec<_>>();
        self.visible.extend(&published);
        self.commits.push(request);
        ok(CommitResponse { published, present: vec![] })
    }
}

fn state_of(id: &str, request: &NewUpload, offset: usize, complete: bool) -> UploadState {
    UploadState {
        upload: id.into(),
        nar_hash: request.nar_hash,
        nar_size: request.nar_size,
        offset: offset as u64,
        complete,
    }
}
