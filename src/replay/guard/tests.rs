//! Clients with and without a certificate come to a source that wants one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, IsCa, Issuer};
use rustls::client::danger::ServerCertVerified;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::mysql::manifest::Product;
use crate::mysql::wire::{Credentials, Socket, Wire, WireError};
use crate::policy::TlsMode;
use crate::replay::tests::{LARGE, at, follow_by, guarded, segment};
use crate::replay::{Feed, Source};

/// A certificate and its key.
type Shown = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// An authority that signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let (key, dir) = (KeyPair::generate().unwrap(), tempfile::tempdir().unwrap());
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), dir }
    }

    fn tls(&self) -> Tls {
        Tls { mode: TlsMode::Verify, ca_file: Some(PathBuf::from(self.dir.path()).join("ca.pem")) }
    }

    /// Signs a server's certificate, as servers have them: for servers alone.
    fn sign(&self, name: &str) -> Shown {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }
}

/// Takes any server for the one it wants, as a MySQL does that was given no authority.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn client(shown: Option<Shown>, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(provider)));
    Arc::new(match shown {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => config.with_no_client_auth(),
    })
}

fn log_in(source: &Source, password: &str, tls: Option<Arc<ClientConfig>>) -> Result<Wire, WireError> {
    let socket = Socket::Tcp(TcpStream::connect(source.address).unwrap());
    let tls = tls.map(|config| (config, "127.0.0.1"));
    let credentials = Credentials { user: &source.user, password, tls, is_socket: false, is_loopback: true };
    Wire::login(socket, &credentials, CancellationToken::new())
}

/// Waits until the source has sent a client away for this reason.
fn assert_sent_away(source: &Source, why: &str) {
    let end = Instant::now() + Duration::from_secs(10);
    while !source.insecure().is_some_and(|heard| heard.contains(why)) {
        assert!(Instant::now() < end, "{why}: {:?}", source.insecure());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn nobody_is_let_in_but_who_shows_the_targets_own_certificate() {
    let (ours, others, dir) = (Authority::new("ours"), Authority::new("others"), tempfile::tempdir().unwrap());
    let (only, ends) = segment(dir.path(), "b.000001", &[10, LARGE, 30]);
    for product in [Product::MySql, Product::MariaDb] {
        for version in [&TLS12, &TLS13] {
            let guard = Guard::new([127, 0, 0, 1].into(), Some(("db1", &ours.tls()))).unwrap();
            let feed = Feed { product, segments: vec![only.clone()], begin: 4, end: ends[3], dumped: None };
            let source = guarded(feed, Some(guard));
            for (shown, why) in [
                (None, "no certificates"),
                (Some(others.sign("db1")), "UnknownIssuer"),
                (Some(ours.sign("db2")), "not valid for name"),
            ] {
                let refused = log_in(&source, &source.password, Some(client(shown, version)));
                assert!(refused.is_err());
                assert_sent_away(&source, why);
            }
            let known = client(Some(ours.sign("db1")), version);
            let wrong = log_in(&source, "guessed", Some(known.clone())).unwrap_err();
            assert_eq!(wrong.code(), Some(1045));
            let mut wire = log_in(&source, &source.password, Some(known.clone())).unwrap();
            assert_eq!((source.insecure(), source.has_let_in()), (None, true));
            assert_eq!(wire.query("SELECT @@GLOBAL.server_id").unwrap(), [[Some(b"77".to_vec())]]);
            let (_, bytes) = follow_by(wire, product, &at("b.000001", 4)).unwrap();
            assert!(bytes == std::fs::read(&only.path).unwrap()[4..], "{version:?}: {} bytes", bytes.len());
        }
    }
}

#[test]
fn whoever_comes_in_the_clear_is_sent_away() {
    let dir = tempfile::tempdir().unwrap();
    let (only, ends) = segment(dir.path(), "b.000001", &[10]);
    let feed = Feed { product: Product::MySql, segments: vec![only], begin: 4, end: ends[1], dumped: None };
    let source = || guarded(feed.clone(), Some(Guard::new([127, 0, 0, 1].into(), None).unwrap()));
    let (first, second) = (source(), source());
    let plain = log_in(&first, &first.password, None).unwrap_err();
    assert_eq!(plain.code(), Some(3159));
    assert_sent_away(&first, "it does without");
    log_in(&first, &first.password, Some(client(None, &TLS13))).unwrap();
    assert_eq!(first.insecure(), None);

    // What comes in the clear behind the request for TLS is no login.
    let request = [&[32, 0, 0, 1, 0, 0x8A, 0, 0][..], &[0; 28]].concat();
    let come = |source: &Source, bytes: &[u8]| {
        let mut socket = TcpStream::connect(source.address).unwrap();
        let mut greeting = [0; 512];
        assert!(socket.read(&mut greeting).unwrap() > 0);
        socket.write_all(bytes).unwrap();
        // It is hung up on.
        socket.read_to_end(&mut Vec::new()).ok();
    };
    let in_the_clear = [&request[..], b"a login in the clear"].concat();
    come(&second, &in_the_clear);
    assert_sent_away(&second, "corrupt message");

    // Once the replica has come in, whoever else comes is a stranger: what goes on does not end for one who looks at all ports.
    come(&first, &in_the_clear);
    assert_eq!(first.insecure(), None);
    let third = source();
    let other = Credentials { user: "root", password: "x", tls: None, is_socket: false, is_loopback: true };
    let socket = Socket::Tcp(TcpStream::connect(third.address).unwrap());
    assert_eq!(Wire::login(socket, &other, CancellationToken::new()).unwrap_err().code(), Some(3159));
    come(&third, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n");
    assert_eq!(third.insecure(), None);
    log_in(&third, &third.password, Some(client(None, &TLS13))).unwrap();
}
