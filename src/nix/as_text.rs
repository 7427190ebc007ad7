//! Values that JSON writes as the text that Nix uses for them, checked when they are read.

use std::borrow::Cow;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hash::{Sha256, shorten};
use super::signature::Signature;
use super::store_path::{StorePath, StorePathHash};

macro_rules! as_text {
    ($type:ty, $parse:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                let parse: fn(&str) -> Result<Self, String> = $parse;
                parse(&text).map_err(D::Error::custom)
            }
        }
    };
}

as_text!(StorePathHash, |text| {
    Self::parse(text).ok_or_else(|| format!("{:?} is not the hash of a store path", shorten(text)))
});
as_text!(StorePath, |text| Self::parse(text).map_err(|error| error.to_string()));
as_text!(Sha256, |text| Self::parse(text).map_err(|error| error.to_string()));
as_text!(Signature, |text| Self::parse(text).map_err(|error| error.to_string()));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let hash = StorePathHash::from_bytes([7; 20]);
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(json, format!("\"{hash}\""));
        assert_eq!(serde_json::from_str::<StorePathHash>(&json).unwrap(), hash);
        assert!(serde_json::from_str::<StorePathHash>("\"..\"").is_err());
        assert!(serde_json::from_str::<StorePath>("\"../../etc\"").is_err());
        assert!(serde_json::from_str::<Sha256>("\"md5:x\"").is_err());
        assert!(serde_json::from_str::<Sha256>("7").is_err());
    }
}
