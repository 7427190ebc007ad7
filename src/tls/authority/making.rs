//! What an authority consists of, made in memory: a root that is kept offline, and an intermediate below it.

use ipnet::IpNet;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, GeneralSubtree,
    IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
};
use zeroize::Zeroizing;

use super::issuer::{IssueError, numbered, revocation_list};
use super::names::{Constraints, Domain, Subtrees};

/// What an authority is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What its certificates are called, at most [`MAX_NAME`] bytes.
    pub name: String,
    /// The names that it is for.
    pub domain: Domain,
    /// The addresses that it is for.
    pub ranges: Vec<IpNet>,
    /// Until when the root is valid, in seconds since 1970.
    pub root_until: i64,
    /// Until when the intermediate is valid, in seconds since 1970.
    pub intermediate_until: i64,
}

/// The longest name of an authority: a common name has at most 64 bytes (RFC 5280, appendix A), and a word is
/// added to it.
pub const MAX_NAME: usize = 40;

/// An authority that lies nowhere yet, in PEM.
pub(super) struct Made {
    pub(super) root: String,
    pub(super) root_key: Zeroizing<String>,
    pub(super) intermediate: String,
    pub(super) intermediate_key: Zeroizing<String>,
    /// The intermediate's list of what it has revoked: nothing.
    pub(super) revocations: String,
}

/// Makes one. P-256, which all clients take: curl with OpenSSL as well as with GnuTLS, and rustls.
pub(super) fn make(plan: &Plan, now: i64) -> Result<Made, IssueError> {
    let constraints = constraints(&plan.domain, &plan.ranges);
    let root_key = KeyPair::generate()?;
    let root = authority(&format!("{} root", plan.name), &constraints, 1);
    let (root, _) = numbered(root, now, plan.root_until)?;
    let certificate = root.self_signed(&root_key)?.pem();
    let intermediate_key = KeyPair::generate()?;
    let intermediate = intermediate(&format!("{} intermediate", plan.name), &constraints);
    let (intermediate, _) = numbered(intermediate, now, plan.intermediate_until)?;
    let signer = rcgen::Issuer::from_params(&root, &root_key);
    let signed = intermediate.signed_by(&intermediate_key, &signer)?.pem();
    let nothing = revocation_list(&[], now, plan.intermediate_until);
    let nothing = nothing.signed_by(&rcgen::Issuer::new(intermediate, &intermediate_key))?.pem()?;
    Ok(Made {
        root: certificate,
        intermediate: signed,
        revocations: nothing,
        root_key: Zeroizing::new(root_key.serialize_pem()),
        intermediate_key: Zeroizing::new(intermediate_key.serialize_pem()),
    })
}

/// The certificate of an intermediate, which signs none of other authorities.
pub(super) fn intermediate(common_name: &str, constraints: &Constraints) -> CertificateParams {
    authority(common_name, constraints, 0)
}

/// `below` is how many authorities may stand between this one and a host's certificate.
fn authority(common_name: &str, constraints: &Constraints, below: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: subtrees(&constraints.permitted),
        excluded_subtrees: subtrees(&constraints.excluded),
    });
    params
}

/// Names of one kind say nothing of the other: without addresses of its own an authority is for none, and
/// that has to be said, of each family.
fn constraints(domain: &Domain, ranges: &[IpNet]) -> Constraints {
    let domain = domain.as_str().to_owned();
    let families = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|all| all.parse::<IpNet>().ok());
    let without = families.filter(|all| !ranges.iter().any(|range| all.contains(range)));
    Constraints {
        permitted: Subtrees { domains: vec![domain], ranges: ranges.to_vec() },
        excluded: Subtrees { domains: Vec::new(), ranges: without.collect() },
    }
}

/// As the library has them. A domain is one of hosts and of mail addresses.
fn subtrees(subtrees: &Subtrees) -> Vec<GeneralSubtree> {
    let mail = subtrees.domains.iter().cloned().map(GeneralSubtree::Rfc822Name);
    let names = subtrees.domains.iter().cloned().map(GeneralSubtree::DnsName);
    let range = |range: &IpNet| {
        GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(range.network(), range.prefix_len()))
    };
    names.chain(mail).chain(subtrees.ranges.iter().map(range)).collect()
}
