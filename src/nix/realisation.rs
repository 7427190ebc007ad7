//! Realisations: which path an output of a content-addressed derivation turned out to be.
//!
//! Two forms are in use. Before Nix 2.35: `realisations/<algo:hex>!<output>.doi`, one flat object.
//! Since: `build-trace-v2/<drv base name>/<output>.doi`, whose body is the value alone.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::signature::Signature;
use super::store_path::StorePath;

/// The name of a derivation's output, such as `out`: the characters of a store path's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OutputName(String);

/// The older key: a hash of the derivation, and the output.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DrvOutput {
    /// `sha256:<64 hex digits>`.
    pub drv_hash: String,
    /// Which output.
    pub output: OutputName,
}

/// The newer key: the derivation's path, and the output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuildTraceKey {
    /// The `.drv`.
    pub derivation: StorePath,
    /// Which output.
    pub output: OutputName,
}

/// A realisation, in what both forms share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Realisation {
    /// The path that the output turned out to be.
    pub out_path: StorePath,
    /// The signatures it came with.
    pub signatures: Vec<Signature>,
    /// Realisations that this one was computed from; only in the older form.
    pub dependent: BTreeMap<String, StorePath>,
}

impl OutputName {
    /// Checks a name.
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte);
        let dotted = text == "." || text == "..";
        (!text.is_empty() && text.len() <= 211 && text.bytes().all(legal) && !dotted)
            .then(|| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DrvOutput {
    /// Reads `sha256:<hex>!<output>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (drv_hash, output) = text.split_once('!')?;
        let hex = drv_hash.strip_prefix("sha256:")?;
        let digits = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (hex.len() == 64 && digits)
            .then(|| Some(Self { drv_hash: drv_hash.into(), output: OutputName::parse(output)? }))?
    }
}

impl fmt::Display for DrvOutput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}!{}", self.drv_hash, self.output.0)
    }
}

impl BuildTraceKey {
    /// Reads the two parts of the URL: `<drv base name>` and `<output>`.
    pub fn parse(derivation: &str, output: &str) -> Option<Self> {
        let derivation = StorePath::parse(derivation).ok()?;
        let is_derivation = derivation.name().ends_with(".drv");
        is_derivation.then(|| Some(Self { derivation, output: OutputName::parse(output)? }))?
    }
}

impl Realisation {
    /// The older form: what its signature signs (without `signatures`).
    pub fn fingerprint(&self, key: &DrvOutput) -> String {
        self.flat(key).to_string()
    }

    /// The newer form: what its signature signs.
    pub fn build_trace_fingerprint(&self, key: &BuildTraceKey) -> String {
        json!({
            "key": {"drvPath": key.derivation.as_str(), "outputName": key.output.as_str()},
            "value": {"outPath": self.out_path.as_str()},
        })
        .to_string()
    }

    /// Reads the body of the older object.
    pub fn from_flat_json(value: &Value) -> Option<Self> {
        let signatures = value.get("signatures").and_then(Value::as_array);
        let signatures = signatures.into_iter().flatten().filter_map(signature).collect();
        let dependent = value.get("dependentRealisations").and_then(Value::as_object);
        let dependent = dependent
            .into_iter()
            .flatten()
            .map(|(id, path)| Some((id.clone(), StorePath::parse(path.as_str()?).ok()?)))
            .collect::<Option<_>>()?;
        Some(Self { out_path: out_path(value)?, signatures, dependent })
    }

    /// Reads the body of the newer object; signatures may be objects or, as before, texts.
    pub fn from_build_trace_json(value: &Value) -> Option<Self> {
        let signatures = value.get("signatures").and_then(Value::as_array);
        let signatures = signatures.into_iter().flatten().filter_map(signature).collect();
        Some(Self { out_path: out_path(value)?, signatures, dependent: BTreeMap::new() })
    }

    /// The body of the older object.
    pub fn to_flat_json(&self, key: &DrvOutput) -> Value {
        let mut value = self.flat(key);
        let texts = self.signatures.iter().map(ToString::to_string).collect::<Vec<_>>();
        value["signatures"] = texts.into();
        value
    }

    /// The body of the newer object.
    pub fn to_build_trace_json(&self) -> Value {
        let signatures: Vec<_> = self
            .signatures
            .iter()
            .map(|signature| {
                let text = signature.to_string();
                let base64 = text.split_once(':').map_or("", |(_, base64)| base64);
                json!({"keyName": signature.key_name().as_str(), "sig": base64})
            })
            .collect();
        json!({"outPath": self.out_path.as_str(), "signatures": signatures})
    }

    fn flat(&self, key: &DrvOutput) -> Value {
        let dependent: BTreeMap<_, _> =
            self.dependent.iter().map(|(id, path)| (id.as_str(), path.as_str())).collect();
        json!({
            "dependentRealisations": dependent,
            "id": key.to_string(),
            "outPath": self.out_path.as_str(),
        })
    }
}

fn out_path(value: &Value) -> Option<StorePath> {
    StorePath::parse(value.get("outPath")?.as_str()?).ok()
}

fn signature(value: &Value) -> Option<Signature> {
    match value {
        Value::String(text) => Signature::parse(text).ok(),
        _ => {
            let (name, base64) = (value.get("keyName")?.as_str()?, value.get("sig")?.as_str()?);
            Signature::parse(&format!("{name}:{base64}")).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> DrvOutput {
        DrvOutput::parse(&format!("sha256:{}!out", "a".repeat(64))).unwrap()
    }

    #[test]
    fn the_fingerprint_is_sorted_compact_json_without_signatures() {
        let realisation = Realisation {
            out_path: StorePath::parse(&format!("{}-x", "0".repeat(32))).unwrap(),
            signatures: Vec::new(),
            dependent: BTreeMap::new(),
        };
        assert_eq!(
            realisation.fingerprint(&key()),
            format!(
                r#"{{"dependentRealisations":{{}},"id":"{}","outPath":"{}-x"}}"#,
                key(),
                "0".repeat(32)
            )
        );
    }

    #[test]
    fn keys_that_could_leave_their_directory_are_refused() {
        for bad in ["", "sha256:aa!out", "md5:aa!out", "../x!out"] {
            assert_eq!(DrvOutput::parse(bad), None, "{bad}");
        }
        let hash = "a".repeat(64);
        for output in ["", ".", "..", "a/b", "a!b"] {
            assert_eq!(DrvOutput::parse(&format!("sha256:{hash}!{output}")), None, "{output}");
        }
        assert_eq!(BuildTraceKey::parse(&format!("{}-x", "0".repeat(32)), "out"), None);
    }
}
