//! The spool of a source: a directory of segments, the chain that they are of, and how far the capture has come.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::capture::chain::{Chain, FORMAT};
use crate::capture::scan::Scan;
use crate::capture::tail::failed;
use crate::capture::{Capture, CaptureError};
use crate::mysql::gtid::Executed;

const CHAIN: &str = "chain.json";
const PROGRESS: &str = "progress.json";
const LOCK: &str = "lock";

/// A spool that is ours alone as long as the value lives.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    chain: Mutex<Chain>,
    progress: Mutex<Progress>,
    /// The kernel drops it when the process ends, however it ends.
    _lock: File,
}

/// How far a capture has come: for `bkp status`, beside a capture that goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// All that the server had committed by then is in the spool.
    pub as_of: Option<DateTime<Utc>>,
    pub file: String,
    pub offset: u64,
    /// All that the server had committed by then is in the repository, too.
    pub sealed: Option<DateTime<Utc>>,
    /// What keeps the capture from going on.
    pub error: Option<String>,
}

impl Spool {
    /// Opens a source's spool, and makes it where there is none.
    ///
    /// # Errors
    /// [`CaptureError::Held`] where another capture has it.
    pub fn open(capture: &Capture) -> Result<Self, CaptureError> {
        let dir = dir_of(capture);
        make_dir(&dir)?;
        let lock = dir.join(LOCK);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock);
        let file = opened.map_err(|error| failed("open", &lock, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CaptureError::Held(dir)),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &lock, error)),
        }
        let chain = read_chain(&dir)?.unwrap_or_else(|| Chain::new(&capture.source));
        // What an earlier run told of itself; where it is unreadable, this one tells anew.
        let progress = read_json(&dir.join(PROGRESS)).ok().flatten().unwrap_or_default();
        Ok(Self { dir, chain: Mutex::new(chain), progress: Mutex::new(progress), _lock: file })
    }

    /// Reads the chain of a source's spool beside whoever captures; `None` where nothing was captured. What came into the newest
    /// segment since the chain was written, its file tells.
    ///
    /// # Errors
    /// Where the files cannot be read, or are of a newer format.
    pub fn look(spool: &Path, source: &str) -> Result<Option<Chain>, CaptureError> {
        let Some(mut chain) = Self::chain_at(spool, source)? else { return Ok(None) };
        let dir = spool.join(source);
        if let Some(epoch) = chain.epochs.last_mut() {
            let product = epoch.server.product;
            let before = epoch.segments.iter().rev().nth(1).map(|before| before.executed(product)).transpose()?;
            if let Some(last) = epoch.segments.last_mut().filter(|last| !last.is_closed) {
                let path = segment_path(&dir, epoch.number, &last.file);
                let carried = before.unwrap_or_else(|| Executed::new(product));
                if path.exists() {
                    let scan = Scan::again(&path, carried);
                    let scan = scan.map_err(|error| CaptureError::Event { file: last.file.clone(), error })?;
                    *last = scan.segment(&last.file, false);
                }
            }
        }
        Ok(Some(chain))
    }

    /// Reads the chain of a source's spool as it was last written: at each file's begin and end.
    ///
    /// # Errors
    /// Where the file cannot be read, or is of a newer format.
    pub fn chain_at(spool: &Path, source: &str) -> Result<Option<Chain>, CaptureError> {
        let progress = Self::progress(spool, source)?.unwrap_or_default();
        let chain = read_chain(&spool.join(source))?;
        Ok(chain.map(|chain| Chain { as_of: chain.as_of.max(progress.as_of), ..chain }))
    }

    /// Reads how far a source's capture has come; `None` where it never began.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn progress(spool: &Path, source: &str) -> Result<Option<Progress>, CaptureError> {
        read_json(&spool.join(source).join(PROGRESS))
    }

    /// Returns the chain as far as it is durable.
    #[must_use]
    pub fn chain(&self) -> Chain {
        self.lock_chain().clone()
    }

    /// Returns where a segment of a source lies, beside whoever captures.
    #[must_use]
    pub fn segment(spool: &Path, source: &str, epoch: u32, name: &str) -> PathBuf {
        segment_path(&spool.join(source), epoch, name)
    }

    /// Returns where a segment lies.
    #[must_use]
    pub fn file(&self, epoch: u32, name: &str) -> PathBuf {
        segment_path(&self.dir, epoch, name)
    }

    /// Takes up a chain that the repository has: the spool is new, or was lost.
    ///
    /// # Errors
    /// Where the chain cannot be written.
    pub fn adopt(&self, chain: Chain) -> Result<(), CaptureError> {
        self.change(|own| *own = chain)
    }

    /// Changes the chain, durably.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Chain) -> T) -> Result<T, CaptureError> {
        let mut chain = self.lock_chain();
        let mut changed = chain.clone();
        let answer = change(&mut changed);
        write_json(&self.dir.join(CHAIN), &changed, Durable::Yes)?;
        *chain = changed;
        Ok(answer)
    }

    /// Changes what is known of the segment at hand: a crash reads it from the segment itself again.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Chain)) {
        note(&mut self.lock_chain());
    }

    /// Tells whoever looks how far the capture has come.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn tell(&self, change: impl FnOnce(&mut Progress)) -> Result<(), CaptureError> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut progress);
        write_json(&self.dir.join(PROGRESS), &*progress, Durable::No)
    }

    pub(crate) fn make_epoch(&self, number: u32) -> Result<(), CaptureError> {
        make_dir(&self.dir.join(number.to_string()))
    }

    /// Makes the names of new files durable.
    pub(crate) fn sync_names(&self, epoch: u32) -> Result<(), CaptureError> {
        sync_dir(&self.dir.join(epoch.to_string()))
    }

    /// Removes a segment's file, where it is.
    pub(crate) fn remove(&self, epoch: u32, name: &str) -> Result<(), CaptureError> {
        let path = self.file(epoch, name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path, error)),
            _ => Ok(()),
        }
    }

    fn lock_chain(&self) -> std::sync::MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn segment_path(dir: &Path, epoch: u32, name: &str) -> PathBuf {
    dir.join(epoch.to_string()).join(name)
}

fn dir_of(capture: &Capture) -> PathBuf {
    capture.plan.spool.join(&capture.source)
}

fn make_dir(dir: &Path) -> Result<(), CaptureError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| failed("make", dir, error))?;
    dir.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> Result<(), CaptureError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| failed("sync", dir, error))
}

fn read_chain(dir: &Path) -> Result<Option<Chain>, CaptureError> {
    let path = dir.join(CHAIN);
    let chain: Option<Chain> = read_json(&path)?;
    match chain {
        Some(chain) if chain.format > FORMAT => Err(CaptureError::Chain {
            place: path.display().to_string(),
            reason: format!("its format {} is newer than this program", chain.format),
        }),
        chain => Ok(chain),
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, CaptureError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path, error)),
    };
    let wrong =
        |error: serde_json::Error| CaptureError::Chain { place: path.display().to_string(), reason: error.to_string() };
    serde_json::from_slice(&text).map(Some).map_err(wrong)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durable {
    Yes,
    /// A reader sees the old text or the new; after a crash it may be either, or none.
    No,
}

/// Writes beside the file's place, and renames.
fn write_json(path: &Path, value: &impl Serialize, durable: Durable) -> Result<(), CaptureError> {
    let beside = path.with_extension("new");
    let fault = |error: io::Error| failed("write", path, error);
    let text = serde_json::to_vec(value).map_err(|error| fault(error.into()))?;
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
    let mut file = made.map_err(fault)?;
    file.write_all(&text).map_err(fault)?;
    if durable == Durable::Yes {
        file.sync_all().map_err(fault)?;
    }
    fs::rename(&beside, path).map_err(fault)?;
    match path.parent() {
        Some(dir) if durable == Durable::Yes => sync_dir(dir),
        _ => Ok(()),
    }
}
