//! A certificate authority that lives as long as its test.

use std::{
    fs,
    ops::Range,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::nix::{Scratch, tempdir};

/// What clients of the tests call this machine.
pub(crate) const HERE: [&str; 2] = ["localhost", "127.0.0.1"];

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
    own: Scratch,
}

/// A certificate and its key, as files.
pub(crate) struct Issued {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        let authority = Self { issuer: Issuer::new(params, key), certificate, own: tempdir() };
        fs::write(authority.bundle(), authority.certificate.pem()).unwrap();
        authority
    }

    /// What clients trust.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.own.path().join("root.pem")
    }

    /// A certificate for this machine, as `name.pem` and `name.key`, in the place of what is there.
    pub(crate) fn issue(&self, name: &str) -> Issued {
        self.issue_for(name, &HERE, 2020..2099)
    }

    /// The same for other hosts, and for the time from one year to another.
    pub(crate) fn issue_for(&self, name: &str, hosts: &[&str], years: Range<i32>) -> Issued {
        self.issue_as(name, hosts, ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.not_before = date_time_ymd(years.start, 1, 1);
            params.not_after = date_time_ymd(years.end, 1, 1);
        })
    }

    /// One for a client with these alternative names; `change` has the last word.
    pub(crate) fn issue_client(
        &self,
        name: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        self.issue_as(name, names, ExtendedKeyUsagePurpose::ClientAuth, change)
    }

    pub(crate) fn issue_as(
        &self,
        name: &str,
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![usage];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.keep(name, &key, &certificate)
    }

    /// A certificate for this machine that nobody but itself stands for.
    pub(crate) fn self_signed(&self, name: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(HERE.map(str::to_owned)).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        self.keep(name, &key, &certificate)
    }

    fn keep(&self, name: &str, key: &KeyPair, certificate: &Certificate) -> Issued {
        let issued = self.files(name);
        put(&issued.key, &key.serialize_pem());
        put(&issued.certificate, &certificate.pem());
        issued
    }

    /// Where the list of revoked certificates lies, once there is one.
    pub(crate) fn revocations(&self) -> PathBuf {
        self.own.path().join("crl.pem")
    }

    /// Puts a list of revoked certificates there, of these serial numbers.
    pub(crate) fn revoke(&self, serials: &[u64]) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        put(&self.revocations(), &list.signed_by(&self.issuer).unwrap().pem().unwrap());
    }

    /// Where a certificate of this name lies.
    pub(crate) fn files(&self, name: &str) -> Issued {
        let file = |extension: &str| self.own.path().join(format!("{name}.{extension}"));
        Issued { certificate: file("pem"), key: file("key") }
    }
}

/// Puts a file where it is, as whoever renews a certificate does: whole, in one step.
pub(crate) fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, path).unwrap();
}
