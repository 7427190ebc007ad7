//! What stands between this machine and a cache, as a Nix here would meet it.
//!
//! From below: what nix.conf says, the name, the connection, TLS, HTTP, `nix-cache-info`, the key, one path.
//! What needs a step that failed is skipped, and a line says so. Nothing waits for ever: each step has its
//! time, which the constants of its file say; and nothing that is secret is printed.

mod agent;
mod cache;
mod contact;
mod path;
mod proxy;
mod reach;
mod secure;
mod settings;
mod text;
pub(in crate::app) mod trusted;

use std::path::Path;

use jiff::Timestamp;

use super::{Finding, Verdict};
use crate::client::nix_conf::view::{Lookup, View};
use crate::nix::store_path::{StoreDir, StorePath, StorePathError, StorePathHash};
use crate::source::upstream::connect::{Address, AddressError};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The cache.
    pub address: Address,
    /// A path of it that is to be fetched.
    pub path: Option<StorePathHash>,
    /// The store directory here.
    pub store_dir: StoreDir,
}

/// Why a question makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// Not the address of a cache.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Not a store path.
    #[error("--path: {0}; HASH-NAME, its 32 digits or a full store path is expected")]
    Path(StorePathError),
}

impl Question {
    /// Reads what somebody typed.
    pub fn parse(
        url: &str,
        path: Option<&str>,
        store_dir: StoreDir,
    ) -> Result<Self, QuestionError> {
        let address = Address::parse(url)?;
        let path = path.map(hash).transpose().map_err(QuestionError::Path)?;
        Ok(Self { address, path, store_dir })
    }
}

/// The hash of a path, of what lies in it, of its base name, or itself.
fn hash(text: &str) -> Result<StorePathHash, StorePathError> {
    if let Some(hash) = StorePathHash::parse(text) {
        return Ok(hash);
    }
    // Whatever the store directory is: the first part that can be one.
    let found = text.split('/').find_map(|part| StorePath::parse(part).ok());
    match found {
        Some(path) => Ok(path.hash()),
        None => StorePath::parse(text).map(|path| path.hash()),
    }
}

/// All that is known of the client while it is examined.
struct Client<'a> {
    question: &'a Question,
    /// That of whoever fetches, then the others.
    views: &'a [View],
    lookup: Lookup<'a>,
    /// In seconds since 1970.
    now: i64,
}

/// Looks at everything between this machine and the cache.
pub fn examine(question: &Question, lookup: Lookup<'_>) -> Vec<Finding> {
    let views = View::all(Path::new("/"), lookup);
    let now = Timestamp::now().as_second();
    let client = Client { question, views: &views, lookup, now };
    let mut findings = settings::examine(&client);
    if let Err(Stopped(last)) = client.go(&mut findings) {
        findings.extend(last.skipped());
    }
    findings
}

/// What is looked at, each step needing those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Dns,
    Tcp,
    Tls,
    Http,
    CacheInfo,
    Key,
    Narinfo,
    Nar,
}

/// A step failed that the others need; its finding says what is wrong.
#[derive(Debug)]
struct Stopped(Step);

impl Step {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Dns, "DNS"),
        (Self::Tcp, "TCP"),
        (Self::Tls, "TLS"),
        (Self::Http, "HTTP"),
        (Self::CacheInfo, "nix-cache-info"),
        (Self::Key, "key"),
        (Self::Narinfo, "narinfo"),
        (Self::Nar, "NAR"),
    ];

    /// One line with the names of the steps after this one; none after the last.
    fn skipped(self) -> Option<Finding> {
        let after = Self::ALL.into_iter().filter(|(step, _)| *step > self);
        let names: Vec<&str> = after.map(|(_, name)| name).collect();
        (!names.is_empty())
            .then(|| Finding::skipped(names.join(", "), "not looked at before that is put right"))
    }
}

impl Client<'_> {
    fn go(&self, findings: &mut Vec<Finding>) -> Result<(), Stopped> {
        let (proxy, status) = match proxy::for_address(&self.question.address, self.lookup) {
            Some(proxy) => {
                findings.extend(proxy::findings(&proxy));
                let usable = proxy.to_ureq().map_err(|finding| {
                    findings.push(finding);
                    Stopped(Step::Tls)
                });
                (Some(usable?), None)
            }
            None => (None, Some(self.meet(findings)?)),
        };
        let cache = agent::Cache::new(self, proxy, status, findings)?;
        cache::examine(self, &cache, findings)?;
        match self.question.path {
            Some(hash) => path::examine(self, &cache, hash, findings),
            None => {
                trusted::keys_of_page(self, &cache, findings);
                findings.push(Finding::skipped(
                    "a path from end to end",
                    "none was given; `--path HASH-NAME` fetches one and checks all of it",
                ));
                Ok(())
            }
        }
    }

    /// Reaches the server without a proxy and without a secret. The status that `nix-cache-info` has for
    /// strangers.
    fn meet(&self, findings: &mut Vec<Finding>) -> Result<u16, Stopped> {
        let address = &self.question.address;
        let place = reach::reach(address, findings)?;
        if address.is_secure() {
            let shown = secure::shake_hands(address, place, findings)?;
            let contact = contact::secure(address, place);
            let offset =
                contact.as_ref().ok().and_then(|head| contact::clock_offset(head, self.now));
            let trusts = secure::judge(self, &shown, offset, findings);
            // That nobody is believed is a reason, and not what comes of asking all the same.
            if !trusts {
                findings.extend(offset.map(contact::clock));
                return Err(Stopped(Step::Tls));
            }
            contact::judge(self, place, contact, findings)
        } else {
            contact::judge(self, place, contact::plain(address, place), findings)
        }
    }

    /// The view of whoever fetches: the daemon's where there is one.
    fn fetcher(&self) -> &View {
        // There is always one of the user.
        &self.views[0]
    }

    /// Looks at something in each view: one finding where all see the same, else one for each, and a problem
    /// of one who does not fetch is a warning.
    fn in_each_view(&self, look: impl Fn(&View) -> Finding) -> Vec<Finding> {
        let mut all: Vec<(&View, Finding)> =
            self.views.iter().map(|view| (view, look(view))).collect();
        let same = all.iter().all(|(_, finding)| *finding == all[0].1);
        if same {
            all.truncate(1);
        }
        let several = all.len() > 1;
        all.into_iter()
            .map(|(view, mut finding)| {
                if several {
                    finding.what += &format!(" (for {})", view.who);
                    if view.who != self.fetcher().who && finding.verdict == Verdict::Problem {
                        finding.verdict = Verdict::Warning;
                    }
                }
                finding
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_step_that_failed_is_named() {
        let after = |step: Step| step.skipped().map(|finding| finding.what);
        assert_eq!(after(Step::Tls).as_deref(), Some("HTTP, nix-cache-info, key, narinfo, NAR"));
        assert_eq!(after(Step::Nar), None);
    }

    #[test]
    fn a_path_is_named_as_one_has_it() {
        let digits = "0c5p1gm5v1cwwdgz2vfqwdlkyjrkh2l5";
        for text in [
            digits.to_owned(),
            format!("{digits}-hello"),
            format!("/nix/store/{digits}-hello"),
            format!("/nix/store/{digits}-hello/bin/hello"),
        ] {
            assert_eq!(hash(&text).unwrap().to_string(), digits, "{text}");
        }
        for text in ["", "hello", "/nix/store", "0c5p1gm5v1cwwdgz2vfqwdlkyjrkh2l5-"] {
            assert!(hash(text).is_err(), "{text}");
        }
    }
}
