//! The HTTP connector of the S3 client, built by hand.
//!
//! The SDK's own would obey `HTTPS_PROXY` and so leave the backup network, and would take any route to any address.

use std::net::SocketAddr;
use std::path::Path;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_s3::config::{Region, SharedCredentialsProvider, SharedHttpClient};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use aws_smithy_runtime_api::client::http::{HttpConnectorSettings, SharedHttpConnector, http_client_fn};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::net;
use crate::policy::Network;
use crate::store::s3::CONNECT_TIMEOUT;
use crate::store::s3::wire::{Line, Wire};

/// Builds the client that all requests of one store go through, or says why the authority file is of no use.
pub(super) fn client(
    ca_file: Option<&Path>,
    network: &Network,
    port: u16,
    line: Line,
) -> Result<SharedHttpClient, String> {
    let settings = HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build();
    let mut builder = Connector::builder().connector_settings(settings);
    builder.set_proxy_config(Some(ProxyConfig::disabled()));
    if let Some(interface) = &network.interface {
        builder.set_interface(interface);
    }
    let resolver = CheckedResolver { network: network.clone(), port };
    let connector = builder
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(tls(ca_file)?)
        .build_with_resolver(resolver);
    // One connector for all requests, so that connections are used again.
    let connector = SharedHttpConnector::new(Wire { inner: SharedHttpConnector::new(connector), line });
    Ok(http_client_fn(move |_, _| connector.clone()))
}

/// Returns the SDK's chain of credentials: environment, profile, process, instance role.
///
/// An instance role is asked for at the host's own link-local address, so this client is bound to no interface; it never
/// carries a byte of a backup.
pub(super) async fn chain(region: &str) -> SharedCredentialsProvider {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = ProviderConfig::empty().with_region(Some(Region::new(region.to_owned()))).with_http_client(http);
    let chain = DefaultCredentialsChain::builder().configure(config);
    SharedCredentialsProvider::new(chain.build().await)
}

/// Trusts the given authority and no other, or the system's where none is given.
fn tls(ca_file: Option<&Path>) -> Result<TlsContext, String> {
    let store = match ca_file {
        None => TrustStore::default(),
        Some(file) => authorities(file)?
            .into_iter()
            .fold(TrustStore::empty(), aws_smithy_http_client::tls::TrustStore::with_pem_certificate),
    };
    let context = TlsContext::builder().with_trust_store(store).build();
    context.map_err(|error| format!("set up TLS: {error}"))
}

/// Reads each certificate of a PEM file and proves that it is one: the connector would panic on what is none.
fn authorities(file: &Path) -> Result<Vec<Vec<u8>>, String> {
    let name = file.display();
    let text = std::fs::read(file).map_err(|error| format!("read `{name}`: {error}"))?;
    let none = || format!("read `{name}`: no certificate in PEM form");
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|_| none())?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in &certificates {
        let added = roots.add(certificate.clone());
        added.map_err(|error| format!("read `{name}`: {error}"))?;
    }
    if certificates.is_empty() {
        return Err(none());
    }
    Ok(vec![text])
}

/// Looks names up and lets through only what the policy's network allows, at each new connection.
#[derive(Debug, Clone)]
struct CheckedResolver {
    network: Network,
    port: u16,
}

impl ResolveDns for CheckedResolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let found = net::resolve(&self.network, name, self.port).await;
            let found = found.map_err(ResolveDnsError::new)?;
            Ok(found.iter().map(SocketAddr::ip).collect())
        })
    }
}
