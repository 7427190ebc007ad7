//! The keys of a cache, and the signatures that were made with them.
//!
//! The views of a cache share them with it, so that other keys sign everywhere from the same moment on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use quick_cache::sync::Cache as Memory;

use crate::metrics::Metrics;
use crate::nix::hash::Sha256;
use crate::nix::signature::Signature;
use crate::sign::KeyRing;

/// Signatures that are remembered: about 150 bytes each.
const SIGNATURES: usize = 100_000;

/// Signs with the keys of a cache, and remembers by the text what it signed.
pub struct Signer {
    keys: RwLock<Arc<KeyRing>>,
    version: AtomicU64,
    made: Memory<Sha256, Arc<Vec<Signature>>>,
    metrics: Arc<Metrics>,
}

impl Signer {
    /// Signs with `keys`.
    pub fn new(keys: KeyRing, metrics: Arc<Metrics>) -> Self {
        Self {
            keys: RwLock::new(Arc::new(keys)),
            version: AtomicU64::new(0),
            made: Memory::new(SIGNATURES),
            metrics,
        }
    }

    /// The keys.
    pub fn keys(&self) -> Arc<KeyRing> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Signs with other keys from now on.
    pub fn set_keys(&self, keys: KeyRing) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Changes whenever the keys do.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Signs with every key, or remembers having done so.
    pub fn sign(&self, text: &str) -> Arc<Vec<Signature>> {
        let key = Sha256::of(format!("{};{text}", self.version()).as_bytes());
        if let Some(known) = self.made.get(&key) {
            return known;
        }
        let began = Instant::now();
        let made = Arc::new(self.keys().sign(text));
        self.metrics.signing.observe(began.elapsed().as_secs_f64());
        self.metrics.signatures.inc_by(made.len() as u64);
        self.made.insert(key, Arc::clone(&made));
        made
    }
}
