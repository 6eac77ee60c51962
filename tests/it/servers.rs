//! Throwaway servers for live tests: `Server` is a private MariaDB or MySQL, `S3` an object store in this process.
//!
//! Each lives in a temporary directory and ends with its value, and at the latest with this process.
//! `scripts/lab install` gets the programs; `scripts/test` names them in the environment.
#![allow(dead_code, unused_imports, reason = "not every helper here has a test that needs it yet")]

mod database;
pub(crate) mod mall;
mod moto;
mod programs;
mod s3;
mod template;

pub(crate) use database::Product;
pub(crate) use database::Server;
pub(crate) use database::Suite;
pub(crate) use moto::Moto;
pub(crate) use moto::Version;
pub(crate) use programs::program;
pub(crate) use s3::Asked;
pub(crate) use s3::Fault;
pub(crate) use s3::S3;

use std::future::Future;
use std::thread;
use std::time::Duration;

/// What takes longer hangs.
const ANSWER_MAX: Duration = Duration::from_mins(10);

/// Runs a future to its end, also from within a test's own runtime.
pub(crate) fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limited = async { tokio::time::timeout(ANSWER_MAX, future).await };
        runtime.block_on(limited).unwrap_or_else(|_| panic!("no end after {ANSWER_MAX:?}"))
    };
    thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_server_answers_on_socket_and_port_and_is_gone_once_dropped() {
    for product in [Product::MariaDb, Product::MySql] {
        let server = Server::start(product, &["--max-connections=17"]);
        server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (a INT, b TEXT)");
        server.execute("INSERT INTO shop.t VALUES (1, NULL), (2, '서울')");
        let rows = server.query("SELECT a, b FROM shop.t ORDER BY a");
        let told = server.query("SELECT @@max_connections, @@log_bin, @@local_infile");
        let pid = server.pid();
        let over_tcp = server.run_client("SELECT COUNT(*) FROM shop.t");
        let dir = server.dir().to_owned();
        drop(server);

        assert_eq!(rows, [[Some("1".into()), None], [Some("2".into()), Some("서울".into())]]);
        assert_eq!(told[0], ["17", "1", "1"].map(|value| Some(value.to_owned())));
        assert_eq!(over_tcp.trim(), "2");
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        assert!(!dir.exists());
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_killed_server_starts_again_with_its_committed_rows() {
    for product in [Product::MariaDb, Product::MySql] {
        let mut server = Server::start(product, &[]);
        server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (a INT PRIMARY KEY); INSERT INTO shop.t VALUES (7)");
        server.kill();
        server.start_again();
        assert_eq!(server.query("SELECT a FROM shop.t"), [[Some("7".to_owned())]]);
        server.shut_down();
        server.start_again();
        assert_eq!(server.query("SELECT a FROM shop.t"), [[Some("7".to_owned())]]);
    }
}

/// Returns a client of an S3 server that is none of ours, to look behind it.
pub(crate) fn client(endpoint: &str) -> aws_sdk_s3::Client {
    use aws_sdk_s3::config::BehaviorVersion;
    use aws_sdk_s3::config::Credentials;
    use aws_sdk_s3::config::Region;

    let keys = Credentials::new(S3::ACCESS_KEY, S3::SECRET_KEY, None, None, "test");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(keys)
        .force_path_style(true)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

/// Puts `body` under `key`; the error's text where it fails.
async fn put(s3: &S3, key: &str, body: &'static [u8], sha256: &[u8]) -> Result<(), String> {
    use base64::Engine as _;

    let request = client(&s3.endpoint())
        .put_object()
        .bucket(S3::BUCKET)
        .key(key)
        .body(bytes::Bytes::from_static(body).into())
        .checksum_sha256(base64::engine::general_purpose::STANDARD.encode(sha256));
    let answer = request.send().await;
    answer.map(|_| ()).map_err(|error| format!("{error:?}"))
}

#[test]
fn the_s3_server_keeps_an_object_and_refuses_one_with_another_sha256() {
    use sha2::Digest as _;

    let s3 = S3::start();
    let (right, wrong) = (sha2::Sha256::digest(b"image"), [7; 32]);
    block_on(put(&s3, "data/ab/abcd", b"image", &right)).unwrap();
    let refused = block_on(put(&s3, "data/ab/bad", b"image", &wrong));

    assert_eq!(std::fs::read(s3.objects().join("data/ab/abcd")).unwrap(), b"image");
    assert!(refused.unwrap_err().contains("BadDigest"));
    assert!(!s3.objects().join("data/ab/bad").exists());
}

#[test]
fn a_fault_comes_before_the_real_answer() {
    let s3 = S3::start_with_faults(|asked| asked.uri().path().ends_with("forbidden").then_some(Fault::Status(403)));
    let sha256 = <sha2::Sha256 as sha2::Digest>::digest(b"image");
    block_on(put(&s3, "allowed", b"image", &sha256)).unwrap();
    let refused = block_on(put(&s3, "forbidden", b"image", &sha256));

    assert!(refused.unwrap_err().contains("403"));
    assert!(!s3.objects().join("forbidden").exists());
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn restic_keeps_a_repository_on_the_s3_server() {
    let s3 = S3::start();
    let files = tempfile::tempdir().unwrap();
    for nth in 0..40_u8 {
        std::fs::write(files.path().join(nth.to_string()), vec![nth; 1000]).unwrap();
    }
    for name in ["RESTIC", "RESTIC019"] {
        let restic = |arguments: &[&str]| {
            let output = std::process::Command::new(program(name))
                .args(["--repo", &format!("s3:{}/{}/{name}", s3.endpoint(), S3::BUCKET)])
                .args(["--no-cache", "--pack-size", "4"])
                .args(arguments)
                .env("RESTIC_PASSWORD", "secret")
                .env("AWS_ACCESS_KEY_ID", S3::ACCESS_KEY)
                .env("AWS_SECRET_ACCESS_KEY", S3::SECRET_KEY)
                .env_remove("AWS_CA_BUNDLE")
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        restic(&["init"]);
        // Each run leaves packs of its own: a list has to find them all.
        for nth in 0..3 {
            std::fs::write(files.path().join("new"), nth.to_string()).unwrap();
            restic(&["backup", &files.path().display().to_string()]);
        }
        restic(&["check", "--read-data"]);
    }
}
