//! The native API: what `snowbank push` and a server say to each other.
//!
//! It lies below [`PREFIX`], of the default cache as `/_snowbank/v1/…` and of another one as
//! `/c/<cache>/_snowbank/v1/…`. Bodies are JSON but for the NARs; unknown fields are refused, so
//! that nobody believes to have said something. Every request may be repeated. Errors are a status
//! and a [`Refusals`] in JSON, of at least one reason. Whoever may push may use it; a credential goes
//! into `Authorization: Bearer <token>`.
//!
//! **Which paths are missing?** One question for a whole closure, of up to [`MAX_MISSING`] hashes.
//! Only what the cache holds in its own bank counts as there.
//!
//! ```text
//! POST /_snowbank/v1/missing
//! {"paths":["7rjj86a50146dq4pd5h2fyvnnwxk9m0a","v5sv61sszx301i0x6xysaqzla09nksnd"]}
//!
//! 200 {"missing":["v5sv61sszx301i0x6xysaqzla09nksnd"],"store_dir":"/nix/store",
//!      "upstream_keys":["cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="]}
//! ```
//!
//! `"verify":true` has the server read what it holds of these paths and hash it: what is not what its
//! narinfo says is set aside, and is missing.
//!
//! `"nars":["sha256:0mdqa9w1p6…"]` asks which of these NARs an earlier push has sent and not committed:
//! the answer lists them as `waiting`, and they need not be sent again.
//!
//! Paths signed by one of `upstream_keys` need not be pushed, if the commit proves it (below).
//!
//! **A NAR in one request**, for those up to [`PART_SIZE`] as they are sent. The body is zstd, of any
//! frames; a seekable file of ours ([`crate::codec::seekable`]) is kept as it is.
//!
//! ```text
//! PUT /_snowbank/v1/nar/0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73
//! Nar-Size: 226552
//!
//! 200 {"nar_hash":"sha256:0mdqa9w1p6…","nar_size":226552,"complete":true,"offset":0}
//! ```
//!
//! **A NAR in parts**, for larger ones. The first answer may name an upload that an earlier process of
//! the same pusher began and left, with the offset that it came to: the parts before it are not sent
//! again. It survives a restart of the server. No part may wait for longer than the server's
//! `body_timeout`; how long all of them take does not matter. What nobody goes on with for a day goes.
//!
//! ```text
//! POST /_snowbank/v1/uploads
//! {"nar_hash":"sha256:0mdqa9w1p6…","nar_size":5000000000,"form":"zstd-3-2097152"}
//! 200 {"upload":"6f1c…","nar_hash":"sha256:0mdqa9w1p6…","nar_size":5000000000,"complete":false,"offset":33554432}
//!
//! PATCH /_snowbank/v1/uploads/6f1c…
//! Upload-Offset: 33554432
//! Part-Hash: sha256:1b4s…
//! 200 {… "offset":50331648}       409 {… } where the offset is another; GET tells which
//!
//! POST /_snowbank/v1/uploads/6f1c…/finish
//! {"file_size":1234567890,"file_hash":"sha256:…"}
//! 200 {… "complete":true}         422 where it is not the NAR that was promised: the upload is gone
//! ```
//!
//! `GET` of an upload says how far it is, `DELETE` ends it. `form` is how the client compresses: an
//! upload is gone on with only by a client that makes the same bytes of the same NAR.
//!
//! **The commit** makes paths visible whose NARs are there, references before what refers to them. It
//! is done as a whole or refused as a whole, with every reason. `upstream` proves that references
//! which are not here are signed by one of `upstream_keys`. Paths that are there already are `present`.
//!
//! ```text
//! POST /_snowbank/v1/commit
//! {"paths":[{"path":"v5sv61sszx301i0x6xysaqzla09nksnd-hello-2.10","nar_hash":"sha256:0mdqa9w1p6…",
//!            "nar_size":226552,"references":["7rjj86a50146dq4pd5h2fyvnnwxk9m0a-glibc-2.40"],
//!            "deriver":"…-hello-2.10.drv","signatures":[],"ca":null}],
//!  "upstream":[{"path":"7rjj86a50146dq4pd5h2fyvnnwxk9m0a-glibc-2.40","nar_hash":"sha256:…",…,
//!               "signatures":["cache.nixos.org-1:…"]}]}
//! 200 {"published":["v5sv61sszx301i0x6xysaqzla09nksnd"],"present":[]}
//!
//! 409 {"errors":[{"path":"v5sv61sszx301i0x6xysaqzla09nksnd",
//!                 "send_again":true,
//!                 "reason":"…: 1 of its references are not here; push them first: 7rjj86a50146dq4pd5h2fyvnnwxk9m0a-glibc-2.40"}]}
//! ```
//!
//! **Pins** need a token (or a certificate) with the scope `pin`, and no other. What is pinned by a name again is a
//! new revision of it; `keep_revisions`, `keep_days` or `"forever":true` say how many of them stay.
//!
//! ```text
//! POST /_snowbank/v1/pins
//! {"name":"main","paths":["v5sv61sszx301i0x6xysaqzla09nksnd"],"keep_revisions":3}
//! 200 {"name":"main","revision":7}       404 where a path is not in the cache's own bank
//!
//! GET /_snowbank/v1/pins                 200 {"pins":[{"name":"main","paths":1,"revisions":3,…}]}
//! GET /_snowbank/v1/pins/main            200 {"revisions":[{"number":7,"by":"ci","created":…,"paths":[…]},…]}
//! DELETE /_snowbank/v1/pins/main         204
//! ```
//!
//! **What is here**, for peers: whoever may read may ask. The answer is [`crate::index::holdings`]; with what an
//! earlier answer said as `epoch` and `after`, only what came since.
//!
//! ```text
//! GET /_snowbank/v1/holdings?epoch=1234567890&after=17
//! 200 …       503 while it is not known yet
//! ```

use serde::{Deserialize, Serialize};

use crate::nix::hash::Sha256;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::StorePathHash;

/// What all of it lies below, after the cache's own prefix.
pub const PREFIX: &str = "/_snowbank/v1";
/// What all of pins lies below, after the cache's own prefix.
pub const PINS: &str = "/_snowbank/v1/pins";
/// The most hashes in one question.
pub const MAX_MISSING: usize = 100_000;
/// The most paths in one commit, the proofs not counted.
pub const MAX_COMMIT: usize = 10_000;
/// The largest body of JSON, in bytes.
pub const MAX_JSON: usize = 32 << 20;
/// The largest part of an upload, and the largest NAR in one request, in bytes as they are sent.
pub const PART_SIZE: usize = 16 << 20;
/// The header that says how many bytes a NAR has, uncompressed.
pub const NAR_SIZE: &str = "nar-size";
/// The header that says where in the upload a part begins.
pub const UPLOAD_OFFSET: &str = "upload-offset";
/// The header that says what a part hashes to, as `sha256:<nix32>`.
pub const PART_HASH: &str = "part-hash";

/// Which of these are missing?
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingRequest {
    /// At most [`MAX_MISSING`].
    pub paths: Vec<StorePathHash>,
    /// Whether the server shall hash what it has.
    #[serde(default)]
    pub verify: bool,
    /// NARs that may wait there; at most [`MAX_MISSING`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nars: Vec<Sha256>,
}

/// These are missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MissingResponse {
    /// In the order of the question.
    pub missing: Vec<StorePathHash>,
    /// The store directory of the cache.
    pub store_dir: String,
    /// Public keys, `name:base64`, whose signature on a path makes pushing it needless.
    pub upstream_keys: Vec<String>,
    /// Those of the NARs that were asked about which are there, whole and verified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Sha256>,
}

/// Begins an upload, or finds one to go on with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUpload {
    /// Of the uncompressed NAR.
    pub nar_hash: Sha256,
    /// Of the uncompressed NAR, in bytes.
    pub nar_size: u64,
    /// How the client compresses; at most 64 of `a-z 0-9 -`.
    pub form: String,
}

/// How far an upload is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadState {
    /// Its name; empty for a NAR that came in one request, or was there.
    #[serde(default)]
    pub upload: String,
    /// Of the uncompressed NAR.
    pub nar_hash: Sha256,
    /// Of the uncompressed NAR, in bytes.
    pub nar_size: u64,
    /// How many bytes have come, as they are sent.
    pub offset: u64,
    /// Whether the NAR is here, whole and verified: nothing more is to be sent.
    pub complete: bool,
}

/// Says that the last part was sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishUpload {
    /// Of all that was sent, in bytes.
    pub file_size: u64,
    /// Of all that was sent, where the client has hashed it: the NarHash is verified in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_hash: Option<Sha256>,
}

/// Makes paths visible.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRequest {
    /// At most [`MAX_COMMIT`], in any order.
    pub paths: Vec<PathInfo>,
    /// References of these that are not here, signed by an upstream.
    #[serde(default)]
    pub upstream: Vec<PathInfo>,
}

/// They are visible.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CommitResponse {
    /// Those that were not before.
    pub published: Vec<StorePathHash>,
    /// Those that were.
    pub present: Vec<StorePathHash>,
}

/// Why a request was refused; nothing of it was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusals {
    /// At least one.
    pub errors: Vec<Refusal>,
}

/// One reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The path that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<StorePathHash>,
    /// One line: what is wrong, and what to do.
    pub reason: String,
    /// Whether something that was there is not there any more, and sending it again may help.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub send_again: bool,
}

/// Pin these.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinRequest {
    /// What it is called.
    pub name: String,
    /// What it is to name, with all that these refer to; at most [`MAX_COMMIT`].
    pub paths: Vec<StorePathHash>,
    /// Keep the newest so many revisions.
    #[serde(default)]
    pub keep_revisions: Option<u32>,
    /// Keep each revision for so many days, the last one as well.
    #[serde(default)]
    pub keep_days: Option<u32>,
    /// Keep all revisions; a new pin does, if nothing else is said.
    #[serde(default)]
    pub forever: bool,
}

/// It is pinned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinResponse {
    /// What it is called.
    pub name: String,
    /// Which revision this is.
    pub revision: u64,
}

/// The pins of a cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinList {
    /// Oldest first.
    pub pins: Vec<PinSummary>,
}

/// A pin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinSummary {
    /// What it is called.
    pub name: String,
    /// The release that made it, if one did.
    pub release: Option<String>,
    /// When it was first made, in seconds since 1970.
    pub created: i64,
    /// How many revisions stay; all, if neither this nor `keep_days` is there.
    pub keep_revisions: Option<u32>,
    /// For how many days each stays.
    pub keep_days: Option<u32>,
    /// How many revisions there are.
    pub revisions: u64,
    /// How many paths they name.
    pub paths: u64,
}

/// What a pin names and named.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinHistory {
    /// The newest first.
    pub revisions: Vec<PinnedThen>,
}

/// A revision of a pin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinnedThen {
    /// Counts up from 1.
    pub number: u64,
    /// When, in seconds since 1970.
    pub created: i64,
    /// Who pinned.
    pub by: String,
    /// What it names.
    pub paths: Vec<StorePathHash>,
}
