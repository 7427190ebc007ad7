use std::os::unix::fs::PermissionsExt as _;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use tempfile::TempDir;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::names::{Domain, range};
use super::record::Kind;
use super::*;
use crate::tls::trust::{Authorities, Described, Distrust};

const DAY: i64 = 24 * 3600;
const NOW: i64 = 1_800_000_000;

struct Bed {
    own: TempDir,
}

impl Bed {
    fn new() -> Self {
        Self::with(&["10.0.0.0/8"])
    }

    fn with(ranges: &[&str]) -> Self {
        let bed = Self { own: tempfile::tempdir().unwrap() };
        create(&bed.ca(), &plan(ranges), false, NOW).unwrap();
        bed
    }

    fn ca(&self) -> PathBuf {
        self.own.path().join("ca")
    }

    fn authority(&self) -> Authority {
        Authority::open(&self.ca()).unwrap()
    }

    fn files(&self, name: &str) -> IssuedFiles {
        IssuedFiles::of(self.own.path(), &HostName::parse(name).unwrap())
    }

    /// For 100 days.
    fn issue(&self, name: &str, usage: Usage) -> Result<Issued, AuthorityError> {
        let names = [HostName::parse(name).unwrap()];
        self.authority().issue(&names, usage, &self.files(name), false, NOW, NOW + 100 * DAY)
    }

    /// What rustls says of a chain in PEM.
    fn verify(&self, chain: &str) -> Result<(), Distrust> {
        self.verify_at(chain, NOW)
    }

    fn verify_at(&self, chain: &str, now: i64) -> Result<(), Distrust> {
        let roots = Authorities::load(&self.ca().join(ROOT)).unwrap();
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let chain = chain.unwrap();
        roots.stand_for(&chain, &Described::of(&chain[0]).unwrap(), now)
    }

    /// What whoever has stolen the intermediate's key makes of it.
    fn forge(&self, name: &str) -> String {
        let read = |name: &str| std::fs::read_to_string(self.ca().join(name)).unwrap();
        let key = KeyPair::from_pem(&read(INTERMEDIATE_KEY)).unwrap();
        let intermediate = read(INTERMEDIATE);
        let issuer = rcgen::Issuer::from_ca_cert_pem(&intermediate, key).unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let forged = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        forged.pem() + &intermediate
    }

    fn listed(&self) -> Vec<String> {
        let pem = std::fs::read(self.ca().join(REVOCATIONS)).unwrap();
        let der = CertificateRevocationListDer::from_pem_slice(&pem).unwrap();
        let (_, list) = CertificateRevocationList::from_der(&der).unwrap();
        list.iter_revoked_certificates()
            .map(|one| data_encoding::HEXLOWER.encode(one.raw_serial()))
            .collect()
    }
}

fn plan(ranges: &[&str]) -> Plan {
    Plan {
        name: "Test".into(),
        domain: Domain::parse("n3x.internal").unwrap(),
        ranges: ranges.iter().map(|text| range(text).unwrap()).collect(),
        root_until: NOW + 1000 * DAY,
        intermediate_until: NOW + 500 * DAY,
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_an_authority_issues_is_believed_for_its_names_and_nothing_else_is() {
    let bed = Bed::new();
    for name in ["cache.n3x.internal", "*.ci.n3x.internal", "n3x.internal", "10.0.0.5"] {
        bed.issue(name, Usage::Server).unwrap();
        let chain = std::fs::read_to_string(bed.files(name).certificate).unwrap();
        assert_eq!(bed.verify(&chain), Ok(()), "{name}");
    }
    for name in ["cache.example.org", "n3x.internal.example.org", "11.0.0.1", "::1"] {
        let refused = bed.issue(name, Usage::Server).map(drop).unwrap_err();
        assert!(refused.is_refusal());
        let said = refused.to_string();
        assert!(said.contains("n3x.internal, 10.0.0.0/8") && said.contains(name), "{said}");
        assert!(!bed.files(name).key.exists());
        assert!(matches!(bed.verify(&bed.forge(name)), Err(Distrust::Other(_))), "{name}");
    }
    // So it is not that all that is forged this way is refused.
    assert_eq!(bed.verify(&bed.forge("other.n3x.internal")), Ok(()));
}

#[test]
fn an_authority_without_ranges_is_for_no_address() {
    let bed = Bed::with(&[]);
    for name in ["10.0.0.5", "::1"] {
        assert!(bed.issue(name, Usage::Server).is_err());
        assert!(matches!(bed.verify(&bed.forge(name)), Err(Distrust::Other(_))), "{name}");
    }
    assert_eq!(bed.verify(&bed.forge("cache.n3x.internal")), Ok(()));
}

#[test]
fn keys_are_private_and_everything_has_its_place() {
    let bed = Bed::new();
    bed.issue("*.n3x.internal", Usage::Server).unwrap();
    let files = bed.files("*.n3x.internal");
    assert!(files.key.ends_with("wildcard.n3x.internal.key"));
    for key in [bed.ca().join(ROOT_KEY), bed.ca().join(INTERMEDIATE_KEY), files.key] {
        assert_eq!(mode(&key), 0o600);
    }
    assert_eq!((mode(&bed.ca()), mode(&files.certificate)), (0o700, 0o644));
}

#[test]
fn nothing_is_overwritten_unless_it_is_said() {
    let bed = Bed::new();
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let root = read(bed.ca().join(ROOT_KEY));
    let refused = create(&bed.ca(), &plan(&[]), false, NOW).unwrap_err();
    assert!(refused.is_refusal() && refused.to_string().contains("an authority is here already"));
    bed.issue("a.n3x.internal", Usage::Server).unwrap();
    let key = read(bed.files("a.n3x.internal").key);
    let refused = bed.issue("a.n3x.internal", Usage::Server).map(drop).unwrap_err();
    assert!(refused.is_refusal() && refused.to_string().contains("--force"), "{refused}");
    assert_eq!(read(bed.files("a.n3x.internal").key), key);
    // What was refused was not noted either.
    assert_eq!(records(&bed.ca()).unwrap().len(), 3);

    let names = [HostName::parse("a.n3x.internal").unwrap()];
    let files = bed.files("a.n3x.internal");
    bed.authority().issue(&names, Usage::Server, &files, true, NOW, NOW + DAY).unwrap();
    assert_ne!(read(files.key), key);
    let replaced = create(&bed.ca(), &plan(&[]), true, NOW).unwrap().unwrap();
    assert_ne!(read(bed.ca().join(ROOT_KEY)), root);
    assert_eq!(read(replaced.join(ROOT_KEY)), root);
}

#[test]
fn an_authority_is_made_where_there_is_nothing() {
    let own = tempfile::tempdir().unwrap();
    let at = |name: &str| own.path().join(name);
    std::fs::create_dir(at("empty")).unwrap();
    create(&at("empty"), &plan(&[]), false, NOW).unwrap();
    std::fs::create_dir(at("full")).unwrap();
    std::fs::write(at("full").join("diary"), "mine").unwrap();
    std::fs::write(at("file"), "mine").unwrap();
    for name in ["full", "file"] {
        // Not even by force: it is no authority.
        let refused = create(&at(name), &plan(&[]), true, NOW).unwrap_err();
        assert!(refused.to_string().contains("something else"), "{refused}");
    }
    assert_eq!(std::fs::read_to_string(at("full").join("diary")).unwrap(), "mine");
    let nothing = Authority::open(&at("nowhere")).map(drop).unwrap_err().to_string();
    assert!(nothing.contains("snowbank ca init"), "{nothing}");
    assert!(matches!(bundle(&at("nowhere")), Err(AuthorityError::NotThere(_))));
}

#[test]
fn no_certificate_outlives_its_authority() {
    let bed = Bed::new();
    let names = [HostName::parse("a.n3x.internal").unwrap()];
    let files = bed.files("a.n3x.internal");
    let issue = |days: i64| {
        bed.authority().issue(&names, Usage::Server, &files, false, NOW, NOW + days * DAY)
    };
    let refused = issue(501).map(drop).unwrap_err();
    assert!(refused.is_refusal());
    assert!(refused.to_string().contains("2028-05-29"), "{refused}");
    issue(500).unwrap();
    let refused = bed.authority().renew(NOW, Some(NOW + 1001 * DAY)).unwrap_err();
    assert!(refused.is_refusal() && refused.to_string().contains("root.pem"), "{refused}");
}

#[test]
fn what_is_revoked_is_listed_until_it_has_ended() {
    let bed = Bed::new();
    assert_eq!(bed.listed(), [""; 0]);
    let runner = bed.issue("runner.n3x.internal", Usage::Client).unwrap();
    let cache = bed.issue("cache.n3x.internal", Usage::Server).unwrap();
    let states = || -> Vec<_> {
        let of_hosts = records(&bed.ca()).unwrap().into_iter().filter(Record::is_of_a_host);
        of_hosts.map(|record| (record.kind, record.state(NOW))).collect()
    };
    assert_eq!(states(), [(Kind::Server, State::Good), (Kind::Client, State::Good)]);
    let revoked = bed.authority().revoke("Runner.n3x.internal", NOW).unwrap();
    assert_eq!(revoked.len(), 1);
    assert_eq!(revoked[0].serial, runner.serial);
    assert_eq!(states(), [(Kind::Server, State::Good), (Kind::Client, State::Revoked)]);
    assert_eq!(bed.listed(), [&*runner.serial]);
    // A list that a crash kept from being written is, the next time.
    std::fs::remove_file(bed.ca().join(REVOCATIONS)).unwrap();
    assert_eq!(bed.authority().revoke("runner.n3x.internal", NOW + 5).unwrap(), []);
    assert_eq!(bed.listed(), [runner.serial]);
    let unknown = bed.authority().revoke("nobody.n3x.internal", NOW).unwrap_err();
    assert!(matches!(unknown, AuthorityError::Unknown(_)));
    for own in records(&bed.ca()).unwrap().iter().filter(|record| !record.is_of_a_host()) {
        assert!(bed.authority().revoke(&own.serial, NOW).is_err(), "{own:?}");
    }

    let later = NOW + 100 * DAY;
    bed.authority().revoke(&cache.serial.to_uppercase(), later).unwrap();
    // Both have ended by then, and are listed for a day more.
    assert_eq!(bed.listed().len(), 2);
    assert_eq!(bed.authority().revoke(&cache.serial, later + DAY + 1).unwrap(), []);
    assert_eq!(bed.listed(), [""; 0]);
}

#[test]
fn a_renewed_intermediate_goes_on_where_the_old_one_ends() {
    let bed = Bed::new();
    let before = bed.issue("before.n3x.internal", Usage::Server).unwrap();
    bed.authority().revoke("before.n3x.internal", NOW).unwrap();
    let read = |name: &str| std::fs::read_to_string(bed.ca().join(name)).unwrap();
    let (old, key) = (read(INTERMEDIATE), read(INTERMEDIATE_KEY));
    let later = NOW + 50 * DAY;
    assert_eq!(bed.authority().renew(later, None).unwrap(), later + 500 * DAY);
    assert_ne!(read(INTERMEDIATE), old);
    assert_eq!(read(INTERMEDIATE_KEY), key);
    // What it has signed before is believed by way of the new one, and what it has revoked stays so.
    assert_eq!(bed.verify_at(&(before.certificate + &read(INTERMEDIATE)), later), Ok(()));
    assert_eq!(bed.authority().revoke("before.n3x.internal", later).unwrap(), []);
    assert_eq!(bed.listed(), [before.serial]);
    assert_eq!(bed.verify_at(&bed.forge("new.n3x.internal"), later), Ok(()));
    assert!(matches!(bed.verify_at(&bed.forge("new.example"), later), Err(Distrust::Other(_))));
    // No longer than the root.
    assert_eq!(bed.authority().renew(NOW + 900 * DAY, None).unwrap(), NOW + 1000 * DAY);

    std::fs::rename(bed.ca().join(ROOT_KEY), bed.own.path().join("offline")).unwrap();
    bed.issue("after.n3x.internal", Usage::Server).unwrap();
    let away = bed.authority().renew(NOW, None).unwrap_err();
    assert!(matches!(away, AuthorityError::RootKeyAway(_)), "{away}");
}

#[test]
fn an_authority_that_is_none_is_told_from_one() {
    let bed = Bed::new();
    bed.issue("a.n3x.internal", Usage::Server).unwrap();
    let files = bed.files("a.n3x.internal");
    let leaf = Issuer::load(&files.certificate, &files.key).unwrap_err();
    assert!(matches!(leaf, IssueError::NotAnAuthority(_)), "{leaf}");
    let mismatch = Issuer::load(&bed.ca().join(INTERMEDIATE), &bed.ca().join(ROOT_KEY));
    assert!(mismatch.unwrap_err().to_string().contains("is not that of the certificate"));
    let key = bed.ca().join(INTERMEDIATE_KEY);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = Issuer::load(&bed.ca().join(INTERMEDIATE), &key).unwrap_err().to_string();
    assert!(exposed.contains("chmod 0600"), "{exposed}");
}
