//! A store that keeps what it reads of another on this machine's disk: index files, snapshots, and the stretches of packs that it is
//! asked for. Whoever reads trees through it, and files past it, has all of a faraway repository at hand but the files' own bytes.
//!
//! Everything lies there as it is sealed in the store, and none of it is believed: an index file or a snapshot must hash to its name,
//! and of a stretch the reader proves each blob and says so where one does not open ([`Cache::forget`]). So the directory may be
//! damaged or deleted at any moment, and a verify, which is to prove the store, goes past it.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::event::Events;
use crate::id::ObjectId;
use crate::store::{FileKind, Key, Listed, SharedStore, Store, StoreError};

/// The index of ten million blobs is half a gigabyte, and the trees of as many files some two.
pub const BYTES_MAX: u64 = 4 << 30;

/// What stays of the bound when the oldest were dropped: room for many more before it is looked through again.
const SWEPT_TO_PERCENT: u64 = 75;

/// The directory of stretches of packs.
const PACKS: &str = "packs";

/// Reads another store through a directory.
pub struct Cache {
    inner: SharedStore,
    dir: Arc<Dir>,
}

/// The directory, and what is known of it.
struct Dir {
    path: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
    events: Events,
}

#[derive(Default)]
struct State {
    /// Bytes that lie there, as far as this process knows; `None` until it has looked.
    bytes: Option<u64>,
    /// It could not be written to, and the operator was told.
    is_off: bool,
}

impl Cache {
    /// Wraps a store. The directory is made when there is something to keep, and holds no more than about `bytes_max`.
    #[must_use]
    pub fn new(inner: SharedStore, dir: impl Into<PathBuf>, bytes_max: u64, events: Events) -> Self {
        Self { inner, dir: Arc::new(Dir { path: dir.into(), bytes_max, state: Mutex::default(), events }) }
    }

    /// Drops a stretch of which something did not open: the store is asked for it the next time.
    pub async fn forget(&self, key: &Key, range: &Range<u64>) {
        if let Some(name) = stretch_name(key, range) {
            self.blocking(move |dir| dir.remove(&name)).await;
        }
    }

    /// Drops the stretches of packs that are not wanted any more.
    pub async fn keep_packs(&self, is_wanted: impl Fn(&str) -> bool + Send + 'static) {
        self.blocking(move |dir| {
            dir.retain(PACKS, |name| name.split_once('-').is_some_and(|(pack, _)| is_wanted(pack)));
        })
        .await;
    }

    /// Runs file I/O where it may block. What becomes of a cache is nobody's error.
    async fn blocking<T: Default + Send + 'static>(&self, work: impl FnOnce(&Dir) -> T + Send + 'static) -> T {
        let dir = Arc::clone(&self.dir);
        tokio::task::spawn_blocking(move || work(&dir)).await.unwrap_or_default()
    }

    async fn keep(&self, name: String, bytes: &Bytes) {
        let bytes = bytes.clone();
        self.blocking(move |dir| dir.keep(&name, &bytes)).await;
    }
}

/// The directory of the objects of a kind that are kept whole; `None` for the kinds that are not.
fn dir_of(kind: FileKind) -> Option<&'static str> {
    match kind {
        FileKind::Index => Some("index"),
        FileKind::Snapshot => Some("snapshots"),
        FileKind::Config | FileKind::Key | FileKind::Lock | FileKind::Pack => None,
    }
}

/// Where an object lies that is kept whole. A name that is no hash is none that may become a path.
fn object_name(key: &Key) -> Option<String> {
    let id: ObjectId = key.name.parse().ok()?;
    Some(format!("{}/{id}", dir_of(key.kind)?))
}

/// Where a stretch of a pack lies.
fn stretch_name(key: &Key, range: &Range<u64>) -> Option<String> {
    let id: ObjectId = key.name.parse().ok().filter(|_| key.kind == FileKind::Pack)?;
    Some(format!("{PACKS}/{id}-{}-{}", range.start, range.end))
}

#[async_trait::async_trait]
impl Store for Cache {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        let Some(name) = object_name(key) else { return self.inner.get(key).await };
        let (at, id) = (name.clone(), key.name.clone());
        if let Some(kept) = self.blocking(move |dir| dir.object(&at, &id)).await {
            return Ok(kept);
        }
        let bytes = self.inner.get(key).await?;
        self.keep(name, &bytes).await;
        Ok(bytes)
    }

    async fn hash(&self, key: &Key) -> Result<ObjectId, StoreError> {
        self.inner.hash(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let Some(name) = stretch_name(key, &range) else { return self.inner.get_range(key, range).await };
        let (at, length) = (name.clone(), range.end.saturating_sub(range.start));
        if let Some(kept) = self.blocking(move |dir| dir.stretch(&at, length)).await {
            return Ok(kept);
        }
        let bytes = self.inner.get_range(key, range).await?;
        self.keep(name, &bytes).await;
        Ok(bytes)
    }

    /// Asks the store, and drops what it has no longer.
    async fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StoreError> {
        let listed = self.inner.list(kind).await?;
        if let Some(dir) = dir_of(kind) {
            let names: HashSet<String> = listed.iter().map(|listed| listed.name.clone()).collect();
            self.blocking(move |cache| cache.retain(dir, |name| names.contains(name))).await;
        }
        Ok(listed)
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        self.inner.size(key).await
    }

    /// What is gone there is dropped here as well.
    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await?;
        let gone = key.name.clone();
        match (key.kind, object_name(key)) {
            (FileKind::Pack, _) => self.keep_packs(move |pack| pack != gone).await,
            (_, Some(name)) => self.blocking(move |dir| dir.remove(&name)).await,
            (_, None) => {}
        }
        Ok(())
    }

    async fn immutable_until(&self, key: &Key) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.inner.immutable_until(key).await
    }

    async fn keep_immutable(
        &self,
        key: &Key,
        least: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, StoreError> {
        self.inner.keep_immutable(key, least, until).await
    }
}

/// A file of the cache: when it was last of use, how long it is, and where.
type Kept = (SystemTime, u64, PathBuf);

impl Dir {
    /// Returns an object that is whole; one that is not is dropped.
    fn object(&self, name: &str, id: &str) -> Option<Bytes> {
        let bytes = self.read(name)?;
        if ObjectId::of(&bytes).to_string() == id {
            return Some(bytes);
        }
        self.remove(name);
        None
    }

    /// Returns a stretch that has its length; what lies in it, its reader proves.
    fn stretch(&self, name: &str, length: u64) -> Option<Bytes> {
        let bytes = self.read(name)?;
        if bytes.len() as u64 == length {
            return Some(bytes);
        }
        self.remove(name);
        None
    }

    /// Reads a file, which is then the newest; the oldest are the first to go.
    fn read(&self, name: &str) -> Option<Bytes> {
        let mut file = File::open(self.path.join(name)).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let _ = file.set_modified(SystemTime::now());
        Some(bytes.into())
    }

    fn remove(&self, name: &str) {
        // Gone or not to be deleted: it is not believed either way.
        let _ = fs::remove_file(self.path.join(name));
    }

    /// Writes a file, unless that was of no use before.
    fn keep(&self, name: &str, bytes: &[u8]) {
        let length = bytes.len() as u64;
        if length > self.bytes_max / 4 || self.state().is_off {
            return;
        }
        if let Err(error) = self.write(name, bytes) {
            self.state().is_off = true;
            let path = self.path.display();
            self.events
                .warn(format!("nothing more is kept in the cache `{path}`: {error}; reading goes on without it"));
            return;
        }
        let mut state = self.state();
        let bytes = state.bytes.map_or_else(|| sum(&self.files()), |bytes| bytes + length);
        state.bytes = Some(if bytes > self.bytes_max { self.sweep() } else { bytes });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes beside the place and renames: another process, or a kill, finds a file whole or not at all. It is not synced: what a
    /// power cut leaves of it does not hash right.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path.join(name);
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let temp = path.with_extension(format!("tmp-{}", hex::encode(random)));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = match options.open(&temp) {
            // The first, or somebody has deleted the directory: that is allowed at any moment.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap_or(&self.path))?;
                options.open(&temp)
            }
            file => file,
        };
        let written = file.and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&temp, &path));
        written.inspect_err(|_| drop(fs::remove_file(&temp)))
    }

    /// Drops what is not wanted of one of its directories.
    fn retain(&self, dir: &str, is_wanted: impl Fn(&str) -> bool) {
        for (_, length, path) in files_in(&self.path.join(dir)) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // What is being written has another ending, and goes when it is old.
            if !name.contains(".tmp-") && !is_wanted(&name) && fs::remove_file(&path).is_ok() {
                let mut state = self.state();
                state.bytes = state.bytes.map(|bytes| bytes.saturating_sub(length));
            }
        }
    }

    /// Drops the oldest files, and returns the bytes of those that stay.
    fn sweep(&self) -> u64 {
        let mut files = self.files();
        files.sort_unstable();
        let mut bytes = sum(&files);
        for (_, length, path) in files {
            if bytes <= self.bytes_max / 100 * SWEPT_TO_PERCENT {
                break;
            }
            let _ = fs::remove_file(path);
            bytes -= length;
        }
        bytes
    }

    fn files(&self) -> Vec<Kept> {
        ["index", "snapshots", PACKS].iter().flat_map(|dir| files_in(&self.path.join(dir))).collect()
    }
}

fn files_in(dir: &Path) -> Vec<Kept> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let kept = |entry: fs::DirEntry| {
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), entry.path()))
    };
    entries.filter_map(kept).collect()
}

fn sum(files: &[Kept]) -> u64 {
    files.iter().map(|(_, length, _)| length).sum()
}
