//! Reads: the index, blobs and trees.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::event::Unit;
use crate::id::{BlobId, ObjectId};
use crate::repository::error::RepositoryError;
use crate::repository::index::{self, IndexBuilder, Location, PackContents, Packs};
use crate::repository::pack::{self, BlobKind, PackedBlob};
use crate::repository::{Fault, Repository, document};
use crate::run::{Run, Stopped};
use crate::seal;
use crate::store::{FileKind, Key, Listed, StoreError};

/// Index files fetched and read at once: each is some 10 MB of JSON in memory.
const INDEXES_IN_FLIGHT_MAX: usize = 4;

/// Blobs longer than this are opened on a blocking thread: a MiB takes a millisecond.
const INLINE_MAX: usize = 32 << 10;

/// Headers of packs asked for at once: each is a round trip, and some 16 KiB.
const HEADERS_IN_FLIGHT_MAX: usize = 16;

/// How much of a pack's end is fetched to read its header: enough for 390 blobs.
const HEADER_GUESS: u64 = 16 << 10;

/// What became of an index file that was listed.
enum IndexFile {
    Read(String, Vec<PackContents>),
    Damaged(Fault),
    /// It was deleted between the list and the look.
    Gone,
}

/// When the headers of packs are read that no index file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Headers {
    /// Where an index file is damaged, which may have named them.
    WhereDamaged,
    /// In any case: an index file that is gone leaves no other trace.
    Always,
}

impl Repository {
    /// Loads the index; may be called again to see what others have saved. An index file that is damaged does not hide the packs it
    /// named: their own headers are read instead, and [`Repository::index_faults`] tells of it.
    ///
    /// # Errors
    /// Where the store cannot be read, or the run was stopped.
    pub async fn load_index(&self, run: &Run) -> Result<(), RepositoryError> {
        self.load_index_reading(Headers::WhereDamaged, run).await
    }

    pub(super) async fn load_index_reading(&self, headers: Headers, run: &Run) -> Result<(), RepositoryError> {
        let task = run.events.task("load index", Unit::Objects, 0);
        let (mut builder, mut faults, mut seen) = (IndexBuilder::default(), Vec::new(), HashSet::new());
        loop {
            let mut files = self.near().list(FileKind::Index).await?;
            files.retain(|listed| seen.insert(listed.name.clone()));
            task.set_total(seen.len() as u64);
            let mut is_anything_gone = false;
            let mut loads =
                stream::iter(files).map(|listed| self.load_index_file(listed)).buffer_unordered(INDEXES_IN_FLIGHT_MAX);
            while let Some(loaded) = loads.next().await {
                run.check()?;
                task.add(1);
                match loaded? {
                    IndexFile::Read(name, packs) => builder.add_file(name, &packs),
                    IndexFile::Damaged(fault) => faults.push(fault),
                    IndexFile::Gone => is_anything_gone = true,
                }
            }
            // A prune beside us puts the new files before it takes the old ones away, so another look finds what they name.
            if !is_anything_gone {
                break;
            }
        }
        let reads_headers = headers == Headers::Always || !faults.is_empty();
        let recovered = if reads_headers { self.recover(&builder, &mut faults, run).await? } else { Vec::new() };
        for pack in &recovered {
            builder.add(pack);
        }
        let built = tokio::task::spawn_blocking(|| builder.build()).await;
        let built = built.map_err(|error| RepositoryError::refused("index", error))?;
        self.index.write().unwrap_or_else(PoisonError::into_inner).replace(built);
        if let Some(cache) = self.cache.get() {
            let named: HashSet<_> = self.pack_sizes().into_iter().map(|(id, _)| id.to_string()).collect();
            cache.keep_packs(move |pack| named.contains(pack)).await;
        }
        *self.index_faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
        *self.unnamed.lock().unwrap_or_else(PoisonError::into_inner) = recovered;
        Ok(())
    }

    /// Leaves the packs that the index names, and that are gone or of another size, out of the loaded index: what they held is
    /// saved again where it is met. Returns their names.
    ///
    /// # Errors
    /// Where the packs cannot be listed.
    pub async fn leave_out_lost_packs(&self) -> Result<Vec<ObjectId>, RepositoryError> {
        // Listed after the index was loaded: whatever it names was put before.
        let listed = self.store.list(FileKind::Pack).await?;
        let listed: HashSet<_> = listed.into_iter().map(|listed| (listed.name, listed.size)).collect();
        let mut lost = self.pack_sizes();
        lost.retain(|(id, size)| !listed.contains(&(id.to_string(), *size)));
        let mut lost: Vec<_> = lost.into_iter().map(|(id, _)| id).collect();
        if !lost.is_empty() {
            lost.sort_unstable();
            let packs = lost.iter().copied().collect();
            self.index.write().unwrap_or_else(PoisonError::into_inner).leave_out(&packs);
        }
        Ok(lost)
    }

    /// Returns the packs that the loaded index names, and how long each must be.
    pub(crate) fn pack_sizes(&self) -> Vec<(ObjectId, u64)> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).loaded_sizes()
    }

    /// Reads one index file; a damaged one is a fault, not an error.
    async fn load_index_file(&self, listed: Listed) -> Result<IndexFile, RepositoryError> {
        let object = Key::new(FileKind::Index, listed.name);
        let sealed = match self.near().get(&object).await.map_err(RepositoryError::from) {
            Err(RepositoryError::Store(StoreError::Missing { .. })) => return Ok(IndexFile::Gone),
            Err(error) if error.is_damage() => return Ok(IndexFile::Damaged(Fault { object, error })),
            sealed => sealed?,
        };
        let master = Arc::clone(&self.master);
        let parsed = tokio::task::spawn_blocking(move || {
            let damaged = |error: &dyn std::fmt::Display| RepositoryError::damaged(&object, error);
            let json = document::check_name(&object, &sealed)
                .and_then(|()| seal::open_document(&master, &sealed).map_err(|error| damaged(&error)));
            let packs = json.and_then(|json| index::parse(&json).map_err(|error| damaged(&error)));
            match packs {
                Ok(packs) => IndexFile::Read(object.name, packs),
                Err(error) => IndexFile::Damaged(Fault { object, error }),
            }
        });
        parsed.await.map_err(|error| RepositoryError::refused("index", error))
    }

    /// Reads the headers of all packs that no index file names.
    async fn recover(
        &self,
        builder: &IndexBuilder,
        faults: &mut Vec<Fault>,
        run: &Run,
    ) -> Result<Vec<PackContents>, RepositoryError> {
        let packs = self.store.list(FileKind::Pack).await?;
        let unnamed = packs.into_iter().filter_map(|listed| {
            let id = listed.name.parse::<ObjectId>().ok()?;
            (!builder.has_pack(&id)).then_some((id, listed.size))
        });
        let unnamed: Vec<_> = unnamed.collect();
        if !faults.is_empty() {
            run.events.warn(format!(
                "{} damaged index files; reading the headers of {} packs instead",
                faults.len(),
                unnamed.len()
            ));
        }
        let task = run.events.task("read pack headers", Unit::Objects, unnamed.len() as u64);
        let headers = unnamed.into_iter().map(|(id, size)| async move { (id, self.pack_header(&id, size).await) });
        let mut headers = stream::iter(headers).buffer_unordered(HEADERS_IN_FLIGHT_MAX);
        let mut recovered = Vec::new();
        while let Some((id, header)) = headers.next().await {
            run.check()?;
            task.add(1);
            match header {
                Ok(blobs) => recovered.push(PackContents { id, blobs }),
                Err(error) if error.is_damage() => {
                    faults.push(Fault { object: Key::new(FileKind::Pack, id.to_string()), error });
                }
                Err(error) => return Err(error),
            }
        }
        recovered.sort_by_key(|pack| pack.id);
        Ok(recovered)
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

    /// Reads a document and proves that it is what its name says.
    pub(crate) async fn check_document(&self, key: &Key) -> Result<(), RepositoryError> {
        let bytes = self.store.get(key).await?;
        self.check_bytes(key, &bytes)
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

    /// Returns all packs that the index names, each to be had with its blobs in the order of their offsets.
    #[must_use]
    pub fn packs(&self) -> Packs {
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

    /// Tells whether a blob lies in any pack that `is_good`.
    pub(crate) fn is_in(&self, kind: BlobKind, id: &BlobId, is_good: impl Fn(&ObjectId) -> bool) -> bool {
        self.locations(kind, id).iter().any(|location| is_good(&location.pack))
    }

    pub(super) fn locations(&self, kind: BlobKind, id: &BlobId) -> Vec<Location> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).find(kind, id)
    }

    pub(super) async fn fetch(&self, location: &Location) -> Result<Bytes, RepositoryError> {
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
