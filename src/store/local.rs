//! A store in a directory, laid out as restic lays it out.
//!
//! An object is written beside its place, synced, renamed, and its directory synced: a power cut leaves it whole or not there.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::id::ObjectId;
use crate::store::{FileKind, Key, Listed, Store, StoreError};

/// What a file that is still being written has in its name, as restic's.
const TEMP_MARK: &str = "-tmp-";
/// Read at a time where a file is only hashed.
const PIECE_BYTES: usize = 1 << 20;
/// No put takes a day: a file that old was left by a kill.
const LEFTOVER_AGE: Duration = Duration::from_hours(24);

/// Keeps objects as files that only their owner can read.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: PathBuf,
    /// Whether the first object of a repository may make the root.
    makes_root: bool,
    /// Directories that were looked through for leftovers.
    tidied: Arc<Mutex<HashSet<PathBuf>>>,
}

impl LocalStore {
    /// Names a directory; it is made when a repository is.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), makes_root: true, tidied: Arc::default() }
    }

    /// Names a directory that somebody else makes: where it is not there, nothing is put.
    pub fn within(root: impl Into<PathBuf>) -> Self {
        Self { makes_root: false, ..Self::new(root) }
    }

    /// Runs file I/O where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        act: &'static str,
        key: Key,
        work: impl FnOnce(&Self, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let thing = self.root.join(key.path()).display().to_string();
        let done = tokio::task::spawn_blocking(move || work(&store, &store.root.join(key.path()))).await;
        done.map_err(io::Error::other).flatten().map_err(|error| fault(act, thing, &error))
    }

    /// Like [`Self::blocking`], for reading one object: an error that is about this object alone is told as such.
    async fn reading<T: Send + 'static>(
        &self,
        key: &Key,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let read = self.blocking("get", key.clone(), |_, path| Ok(work(path))).await?;
        let thing = || self.root.join(key.path()).display().to_string();
        read.map_err(|error| {
            if is_of_the_object(key.kind, &error) {
                return StoreError::Unreadable { act: "get", thing: thing(), reason: error.to_string() };
            }
            fault("get", thing(), &error)
        })
    }

    fn write(&self, kind: FileKind, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let dir = path.parent().unwrap_or(&self.root);
        self.make_dir(kind, dir)?;
        self.tidy(dir);
        let temp = temp_name(path)?;
        let written = write_synced(&temp, bytes).and_then(|()| fs::rename(&temp, path));
        if let Err(error) = written {
            // The first error is the one to tell; what stays is tidied away later.
            let _ = fs::remove_file(&temp);
            return Err(error);
        }
        sync_dir(dir)
    }

    /// Makes the directories down to `dir`. The root is made only for the first object of a repository: where it is gone later, a
    /// disk was unmounted, and bytes must not go onto the one below.
    fn make_dir(&self, kind: FileKind, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        if self.makes_root && kind == FileKind::Key && !self.root.is_dir() {
            make_dirs(&self.root)?;
        }
        let below = dir.strip_prefix(&self.root).unwrap_or(Path::new(""));
        let mut parent = self.root.clone();
        for name in below {
            let child = parent.join(name);
            match DirBuilder::new().mode(0o700).create(&child) {
                Ok(()) => sync_dir(&parent)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            parent = child;
        }
        Ok(())
    }

    /// Deletes what kills have left in a directory, once in this store's life; whatever cannot be deleted does no harm.
    fn tidy(&self, dir: &Path) {
        let mut tidied = self.tidied.lock().unwrap_or_else(PoisonError::into_inner);
        if !tidied.insert(dir.to_owned()) {
            return;
        }
        drop(tidied);
        let leftovers = fs::read_dir(dir).into_iter().flatten().flatten().filter(is_leftover);
        for leftover in leftovers {
            let _ = fs::remove_file(leftover.path());
        }
    }

    fn list_kind(&self, kind: FileKind) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        match kind {
            FileKind::Config => {
                let size = size_of_file(&self.root.join(Key::config().path()))?;
                listed.extend(size.map(|size| Listed { name: String::new(), size }));
            }
            FileKind::Pack => {
                for dir in entries(&self.root.join("data"))? {
                    let dir = dir?;
                    if dir.file_type()?.is_dir() {
                        list_dir(&dir.path(), &mut listed)?;
                    }
                }
            }
            _ => {
                let any = self.root.join(Key::new(kind, "any").path());
                list_dir(any.parent().unwrap_or(&self.root), &mut listed)?;
            }
        }
        Ok(listed)
    }
}

#[async_trait::async_trait]
impl Store for LocalStore {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        let kind = key.kind;
        self.blocking("put", key.clone(), move |store, path| store.write(kind, path, &bytes)).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.reading(key, |path| fs::read(path).map(Bytes::from)).await
    }

    async fn hash(&self, key: &Key) -> Result<ObjectId, StoreError> {
        self.reading(key, hash_of_file).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.reading(key, move |path| read_range(path, &range)).await
    }

    async fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StoreError> {
        self.blocking("list", Key::new(kind, ""), move |store, _| store.list_kind(kind)).await
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        self.blocking("look at", key.clone(), |_, path| size_of_file(path)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.blocking("delete", key.clone(), |store, path| match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_dir(path.parent().unwrap_or(&store.root)),
        })
        .await
    }

    /// A file's owner can always delete it.
    async fn immutable_until(&self, _: &Key) -> Result<Option<DateTime<Utc>>, StoreError> {
        Ok(None)
    }
}

fn temp_name(path: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(TEMP_MARK);
    name.push(hex::encode(random));
    Ok(path.with_file_name(name))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    // Objects never change: nobody, and no slip of an operator's hand, is to write into one.
    file.set_permissions(Permissions::from_mode(0o400))?;
    file.sync_all()
}

/// Makes a directory and those above it, each of them durable.
fn make_dirs(dir: &Path) -> io::Result<()> {
    let missing: Vec<_> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()).collect();
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => sync_dir(dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new(".")))?,
        }
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn read_range(path: &Path, range: &Range<u64>) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let length = range.end.saturating_sub(range.start);
    if range.end > file.metadata()?.len() || range.start > range.end {
        let text = format!("bytes {}..{} lie past its end", range.start, range.end);
        return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

/// Hashes a file in pieces, from the disk: what the kernel still holds of it is dropped first.
fn hash_of_file(path: &Path) -> io::Result<ObjectId> {
    let mut file = File::open(path)?;
    // It was synced, so nothing is lost; where the filesystem does not know how to, memory is hashed.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(ObjectId::from_bytes(hasher.finalize().into())),
            Ok(count) => hasher.update(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn size_of_file(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lists a directory; one that is not there has no entries.
fn entries(dir: &Path) -> io::Result<Box<dyn Iterator<Item = io::Result<fs::DirEntry>>>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(Box::new(entries)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Box::new(std::iter::empty())),
        Err(error) => Err(error),
    }
}

/// Adds the objects of a directory; leftovers and what others put there are no objects.
fn list_dir(dir: &Path, listed: &mut Vec<Listed>) -> io::Result<()> {
    for entry in entries(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_object = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_object {
            continue;
        }
        match entry.metadata() {
            Ok(metadata) => listed.push(Listed { name, size: metadata.len() }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_leftover(entry: &fs::DirEntry) -> bool {
    let is_temp = entry.file_name().to_string_lossy().contains(TEMP_MARK);
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    is_temp && age.is_some_and(|age| age > LEFTOVER_AGE)
}

/// Tells whether an error in reading says something of one object only. The config is read first of all: whoever may not read
/// that one is the wrong user, and nothing is wrong with the repository.
fn is_of_the_object(kind: FileKind, error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::IsADirectory => true,
        ErrorKind::PermissionDenied => kind != FileKind::Config,
        _ => error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()),
    }
}

fn fault(act: &'static str, thing: String, error: &io::Error) -> StoreError {
    let reason = error.to_string();
    match error.kind() {
        ErrorKind::NotFound => StoreError::Missing { act, thing },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full { act, thing },
        ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { act, thing },
        ErrorKind::PermissionDenied => StoreError::Denied { act, thing, reason },
        ErrorKind::Interrupted | ErrorKind::TimedOut | ErrorKind::StaleNetworkFileHandle => {
            StoreError::Transient { act, thing, reason }
        }
        _ => StoreError::Failed { act, thing, reason },
    }
}
