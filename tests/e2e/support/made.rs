//! Store paths that nobody built: a name, a NAR of a few kilobytes, and references between them.

use snowbank::{
    codec::seekable::{Encoder, Settings},
    nix::{
        hash::Sha256,
        nar::{Encoder as NarEncoder, Event},
        path_info::PathInfo,
        store_path::StorePath,
    },
};

use super::trees::Numbers;

/// A path and the NAR of it.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) info: PathInfo,
    pub(crate) nar: Vec<u8>,
}

/// How a NAR is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// As it is.
    Bare,
    /// One frame of zstd, as Nix makes it.
    Zstd,
    /// As our own client makes it, and as it is stored.
    Seekable,
}

impl Made {
    /// A path of one file with these bytes and the hashes of what it refers to.
    pub(crate) fn new(name: &str, bytes: &[u8], references: &[&Self]) -> Self {
        Self::with_debug_file(name, bytes, references, None)
    }

    /// The same with debug information for a build ID of 40 digits, if one is given.
    pub(crate) fn with_debug_file(
        name: &str,
        bytes: &[u8],
        references: &[&Self],
        build_id: Option<&str>,
    ) -> Self {
        let path = path(&[name.as_bytes(), bytes].concat(), name);
        let mut contents = bytes.to_vec();
        for reference in references {
            contents.extend_from_slice(format!(" /nix/store/{}", reference.info.path).as_bytes());
        }
        let nar = nar(&contents, build_id);
        let mut info = PathInfo::new(path, Sha256::of(&nar), nar.len() as u64);
        info.references = references.iter().map(|made| made.info.path.clone()).collect();
        info.references.sort_unstable();
        Self { info, nar }
    }

    /// Another path with the same NAR.
    pub(crate) fn twin(&self, name: &str) -> Self {
        let mut twin = self.clone();
        twin.info.path = path(name.as_bytes(), name);
        twin
    }

    /// The 32 digits.
    pub(crate) fn hash(&self) -> String {
        self.info.path.hash().to_string()
    }

    /// The NAR as it is sent.
    pub(crate) fn bytes(&self, form: Form) -> Vec<u8> {
        match form {
            Form::Bare => self.nar.clone(),
            Form::Zstd => zstd::bulk::compress(&self.nar, 3).unwrap(),
            Form::Seekable => {
                let mut encoder = Encoder::new(Vec::new(), Settings::default()).unwrap();
                std::io::Write::write_all(&mut encoder, &self.nar).unwrap();
                encoder.finish().unwrap().1
            }
        }
    }
}

/// Four paths: one with debug information, one that refers to it, one that refers to both, and one with the NAR of the
/// first. The order is one in which they can be pushed. Different for each number.
pub(crate) fn closure(number: u64) -> Vec<Made> {
    let mut numbers = Numbers::from(number);
    let id = format!("{number:040x}");
    let first = Made::with_debug_file("first", &numbers.bytes(3000), &[], Some(&id));
    let second = Made::new("second", &numbers.bytes(5000), &[&first]);
    let third = Made::new("third", &numbers.bytes(9000), &[&first, &second]);
    let twin = first.twin(&format!("twin-{number}"));
    vec![first, second, third, twin]
}

/// A path whose hash is made of `seed`.
fn path(seed: &[u8], name: &str) -> StorePath {
    StorePath::parse(&format!("{}-{name}", &Sha256::of(seed).to_nix32()[..32])).unwrap()
}

fn nar(contents: &[u8], build_id: Option<&str>) -> Vec<u8> {
    let mut encoder = NarEncoder::default();
    let mut out = Vec::new();
    let mut say = |event: Event<'_>| encoder.event(&event, &mut out);
    say(Event::Directory);
    say(Event::Entry(b"file"));
    say(Event::File { executable: false, size: contents.len() as u64, contents_offset: 0 });
    say(Event::Contents(contents));
    say(Event::FileEnd);
    if let Some(id) = build_id {
        let names = ["lib", "debug", ".build-id", &id[..2], &format!("{}.debug", &id[2..])]
            .map(str::to_owned);
        for name in &names {
            say(Event::Entry(name.as_bytes()));
            if !name.ends_with(".debug") {
                say(Event::Directory);
            }
        }
        say(Event::File { executable: false, size: 5, contents_offset: 0 });
        say(Event::Contents(b"debug"));
        say(Event::FileEnd);
        (1..names.len()).for_each(|_| say(Event::DirectoryEnd));
    }
    say(Event::DirectoryEnd);
    out
}
