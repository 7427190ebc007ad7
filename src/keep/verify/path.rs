//! One path, held against every byte that lies on disk of it.

use serde_json::Value;

use super::finding::{Finding, Kind};
use crate::bank::{Bank, BankError, Object, is_read_error};
use crate::codec::Compression;
use crate::ingest::nar::{NarLimits, VerifiedNar, read_back, survey};
use crate::nix::nar::Listing;
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::{self, NarInfo};
use crate::nix::signature::fingerprint;
use crate::nix::store_path::{StoreDir, StorePath, StorePathHash};
use crate::sign::{PublicKey, is_forged};

/// What a path is held against besides its bytes.
pub struct Measure<'a> {
    /// The bank that it lies in.
    pub bank: &'a Bank,
    /// Of its paths.
    pub store_dir: &'a StoreDir,
    /// What reading a NAR may cost.
    pub limits: NarLimits,
    /// The keys that the cache knows: a signature by one of them must be right.
    pub keys: &'a [PublicKey],
    /// Whether a path that is referred to is here; always, where it may be had from elsewhere.
    pub is_here: &'a dyn Fn(&StorePath) -> bool,
}

/// What was found of a path.
#[derive(Debug, Default)]
pub struct Looked {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What its narinfo says, if it can be read.
    pub narinfo: Option<NarInfo>,
    /// The listing that its NAR gives, where the one on disk is another.
    pub listing: Option<Vec<u8>>,
    /// How many bytes of NAR were read, as they lie.
    pub bytes: u64,
}

impl Looked {
    fn add(&mut self, kind: Kind, what: impl Into<String>) {
        self.findings.push(Finding { kind, what: what.into() });
    }

    /// Adds that a file cannot be read; an error of the disk is no finding, and is given back.
    fn add_unread(&mut self, kind: Kind, error: BankError) -> Result<(), BankError> {
        if is_of_file(&error) {
            self.add(kind, error.to_string());
        } else if is_denied(&error) {
            self.add(Kind::Denied, error.to_string());
        } else {
            return Err(error);
        }
        Ok(())
    }

    /// Whether what lies there must not be served.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind.is_damage())
    }
}

impl Measure<'_> {
    /// Reads all that lies there of a path; `None` where nothing does. An error is of the disk, and says nothing of
    /// the path. Blocks.
    pub fn look(&self, hash: StorePathHash) -> Result<Option<Looked>, BankError> {
        let mut looked = Looked::default();
        let text = match self.bank.read_narinfo(hash) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            Err(error) => {
                looked.add_unread(Kind::NarInfo, error)?;
                return Ok(Some(looked));
            }
        };
        let narinfo = match self.read(hash, &text) {
            Ok(narinfo) => narinfo,
            Err(why) => {
                looked.add(Kind::NarInfo, why);
                return Ok(Some(looked));
            }
        };
        self.look_at_signatures(&narinfo, &mut looked);
        self.look_at_references(&narinfo, &mut looked);
        let is_ours = narinfo::has_sum(&text);
        if let Some(nar) = self.look_at_nar(&narinfo, is_ours, &mut looked)? {
            self.look_at_listing(hash, &nar, is_ours, &mut looked)?;
        }
        looked.narinfo = Some(narinfo);
        Ok(Some(looked))
    }

    fn read(&self, hash: StorePathHash, text: &[u8]) -> Result<NarInfo, String> {
        let narinfo = NarInfo::parse(text, self.store_dir).map_err(|error| error.to_string())?;
        if narinfo.info.path.hash() != hash {
            return Err(format!("it is of another path, {}", narinfo.info.path));
        }
        Ok(narinfo)
    }

    fn look_at_signatures(&self, narinfo: &NarInfo, looked: &mut Looked) {
        let text = fingerprint(self.store_dir, &narinfo.info);
        for signature in &narinfo.info.signatures {
            if is_forged(self.keys.iter(), &text, signature) {
                let name = signature.key_name();
                looked.add(Kind::Signature, format!("the signature by {name} is not of this path"));
            }
        }
    }

    fn look_at_references(&self, narinfo: &NarInfo, looked: &mut Looked) {
        for reference in &narinfo.info.references {
            if *reference != narinfo.info.path && !(self.is_here)(reference) {
                looked.add(Kind::Dangling, format!("it refers to {reference}, which is not here"));
            }
        }
    }

    fn look_at_nar(
        &self,
        narinfo: &NarInfo,
        is_ours: bool,
        looked: &mut Looked,
    ) -> Result<Option<VerifiedNar>, BankError> {
        let Some(name) = narinfo.nar_file() else {
            looked.add(Kind::NarInfo, format!("its URL {:?} is no NAR of a bank", narinfo.url));
            return Ok(None);
        };
        let Ok(compression) = narinfo.compression.parse::<Compression>() else {
            let what = format!("its compression {:?} is not known", narinfo.compression);
            looked.add(Kind::NarInfo, what);
            return Ok(None);
        };
        let file = match self.bank.open_nar(name) {
            Ok(Some((file, _))) => file,
            Ok(None) => {
                looked.add(Kind::Nar, format!("{} is not there", narinfo.url));
                return Ok(None);
            }
            Err(error) => {
                looked.add_unread(Kind::Nar, error)?;
                return Ok(None);
            }
        };
        match survey(read_back(&file), compression, &self.limits) {
            Ok(nar) => {
                looked.bytes = nar.received.size;
                compare(narinfo, &nar, is_ours, looked);
                Ok(Some(nar))
            }
            Err(error) if error.is_of_content() => {
                // What it says itself is of uploads.
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                looked.add(Kind::Nar, cause.unwrap_or_else(|| error.to_string()));
                Ok(None)
            }
            Err(error) => Err(BankError::Io {
                path: self.bank.root().join(name.url()),
                source: std::io::Error::other(error.to_string()),
            }),
        }
    }

    /// A listing is made of the NAR. What we wrote has one; elsewhere it may lack.
    fn look_at_listing(
        &self,
        hash: StorePathHash,
        nar: &VerifiedNar,
        is_ours: bool,
        looked: &mut Looked,
    ) -> Result<(), BankError> {
        let Some(listing) = nar.listing.as_ref().map(Listing::to_json) else { return Ok(()) };
        let stored = match self.bank.read_object(&Object::Listing(hash)) {
            Ok(stored) => stored,
            Err(error) if is_of_file(&error) => Some(Vec::new()),
            Err(error) => return looked.add_unread(Kind::Listing, error),
        };
        let read = |text: &[u8]| serde_json::from_slice::<Value>(text).ok().map(spelled_out);
        let is_right = match &stored {
            // Nix may compress them; these are not ours to judge.
            Some(text) if Compression::from_magic(text) != Compression::None => true,
            Some(text) => {
                *text == listing || read(text).is_some_and(|it| Some(it) == read(&listing))
            }
            None => !is_ours,
        };
        if !is_right {
            looked.add(Kind::Listing, "its listing is not that of its NAR");
            looked.listing = Some(listing);
        }
        Ok(())
    }
}

/// A listing with what some versions of Nix leave out where it is not so.
fn spelled_out(mut listing: Value) -> Value {
    let mut rest = vec![&mut listing];
    while let Some(value) = rest.pop() {
        let Value::Object(fields) = value else { continue };
        if fields.get("type").is_some_and(|kind| kind == "regular") {
            fields.entry("executable").or_insert(Value::Bool(false));
        }
        rest.extend(fields.values_mut());
    }
    listing
}

fn compare(narinfo: &NarInfo, nar: &VerifiedNar, is_ours: bool, looked: &mut Looked) {
    let info = &narinfo.info;
    // A narinfo with a sum is as it was written. Of any other it may be the narinfo that is wrong, and is where the NAR
    // is what its name says.
    let is_named = |name: NarFileName| [nar.received.hash, nar.nar_hash].contains(&name.hash);
    let is_right = !is_ours && narinfo.nar_file().is_some_and(is_named);
    let wrong = if is_right { Kind::NarInfo } else { Kind::Nar };
    let mut differs = |field: &str, said: &dyn std::fmt::Display, is: &dyn std::fmt::Display| {
        looked.add(wrong, format!("its {field} is {is}, and its narinfo says {said}"));
    };
    if info.nar_hash != nar.nar_hash {
        differs("NarHash", &info.nar_hash, &nar.nar_hash);
    }
    if info.nar_size != nar.nar_size {
        differs("NarSize", &info.nar_size, &nar.nar_size);
    }
    if let Some(hash) = narinfo.file_hash.filter(|hash| *hash != nar.received.hash) {
        differs("FileHash", &hash, &nar.received.hash);
    }
    if let Some(size) = narinfo.file_size.filter(|size| *size != nar.received.size) {
        differs("FileSize", &size, &nar.received.size);
    }
    // Nix lets one be declared by hand, and what others wrote may be so; what is pushed to us may not.
    let is_in = |path: &StorePath| !is_ours || nar.references.contains(&path.hash()) != Some(false);
    for reference in info.references.iter().filter(|reference| !is_in(reference)) {
        looked.add(Kind::References, format!("{reference} does not stand in its NAR"));
    }
    if nar.references.contains(&info.path.hash()) == Some(true)
        && !info.references.contains(&info.path)
    {
        looked.add(Kind::References, "it stands in its own NAR, and does not refer to itself");
    }
}

/// Whether an error is of one file, and not of the disk as a whole.
fn is_of_file(error: &BankError) -> bool {
    match error {
        BankError::Damaged { .. } => true,
        BankError::Io { source, .. } => is_read_error(source),
        _ => false,
    }
}

/// Whether a file is not for us to read, which says nothing of what it holds.
fn is_denied(error: &BankError) -> bool {
    matches!(error, BankError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
}
