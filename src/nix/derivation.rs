//! Derivations, as far as a cache needs them: which outputs a `.drv` has.
//!
//! A `.drv` is one ATerm, `Derive([(name, path, hash algorithm, hash), …], …)`, or
//! `DrvWithVersion("xp-dyn-drv", [(…), …], …)` where it refers to outputs of outputs, an experiment of
//! newer Nix. The outputs are read strictly; of the rest only that it is well formed.

use std::collections::BTreeMap;

use super::nar::{Event, Limits, NarError, Parser};
use super::realisation::OutputName;
use super::store_path::{StoreDir, StorePath, StorePathError};

/// The outputs of a derivation, each with its path, where that is known before it is built: those of
/// content-addressed derivations are not.
pub type Outputs = BTreeMap<OutputName, Option<StorePath>>;

/// The longest derivation that is read, in bytes. Those of nixpkgs have some kilobytes, the largest
/// some hundreds of them.
pub const MAX_SIZE: u64 = 16 << 20;

/// Why bytes are not a derivation.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DerivationError {
    /// Not the ATerm that Nix writes.
    #[error("not a derivation: at byte {offset}, {expected} was expected")]
    Syntax {
        /// Where.
        offset: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// A path that is none.
    #[error("an output of the derivation")]
    Path(#[from] StorePathError),
    /// The NAR is not that of a single file, which all derivations are.
    #[error("a derivation is a single file, and this NAR is not")]
    NotAFile,
    /// Not a NAR, or one beyond [`MAX_SIZE`].
    #[error(transparent)]
    Nar(#[from] NarError),
}

/// Reads the outputs of the derivation in a NAR.
pub fn outputs_in_nar(nar: &[u8], store_dir: &StoreDir) -> Result<Outputs, DerivationError> {
    let mut contents = Vec::new();
    let mut is_file = true;
    let mut parser = Parser::new(Limits { max_size: MAX_SIZE, ..Limits::default() });
    parser.push(nar, &mut |event| match event {
        Event::File { .. } | Event::FileEnd => {}
        Event::Contents(bytes) => contents.extend_from_slice(bytes),
        _ => is_file = false,
    })?;
    parser.finish()?;
    if !is_file {
        return Err(DerivationError::NotAFile);
    }
    outputs(&contents, store_dir)
}

/// Reads the outputs of a derivation.
pub fn outputs(bytes: &[u8], store_dir: &StoreDir) -> Result<Outputs, DerivationError> {
    let mut reader = Reader { bytes, offset: 0 };
    if !reader.takes(b"Derive(") {
        reader.expect(b"DrvWithVersion(", "\"Derive(\"")?;
        reader.expect(b"\"xp-dyn-drv\",", "a version that is known")?;
    }
    let mut outputs = Outputs::new();
    reader.expect(b"[", "the outputs")?;
    while !reader.takes(b"]") {
        if !outputs.is_empty() {
            reader.expect(b",", "\",\" or \"]\"")?;
        }
        let (name, path) = reader.output(store_dir)?;
        // Nix writes them sorted, each once.
        if outputs.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(reader.wrong("an output after those before it"));
        }
        outputs.insert(name, path);
    }
    if outputs.is_empty() {
        return Err(reader.wrong("an output"));
    }
    for _ in 0..PARTS_AFTER_OUTPUTS {
        reader.expect(b",", "\",\"")?;
        reader.skip(0)?;
    }
    reader.expect(b")", "\")\"")?;
    if reader.offset < bytes.len() {
        return Err(reader.wrong("the end"));
    }
    Ok(outputs)
}

/// Input derivations, input sources, system, builder, arguments, environment.
const PARTS_AFTER_OUTPUTS: usize = 6;

/// How deep lists and tuples may lie in each other. Four in what is written today, and two more for
/// each output of an output.
const MAX_DEPTH: usize = 32;

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl Reader<'_> {
    fn wrong(&self, expected: &'static str) -> DerivationError {
        DerivationError::Syntax { offset: self.offset, expected }
    }

    fn takes(&mut self, token: &[u8]) -> bool {
        let is_there = self.bytes.get(self.offset..).is_some_and(|rest| rest.starts_with(token));
        if is_there {
            self.offset += token.len();
        }
        is_there
    }

    fn expect(&mut self, token: &[u8], name: &'static str) -> Result<(), DerivationError> {
        if self.takes(token) { Ok(()) } else { Err(self.wrong(name)) }
    }

    fn output(
        &mut self,
        store_dir: &StoreDir,
    ) -> Result<(OutputName, Option<StorePath>), DerivationError> {
        self.expect(b"(", "an output")?;
        let name = self.text()?;
        let name = OutputName::parse(&name).ok_or_else(|| self.wrong("the name of an output"))?;
        self.expect(b",", "\",\"")?;
        let path = self.text()?;
        let path = if path.is_empty() { None } else { Some(store_dir.parse_path(&path)?) };
        for _ in ["hash algorithm", "hash"] {
            self.expect(b",", "\",\"")?;
            self.text()?;
        }
        self.expect(b")", "\")\"")?;
        Ok((name, path))
    }

    fn text(&mut self) -> Result<String, DerivationError> {
        let bytes = self.string()?;
        String::from_utf8(bytes).map_err(|_| self.wrong("text"))
    }

    fn string(&mut self) -> Result<Vec<u8>, DerivationError> {
        self.expect(b"\"", "a string")?;
        let mut string = Vec::new();
        loop {
            let rest = self.bytes.get(self.offset..).unwrap_or_default();
            let (byte, length) = match rest {
                [b'"', ..] => {
                    self.offset += 1;
                    return Ok(string);
                }
                [b'\\', b'n', ..] => (b'\n', 2),
                [b'\\', b'r', ..] => (b'\r', 2),
                [b'\\', b't', ..] => (b'\t', 2),
                [b'\\', escaped @ (b'"' | b'\\'), ..] => (*escaped, 2),
                [b'\\', ..] => return Err(self.wrong("an escape that Nix writes")),
                [byte, ..] => (*byte, 1),
                [] => return Err(self.wrong("the end of a string")),
            };
            string.push(byte);
            self.offset += length;
        }
    }

    /// Skips a string, list or tuple of whatever.
    fn skip(&mut self, depth: usize) -> Result<(), DerivationError> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("an end of all these brackets"));
        }
        let close: &[u8] = match self.bytes.get(self.offset) {
            Some(b'[') => b"]",
            Some(b'(') => b")",
            _ => return self.string().map(|_| ()),
        };
        self.offset += 1;
        if self.takes(close) {
            return Ok(());
        }
        loop {
            self.skip(depth + 1)?;
            if self.takes(close) {
                return Ok(());
            }
            self.expect(b",", "\",\" or an end")?;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::nar::testing::Tree;
    use super::*;

    /// By Nix 2.26.3, from `derivation { name = "multi"; outputs = ["out" "dev"]; system =
    /// "x86_64-linux"; builder = "/bin/sh"; args = ["-c" "echo abc > $out; echo \"de\tv\" > $dev"]; }`.
    const MULTI: &str = r#"Derive([("dev","/nix/store/q9qrj5d33xh5mdpdn7xw6kx4069s2qmc-multi-dev","",""),("out","/nix/store/wij7hb44qnam198n39af72d2a4r8nwqb-multi","","")],[],[],"x86_64-linux","/bin/sh",["-c","echo abc > $out; echo \"de	v\" > $dev"],[("builder","/bin/sh"),("dev","/nix/store/q9qrj5d33xh5mdpdn7xw6kx4069s2qmc-multi-dev"),("name","multi"),("out","/nix/store/wij7hb44qnam198n39af72d2a4r8nwqb-multi"),("outputs","out dev"),("system","x86_64-linux")])"#;

    /// The same, with `__contentAddressed = true`.
    const CONTENT_ADDRESSED: &str = r#"Derive([("dev","","r:sha256",""),("out","","r:sha256","")],[],[],"x86_64-linux","/bin/sh",["-c","echo abc > $out; echo $out > $dev"],[("builder","/bin/sh"),("dev","/02qcpld1y6xhs5gz9bchpxaw0xdhmsp5dv88lh25r2ss44kh8dxz"),("name","camulti"),("out","/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"),("outputHashAlgo","sha256"),("outputHashMode","recursive"),("outputs","out dev"),("system","x86_64-linux")])"#;

    fn read(text: &str) -> Result<Vec<(String, Option<String>)>, DerivationError> {
        let outputs = outputs(text.as_bytes(), &StoreDir::default())?;
        let text = |path: StorePath| path.to_string();
        Ok(outputs.into_iter().map(|(name, path)| (name.as_str().into(), path.map(text))).collect())
    }

    #[test]
    fn the_outputs_of_what_nix_writes_are_found() {
        let path = |text: &str| Some(text.to_owned());
        assert_eq!(
            read(MULTI).unwrap(),
            [
                ("dev".into(), path("q9qrj5d33xh5mdpdn7xw6kx4069s2qmc-multi-dev")),
                ("out".into(), path("wij7hb44qnam198n39af72d2a4r8nwqb-multi")),
            ]
        );
        assert_eq!(read(CONTENT_ADDRESSED).unwrap(), [("dev".into(), None), ("out".into(), None)]);
        let dynamic = MULTI.replace("Derive(", "DrvWithVersion(\"xp-dyn-drv\",");
        let dynamic = dynamic.replace("[],[]", r#"[("/nix/store/x",(["out"],[("o",["p"])]))],[]"#);
        assert_eq!(read(&dynamic), read(MULTI));
    }

    #[test]
    fn the_derivation_is_found_in_its_nar() {
        let store_dir = StoreDir::default();
        let nar = Tree::file(MULTI).nar();
        assert_eq!(outputs_in_nar(&nar, &store_dir), outputs(MULTI.as_bytes(), &store_dir));
        let nar = Tree::directory([("a.drv", Tree::file(MULTI))]).nar();
        assert_eq!(outputs_in_nar(&nar, &store_dir), Err(DerivationError::NotAFile));
        let nar = Tree::File { executable: false, contents: vec![b' '; 17 << 20] }.nar();
        assert!(matches!(outputs_in_nar(&nar, &store_dir), Err(DerivationError::Nar(_))));
    }

    #[test]
    fn what_nix_would_not_write_is_refused() {
        for end in 0..MULTI.len() {
            assert!(read(&MULTI[..end]).is_err(), "cut at {end}");
        }
        for (part, instead) in [
            ("Derive", "Derived"),
            ("])", "]) "),
            ("\"out\",\"/nix", "\"dev\",\"/nix"),
            ("(\"dev\",\"/nix", "(\"z\",\"/nix"),
            ("(\"dev\",", "(\"d/v\","),
            ("/nix/store/wij7", "/gnu/store/wij7"),
            ("multi-dev\",\"\",\"\"", "multi-dev\",\"\""),
            ("\\\"de", "\\xde"),
            (",[],[]", ",[]"),
            (",[],[]", ", [],[]"),
        ] {
            assert!(MULTI.contains(part), "{part}");
            assert!(read(&MULTI.replacen(part, instead, 1)).is_err(), "{part} as {instead}");
        }
        assert!(read("Derive([],[],[],\"\",\"\",[],[])").is_err(), "no outputs");
        let deep = MULTI.replacen("[],[]", &format!("{},[]", "[".repeat(1_000_000)), 1);
        assert!(read(&deep).is_err());
    }

    proptest! {
        #[test]
        fn any_change_is_an_error_or_another_reading(
            at in any::<prop::sample::Index>(),
            byte: u8,
        ) {
            let mut bytes = MULTI.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(outputs) = outputs(&bytes, &StoreDir::default()) {
                prop_assert_eq!(outputs.len(), 2);
            }
        }
    }
}
