//! TLS to the database: certificates are verified against the policy's authority or the system's, never accepted blindly.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::policy::Tls;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read the certificates of the authority in {}", path.display())]
    Authority {
        path: PathBuf,
        #[source]
        error: rustls::pki_types::pem::Error,
    },
    #[error("find a certificate in {}: there is none", path.display())]
    NoCertificate { path: PathBuf },
    #[error("read the system's certificates: {problem}")]
    System { problem: String },
    #[error("set up TLS")]
    Setup(#[from] rustls::Error),
}

/// Returns the authorities that the policy trusts, as DER.
pub fn authorities(tls: &Tls) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    match &tls.ca_file {
        Some(path) => from_file(path),
        None => from_system(),
    }
}

fn from_file(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrap = |error| TlsError::Authority { path: path.clone(), error };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(wrap)?.collect::<Result<_, _>>().map_err(wrap)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.clone() });
    }
    Ok(certificates)
}

fn from_system() -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let problem = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(TlsError::System { problem });
    }
    Ok(found.certs)
}

/// Returns the authorities that the policy trusts, to verify by.
pub fn roots(tls: &Tls) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities(tls)?);
    Ok(roots)
}

/// Returns a configuration that verifies the server's certificate and name.
pub fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(tls)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
