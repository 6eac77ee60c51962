//! Saves blobs: sealed on a bounded pool of threads, packed, put in the background.

use std::io;
use std::ops::AddAssign;

use crate::id::{BlobId, ObjectId};
use crate::repository::error::RepositoryError;
use crate::repository::pack::BlobKind;
use crate::repository::tree::Tree;

/// What was new to the repository: blobs, their plain bytes, and the same as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Added {
    pub blobs: u64,
    pub plain: u64,
    pub stored: u64,
}

impl AddAssign for Added {
    fn add_assign(&mut self, other: Self) {
        self.blobs += other.blobs;
        self.plain += other.plain;
        self.stored += other.stored;
    }
}

/// What became of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedBlob {
    pub id: BlobId,
    /// Whether this call stored it; otherwise it was there, or is on its way.
    pub is_new: bool,
    pub plain: u64,
    /// Bytes as stored; zero unless new.
    pub stored: u64,
}

/// The blobs of a stream that was cut.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    pub blobs: Vec<BlobId>,
    pub size: u64,
    pub added: Added,
}

/// What a writer put into the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saved {
    pub packs: Vec<ObjectId>,
    pub indexes: Vec<ObjectId>,
    pub added: Added,
}

/// A promise of a blob's outcome.
#[derive(Debug)]
pub struct Ticket {}

impl Ticket {
    /// Waits until the blob is sealed, or known.
    ///
    /// # Errors
    /// Whatever broke the writer.
    pub fn wait(self) -> Result<SavedBlob, RepositoryError> {
        unimplemented!()
    }
}

/// Saves blobs from many threads.
#[derive(Clone)]
pub struct Writer {}

impl Writer {
    /// Hands plain bytes over to be sealed and stored as one blob; blocks while too many bytes are in flight.
    ///
    /// # Errors
    /// Whatever broke the writer before, or a signal to stop.
    pub fn put(&self, kind: BlobKind, plain: Vec<u8>) -> Result<Ticket, RepositoryError> {
        let _ = (kind, plain);
        unimplemented!()
    }

    /// Saves a directory's entries.
    ///
    /// # Errors
    /// Like [`Writer::put`].
    pub fn save_tree(&self, tree: &Tree) -> Result<BlobId, RepositoryError> {
        let _ = tree;
        unimplemented!()
    }

    /// Starts a stream that is cut into blobs where its content says so.
    #[must_use]
    pub fn file(&self) -> FileWriter {
        unimplemented!()
    }

    /// Makes all packs durable, then the index that finds them.
    ///
    /// # Errors
    /// Whatever broke the writer: then the index was not written, and nothing saved may be named by a snapshot.
    #[allow(clippy::unused_async)]
    pub async fn finish(&self) -> Result<Saved, RepositoryError> {
        unimplemented!()
    }
}

/// A stream on its way into the repository.
pub struct FileWriter {}

impl FileWriter {
    /// Ends the stream and waits until all its blobs are sealed.
    ///
    /// # Errors
    /// Whatever broke the writer.
    pub fn finish(self) -> Result<Content, RepositoryError> {
        unimplemented!()
    }
}

impl io::Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = bytes;
        unimplemented!()
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
