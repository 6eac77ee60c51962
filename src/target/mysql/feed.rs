//! A row file on its way into `LOAD DATA LOCAL`, hashed and counted as it passes.
//!
//! A stream that ends with an error would be *committed* as far as it came: the client ends the file, the server answers that all is
//! well. So a feed that cannot go on never ends and never fails; it says so beside itself, and the connection is dropped. For the same
//! reason its end is kept back until the bytes have turned out to be those of the manifest.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::event::Task;
use crate::mysql::manifest::Chunk;
use crate::target::mysql::dump::DumpReadError;

/// What is sent and hashed at a time: small enough to keep a worker thread free, large enough for few packets.
const PIECE_BYTES: usize = 256 * 1024;

pub(super) struct Feed {
    source: BoxStream<'static, Result<Bytes, DumpReadError>>,
    rest: Bytes,
    hash: Sha256,
    expected: Chunk,
    counted: Counted,
    failure: Option<oneshot::Sender<DumpReadError>>,
}

/// Counts what a feed has given out, for the progress shown; taken back if it was in vain.
#[derive(Clone)]
pub(super) struct Counted {
    task: Task,
    bytes: Arc<AtomicU64>,
}

impl Counted {
    pub(super) fn new(task: Task) -> Self {
        Self { task, bytes: Arc::default() }
    }

    fn add(&self, count: usize) {
        self.task.add(count as u64);
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn take_back(&self) {
        self.task.take_back(self.bytes.swap(0, Ordering::Relaxed));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Feed {
    /// Returns the feed, and what resolves if it cannot go on.
    pub(super) fn new(
        source: BoxStream<'static, Result<Bytes, DumpReadError>>,
        expected: Chunk,
        counted: Counted,
    ) -> (Self, oneshot::Receiver<DumpReadError>) {
        let (failure, failed) = oneshot::channel();
        let feed = Self { source, rest: Bytes::new(), hash: Sha256::new(), expected, counted, failure: Some(failure) };
        (feed, failed)
    }

    fn give(&mut self) -> Bytes {
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        self.hash.update(&piece);
        self.counted.add(piece.len());
        piece
    }

    fn is_whole(&mut self) -> bool {
        let hash = std::mem::take(&mut self.hash).finalize();
        self.counted.bytes() == self.expected.bytes && hex::encode(hash) == self.expected.sha256
    }

    fn fail(&mut self, error: DumpReadError) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(failure) = self.failure.take() {
            // Nobody listens any more when the load was stopped.
            failure.send(error).ok();
        }
        Poll::Pending
    }
}

impl Stream for Feed {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let feed = &mut *self;
        loop {
            if feed.failure.is_none() {
                return Poll::Pending;
            }
            if !feed.rest.is_empty() {
                return Poll::Ready(Some(Ok(feed.give())));
            }
            match std::task::ready!(feed.source.as_mut().poll_next(context)) {
                Some(Ok(bytes)) => feed.rest = bytes,
                Some(Err(error)) => return feed.fail(error),
                None if feed.is_whole() => return Poll::Ready(None),
                None => {
                    let path = feed.expected.path.clone();
                    return feed.fail(DumpReadError::Damaged { path, source: None });
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream};

    use super::*;
    use crate::event::{Events, Unit};

    fn feed_of(
        pieces: Vec<Result<Bytes, DumpReadError>>,
        promised: &[u8],
    ) -> (Feed, oneshot::Receiver<DumpReadError>, Task) {
        let task = Events::silent().task("rows", Unit::Bytes, 0).clone();
        let expected = Chunk {
            path: "t/0.tsv".to_owned(),
            lower: None,
            upper: None,
            rows: 1,
            bytes: promised.len() as u64,
            sha256: hex::encode(Sha256::digest(promised)),
        };
        let (feed, failed) = Feed::new(stream::iter(pieces).boxed(), expected, Counted::new(task.clone()));
        (feed, failed, task)
    }

    #[tokio::test]
    async fn the_bytes_of_the_manifest_pass_in_small_pieces() {
        let rows = vec![7; 3 * PIECE_BYTES + 5];
        let pieces = vec![Ok(Bytes::new()), Ok(rows[..10].to_vec().into()), Ok(rows[10..].to_vec().into())];
        let (feed, _failed, task) = feed_of(pieces, &rows);
        let given: Vec<Bytes> = feed.map(Result::unwrap).collect().await;
        assert!(given.iter().all(|piece| !piece.is_empty() && piece.len() <= PIECE_BYTES));
        assert_eq!(given.concat(), rows);
        assert_eq!(task.done(), rows.len() as u64);
    }

    #[tokio::test]
    async fn a_feed_that_fails_neither_ends_nor_errs() {
        let lost = DumpReadError::Missing { path: "t/0.tsv".to_owned() };
        let (mut feed, failed, _) = feed_of(vec![Ok(Bytes::from_static(b"1\n")), Err(lost)], b"1\n2\n");
        assert_eq!(feed.next().await.unwrap().unwrap(), "1\n");
        assert!(feed.next().now_or_never().is_none());
        assert!(feed.next().now_or_never().is_none());
        assert!(matches!(failed.await, Ok(DumpReadError::Missing { .. })));
    }

    #[tokio::test]
    async fn a_file_with_other_bytes_never_reaches_its_end() {
        for given in [&b"1\n3\n"[..], b"1\n", b"1\n2\n3\n"] {
            let (mut feed, failed, task) = feed_of(vec![Ok(Bytes::copy_from_slice(given))], b"1\n2\n");
            assert!(feed.next().await.is_some());
            assert!(feed.next().now_or_never().is_none(), "{given:?}");
            assert!(matches!(failed.await, Ok(DumpReadError::Damaged { .. })));
            assert_eq!(task.done(), given.len() as u64);
            feed.counted.take_back();
            assert_eq!(task.done(), 0);
        }
    }
}
