//! One run of a policy at a time: a lock that the kernel drops when its holder ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::run::{Run, Stopped};

/// Held until dropped. The file stays: removing it would let two runs lock two files of one name.
#[derive(Debug)]
pub struct RunLock {
    file: File,
}

/// Who holds the lock, as written in the file for people and for `bkp status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    pub since: DateTime<Utc>,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("take the lock of the policy's runs: {}", described(*.holder))]
    Held { holder: Option<Holder> },
    #[error("take the lock `{}`", path.display())]
    Io {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl LockError {
    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Held { .. } => {
                Some("try again once it has ended: `bkp status` says what it does. `bkp run`, `backup` and `prune` wait with `--lock-wait 1h`".to_owned())
            }
            Self::Io { .. } => Some("check that state_dir exists and can be written".to_owned()),
            Self::Stopped(_) => None,
        }
    }
}

/// How often a held lock is tried again; the kernel offers no wait with a limit.
const RETRY_EVERY: Duration = Duration::from_millis(200);

impl RunLock {
    /// Takes the lock, waiting for another holder for up to `wait`.
    ///
    /// # Errors
    /// [`LockError::Held`] (exit 11) while another run holds it.
    pub async fn take(path: &Path, wait: Duration, run: &Run) -> Result<Self, LockError> {
        let io_error = |error| LockError::Io { path: path.to_owned(), error };
        let mut file = open(path).map_err(io_error)?;
        let deadline = run.clock.instant() + wait;
        loop {
            run.check()?;
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(io_error(error)),
                Err(TryLockError::WouldBlock) if run.clock.instant() >= deadline => {
                    return Err(LockError::Held { holder: holder_in(&mut file) });
                }
                Err(TryLockError::WouldBlock) => {
                    tokio::select! {
                    () = tokio::time::sleep(RETRY_EVERY) => {}
                    () = run.cancel.cancelled() => {}
                    }
                }
            }
        }
        let holder = Holder { pid: std::process::id(), since: run.now() };
        sign(&mut file, holder).map_err(io_error)?;
        Ok(Self { file })
    }

    /// Returns who holds the lock now. It looks without locking, or it would turn a run away at the wrong moment.
    #[must_use]
    pub fn holder(path: &Path) -> Option<Holder> {
        let holder = holder_in(&mut File::open(path).ok()?)?;
        let is_alive = Path::new("/proc").join(holder.pid.to_string()).exists();
        is_alive.then_some(holder)
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // The name of a holder that is gone misleads; that it cannot be wiped on a full disk does no harm.
        drop(self.file.set_len(0));
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn sign(file: &mut File, holder: Holder) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&serde_json::to_vec(&holder)?)
}

/// Returns `None` in the moment between the holder's lock and its signature.
fn holder_in(file: &mut File) -> Option<Holder> {
    const BYTES_MAX: u64 = 4096;
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn described(holder: Option<Holder>) -> String {
    match holder {
        Some(Holder { pid, since }) => {
            format!("process {pid} has held it since {}", since.format("%Y-%m-%dT%H:%M:%SZ"))
        }
        None => "another process holds it".to_owned(),
    }
}
