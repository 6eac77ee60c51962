//! Readers of a dump that stop at a chosen place, until they are told to go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bkp::mysql::manifest::Manifest;
use bkp::target::mysql::{DirDump, DumpReadError, DumpReader};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

/// Where a gate stands.
#[derive(Debug)]
enum Place {
    /// Before every chunk but so many.
    After(usize),
    /// Before the first byte of a chunk.
    Before(&'static str),
    /// After the first block of a chunk.
    Within(&'static str),
}

/// A dump that can be read up to a gate.
pub(super) struct Gate {
    inner: Arc<DirDump>,
    place: Place,
    given: AtomicUsize,
    reached: CancellationToken,
    opened: CancellationToken,
}

impl Gate {
    pub(super) fn after_chunks(inner: Arc<DirDump>, count: usize) -> Arc<Self> {
        Self::at(inner, Place::After(count))
    }

    pub(super) fn before_chunk(inner: Arc<DirDump>, path: &'static str) -> Arc<Self> {
        Self::at(inner, Place::Before(path))
    }

    pub(super) fn within_chunk(inner: Arc<DirDump>, path: &'static str) -> Arc<Self> {
        Self::at(inner, Place::Within(path))
    }

    fn at(inner: Arc<DirDump>, place: Place) -> Arc<Self> {
        Arc::new(Self {
            inner,
            place,
            given: AtomicUsize::new(0),
            reached: CancellationToken::new(),
            opened: CancellationToken::new(),
        })
    }

    /// Waits until a load stands before the gate.
    pub(super) async fn reached(&self) {
        let waited = tokio::time::timeout(Duration::from_mins(2), self.reached.cancelled()).await;
        waited.expect("the load never came to the gate");
    }

    pub(super) fn open(&self) {
        self.opened.cancel();
    }

    /// Returns after how many blocks of a chunk the gate stands.
    fn blocks_before(&self, path: &str) -> Option<usize> {
        let given = self.given.fetch_add(1, Ordering::SeqCst);
        match self.place {
            Place::After(count) => (given >= count).then_some(0),
            Place::Before(place) => (path == place).then_some(0),
            Place::Within(place) => (path == place).then_some(1),
        }
    }
}

#[async_trait]
impl DumpReader for Gate {
    fn manifest(&self) -> &Manifest {
        self.inner.manifest()
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, DumpReadError> {
        self.inner.read(path).await
    }

    fn stream(&self, path: &str) -> BoxStream<'static, Result<Bytes, DumpReadError>> {
        let Some(before) = self.blocks_before(path) else {
            return self.inner.stream(path);
        };
        let (reached, opened) = (self.reached.clone(), self.opened.clone());
        let wait = stream::once(async move {
            reached.cancel();
            opened.cancelled().await;
            Ok(Bytes::new())
        });
        // Told to the server only once there is something to hold back, so that it is in the middle of its statement.
        let first = self.inner.stream(path).take(before);
        let rest = self.inner.stream(path).skip(before);
        first.chain(wait).chain(rest).boxed()
    }
}

/// Asks again and again until something is so.
pub(super) async fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to be");
        // Asked more often than every 100 ms, InnoDB tells of its transactions what it has told before.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}
