//! The S3 store against a real HTTP server: what it promises, what it does when the server fails, and which ways it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bkp::id::ObjectId;
use bkp::policy::{Access, Network, S3Place};
use bkp::run::Run;
use bkp::secret::Secret;
use bkp::store::retry::{Backoff, Retry};
use bkp::store::s3::{Line, S3Credentials, S3Store};
use bkp::store::{FileKind, Key, SharedStore, Store, StoreError};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::cli::desk::Desk;
use crate::immutable::copy_to;
use crate::servers::{Fault, S3};

pub(crate) fn place(s3: &S3) -> S3Place {
    S3Place {
        bucket: S3::BUCKET.to_owned(),
        prefix: "dr/mall".to_owned(),
        region: "us-east-1".to_owned(),
        endpoint: Some(s3.endpoint()),
        path_style: true,
        ca_file: None,
        access_key_id: Some(S3::ACCESS_KEY.to_owned()),
        secret_access_key: None,
        storage_class: None,
        encryption: None,
        object_lock: None,
        access: Access::Full,
        reader: None,
    }
}

pub(crate) fn credentials() -> S3Credentials {
    S3Credentials {
        access_key_id: S3::ACCESS_KEY.to_owned(),
        secret_access_key: Secret::new(S3::SECRET_KEY.to_owned()),
    }
}

pub(crate) async fn open_place(place: &S3Place, network: &Network) -> Result<S3Store, StoreError> {
    S3Store::open(place, Some(credentials()), network, Line::default(), &Run::silent()).await
}

pub(crate) async fn open(s3: &S3) -> S3Store {
    let network = Network::default();
    open_place(&place(s3), &network).await.unwrap()
}

/// Opens a prefix of its own, over a line.
pub(crate) async fn open_below(s3: &S3, prefix: &str, line: Line) -> S3Store {
    let place = S3Place { prefix: prefix.to_owned(), ..place(s3) };
    S3Store::open(&place, Some(credentials()), &Network::default(), line, &Run::silent()).await.unwrap()
}

/// Opens with as many tries as by default, and no waits between them.
async fn open_with_retries(s3: &S3) -> Retry {
    let backoff = Backoff { delay_max: std::time::Duration::ZERO, ..Backoff::default() };
    let store: SharedStore = Arc::new(open(s3).await);
    Retry::new(store, backoff, CancellationToken::new())
}

fn object(kind: FileKind, bytes: &[u8]) -> (Key, Bytes) {
    let name = ObjectId::of(bytes).to_string();
    (Key::new(kind, name), Bytes::copy_from_slice(bytes))
}

#[tokio::test]
async fn an_object_comes_back_whole_and_in_part_until_it_is_deleted() {
    let s3 = S3::start();
    let store = open(&s3).await;
    let (key, bytes) = object(FileKind::Pack, b"0123456789");
    store.put(&key, bytes.clone()).await.unwrap();

    assert_eq!(store.get(&key).await.unwrap(), bytes);
    assert_eq!(&store.get_range(&key, 2..5).await.unwrap()[..], b"234");
    assert!(store.get_range(&key, 2..2).await.unwrap().is_empty());
    assert_eq!(store.size(&key).await.unwrap(), Some(10));
    let listed = store.list(FileKind::Pack).await.unwrap();
    assert_eq!((listed.len(), &listed[0].name, listed[0].size), (1, &key.name, 10));

    store.delete(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    assert_eq!(store.size(&key).await.unwrap(), None);
    assert!(matches!(store.get(&key).await, Err(StoreError::Missing { .. })));
    assert!(store.list(FileKind::Pack).await.unwrap().is_empty());
}

#[tokio::test]
async fn every_kind_of_object_lies_where_restic_looks_for_it() {
    let s3 = S3::start();
    let store = open(&s3).await;
    let config = Bytes::from_static(b"sealed");
    store.put(&Key::config(), config.clone()).await.unwrap();
    assert_eq!(store.list(FileKind::Config).await.unwrap().len(), 1);
    let root = s3.objects().join("dr/mall");
    assert_eq!(std::fs::read(root.join("config")).unwrap(), config);
    for kind in [FileKind::Key, FileKind::Lock, FileKind::Pack, FileKind::Index, FileKind::Snapshot] {
        let (key, bytes) = object(kind, key_text(kind).as_bytes());
        store.put(&key, bytes.clone()).await.unwrap();
        assert_eq!(std::fs::read(root.join(key.path())).unwrap(), bytes);
        let listed = store.list(kind).await.unwrap();
        assert_eq!(listed.len(), 1, "{kind:?}");
        assert_eq!(listed[0].name, key.name);
    }
}

fn key_text(kind: FileKind) -> String {
    format!("an object of kind {kind:?}")
}

#[tokio::test]
async fn bytes_under_anothers_name_are_refused_by_the_server() {
    let s3 = S3::start();
    let store = open(&s3).await;
    let (key, _) = object(FileKind::Pack, b"what the name says");
    let error = store.put(&key, Bytes::from_static(b"what was sent")).await.unwrap_err();
    assert!(error.to_string().contains("damaged on the way"), "{error}");
    assert_eq!(store.size(&key).await.unwrap(), None);
}

#[tokio::test]
async fn a_stretch_past_the_end_is_an_error() {
    let s3 = S3::start();
    let store = open(&s3).await;
    let (key, bytes) = object(FileKind::Pack, b"0123456789");
    store.put(&key, bytes).await.unwrap();
    for range in [8..12, 10..11, 20..30] {
        let error = store.get_range(&key, range.clone()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreadable { .. }), "{range:?}: {error}");
    }
}

#[tokio::test]
async fn a_listing_goes_on_past_a_page_of_a_thousand() {
    let s3 = S3::start();
    let store = open(&s3).await;
    // Written beside the server: a put of each would only make the test slow.
    let dir = s3.objects().join("dr/mall/snapshots");
    std::fs::create_dir_all(&dir).unwrap();
    for n in 0..1_203_u32 {
        let (key, bytes) = object(FileKind::Snapshot, &n.to_le_bytes());
        std::fs::write(dir.join(key.name), bytes).unwrap();
    }
    std::fs::write(dir.join("README"), "no object of a repository").unwrap();
    let listed = store.list(FileKind::Snapshot).await.unwrap();
    let names: std::collections::BTreeSet<_> = listed.iter().map(|it| &it.name).collect();
    assert_eq!((listed.len(), names.len()), (1_203, 1_203));
}

/// What a request says of encryption: how, and with which key.
type Wish = (Option<String>, Option<String>);

/// Starts a server that writes down what each put wishes; nothing else may carry a body.
fn recording() -> (S3, Arc<Mutex<BTreeMap<String, Wish>>>) {
    let wishes = Arc::<Mutex<BTreeMap<_, _>>>::default();
    let written = wishes.clone();
    let s3 = S3::start_with_faults(move |asked| {
        let header = |name| asked.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        match asked.method().as_str() {
            "PUT" => {
                let wish =
                    (header("x-amz-server-side-encryption"), header("x-amz-server-side-encryption-aws-kms-key-id"));
                written.lock().unwrap().insert(asked.uri().path().to_owned(), wish);
                None
            }
            // The parts of an upload in several would carry no such header: its beginning would have to.
            "POST" => Some(Fault::Status(501)),
            _ => None,
        }
    });
    (s3, wishes)
}

#[test]
fn every_put_says_how_the_server_is_to_encrypt_and_says_nothing_where_the_policy_does_not() {
    let kms = "sse = { kms = \"arn:aws:kms:ap-northeast-2:1:key/mall\" }\n";
    for (sse, how, key) in [
        (kms, Some("aws:kms"), Some("arn:aws:kms:ap-northeast-2:1:key/mall")),
        ("sse = \"AES256\"\n", Some("AES256"), None),
        ("", None, None),
    ] {
        let ((s3, wishes), desk) = (recording(), Desk::ready());
        copy_to(&desk, &s3.endpoint(), S3::BUCKET, sse);
        let expected: Wish = (how.map(str::to_owned), key.map(str::to_owned));
        let assert_said = |kinds: &[&str]| {
            let wishes = std::mem::take(&mut *wishes.lock().unwrap());
            assert!(wishes.values().all(|wish| *wish == expected), "{sse}: {wishes:?}");
            let put: BTreeSet<_> = wishes.keys().map(|path| path.split('/').nth(2).unwrap()).collect();
            assert_eq!(put, kinds.iter().copied().collect(), "{sse}");
        };
        desk.bkp(&["backup", "mall"]).expect(0);
        assert_said(&["config", "keys", "data", "index", "snapshots"]);
        std::fs::remove_dir_all(s3.objects().join("data")).unwrap();
        desk.bkp(&["verify", "mall", "--heal", "--copy", "usb"]).expect(0);
        assert_said(&["locks", "data"]);
    }
}

#[tokio::test]
async fn a_wrong_secret_is_denied_and_printed_nowhere() {
    let s3 = S3::start();
    let credentials = S3Credentials {
        access_key_id: S3::ACCESS_KEY.to_owned(),
        secret_access_key: Secret::new("wrong-horse-battery".to_owned()),
    };
    let printed = format!("{credentials:?}");
    let (place, network, run) = (place(&s3), Network::default(), Run::silent());
    let opened = S3Store::open(&place, Some(credentials), &network, Line::default(), &run);
    let store = opened.await.unwrap();
    let (key, bytes) = object(FileKind::Pack, b"x");
    let error = store.put(&key, bytes).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    for text in [error.to_string(), format!("{error:?} {store:?}"), printed] {
        assert!(!text.contains("wrong-horse"), "{text}");
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_named_as_such() {
    let s3 = S3::start();
    let mut place = place(&s3);
    place.bucket = "elsewhere".to_owned();
    let store = open_place(&place, &Network::default()).await.unwrap();
    let error = store.list(FileKind::Pack).await.unwrap_err();
    assert_eq!(error.to_string(), "list `s3://elsewhere/dr/mall/data/`: there is no such bucket");
}

/// Starts a server that fails its first requests so.
fn failing(times: usize, fault: Fault) -> (S3, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let s3 = S3::start_with_faults(move |_| (count.fetch_add(1, Ordering::SeqCst) < times).then_some(fault));
    (s3, asked)
}

#[tokio::test]
async fn a_throttling_or_resetting_server_is_asked_again() {
    for fault in [Fault::Status(503), Fault::Status(500), Fault::Disconnect] {
        let (s3, asked) = failing(3, fault);
        let store = open_with_retries(&s3).await;
        let (key, bytes) = object(FileKind::Pack, b"worth another try");
        store.put(&key, bytes.clone()).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 4, "{fault:?}");
        assert_eq!(store.get(&key).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_server_that_denies_is_not_asked_again() {
    let (s3, asked) = failing(100, Fault::Status(403));
    let store = open_with_retries(&s3).await;
    let (key, bytes) = object(FileKind::Pack, b"not worth another try");
    let error = store.put(&key, bytes).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_is_away_is_a_transient_failure() {
    let s3 = S3::start();
    let store = open(&s3).await;
    drop(s3);
    let error = store.list(FileKind::Pack).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_server_that_stands_still_is_given_up() {
    let s3 = S3::start_with_faults(|asked| {
        let is_second = asked.uri().path().ends_with("config");
        is_second.then_some(Fault::Stall)
    });
    let store = open(&s3).await;
    store.list(FileKind::Pack).await.unwrap();
    // From here on idle time passes at once, and the only thing to wait for is the answer that never comes.
    tokio::time::pause();
    let error = store.size(&Key::config()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("no answer"), "{error}");
}

#[tokio::test]
async fn a_peer_that_the_policy_does_not_allow_is_refused_before_a_byte_is_sent() {
    let (s3, asked) = failing(0, Fault::Disconnect);
    let network = Network { peers: vec!["10.0.30.0/24".parse().unwrap()], ..Network::default() };
    for host in ["127.0.0.1", "localhost"] {
        let mut place = place(&s3);
        place.endpoint = Some(s3.endpoint().replace("127.0.0.1", host));
        let error = open_place(&place, &network).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{host}: {error}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_allowed_server_is_reached_by_name_and_by_the_policys_interface() {
    let s3 = S3::start();
    let network = Network {
        interface: Some("lo".to_owned()),
        source: None,
        peers: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
    };
    let mut place = place(&s3);
    place.endpoint = Some(s3.endpoint().replace("127.0.0.1", "localhost"));
    let store = open_place(&place, &network).await.unwrap();
    let (key, bytes) = object(FileKind::Pack, b"by the way of the policy");
    store.put(&key, bytes.clone()).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), bytes);
}

#[test]
fn a_proxy_in_the_environment_is_not_obeyed() {
    let other = "s3::an_object_comes_back_whole_and_in_part_until_it_is_deleted";
    // Port 1 answers nothing: a request that went to the proxy would fail.
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", other])
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && text.contains("1 passed"), "{text}");
}

/// Puts TLS before a server, under a certificate for `localhost`. Returns the endpoint and the authority's certificate in PEM.
async fn with_tls(s3: &S3) -> (String, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new([]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let plain = s3.endpoint().replace("http://", "");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, plain) = (acceptor.clone(), plain.clone());
            tokio::spawn(async move {
                // A client that refuses the certificate ends the connection here.
                let Ok(mut outer) = acceptor.accept(stream).await else {
                    return;
                };
                let mut inner = tokio::net::TcpStream::connect(plain).await.unwrap();
                tokio::io::copy_bidirectional(&mut outer, &mut inner).await.ok();
            });
        }
    });
    (endpoint, pem)
}

#[tokio::test]
async fn a_certificate_of_the_policys_own_authority_is_trusted_and_no_other() {
    let s3 = S3::start();
    let (endpoint, pem) = with_tls(&s3).await;
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, pem).unwrap();
    let mut place = place(&s3);
    place.endpoint = Some(endpoint);

    let (key, bytes) = object(FileKind::Pack, b"over TLS");
    let stranger = open_place(&place, &Network::default()).await.unwrap();
    let error = stranger.put(&key, bytes.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");

    place.ca_file = Some(ca_file);
    let store = open_place(&place, &Network::default()).await.unwrap();
    store.put(&key, bytes.clone()).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), bytes);
}

#[tokio::test]
async fn an_authority_file_of_no_use_is_named() {
    let s3 = S3::start();
    let dir = tempfile::tempdir().unwrap();
    let mut place = place(&s3);
    for (name, text) in [
        ("none.pem", None),
        ("empty.pem", Some("")),
        ("key.pem", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
    ] {
        let file = dir.path().join(name);
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        place.ca_file = Some(file);
        let error = open_place(&place, &Network::default()).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}
