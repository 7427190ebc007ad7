//! Certificates by ACME (RFC 8555), from whichever directory: an internal step-ca as well as a public one.
//!
//! The account and its key are made at the first use, and kept beside the certificate.

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType,
    Error, HttpClient, Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use ureq::Agent;
use zeroize::Zeroizing;

use super::challenge::{Challenges, ProofError};
use crate::bank::publish::private::replace_private_file;
use crate::source::upstream::connect::{Address, AddressError, AuthoritiesError, Connector};

/// The longest answer that is read, in bytes: a chain of certificates is some thousand.
const MAX_ANSWER: u64 = 1 << 20;
/// How long an order may take: the ACME server asks us, perhaps several times.
const ORDER_TIMEOUT: Duration = Duration::from_secs(120);

/// Whom to ask, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeSettings {
    /// The directory's URL.
    pub directory: String,
    /// Whom the authority may write to, as a mail address.
    pub contact: Option<String>,
    /// Who signs the certificate of the ACME server itself, in PEM; else those whom Nix trusts.
    pub authorities: Option<PathBuf>,
    /// The names to be in the certificate.
    pub names: Vec<String>,
}

/// A certificate that was just issued.
pub struct Obtained {
    /// The certificate and its chain, in PEM.
    pub certificate: String,
    /// Its key, in PEM.
    pub key: Zeroizing<String>,
}

/// Why no certificate came.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The directory cannot be one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Whom we trust cannot be read.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// The ACME server said no, or nothing.
    #[error("{directory}: {error}")]
    Server {
        /// The directory.
        directory: String,
        /// What came.
        error: Error,
    },
    /// It does not take the one proof that we have.
    #[error(
        "{directory}: it offers no tls-alpn-01 for {name}, which is how this server proves its names"
    )]
    NoChallenge {
        /// The directory.
        directory: String,
        /// For which name.
        name: String,
    },
    /// It looked, and was not content.
    #[error(
        "{directory}: it did not find its proof at port 443 of {names}: do they lead to this server? ({status})"
    )]
    NotProved {
        /// The directory.
        directory: String,
        /// The names.
        names: String,
        /// What became of the order.
        status: String,
    },
    /// The proof cannot be shown.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The request for the certificate cannot be made.
    #[error("a request for a certificate cannot be made: {0}")]
    Request(#[from] rcgen::Error),
    /// The account cannot be kept, or was damaged.
    #[error("ACME account {}: {why}", path.display())]
    Account {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// An ACME server, and our account there.
#[derive(Debug)]
pub struct Acme {
    settings: AcmeSettings,
    account: PathBuf,
}

impl Acme {
    /// Keeps the account in `directory`, which is private.
    pub fn new(settings: AcmeSettings, directory: &Path) -> Self {
        Self { settings, account: directory.join("acme-account.json") }
    }

    /// The names to be in the certificate.
    pub fn names(&self) -> &[String] {
        &self.settings.names
    }

    /// Asks for a certificate, and shows in `challenges` what is asked back. Reads and writes files, and blocks
    /// while it waits for answers: for a thread of its own.
    pub async fn obtain(&self, challenges: &Challenges) -> Result<Obtained, AcmeError> {
        let obtained = self.order(challenges).await;
        challenges.clear();
        obtained
    }

    async fn order(&self, challenges: &Challenges) -> Result<Obtained, AcmeError> {
        let account = self.account().await?;
        let names: Vec<_> = self.settings.names.iter().cloned().map(Identifier::Dns).collect();
        let mut order =
            account.new_order(&NewOrder::new(&names)).await.map_err(|error| self.failed(error))?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.failed(error))?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let name = authorization.identifier().to_string();
            let no_challenge = || AcmeError::NoChallenge {
                directory: self.settings.directory.clone(),
                name: name.clone(),
            };
            let mut challenge =
                authorization.challenge(ChallengeType::TlsAlpn01).ok_or_else(no_challenge)?;
            let digest = challenge.key_authorization().digest();
            let digest: &[u8; 32] = digest.as_ref().try_into().map_err(|_| no_challenge())?;
            challenges.show(&name, digest)?;
            challenge.set_ready().await.map_err(|error| self.failed(error))?;
        }
        let patience = RetryPolicy::default().timeout(ORDER_TIMEOUT);
        let status = order.poll_ready(&patience).await.map_err(|error| self.failed(error))?;
        if status != OrderStatus::Ready {
            return Err(AcmeError::NotProved {
                directory: self.settings.directory.clone(),
                names: self.settings.names.join(", "),
                status: format!("the order is {status:?}"),
            });
        }
        let mut params = CertificateParams::new(self.settings.names.clone())?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate()?;
        let request = params.serialize_request(&key)?;
        order.finalize_csr(request.der()).await.map_err(|error| self.failed(error))?;
        let certificate =
            order.poll_certificate(&patience).await.map_err(|error| self.failed(error))?;
        Ok(Obtained { certificate, key: Zeroizing::new(key.serialize_pem()) })
    }

    /// The account that is there, or a new one.
    async fn account(&self) -> Result<Account, AcmeError> {
        let failed = |why: String| AcmeError::Account { path: self.account.clone(), why };
        let builder = Account::builder_with_http(Box::new(self.client()?));
        match std::fs::read(&self.account) {
            Ok(text) => {
                let kept: Kept =
                    serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
                // An account is one of its directory.
                if kept.directory == self.settings.directory {
                    let account = builder.from_credentials(kept.credentials).await;
                    return account.map_err(|error| self.failed(error));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error.to_string())),
        }
        let contact: Vec<String> =
            self.settings.contact.iter().map(|mail| format!("mailto:{mail}")).collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.settings.directory.clone();
        let created = builder.create(&new, directory.clone(), None).await;
        let (account, credentials) = created.map_err(|error| self.failed(error))?;
        let text = serde_json::to_vec(&Kept { directory, credentials })
            .map_err(|error| failed(error.to_string()))?;
        replace_private_file(&self.account, &text).map_err(|error| failed(error.to_string()))?;
        Ok(account)
    }

    fn client(&self) -> Result<Client, AcmeError> {
        let address = Address::parse(&self.settings.directory)?;
        let lookup = |name: &str| -> Option<OsString> {
            match &self.settings.authorities {
                Some(path) => (name == "NIX_SSL_CERT_FILE").then(|| path.clone().into()),
                None => std::env::var_os(name),
            }
        };
        Ok(Client(Connector::new(&address, 1, 0, &lookup)?.agent(None)))
    }

    fn failed(&self, error: Error) -> AcmeError {
        AcmeError::Server { directory: self.settings.directory.clone(), error }
    }
}

/// What is kept of an account.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    directory: String,
    credentials: AccountCredentials,
}

/// HTTP as the rest of the program speaks it to others.
struct Client(Agent);

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let agent = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|error| Error::Other(error.into()))?;
            let request = Request::from_parts(parts, body.to_bytes().to_vec());
            ask(&agent, request)
        })
    }
}

fn ask(agent: &Agent, request: Request<Vec<u8>>) -> Result<BytesResponse, Error> {
    let failed = |error: ureq::Error| Error::Other(error.into());
    let (parts, mut body) = agent.run(request).map_err(failed)?.into_parts();
    let body = body.with_config().limit(MAX_ANSWER).read_to_vec().map_err(failed)?;
    Ok(BytesResponse::from(Response::from_parts(parts, Full::new(Bytes::from(body)))))
}
