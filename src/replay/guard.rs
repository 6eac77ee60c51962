//! TLS on the line: a certificate for the occasion, and who must show one.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, ServerConnection, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::mysql::tls::{TlsError, roots};
use crate::policy::Tls;

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("make a certificate")]
    Certificate(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("set up TLS")]
    Setup(#[from] rustls::Error),
    #[error("set up the check of the target's certificate")]
    Check(#[from] VerifierBuilderError),
    #[error("look for the target's name in its certificate: `{host}` can stand in none")]
    Name {
        host: String,
        #[source]
        error: InvalidDnsNameError,
    },
}

/// What a source shows to those who connect, and wants to be shown.
#[derive(Debug, Clone)]
pub struct Guard {
    config: Arc<ServerConfig>,
    /// SHA-256 of our certificate.
    pub(super) fingerprint: [u8; 32],
}

impl Guard {
    /// Makes a certificate of our own for an address. With `only`, nobody comes in but who shows the certificate of that server.
    ///
    /// # Errors
    /// [`GuardError`] where the authorities cannot be read, or the name is none.
    pub fn new(here: IpAddr, only: Option<(&str, &Tls)>) -> Result<Self, GuardError> {
        let mut certificate = CertificateParams::new([here.to_string()])?;
        certificate.distinguished_name.push(DnType::CommonName, "bkp");
        let key = KeyPair::generate()?;
        let certificate = certificate.self_signed(&key)?.der().clone();
        let fingerprint = Sha256::digest(&certificate).into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let config = match only {
            Some((host, tls)) => config.with_client_cert_verifier(Arc::new(SameServer::new(host, tls, provider)?)),
            None => config.with_no_client_auth(),
        };
        let mut config =
            config.with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
        // Whoever comes again shows again who it is.
        (config.session_storage, config.send_tls13_tickets) = (Arc::new(NoServerSessionStorage {}), 0);
        Ok(Self { config: Arc::new(config), fingerprint })
    }

    pub(super) fn connection(&self) -> std::io::Result<ServerConnection> {
        ServerConnection::new(self.config.clone()).map_err(std::io::Error::other)
    }
}

/// Lets in who shows the certificate of a server that we talk to ourselves, verified as it is there. Its signature covers our own
/// certificate as the other side has seen it: with somebody in between, who must show another, it does not hold.
#[derive(Debug)]
struct SameServer {
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl SameServer {
    fn new(host: &str, tls: &Tls, provider: Arc<CryptoProvider>) -> Result<Self, GuardError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(tls)?), provider).build()?;
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| GuardError::Name { host: host.to_owned(), error })?;
        Ok(Self { verifier, name })
    }
}

impl ClientCertVerifier for SameServer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, &self.name, &[], now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
