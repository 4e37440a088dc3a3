//! TLS to exactly the agent that is meant.
//!
//! Agents have certificates of their own and no authority: what an agent has reported as its certificate, in a status that
//! nobody else can write, is the one that is accepted, whatever names and times are in it.

use std::sync::Arc;

use rustls::CertificateError;
use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::SignatureScheme;
use rustls::client::Resumption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::crypto::verify_tls12_signature;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::version::TLS13;
use sha2::Digest;
use sha2::Sha256;

/// Whose certificate is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The one with this SHA-256, in lower-case hexadecimal.
    Fingerprint(String),
    /// Any: for somebody who has asked for that.
    Anyone,
}

/// How to talk to `peer` and nobody else.
pub fn tls_to(peer: Peer) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let pinned = Pinned { peer, provider: Arc::clone(&provider) };
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    // Every handshake shows the certificate.
    tls.resumption = Resumption::disabled();
    tls
}

/// Accepts one certificate, and only from who has its key.
#[derive(Debug)]
struct Pinned {
    peer: Peer,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_accepted = match &self.peer {
            Peer::Fingerprint(fingerprint) => hex::encode(Sha256::digest(end_entity)) == *fingerprint,
            Peer::Anyone => true,
        };
        if is_accepted {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
