//! Tokens: how they are made, written and read.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::index::state::TokenRecord;
use crate::nix::base32;

/// What every token begins with, for people and for scanners of secrets.
const PREFIX: &str = "sb_";
const ID_BYTES: usize = 5;
const ID_LEN: usize = base32::encoded_len(ID_BYTES);
const SECRET_BYTES: usize = 32;
const SECRET_LEN: usize = base32::encoded_len(SECRET_BYTES);

/// What a new token may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// For people: whose it is.
    pub name: String,
    /// Whether it may push.
    pub push: bool,
    /// Whether it may read private caches.
    pub pull: bool,
    /// Whether it may pin.
    pub pin: bool,
    /// The caches that it is for; `None` is all.
    pub caches: Option<Vec<String>>,
    /// Now, in seconds since 1970.
    pub created: i64,
    /// From when on it is good for nothing.
    pub expires: Option<i64>,
}

/// The system has no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes for a token: {0}")]
pub struct NoRandom(getrandom::Error);

/// Makes a token: its text, which is shown once, and what is kept of it.
pub fn issue(grant: Grant) -> Result<(Zeroizing<String>, TokenRecord), NoRandom> {
    let mut id = [0; ID_BYTES];
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    getrandom::fill(&mut id).and_then(|()| getrandom::fill(secret.as_mut())).map_err(NoRandom)?;
    let (id, secret) = (base32::encode(&id), Zeroizing::new(base32::encode(secret.as_ref())));
    let text = Zeroizing::new(format!("{PREFIX}{id}_{}", secret.as_str()));
    let Grant { name, push, pull, pin, caches, created, expires } = grant;
    let secret_hash = Sha256::digest(secret.as_bytes()).into();
    let record = TokenRecord {
        id,
        secret_hash,
        name,
        push,
        pull,
        pin,
        caches,
        created,
        expires,
        revoked: None,
    };
    Ok((text, record))
}

/// What was shown as a token; of its secret only the hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The token that it claims to be.
    pub id: String,
    secret_hash: [u8; 32],
}

impl Shown {
    /// Reads `sb_<id>_<secret>`; `None` for what cannot be a token.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let legal = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let shaped = id.len() == ID_LEN && secret.len() == SECRET_LEN;
        (shaped && legal(id) && legal(secret))
            .then(|| Self { id: id.to_owned(), secret_hash: Sha256::digest(secret).into() })
    }

    /// Whether the secret is that of `token`. Takes the same time however much of it is right, and
    /// where there is no such token.
    pub fn is(&self, token: Option<&TokenRecord>) -> bool {
        let none = [0; 32];
        let kept = token.map_or(&none, |token| &token.secret_hash);
        bool::from(self.secret_hash.ct_eq(kept)) && token.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    fn grant() -> Grant {
        Grant {
            name: "runner".into(),
            push: true,
            pull: false,
            pin: false,
            caches: None,
            created: 1,
            expires: None,
        }
    }

    #[test]
    fn a_token_is_read_back_and_is_no_other_one() {
        let (text, record) = issue(grant()).unwrap();
        let (other_text, other) = issue(grant()).unwrap();
        assert_ne!(*text, *other_text);
        let shown = Shown::parse(text.as_bytes()).unwrap();
        assert_eq!(shown.id, record.id);
        assert!(shown.is(Some(&record)));
        assert!(!shown.is(Some(&other)) && !shown.is(None));
        // A token is its own prefix, id and secret; nothing is forgiven.
        let last = if text.ends_with('0') { "1" } else { "0" };
        let almost = format!("{}{last}", &text[..text.len() - 1]);
        assert!(!Shown::parse(almost.as_bytes()).unwrap().is(Some(&record)));
    }

    #[test]
    fn nothing_of_the_secret_is_kept() {
        let (text, record) = issue(grant()).unwrap();
        let secret = text.rsplit('_').next().unwrap();
        assert_eq!(secret.len(), 52);
        let shown = Shown::parse(text.as_bytes()).unwrap();
        assert!(!format!("{record:?} {shown:?}").contains(secret));
    }

    #[test]
    fn what_cannot_be_a_token_is_none() {
        let (text, _) = issue(grant()).unwrap();
        let long = "x".repeat(1 << 20);
        for wrong in [
            "",
            "sb_",
            "sb__",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{}x", *text),
            &text.replace("sb_", "SB_"),
            &text.replacen('_', "-", 2),
            &long,
        ] {
            assert_eq!(Shown::parse(wrong.as_bytes()), None, "{:.80}", wrong);
        }
        assert_eq!(Shown::parse(&[0xff; 64]), None);
    }

    #[test]
    fn a_right_beginning_takes_as_long_as_a_wrong_one() {
        let (text, record) = issue(grant()).unwrap();
        let with_tail = |length: usize| {
            let (other, _) = issue(grant()).unwrap();
            let cut = text.len() - length;
            let mixed = format!("{}{}", &text[..cut], &other[cut..]);
            Shown::parse(mixed.as_bytes()).unwrap()
        };
        // The whole secret is wrong, or its last character; and the hashes agree in all but one byte.
        let (all_wrong, mut nearly) = (with_tail(SECRET_LEN), with_tail(1));
        nearly.secret_hash = record.secret_hash;
        nearly.secret_hash[31] ^= 1;
        let mut times = [const { Vec::new() }; 2];
        for round in 0..20_000 {
            // In turns, so that whatever else the machine does meets both.
            let shown = [&all_wrong, &nearly][round % 2];
            let began = Instant::now();
            for _ in 0..16 {
                assert!(!black_box(shown).is(black_box(Some(&record))));
            }
            times[round % 2].push(began.elapsed().as_secs_f64());
        }
        let mean = |times: &[f64]| times.iter().sum::<f64>() / times.len() as f64;
        let [wrong, right] = times.each_ref().map(|times| mean(times));
        let deviation = |times: &[f64], mean: f64| {
            (times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / times.len() as f64)
                .sqrt()
        };
        let sigma = deviation(&times[0], wrong).max(deviation(&times[1], right));
        assert!((wrong - right).abs() < sigma, "{wrong} and {right}, sigma {sigma}");
    }
}
