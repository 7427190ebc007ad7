//! Each way to be let in, and each to be turned away.

use std::time::Duration;

use super::*;
use crate::auth::certificate::{NamePattern, Serial};
use crate::auth::failures::MOST;
use crate::auth::token::{Grant, issue};
use crate::index::state::Revoked;

const SOURCE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

struct Fixture {
    data: tempfile::TempDir,
    gate: Gate,
}

fn policy(push: PushPolicy, pull: PullPolicy) -> CachePolicy {
    CachePolicy { push, pull }
}

fn policies() -> BTreeMap<String, CachePolicy> {
    [
        ("default", policy(PushPolicy::None, PullPolicy::Public)),
        ("open", policy(PushPolicy::Open, PullPolicy::Public)),
        ("team", policy(PushPolicy::Token, PullPolicy::Token)),
        ("strict", policy(PushPolicy::Certificate, PullPolicy::Certificate)),
    ]
    .map(|(name, policy)| (name.to_owned(), policy))
    .into()
}

fn fixture() -> Fixture {
    let data = tempfile::tempdir().unwrap();
    let state = Arc::new(StateDb::open(data.path()).unwrap());
    Fixture { data, gate: Gate::new(policies(), clients(), Some(state)) }
}

fn clients() -> Clients {
    let grant = |pattern: &str, push, pull, caches: Option<&str>| ClientGrant {
        names: vec![NamePattern::parse(pattern).unwrap()],
        push,
        pull,
        pin: push,
        caches: caches.map(|cache| vec![cache.to_owned()]),
    };
    let grants = vec![
        grant("*.ci.example", true, false, Some("team")),
        grant("reader.ci.example", false, true, None),
    ];
    Clients { grants, revocations: Arc::default() }
}

fn certificate(name: &str, not_after: i64) -> Arc<ClientCertificate> {
    Arc::new(ClientCertificate {
        names: vec![name.into()],
        common_name: None,
        not_after,
        serial: Serial { issuer: b"authority".to_vec(), number: name.as_bytes().to_vec() },
    })
}

fn caller(credential: &Credential) -> Caller<'_> {
    Caller { credential, certificate: None, source: SOURCE }
}

fn seconds_from_now(seconds: i64) -> i64 {
    Clock::start(UNIX_EPOCH, Instant::now()).seconds(SystemTime::now(), Instant::now()) + seconds
}

fn grant() -> Grant {
    Grant {
        name: "runner".into(),
        push: true,
        pull: true,
        pin: false,
        caches: Some(vec!["team".into()]),
        created: seconds_from_now(0),
        expires: None,
    }
}

fn credential(text: &str) -> Credential {
    Credential::of([format!("Bearer {text}").as_bytes()].into_iter())
}

impl Fixture {
    /// As another process would make it.
    fn token(&self, grant: Grant) -> (Credential, String) {
        let (text, record) = issue(grant).unwrap();
        StateDb::open(self.data.path()).unwrap().add_token(&record).unwrap();
        (credential(&text), record.id)
    }

    /// As a request does.
    fn check(&self, cache: &str, right: Right, shown: &Credential) -> Result<bool, Denial> {
        if !self.gate.is_current() {
            self.gate.refresh().unwrap();
        }
        let leave = self.gate.check(cache, right, caller(shown));
        leave.map(|leave| !matches!(leave, Leave::Open))
    }
}

#[test]
fn whoever_needs_no_token_is_let_in_whatever_they_show() {
    let fixture = fixture();
    for shown in [Credential::None, Credential::Several, Credential::Unreadable] {
        assert_eq!(fixture.check("default", Right::Pull, &shown), Ok(false));
        assert_eq!(fixture.check("open", Right::Push, &shown), Ok(false));
        assert_eq!(fixture.check("default", Right::Push, &shown), Err(Denial::NoPushes));
    }
    assert_eq!(fixture.check("nowhere", Right::Push, &Credential::None), Err(Denial::NoPushes));
    assert_eq!(fixture.check("nowhere", Right::Pull, &Credential::None), Err(Denial::NoCredential));
}

#[test]
fn a_token_opens_its_caches_for_its_scopes_and_nothing_else() {
    let fixture = fixture();
    let (good, id) = fixture.token(grant());
    for right in [Right::Pull, Right::Push] {
        assert_eq!(fixture.check("team", right, &good), Ok(true));
        assert_eq!(fixture.check("team", right, &Credential::None), Err(Denial::NoCredential));
        assert_eq!(fixture.check("team", right, &Credential::Several), Err(Denial::Several));
    }
    let leave = fixture.gate.check("team", Right::Push, caller(&good)).unwrap();
    let Leave::Token(record) = leave else { panic!("by a token: {leave:?}") };
    assert_eq!((record.id.as_str(), record.name.as_str()), (id.as_str(), "runner"));
    let (everywhere, _) = fixture.token(Grant { caches: None, ..grant() });
    assert_eq!(fixture.check("team", Right::Push, &everywhere), Ok(true));
    let (elsewhere, _) = fixture.token(Grant { caches: Some(vec!["tea".into()]), ..grant() });
    assert_eq!(fixture.check("team", Right::Pull, &elsewhere), Err(Denial::OtherCache));
    let (reader, _) = fixture.token(Grant { push: false, ..grant() });
    assert_eq!(fixture.check("team", Right::Pull, &reader), Ok(true));
    assert_eq!(fixture.check("team", Right::Push, &reader), Err(Denial::MayNotPush));
    let (writer, _) = fixture.token(Grant { pull: false, ..grant() });
    assert_eq!(fixture.check("team", Right::Push, &writer), Ok(true));
    assert_eq!(fixture.check("team", Right::Pull, &writer), Err(Denial::MayNotPull));
}

#[test]
fn a_token_ends_when_it_said_and_may_have_been_made_in_the_future() {
    let fixture = fixture();
    let (over, _) = fixture.token(Grant { expires: Some(seconds_from_now(0)), ..grant() });
    assert_eq!(fixture.check("team", Right::Pull, &over), Err(Denial::Expired));
    let tomorrow = seconds_from_now(86_400);
    let (early, _) = fixture.token(Grant { created: tomorrow, expires: Some(tomorrow), ..grant() });
    assert_eq!(fixture.check("team", Right::Pull, &early), Ok(true));
}

#[test]
fn a_clock_that_is_set_back_opens_nothing_and_one_that_is_set_forward_counts() {
    let (wall, steady) = (UNIX_EPOCH + Duration::from_secs(1_000_000), Instant::now());
    let clock = Clock::start(wall, steady);
    let later = steady + Duration::from_secs(100);
    let at = |seconds: u64| clock.seconds(UNIX_EPOCH + Duration::from_secs(seconds), later);
    assert_eq!(at(1_000_100), 1_000_100);
    assert_eq!(at(1_000_100 - 86_400), 1_000_100, "back a day");
    assert_eq!(at(0), 1_000_100, "1970");
    assert_eq!(at(33_000_000), 33_000_000, "forward a year");
    assert_eq!(at(1_000_101), 1_000_101, "and back to the truth");
}

#[test]
fn a_token_that_another_process_revokes_is_good_for_nothing_at_once() {
    let fixture = fixture();
    let (shown, id) = fixture.token(grant());
    assert_eq!(fixture.check("team", Right::Push, &shown), Ok(true));
    let command = StateDb::open(fixture.data.path()).unwrap();
    assert_eq!(command.revoke_token(&id, seconds_from_now(0)).unwrap(), Revoked::Now);
    assert!(!fixture.gate.is_current());
    assert_eq!(fixture.check("team", Right::Push, &shown), Err(Denial::Revoked));
}

#[test]
fn pushes_that_are_recorded_do_not_have_the_tokens_read_again() {
    let fixture = fixture();
    let (shown, _) = fixture.token(grant());
    assert_eq!(fixture.check("team", Right::Push, &shown), Ok(true));
    let before = Arc::clone(&fixture.gate.tokens().by_id);
    StateDb::open(fixture.data.path()).unwrap().record_pushes(&[]).unwrap();
    let conflict = crate::index::state::ConflictRecord {
        cache: "team".into(),
        path: crate::nix::store_path::StorePathHash::from_bytes([0; 20]),
        kept: crate::nix::hash::Sha256([0; 32]),
        refused: crate::nix::hash::Sha256([1; 32]),
        pusher: "runner".into(),
        token: None,
        address: "192.0.2.1".into(),
        at: 0,
    };
    StateDb::open(fixture.data.path()).unwrap().record_conflict(&conflict).unwrap();
    assert!(!fixture.gate.is_current());
    fixture.gate.refresh().unwrap();
    assert!(fixture.gate.is_current());
    assert!(Arc::ptr_eq(&before, &fixture.gate.tokens().by_id));
}

#[test]
fn wrong_tokens_are_slowed_down_and_good_ones_and_none_are_not() {
    let fixture = fixture();
    let (good, _) = fixture.token(grant());
    let (expired, _) = fixture.token(Grant { expires: Some(1), ..grant() });
    let (guess, _) = issue(grant()).unwrap();
    let check = |shown: &Credential| fixture.check("team", Right::Push, shown);
    for _ in 0..MOST {
        assert_eq!(check(&credential(&guess)), Err(Denial::Wrong));
        assert_eq!(check(&Credential::None), Err(Denial::NoCredential));
        assert_eq!(check(&expired), Err(Denial::Expired));
    }
    assert_eq!(check(&credential(&guess)), Err(Denial::TooMany));
    assert_eq!(check(&Credential::Unreadable), Err(Denial::TooMany));
    assert_eq!(check(&good), Ok(true));
    assert_eq!(check(&Credential::None), Err(Denial::NoCredential));
    assert_eq!(check(&expired), Err(Denial::Expired));
    let elsewhere = fixture.gate.check(
        "team",
        Right::Push,
        Caller { source: None, ..caller(&credential(&guess)) },
    );
    assert_eq!(elsewhere, Err(Denial::Wrong));
}

#[test]
fn without_a_database_only_what_needs_none_is_allowed() {
    let gate = Gate::new(policies(), clients(), None);
    let (text, _) = issue(grant()).unwrap();
    assert!(gate.is_current() && gate.refresh().is_ok());
    for shown in [credential(&text), Credential::None, Credential::Unreadable] {
        let check = |cache, right| gate.check(cache, right, caller(&shown));
        assert_eq!(check("default", Right::Pull), Ok(Leave::Open));
        assert_eq!(check("default", Right::Push), Err(Denial::NoPushes));
        for (cache, right) in [("open", Right::Push), ("team", Right::Pull), ("team", Right::Push)]
        {
            assert_eq!(check(cache, right), Err(Denial::Unavailable), "{cache}");
        }
    }
}

#[test]
fn a_certificate_may_what_its_names_may_and_no_token_takes_its_place_where_one_is_asked_for() {
    let fixture = fixture();
    let (none, later) = (Credential::None, seconds_from_now(60));
    let (token, _) = fixture.token(Grant { caches: None, ..grant() });
    let check = |cache: &str, right, name: &str, shown: &Credential| {
        let certificate = certificate(name, later);
        let caller = Caller { certificate: Some(&certificate), ..caller(shown) };
        fixture.gate.refresh().unwrap();
        fixture.gate.check(cache, right, caller).map(|leave| matches!(leave, Leave::Certificate(_)))
    };
    let (runner, reader) = ("runner-1.ci.example", "reader.ci.example");
    assert_eq!(check("team", Right::Push, runner, &none), Ok(true));
    assert_eq!(check("team", Right::Pull, runner, &none), Err(Denial::CertificateMayNot));
    assert_eq!(check("team", Right::Pull, reader, &none), Ok(true));
    assert_eq!(check("strict", Right::Pull, reader, &none), Ok(true));
    assert_eq!(check("strict", Right::Push, runner, &none), Err(Denial::CertificateMayNot));
    assert_eq!(
        check("team", Right::Push, "stranger.example", &none),
        Err(Denial::CertificateMayNot)
    );
    // A token makes up for a certificate that may not, unless only certificates are taken.
    assert_eq!(check("team", Right::Pull, runner, &token), Ok(false));
    assert_eq!(check("strict", Right::Push, runner, &token), Err(Denial::CertificateMayNot));
    assert_eq!(fixture.check("strict", Right::Push, &token), Err(Denial::NoCertificate));
    // What needs nothing needs no certificate, and what nobody may nobody may.
    assert_eq!(check("open", Right::Push, runner, &none), Ok(false));
    assert_eq!(check("default", Right::Push, runner, &none), Err(Denial::NoPushes));
}

#[test]
fn a_certificate_that_ends_or_is_revoked_while_its_connection_goes_on_is_good_for_nothing() {
    let fixture = fixture();
    let check = |certificate: &Arc<ClientCertificate>| {
        let caller = Caller { certificate: Some(certificate), ..caller(&Credential::None) };
        fixture.gate.check("team", Right::Push, caller).map(drop)
    };
    let ended = certificate("runner-1.ci.example", seconds_from_now(-1));
    assert_eq!(check(&ended), Err(Denial::CertificateExpired));
    let good = certificate("runner-1.ci.example", seconds_from_now(60));
    assert_eq!(check(&good), Ok(()));
    let revocations = &fixture.gate.clients.revocations;
    revocations.replace([good.serial.clone()].into());
    assert_eq!(revocations.count(), 1);
    assert_eq!(check(&good), Err(Denial::CertificateRevoked));
    revocations.replace([Serial { issuer: b"another".to_vec(), ..good.serial.clone() }].into());
    assert_eq!(check(&good), Ok(()));
}
