//! An S3 server that keeps versions and enforces Object Lock: moto, a process on loopback with its buckets in memory.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use super::block_on;
use super::client;
use super::programs::program;

/// A cold Python on a busy machine has needed 10 s.
const START_MAX: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(50);
/// Between choosing a free port and taking it another process can be faster.
const START_TRIES_MAX: usize = 5;

/// A running server with one bucket, `locked-dr`, that was made with Object Lock. Any key opens it.
#[derive(Debug)]
pub(crate) struct Moto {
    port: u16,
    server: Child,
    guard: Child,
}

/// A version of an object, as the server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) is_delete_marker: bool,
}

impl Moto {
    pub(crate) const BUCKET: &str = "locked-dr";

    pub(crate) fn start() -> Self {
        for _ in 0..START_TRIES_MAX {
            let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let mut moto = Self::spawn(port);
            if moto.answers() {
                block_on(moto.make_bucket());
                return moto;
            }
        }
        panic!("moto does not start");
    }

    fn spawn(port: u16) -> Self {
        let server = Command::new(program("MOTO"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .env_remove("AWS_CA_BUNDLE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The guard reads a pipe that only we hold: when it closes without our having killed the guard, we are gone.
        let script = r#"read -r _; kill -9 "$1""#;
        let guard = Command::new("sh")
            .args(["-c", script, "guard", &server.id().to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self { port, server, guard }
    }

    /// Waits until the server answers a request; `false` once its process has ended.
    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + START_MAX;
        while self.server.try_wait().unwrap().is_none() {
            if self.asked("GET", "/moto-api/").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return true;
            }
            assert!(Instant::now() < deadline, "no answer after {START_MAX:?}");
            thread::sleep(POLL);
        }
        false
    }

    fn asked(&self, method: &str, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    async fn make_bucket(&self) {
        let bucket = self.client().create_bucket().bucket(Self::BUCKET).object_lock_enabled_for_bucket(true);
        bucket.send().await.unwrap();
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> aws_sdk_s3::Client {
        client(&self.endpoint())
    }

    /// Returns every version that the bucket holds, delete markers included.
    pub(crate) async fn versions(&self) -> Vec<Version> {
        let listed = self.client().list_object_versions().bucket(Self::BUCKET).send().await.unwrap();
        assert_eq!(listed.is_truncated(), Some(false), "more versions than a page holds");
        let version = |key: Option<&str>, id: Option<&str>, is_delete_marker| Version {
            key: key.unwrap().to_owned(),
            id: id.unwrap().to_owned(),
            is_delete_marker,
        };
        let versions = listed.versions().iter().map(|it| version(it.key(), it.version_id(), false));
        versions.chain(listed.delete_markers().iter().map(|it| version(it.key(), it.version_id(), true))).collect()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        for child in [&mut self.guard, &mut self.server] {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
