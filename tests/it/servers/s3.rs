//! An S3 server inside this process, with a directory behind it and faults on demand.

#[path = "../../../scripts/s3/server.rs"]
mod server;

pub(crate) use server::Asked;
pub(crate) use server::Fault;

use server::Keys;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A running S3 server with one bucket, `bkp`.
#[derive(Debug)]
pub(crate) struct S3 {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    dir: TempDir,
}

impl S3 {
    pub(crate) const BUCKET: &str = "bkp";
    pub(crate) const ACCESS_KEY: &str = "lab-access";
    /// Another key with the same secret, which faults can tell by its name.
    pub(crate) const READER_KEY: &str = "lab-reader";
    pub(crate) const SECRET_KEY: &str = "lab-secret-key";

    pub(crate) fn start() -> Self {
        Self::start_with_faults(|_| None)
    }

    /// Starts a server that does to each request what the function says; `None` lets it through.
    pub(crate) fn start_with_faults(faults: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self::start_at(("127.0.0.1", 0), faults)
    }

    /// Starts a server at an address of this network namespace.
    pub(crate) fn start_at(
        address: (&str, u16),
        faults: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::Builder::new().prefix("bkp-s3-").tempdir().unwrap();
        fs::create_dir(dir.path().join(Self::BUCKET)).unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, root) = (listener.local_addr().unwrap(), dir.path().to_owned());
        let stop = CancellationToken::new();
        let until = stop.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(until.run_until_cancelled(serve(listener, root, Arc::new(faults))));
            runtime.shutdown_background();
        });
        Self { address, stop, thread: Some(thread), dir }
    }

    /// Returns `http://127.0.0.1:PORT`, or whatever its address is.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the directory that holds the bucket's objects, each a file under its key.
    pub(crate) fn objects(&self) -> PathBuf {
        self.dir.path().join(Self::BUCKET)
    }
}

async fn serve(listener: std::net::TcpListener, root: PathBuf, faults: server::Faults) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let keys = [S3::ACCESS_KEY, S3::READER_KEY]
        .map(|access| Keys { access: access.to_owned(), secret: S3::SECRET_KEY.to_owned() });
    server::serve(listener, &root, &keys, faults).await.unwrap();
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
