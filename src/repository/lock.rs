//! Locks, as restic makes and heeds them: an operator's `restic prune` beside us must not destroy data.
//!
//! A lock is put, and after a while all locks are listed again: of two that came at once, both see each other. A lock is refreshed
//! every five minutes; one that is half an hour old, or whose process is gone from this machine, is stale and is cleared away.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::id::ObjectId;
use crate::repository::document;
use crate::repository::error::RepositoryError;
use crate::repository::holder::{Holder, hostname, is_alive};
use crate::repository::time;
use crate::run::Run;
use crate::seal::MasterKey;
use crate::store::{FileKind, Key, SharedStore, StoreError};

/// The spans of time between the acts on a lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How long others get to show a lock that they put at the same time.
    settle: Duration,
    refresh: Duration,
    /// Between two tries while another holds a lock.
    retry: Duration,
}

impl Pace {
    /// The first two are restic's own values.
    pub(super) const DEFAULT: Self =
        Self { settle: Duration::from_millis(200), refresh: Duration::from_mins(5), retry: Duration::from_secs(1) };
}

/// Once a lock is this old and was not refreshed, its holder gives up: others take it for stale seven minutes later.
const REFRESH_FAILED_S: i64 = 22 * 60 + 30;
const STALE_MINUTES: i64 = 30;

/// Locks that this process holds, over all open repositories: a lock with our process id that is not among them was left by an
/// earlier process that had the same id, as happens in containers.
static HELD: LazyLock<Mutex<HashSet<ObjectId>>> = LazyLock::new(Mutex::default);

/// Whether others may work beside the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Beside other shared holders: to read and to add.
    Shared,
    /// Alone: to delete.
    Exclusive,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Lock {
    #[serde(with = "time")]
    time: DateTime<Utc>,
    exclusive: bool,
    hostname: String,
    username: String,
    pid: i32,
    #[serde(default, skip_serializing_if = "is_zero")]
    uid: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    gid: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Lock {
    fn new(mode: LockMode, now: DateTime<Utc>) -> Self {
        let holder = Holder::of_this_process();
        Self {
            time: now,
            exclusive: mode == LockMode::Exclusive,
            hostname: holder.hostname,
            username: holder.username,
            pid: holder.pid,
            uid: holder.uid,
            gid: holder.gid,
        }
    }

    /// Tells whether the holder is gone. `is_held` says so of a lock with our own process id.
    fn is_stale(&self, now: DateTime<Utc>, is_held: bool) -> bool {
        let is_old = now - self.time > TimeDelta::minutes(STALE_MINUTES);
        let is_ours = self.pid == Holder::of_this_process().pid;
        let is_gone = || {
            if is_ours { !is_held } else { !is_alive(self.pid) }
        };
        is_old || self.hostname == hostname() && is_gone()
    }
}

impl std::fmt::Display for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = self.time.format("%Y-%m-%d %H:%M:%S");
        write!(f, "process {} of {} on {} since {time} UTC", self.pid, self.username, self.hostname)
    }
}

/// What a lock needs of its repository.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) store: SharedStore,
    pub(super) master: Arc<MasterKey>,
    /// Set once a lock was lost: the repository then refuses to publish.
    pub(super) lost: Arc<Mutex<Option<RepositoryError>>>,
    pub(super) pace: Pace,
}

impl Place {
    async fn put(&self, lock: &Lock) -> Result<ObjectId, RepositoryError> {
        let json = serde_json::to_vec(lock).map_err(|error| RepositoryError::refused("lock", error))?;
        let (id, key, bytes) = document::seal(&self.master, FileKind::Lock, &json)?;
        held().insert(id);
        let put = self.store.put(&key, bytes).await;
        put.inspect_err(|_| {
            held().remove(&id);
        })?;
        Ok(id)
    }

    async fn remove(&self, id: ObjectId) -> Result<(), RepositoryError> {
        let deleted = self.store.delete(&key_of(id)).await;
        held().remove(&id);
        Ok(deleted?)
    }

    /// Returns the lock that stands in the way. Stale ones are cleared away.
    async fn conflict(
        &self,
        mode: LockMode,
        own: Option<ObjectId>,
        run: &Run,
    ) -> Result<Option<Lock>, RepositoryError> {
        for listed in self.store.list(FileKind::Lock).await? {
            let Ok(id) = listed.name.parse::<ObjectId>() else {
                continue;
            };
            if own == Some(id) {
                continue;
            }
            let Some(lock) = self.load(id).await? else {
                continue;
            };
            if lock.is_stale(run.now(), held().contains(&id)) {
                run.events.note(format!("cleared away the stale lock of {lock}"));
                self.store.delete(&key_of(id)).await?;
            } else if mode == LockMode::Exclusive || lock.exclusive {
                return Ok(Some(lock));
            }
        }
        Ok(None)
    }

    /// Reads a lock; `None` where it was released meanwhile.
    async fn load(&self, id: ObjectId) -> Result<Option<Lock>, RepositoryError> {
        let loaded = document::load(&self.store, &self.master, FileKind::Lock, &id.to_string()).await;
        let json = match loaded {
            Err(RepositoryError::Store(StoreError::Missing { .. })) => return Ok(None),
            loaded => loaded?,
        };
        let lock = serde_json::from_slice(&json);
        lock.map(Some).map_err(|error| RepositoryError::damaged(key_of(id), error))
    }
}

fn key_of(id: ObjectId) -> Key {
    Key::new(FileKind::Lock, id.to_string())
}

fn held() -> MutexGuard<'static, HashSet<ObjectId>> {
    // A set is whole after each of its operations.
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a lock; waits up to `wait` for others to give theirs back.
pub(super) async fn acquire(
    place: Place,
    mode: LockMode,
    wait: Duration,
    run: &Run,
) -> Result<LockGuard, RepositoryError> {
    survive_hangup();
    let start = Instant::now();
    let mut has_told = false;
    loop {
        let conflict = match try_acquire(&place, mode, run).await? {
            Ok(guard) => return Ok(guard),
            Err(conflict) => conflict,
        };
        if start.elapsed() >= wait {
            return Err(RepositoryError::Locked { holder: conflict.to_string(), exclusive: conflict.exclusive });
        }
        if !has_told {
            run.events.note(format!("waiting for the lock of {conflict}"));
            has_told = true;
        }
        pause(place.pace.retry.min(wait.saturating_sub(start.elapsed())), run).await?;
    }
}

async fn try_acquire(place: &Place, mode: LockMode, run: &Run) -> Result<Result<LockGuard, Lock>, RepositoryError> {
    if let Some(conflict) = place.conflict(mode, None, run).await? {
        return Ok(Err(conflict));
    }
    let id = place.put(&Lock::new(mode, run.now())).await?;
    let settled = async {
        pause(place.pace.settle, run).await?;
        place.conflict(mode, Some(id), run).await
    };
    match settled.await {
        Ok(None) => Ok(Ok(LockGuard::new(place.clone(), mode, id, run))),
        Ok(Some(conflict)) => {
            place.remove(id).await?;
            Ok(Err(conflict))
        }
        Err(error) => {
            // The first error is the one to tell; a lock that stays goes stale with this process.
            let _ = place.remove(id).await;
            Err(error)
        }
    }
}

async fn pause(span: Duration, run: &Run) -> Result<(), RepositoryError> {
    let slept = run.cancel.run_until_cancelled(tokio::time::sleep(span)).await;
    slept.map_or_else(|| run.check().map_err(Into::into), Ok)
}

/// Makes SIGHUP harmless: `restic unlock` sends one to the holder of a lock to see whether it lives.
fn survive_hangup() {
    // Once a listener was made, the default action, death, is gone for good; nobody has to listen.
    let _ = signal(SignalKind::hangup());
}

/// A lock that is held and refreshed until it is released or dropped.
#[derive(Debug)]
pub struct LockGuard {
    stop: Option<oneshot::Sender<()>>,
    keeper: Option<JoinHandle<Result<(), RepositoryError>>>,
}

impl LockGuard {
    fn new(place: Place, mode: LockMode, id: ObjectId, run: &Run) -> Self {
        let (stop, stopped) = oneshot::channel();
        let keeper = Keeper { place, mode, id, taken: run.now(), clock: Arc::clone(&run.clock) };
        Self { stop: Some(stop), keeper: Some(tokio::spawn(keeper.keep(stopped))) }
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// Where the lock's object could not be deleted: it then goes stale by itself.
    pub async fn release(mut self) -> Result<(), RepositoryError> {
        drop(self.stop.take());
        match self.keeper.take() {
            Some(keeper) => keeper.await.unwrap_or_else(|error| Err(RepositoryError::refused("lock", error))),
            None => Ok(()),
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        // The keeper hears that its channel is gone and deletes the lock, if the runtime lives long enough; else it goes stale.
        drop(self.stop.take());
    }
}

/// Refreshes a lock until it is told to stop, then deletes it.
struct Keeper {
    place: Place,
    mode: LockMode,
    id: ObjectId,
    taken: DateTime<Utc>,
    clock: Arc<dyn Clock>,
}

impl Keeper {
    async fn keep(mut self, mut stopped: oneshot::Receiver<()>) -> Result<(), RepositoryError> {
        while tokio::time::timeout(self.place.pace.refresh, &mut stopped).await.is_err() {
            match self.refresh().await {
                Err(error) if self.is_fatal(&error) => {
                    self.lose(&error);
                    break;
                }
                // A failed refresh is tried again at the next turn: there is time for three of them.
                Ok(()) | Err(_) => {}
            }
        }
        self.place.remove(self.id).await
    }

    /// Puts a lock of now, then deletes the one before it. One that somebody deleted must not come back: others may have gone on.
    async fn refresh(&mut self) -> Result<(), RepositoryError> {
        self.check_present().await?;
        let now = self.clock.now();
        let next = self.place.put(&Lock::new(self.mode, now)).await?;
        tokio::time::sleep(self.place.pace.settle).await;
        if let Err(error) = self.check_present().await {
            self.place.remove(next).await?;
            return Err(error);
        }
        self.taken = now;
        let before = std::mem::replace(&mut self.id, next);
        self.place.remove(before).await
    }

    async fn check_present(&self) -> Result<(), RepositoryError> {
        let size = self.place.store.size(&key_of(self.id)).await?;
        size.map(|_| ()).ok_or_else(|| RepositoryError::LockLost { reason: "somebody has removed it".to_owned() })
    }

    fn is_fatal(&self, error: &RepositoryError) -> bool {
        let age = self.clock.now() - self.taken;
        matches!(error, RepositoryError::LockLost { .. }) || age > TimeDelta::seconds(REFRESH_FAILED_S)
    }

    fn lose(&self, error: &RepositoryError) {
        let reason = error.to_string();
        let lost = match error {
            RepositoryError::LockLost { .. } => error.clone(),
            _ => RepositoryError::LockLost { reason },
        };
        let mut slot = self.place.lost.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(lost);
    }
}

#[cfg(test)]
mod tests;
