//! Reads: the index, blobs and trees.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::event::Unit;
use crate::id::{BlobId, ObjectId};
use crate::repository::error::RepositoryError;
use crate::repository::index::{self, IndexBuilder, Location, PackContents};
use crate::repository::pack::{self, BlobKind, PackedBlob};
use crate::repository::{Fault, Repository, document};
use crate::run::{Run, Stopped};
use crate::seal;
use crate::store::{FileKind, Key, Listed};

/// Index files fetched and read at once: each is some 10 MB of JSON in memory.
const INDEXES_IN_FLIGHT_MAX: usize = 4;

/// Blobs longer than this are opened on a blocking thread: a MiB takes a millisecond.
const INLINE_MAX: usize = 32 << 10;

/// How much of a pack's end is fetched to read its header: enough for 390 blobs.
const HEADER_GUESS: u64 = 16 << 10;

impl Repository {
    /// Loads the index; may be called again to see what others have saved. An index file that is damaged does not hide the packs it
    /// named: their own headers are read instead, and [`Repository::index_faults`] tells of it.
    ///
    /// # Errors
    /// Where the store cannot be read, or the run was stopped.
    pub async fn load_index(&self, run: &Run) -> Result<(), RepositoryError> {
        let files = self.store.list(FileKind::Index).await?;
        let task = run.events.task("load index", Unit::Objects, files.len() as u64);
        let mut loads =
            stream::iter(files).map(|listed| self.load_index_file(listed)).buffer_unordered(INDEXES_IN_FLIGHT_MAX);
        let (mut builder, mut faults) = (IndexBuilder::default(), Vec::new());
        while let Some(loaded) = loads.next().await {
            run.check()?;
            task.add(1);
            match loaded? {
                Ok(packs) => packs.iter().for_each(|pack| builder.add(pack)),
                Err(fault) => faults.push(fault),
            }
        }
        drop(loads);
        if !faults.is_empty() {
            self.recover(&mut builder, &mut faults, run).await?;
        }
        let built = tokio::task::spawn_blocking(|| builder.build()).await;
        let built = built.map_err(|error| RepositoryError::refused("index", error))?;
        self.index.write().unwrap_or_else(PoisonError::into_inner).replace(built);
        *self.index_faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
        Ok(())
    }

    /// Reads one index file; a damaged one is a fault, not an error.
    async fn load_index_file(&self, listed: Listed) -> Result<Result<Vec<PackContents>, Fault>, RepositoryError> {
        let object = Key::new(FileKind::Index, listed.name);
        let sealed = match self.store.get(&object).await.map_err(RepositoryError::from) {
            // Missing: a prune has put another in its place; the blobs that it still names are in both.
            Err(error) if error.is_damage() => return Ok(Err(Fault { object, error })),
            sealed => sealed?,
        };
        let master = Arc::clone(&self.master);
        let parsed = tokio::task::spawn_blocking(move || {
            let damaged = |error: &dyn std::fmt::Display| RepositoryError::damaged(&object, error);
            let json = document::check_name(&object, &sealed)
                .and_then(|()| seal::open_document(&master, &sealed).map_err(|error| damaged(&error)));
            let packs = json.and_then(|json| index::parse(&json).map_err(|error| damaged(&error)));
            packs.map_err(|error| Fault { object, error })
        });
        parsed.await.map_err(|error| RepositoryError::refused("index", error))
    }

    /// Reads the headers of all packs that no index file names.
    async fn recover(
        &self,
        builder: &mut IndexBuilder,
        faults: &mut Vec<Fault>,
        run: &Run,
    ) -> Result<(), RepositoryError> {
        let packs = self.store.list(FileKind::Pack).await?;
        let unnamed = packs.into_iter().filter_map(|listed| {
            let id = listed.name.parse::<ObjectId>().ok()?;
            (!builder.has_pack(&id)).then_some((id, listed.size))
        });
        let unnamed: Vec<_> = unnamed.collect();
        run.events.warn(format!(
            "{} damaged index files; reading the headers of {} packs instead",
            faults.len(),
            unnamed.len()
        ));
        for (id, size) in unnamed {
            run.check()?;
            match self.pack_header(&id, size).await {
                Ok(blobs) => builder.add(&PackContents { id, blobs }),
                Err(error) if error.is_damage() => {
                    faults.push(Fault { object: Key::new(FileKind::Pack, id.to_string()), error });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what a pack itself says it holds. `size` is the pack's, in bytes.
    ///
    /// # Errors
    /// Where the pack is too short, or its header does not open or does not fit.
    pub async fn pack_header(&self, id: &ObjectId, size: u64) -> Result<Vec<PackedBlob>, RepositoryError> {
        let key = Key::new(FileKind::Pack, id.to_string());
        let damaged = |reason| RepositoryError::damaged(&key, reason);
        let guess = size.min(HEADER_GUESS);
        let mut tail = self.store.get_range(&key, size - guess..size).await?;
        let needed = pack::header_size(&tail, size).map_err(damaged)? as u64;
        if needed > guess {
            tail = self.store.get_range(&key, size - needed..size).await?;
        }
        pack::read_header(&self.master, &tail, size).map_err(damaged)
    }

    /// Reads what a pack's bytes say they hold, whole.
    pub(crate) fn read_pack_header(&self, bytes: &[u8]) -> Result<Vec<PackedBlob>, String> {
        pack::read_header(&self.master, bytes, bytes.len() as u64)
    }

    /// Opens a blob of a pack's bytes and proves its hash.
    pub(crate) fn open_packed(&self, blob: &PackedBlob, sealed: &[u8]) -> Result<Vec<u8>, seal::SealError> {
        seal::open(&self.master, &blob.id, sealed, blob.plain)
    }

    /// Gets an object whole, from a thread that is no task's, unless the run is stopped meanwhile.
    pub(crate) fn get_blocking(&self, key: &Key, run: &Run) -> Result<Bytes, RepositoryError> {
        let got = run.cancel.run_until_cancelled(self.store.get(key));
        let got = self.runtime.block_on(got);
        Ok(got.ok_or(Stopped)??)
    }

    /// Proves that the config opens, that another document hashes to its name and opens, that a key file hashes to its name.
    pub(crate) async fn check_document(&self, key: &Key) -> Result<(), RepositoryError> {
        let bytes = self.store.get(key).await?;
        if key.kind != FileKind::Config {
            document::check_name(key, &bytes)?;
        }
        if key.kind != FileKind::Key {
            let opened = seal::open_document(&self.master, &bytes);
            opened.map_err(|error| RepositoryError::damaged(key, error))?;
        }
        Ok(())
    }

    /// Returns the index files, and packs found while they were read, that are damaged; empty before the index was loaded.
    #[must_use]
    pub fn index_faults(&self) -> Vec<Fault> {
        self.index_faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells whether the loaded index, or this process since, names the blob.
    #[must_use]
    pub fn has(&self, kind: BlobKind, id: &BlobId) -> bool {
        self.index.read().unwrap_or_else(PoisonError::into_inner).has(kind, id)
    }

    /// Returns the length of a blob's plain bytes.
    #[must_use]
    pub fn blob_size(&self, kind: BlobKind, id: &BlobId) -> Option<u64> {
        self.locate(kind, id).map(|location| location.blob.plain_length())
    }

    /// Returns the pack that holds a blob, for reading in the order of packs.
    #[must_use]
    pub fn pack_of(&self, kind: BlobKind, id: &BlobId) -> Option<ObjectId> {
        self.locate(kind, id).map(|location| location.pack)
    }

    /// Returns where a blob lies.
    #[must_use]
    pub fn locate(&self, kind: BlobKind, id: &BlobId) -> Option<Location> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).first(kind, id)
    }

    /// Returns every pack that the index names, with its blobs in the order of their offsets.
    #[must_use]
    pub fn packs(&self) -> Vec<PackContents> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).by_pack()
    }

    /// Reads a blob; its hash is proved. Where it lies in several packs, a damaged one is passed over.
    ///
    /// # Errors
    /// [`RepositoryError::MissingBlob`] where no index names it, [`RepositoryError::Damaged`] where no pack holds it whole.
    pub async fn blob(&self, kind: BlobKind, id: &BlobId) -> Result<Vec<u8>, RepositoryError> {
        let mut fault = RepositoryError::MissingBlob { kind, id: *id };
        for location in self.locations(kind, id) {
            let opened = match self.fetch(&location).await {
                Ok(sealed) if sealed.len() <= INLINE_MAX => self.open_at(&location, &sealed),
                Ok(sealed) => self.open_elsewhere(location, sealed).await,
                Err(error) => Err(error),
            };
            match opened {
                Ok(plain) => return Ok(plain),
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }

    /// Like [`Repository::blob`], from a thread that is no task's.
    ///
    /// # Errors
    /// Like [`Repository::blob`]; [`RepositoryError::Stopped`] once the run that opened the repository was told to stop.
    pub fn blob_blocking(&self, kind: BlobKind, id: &BlobId) -> Result<Vec<u8>, RepositoryError> {
        let mut fault = RepositoryError::MissingBlob { kind, id: *id };
        for location in self.locations(kind, id) {
            match self.read_at_blocking(&location) {
                Ok(plain) => return Ok(plain),
                Err(error) if error.is_damage() => fault = error,
                Err(error) => return Err(error),
            }
        }
        Err(fault)
    }

    pub(super) fn read_at_blocking(&self, location: &Location) -> Result<Vec<u8>, RepositoryError> {
        let sealed = self.wait(self.fetch(location))?;
        self.open_at(location, &sealed)
    }

    /// Waits on a thread that is no task's, unless the run is stopped meanwhile.
    pub(super) fn wait<T>(
        &self,
        reading: impl Future<Output = Result<T, RepositoryError>>,
    ) -> Result<T, RepositoryError> {
        let done = self.runtime.block_on(self.cancel.run_until_cancelled(reading));
        done.unwrap_or_else(|| Err(Stopped.into()))
    }

    pub(super) fn locations(&self, kind: BlobKind, id: &BlobId) -> Vec<Location> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).find(kind, id)
    }

    async fn fetch(&self, location: &Location) -> Result<Bytes, RepositoryError> {
        let key = Key::new(FileKind::Pack, location.pack.to_string());
        Ok(self.store.get_range(&key, location.blob.range()).await?)
    }

    pub(super) fn open_at(&self, location: &Location, sealed: &[u8]) -> Result<Vec<u8>, RepositoryError> {
        let key = Key::new(FileKind::Pack, location.pack.to_string());
        self.open_packed(&location.blob, sealed).map_err(|error| RepositoryError::damaged(key, error))
    }

    async fn open_elsewhere(&self, location: Location, sealed: Bytes) -> Result<Vec<u8>, RepositoryError> {
        let master = Arc::clone(&self.master);
        let key = Key::new(FileKind::Pack, location.pack.to_string());
        let blob = location.blob;
        let opened = tokio::task::spawn_blocking(move || seal::open(&master, &blob.id, &sealed, blob.plain)).await;
        let opened = opened.map_err(|error| RepositoryError::refused("blob", error))?;
        opened.map_err(|error| RepositoryError::damaged(key, error))
    }
}
