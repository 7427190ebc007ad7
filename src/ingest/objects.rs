//! The smaller things that Nix pushes: listings, debug information, logs and realisations.

use serde_json::Value;

use super::publish::Ingest;
use super::refusal::PushError;
use crate::bank::publish::Published;
use crate::bank::{BuildId, Object};
use crate::nix::nar::Listing;
use crate::nix::realisation::{BuildTraceKey, DrvOutput, Realisation};
use crate::nix::signature::Signature;
use crate::nix::store_path::StorePath;

impl Ingest {
    /// Takes a listing, which need only read as one: the one that is served is made of the NAR itself.
    pub fn put_listing(&self, text: &[u8]) -> Result<(), PushError> {
        let read = Listing::from_json(text, self.limits.nar);
        read.map(drop)
            .map_err(|error| PushError::Object { what: "listing", why: error.to_string() })
    }

    /// Takes where debug information is, which need only read as that: what is served is made of the
    /// listing of the NAR, under the name that the NAR has here.
    pub fn put_debug_info(&self, _id: &BuildId, text: &[u8]) -> Result<(), PushError> {
        let refuse = |why: &str| PushError::Object { what: "debug information", why: why.into() };
        let value: Value = serde_json::from_slice(text).map_err(|_| refuse("it is not JSON"))?;
        for field in ["archive", "member"] {
            if value.get(field).and_then(Value::as_str).is_none() {
                return Err(refuse(&format!("it has no text {field:?}")));
            }
        }
        Ok(())
    }

    /// Takes a build log. The first one of a derivation stays.
    pub fn put_log(&self, derivation: &StorePath, bytes: &[u8]) -> Result<(), PushError> {
        self.admitted(|| self.publish_log(derivation, bytes))
    }

    fn publish_log(&self, derivation: &StorePath, bytes: &[u8]) -> Result<(), PushError> {
        self.settle()?;
        let object = Object::Log(derivation.clone());
        match self.bank.publish_object(&object, bytes, false)? {
            Published::New => Ok(()),
            Published::AlreadyThere
                if self.bank.read_object(&object)?.as_deref() == Some(bytes) =>
            {
                Ok(())
            }
            Published::AlreadyThere => {
                Err(PushError::ObjectConflict { what: format!("the log of {derivation}") })
            }
        }
    }

    /// Takes a realisation in the form of Nix before 2.35.
    pub fn put_realisation(&self, key: &DrvOutput, text: &[u8]) -> Result<(), PushError> {
        let value = json(text)?;
        if value.get("id").and_then(Value::as_str).is_some_and(|id| id != key.to_string()) {
            return Err(not_a_realisation("it is of another derivation output"));
        }
        let pushed = Realisation::from_flat_json(&value)
            .ok_or_else(|| not_a_realisation("a field is missing or malformed"))?;
        let fingerprint = pushed.fingerprint(key);
        self.put_signed(
            &Object::Realisation(key.clone()),
            pushed,
            &fingerprint,
            Realisation::from_flat_json,
            &|realisation| realisation.to_flat_json(key),
        )
    }

    /// Takes a realisation in the form of Nix since 2.35.
    pub fn put_build_trace(&self, key: &BuildTraceKey, text: &[u8]) -> Result<(), PushError> {
        let pushed = Realisation::from_build_trace_json(&json(text)?)
            .ok_or_else(|| not_a_realisation("a field is missing or malformed"))?;
        let fingerprint = pushed.build_trace_fingerprint(key);
        self.put_signed(
            &Object::BuildTrace(key.clone()),
            pushed,
            &fingerprint,
            Realisation::from_build_trace_json,
            &Realisation::to_build_trace_json,
        )
    }

    /// The first output path of a realisation stays; signatures are added to it.
    fn put_signed(
        &self,
        object: &Object,
        mut pushed: Realisation,
        fingerprint: &str,
        read: impl Fn(&Value) -> Option<Realisation>,
        write: &dyn Fn(&Realisation) -> Value,
    ) -> Result<(), PushError> {
        self.check_there()?;
        let path = pushed.out_path.clone();
        // The output comes before what says that it is one.
        if !self.has(&path)? {
            return Err(PushError::MissingReferences {
                path: path.clone(),
                count: 1,
                some: path.to_string(),
            });
        }
        pushed.signatures = self.judge_signatures(&path, &pushed.signatures, fingerprint)?;
        // One lock for all realisations of an output: two signatures must not lose each other.
        let _lock = self.lock(path.hash());
        self.settle()?;
        let stored = self.bank.read_object(object)?;
        let stored = stored.and_then(|text| read(&serde_json::from_slice(&text).ok()?));
        let replace = match stored {
            None => false,
            Some(stored) if stored.out_path != path => {
                return Err(PushError::ObjectConflict {
                    what: format!("the realisation ({} stays, {path} is refused)", stored.out_path),
                });
            }
            Some(stored) => {
                let merged = crate::source::cache::merge(&stored.signatures, &pushed.signatures);
                if merged == stored.signatures {
                    return Ok(());
                }
                pushed.signatures = merged;
                true
            }
        };
        let text = write(&pushed).to_string();
        let published = self.bank.publish_object(object, text.as_bytes(), replace);
        published.map(drop).map_err(|error| self.with_numbers(error.into()))
    }

    /// As for paths ([`super::check::Policy::judge`]), of another text.
    fn judge_signatures(
        &self,
        path: &StorePath,
        signatures: &[Signature],
        text: &str,
    ) -> Result<Vec<Signature>, PushError> {
        let own = self.cache.keys().public();
        self.policy.judge_text(path, signatures, text, &own, false)
    }
}

fn json(text: &[u8]) -> Result<Value, PushError> {
    serde_json::from_slice(text).map_err(|_| not_a_realisation("it is not JSON"))
}

fn not_a_realisation(why: &str) -> PushError {
    PushError::Object { what: "realisation", why: why.into() }
}
