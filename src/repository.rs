//! What is kept: packs, indexes, snapshots and a config in one store, in restic's format, version 2.
//!
//! The order of publishing is packs, index, snapshot; the order of reading is the reverse: list the snapshots, then load the index.

pub mod error;
pub mod lock;
pub mod pack;
pub mod snapshot;
mod time;
pub mod tree;
pub mod writer;

use std::sync::Arc;
use std::time::Duration;

pub use crate::repository::error::RepositoryError;
pub use crate::repository::lock::{LockGuard, LockMode};
pub use crate::repository::pack::BlobKind;
pub use crate::repository::snapshot::{Snapshot, StoredSnapshot, Summary};
pub use crate::repository::tree::{Node, Tree};
pub use crate::repository::writer::{Added, Content, FileWriter, Saved, SavedBlob, Ticket, Writer};

use crate::id::{BlobId, ObjectId, SnapshotId};
use crate::run::Run;
use crate::secret::Secret;
use crate::store::SharedStore;

/// An open repository. All methods may be called from many tasks and threads at once.
pub struct Repository {
    store: SharedStore,
    id: String,
}

#[allow(clippy::unused_async, unused_variables)]
impl Repository {
    pub async fn init(
        store: SharedStore,
        password: &Secret,
        run: &Run,
    ) -> Result<Arc<Self>, RepositoryError> {
        unimplemented!()
    }
    pub async fn open(
        store: SharedStore,
        password: &Secret,
        run: &Run,
    ) -> Result<Arc<Self>, RepositoryError> {
        unimplemented!()
    }
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
    #[must_use]
    pub fn store(&self) -> &SharedStore {
        &self.store
    }
    pub async fn lock(
        &self,
        mode: LockMode,
        wait: Duration,
        run: &Run,
    ) -> Result<LockGuard, RepositoryError> {
        unimplemented!()
    }
    pub async fn snapshots(&self) -> Result<Vec<StoredSnapshot>, RepositoryError> {
        unimplemented!()
    }
    pub async fn load_index(&self, run: &Run) -> Result<(), RepositoryError> {
        unimplemented!()
    }
    #[must_use]
    pub fn has(&self, kind: BlobKind, id: &BlobId) -> bool {
        unimplemented!()
    }
    #[must_use]
    pub fn blob_size(&self, kind: BlobKind, id: &BlobId) -> Option<u64> {
        unimplemented!()
    }
    pub async fn blob(&self, kind: BlobKind, id: &BlobId) -> Result<Vec<u8>, RepositoryError> {
        unimplemented!()
    }
    pub fn blob_blocking(&self, kind: BlobKind, id: &BlobId) -> Result<Vec<u8>, RepositoryError> {
        unimplemented!()
    }
    pub async fn tree(&self, id: &BlobId) -> Result<Tree, RepositoryError> {
        unimplemented!()
    }
    pub fn tree_blocking(&self, id: &BlobId) -> Result<Tree, RepositoryError> {
        unimplemented!()
    }
    #[must_use]
    pub fn writer(self: &Arc<Self>, run: &Run) -> Writer {
        unimplemented!()
    }
    pub async fn save_snapshot(&self, snapshot: &Snapshot) -> Result<SnapshotId, RepositoryError> {
        unimplemented!()
    }
    pub async fn remove_snapshot(&self, id: &SnapshotId) -> Result<(), RepositoryError> {
        unimplemented!()
    }
    #[must_use]
    pub fn pack_of(&self, kind: BlobKind, id: &BlobId) -> Option<ObjectId> {
        unimplemented!()
    }
}
