//! What is kept: packs, indexes, snapshots and a config in one store, in restic's format, version 2.
//!
//! The order of publishing is packs, index, snapshot; the order of reading is the reverse: list the snapshots, then load the index.

mod config;
mod document;
pub mod error;
mod fetch;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gather;
mod holder;
pub mod index;
pub mod key;
mod keys;
pub mod lock;
pub mod marks;
mod mend;
mod needed;
mod open;
pub mod pack;
mod polynomial;
mod read;
mod recover;
mod reindex;
mod repack;
mod salvage;
pub mod snapshot;
mod time;
pub mod tree;
mod trees;
pub mod writer;

use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub use crate::repository::error::RepositoryError;
pub use crate::repository::fetch::Wanted;
pub use crate::repository::index::{Location, PackContents, Packs};
pub use crate::repository::key::KeyRecord;
pub use crate::repository::keys::KeyList;
pub use crate::repository::lock::{LockGuard, LockMode};
pub use crate::repository::marks::{Marked, Marks, PackUse};
pub use crate::repository::pack::{BlobKind, PackedBlob};
pub use crate::repository::reindex::Reindexed;
pub use crate::repository::salvage::{Salvage, Salvaged};
pub use crate::repository::snapshot::{Snapshot, StoredSnapshot, Summary};
pub use crate::repository::tree::{Node, Tree};
pub use crate::repository::writer::{Added, Content, FileWriter, Saved, SavedBlob, Ticket, Writer};

use crate::id::{ObjectId, SnapshotId};
use crate::repository::config::Config;
use crate::repository::index::LiveIndex;
use crate::repository::trees::TreeCache;
use crate::run::Run;
use crate::seal::MasterKey;
use crate::store::cache::Cache;
use crate::store::{FileKind, Key, SharedStore, Store, StoreError};

/// Snapshots read at once: on an object store each is a round trip.
const SNAPSHOTS_IN_FLIGHT_MAX: usize = 8;

/// Something of a repository that could not be read.
#[derive(Debug, Clone)]
pub struct Fault {
    pub object: Key,
    pub error: RepositoryError,
}

/// The snapshots of a repository, and those that cannot be read.
#[derive(Debug, Clone, Default)]
pub struct SnapshotList {
    /// Oldest first.
    pub found: Vec<StoredSnapshot>,
    pub damaged: Vec<Fault>,
}

/// An open repository. All methods may be called from many tasks and threads at once.
pub struct Repository {
    store: SharedStore,
    /// Where index files, snapshots and trees are read through, if anywhere.
    cache: OnceLock<Arc<Cache>>,
    config: Config,
    /// The key file that it was opened with.
    key: ObjectId,
    master: Arc<MasterKey>,
    index: RwLock<LiveIndex>,
    index_faults: Mutex<Vec<Fault>>,
    trees: TreeCache,
    /// Packs that the loaded index has from their own headers, for want of an index file that names them.
    unnamed: Mutex<Vec<PackContents>>,
    locks: Arc<lock::Standing>,
    /// The runtime it was opened on: for the threads that read and write without being tasks.
    runtime: Handle,
    /// Ends the waits of those threads.
    cancel: CancellationToken,
}

impl Repository {
    /// Returns the id that tells repositories apart; a copy has the same.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.config.id
    }

    #[must_use]
    pub fn store(&self) -> &SharedStore {
        &self.store
    }

    /// Reads index files, snapshots and trees through a cache of this repository's store from now on; the first that is given
    /// stays. Files' bytes are read past it, and so is whatever a verify is to prove: give it none.
    pub fn read_through(&self, cache: Cache) {
        let _ = self.cache.set(Arc::new(cache));
    }

    /// Returns what is nearest to read index files, snapshots and trees from.
    pub(crate) fn near(&self) -> &dyn Store {
        self.cache.get().map_or(&*self.store, |cache| &**cache)
    }

    /// Takes a lock, waiting up to `wait` for others. It is refreshed until the guard is released or dropped; if that fails for so
    /// long that others may take it for stale, the repository refuses to publish from then on.
    ///
    /// # Errors
    /// [`RepositoryError::Locked`] where another still holds one, [`RepositoryError::Stopped`] after a signal.
    pub async fn lock(&self, mode: LockMode, wait: Duration, run: &Run) -> Result<LockGuard, RepositoryError> {
        let place = lock::Place {
            store: Arc::clone(&self.store),
            master: Arc::clone(&self.master),
            standing: Arc::clone(&self.locks),
            pace: lock::Pace::DEFAULT,
        };
        lock::acquire(place, mode, wait, run).await
    }

    /// Takes a shared lock in a copy of this repository, which the same keys open. `None` where the copy's store lets nobody put or
    /// delete one: read-only credentials are enough to verify a copy, and such as may only add are enough to make one.
    ///
    /// # Errors
    /// Like [`Repository::lock`].
    pub async fn lock_copy(&self, copy: &SharedStore, run: &Run) -> Result<Option<LockGuard>, RepositoryError> {
        let place = lock::Place {
            store: Arc::clone(copy),
            master: Arc::clone(&self.master),
            standing: Arc::default(),
            pace: lock::Pace::DEFAULT,
        };
        match lock::acquire(place, LockMode::Shared, Duration::ZERO, run).await {
            Ok(lock) => Ok(Some(lock.lenient())),
            Err(error) if lock::is_not_allowed(&error) => {
                let place = copy.location();
                run.events.warn(format!("`{place}` takes no lock from us ({error}): nobody must prune it meanwhile"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the snapshots that can be read, oldest first. [`Repository::list_snapshots`] tells of the others.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn snapshots(&self) -> Result<Vec<StoredSnapshot>, RepositoryError> {
        Ok(self.list_snapshots().await?.found)
    }

    /// Returns all snapshots, the damaged ones apart: one that rots must not hide the rest.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn list_snapshots(&self) -> Result<SnapshotList, RepositoryError> {
        let mut list = SnapshotList::default();
        let loads = self.near().list(FileKind::Snapshot).await?.into_iter().map(|listed| async move {
            let loaded = self.load_snapshot(&listed.name).await;
            (listed.name, loaded)
        });
        let mut loads = stream::iter(loads).buffer_unordered(SNAPSHOTS_IN_FLIGHT_MAX);
        while let Some((name, loaded)) = loads.next().await {
            match loaded {
                Ok(snapshot) => list.found.push(snapshot),
                Err(RepositoryError::Store(StoreError::Missing { .. })) => {} // forgotten meanwhile
                Err(error) if error.is_damage() => {
                    list.damaged.push(Fault { object: Key::new(FileKind::Snapshot, name), error });
                }
                Err(error) => return Err(error),
            }
        }
        list.found.sort_by_key(|stored| (stored.snapshot.time, stored.id));
        list.damaged.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(list)
    }

    async fn load_snapshot(&self, name: &str) -> Result<StoredSnapshot, RepositoryError> {
        let json = document::load(self.near(), &self.master, FileKind::Snapshot, name).await?;
        let damaged = |error| RepositoryError::damaged(Key::new(FileKind::Snapshot, name), error);
        Ok(StoredSnapshot { id: name.parse()?, snapshot: serde_json::from_slice(&json).map_err(damaged)? })
    }

    /// Publishes a snapshot and reads it back. All that it names must be durable: [`Writer::finish`] comes first.
    ///
    /// # Errors
    /// Where the store refuses, or the lock was lost.
    pub async fn save_snapshot(&self, snapshot: &Snapshot) -> Result<SnapshotId, RepositoryError> {
        self.locks.prove(&self.store).await?;
        let json = serde_json::to_vec(snapshot).map_err(|error| RepositoryError::refused("snapshot", error))?;
        document::save(&self.store, &self.master, FileKind::Snapshot, &json).await
    }

    /// Deletes a snapshot. What only it names stays until a prune.
    ///
    /// # Errors
    /// Where the store refuses, or the lock was lost.
    pub async fn remove_snapshot(&self, id: &SnapshotId) -> Result<(), RepositoryError> {
        self.check_lock()?;
        let key = Key::new(FileKind::Snapshot, id.to_string());
        Ok(self.store.delete(&key).await?)
    }

    /// Starts to save blobs. Its threads live until the last clone is dropped.
    #[must_use]
    pub fn writer(self: &Arc<Self>, run: &Run) -> Writer {
        Writer::new(self, run, writer::Limits::default())
    }

    /// Like [`Repository::writer`], with limits of its own.
    #[must_use]
    pub fn writer_with(self: &Arc<Self>, run: &Run, limits: writer::Limits) -> Writer {
        Writer::new(self, run, limits)
    }

    /// Refuses to go on once a lock was lost: somebody may have taken us for dead and deleted what we are about to name.
    pub(crate) fn check_lock(&self) -> Result<(), RepositoryError> {
        self.locks.check()
    }
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({})", self.store.location())
    }
}
