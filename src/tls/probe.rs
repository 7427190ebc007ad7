//! A handshake with a server whoever it is, to see what it shows.
//!
//! Nothing of what is sent over such a connection may be secret, and nothing that comes may be believed.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme,
    StreamOwned,
};

/// What a server showed in its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its certificate, and what it sent of the chain above it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The version of TLS, such as `1.3`.
    pub version: &'static str,
    /// The protocol that it chose of those offered, if it chose one.
    pub protocol: Option<Vec<u8>>,
}

/// Shakes hands over `stream` with the server of that name, offering `protocols`. It takes as long as the
/// stream lets it.
pub fn shake_hands<S: Read + Write>(
    mut stream: S,
    name: &ServerName<'static>,
    protocols: &[&[u8]],
) -> io::Result<(Shown, StreamOwned<ClientConnection, S>)> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let mut connection =
        ClientConnection::new(Arc::new(config), name.clone()).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    let certificates = connection.peer_certificates().unwrap_or_default();
    let shown = Shown {
        chain: certificates.iter().map(|one| one.clone().into_owned()).collect(),
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        },
        protocol: connection.alpn_protocol().map(<[u8]>::to_vec),
    };
    Ok((shown, StreamOwned::new(connection, stream)))
}

/// Takes every certificate, as long as the server has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
