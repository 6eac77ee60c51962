//! Saves blobs: sealed on a bounded pool of threads, packed, put in the background.
//!
//! What breaks one part breaks the writer: the first fault sticks, and `put`, `wait` and `finish` all return it.

mod again;
mod file;
mod pipeline;
mod ticket;

use std::collections::HashSet;
use std::ops::AddAssign;
use std::sync::Arc;

pub use crate::repository::writer::file::{Content, FileWriter};
pub use crate::repository::writer::ticket::{SavedBlob, Ticket};

use crate::chunk::{self, Cutter};
use crate::id::{BlobId, ObjectId};
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::repository::pack::{self, BlobKind};
use crate::repository::tree::Tree;
use crate::repository::writer::pipeline::{Job, Pipeline};
use crate::run::Run;
use crate::seal::Effort;

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

/// What a writer put into the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saved {
    pub packs: Vec<ObjectId>,
    pub indexes: Vec<ObjectId>,
    pub added: Added,
}

/// The bounds of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Plain bytes that wait to be sealed or are being sealed.
    pub in_flight_bytes_max: usize,
    /// A pack is closed once it is this long.
    pub pack_size_target: usize,
    /// Threads that seal.
    pub sealers: usize,
    /// Packs put at once; one more is being closed or waits.
    pub uploads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self { in_flight_bytes_max: 20 << 20, pack_size_target: pack::SIZE_TARGET, sealers: cores.min(16), uploads: 2 }
    }
}

/// Saves blobs from many threads.
#[derive(Clone)]
pub struct Writer {
    /// Dropped with the last clone, which ends the threads.
    pipeline: Arc<PipelineOwner>,
    cutter: Cutter,
    /// For chunks that are cut once more.
    pieces: Cutter,
}

struct PipelineOwner(Arc<Pipeline>);

impl Drop for PipelineOwner {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Writer {
    pub(super) fn new(repository: &Arc<Repository>, run: &Run, limits: Limits) -> Self {
        let seed = repository.config.chunker_polynomial;
        let pipeline = Pipeline::start(Arc::clone(repository), run.clone(), limits);
        Self {
            pipeline: Arc::new(PipelineOwner(pipeline)),
            cutter: Cutter::new(seed, chunk::CHUNKS),
            pieces: Cutter::new(seed, chunk::PIECES),
        }
    }

    /// Hands plain bytes over to be sealed and stored as one blob; blocks while too many bytes are in flight.
    ///
    /// # Errors
    /// Whatever broke the writer before, or a signal to stop.
    pub fn put(&self, kind: BlobKind, plain: Vec<u8>) -> Result<Ticket, RepositoryError> {
        self.pipeline.0.put(kind, None, None, plain)
    }

    /// Like [`Writer::put`], for a chunk of a stream whose chunks are compressed alike; its id, where that is known.
    fn put_part(&self, effort: &Arc<Effort>, id: Option<BlobId>, plain: Vec<u8>) -> Result<Ticket, RepositoryError> {
        self.pipeline.0.put(BlobKind::Data, id, Some(Arc::clone(effort)), plain)
    }

    /// Tells whether the bytes of this id are there or on their way.
    fn knows(&self, id: BlobId) -> bool {
        self.pipeline.0.knows(BlobKind::Data, id)
    }

    /// Returns memory for a chunk, that of one which is sealed where there is some.
    fn chunk_memory(&self) -> Vec<u8> {
        self.pipeline.0.chunk_memory()
    }

    /// Saves plain bytes as one blob. They are hashed here: the id is known at once, and bytes that are there go no further. What
    /// becomes of others, `finish` tells. Where many bytes are in flight already, they are sealed here too.
    ///
    /// # Errors
    /// Like [`Writer::put`].
    pub fn save(&self, kind: BlobKind, plain: Vec<u8>) -> Result<BlobId, RepositoryError> {
        let id = BlobId::of(&plain);
        if !self.pipeline.0.knows(kind, id) {
            self.pipeline.0.push_or_seal(Job::hashed(kind, id, plain))?;
        }
        Ok(id)
    }

    /// Saves a directory's entries, as [`Writer::save`] does.
    ///
    /// # Errors
    /// Like [`Writer::put`], or where the tree is not in order.
    pub fn save_tree(&self, tree: &Tree) -> Result<BlobId, RepositoryError> {
        let json = tree.to_json().map_err(|error| RepositoryError::refused("tree", error))?;
        self.save(BlobKind::Tree, json)
    }

    /// Starts a stream that is cut into blobs where its content says so.
    #[must_use]
    pub fn file(&self) -> FileWriter {
        FileWriter::new(self.clone(), self.cutter.clone(), None)
    }

    /// Starts a stream like [`Writer::file`], most of which was saved before: where little has changed, it is cut into smaller blobs,
    /// so that the next change of that place stores less. What is `lost`, named by a snapshot and not there, is cut as it was, so that
    /// the snapshot is whole again.
    #[must_use]
    pub fn file_again(&self, lost: &Arc<HashSet<BlobId>>) -> FileWriter {
        FileWriter::new(self.clone(), self.cutter.clone(), Some(Arc::clone(lost)))
    }

    /// Makes all packs durable, then the index that finds them; each is read back from the store. To be called once all that is to
    /// be saved was put.
    ///
    /// # Errors
    /// Whatever broke the writer: then nothing it saved may be named by a snapshot.
    pub async fn finish(&self) -> Result<Saved, RepositoryError> {
        let pipeline = Arc::clone(&self.pipeline.0);
        let finished = tokio::task::spawn_blocking(move || pipeline.finish()).await;
        finished.unwrap_or_else(|error| Err(RepositoryError::refused("packs", error)))
    }
}
