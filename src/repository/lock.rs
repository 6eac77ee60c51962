//! Locks, as restic makes and heeds them: an operator's `restic prune` beside us must not destroy data.
//!
//! A lock is put, and after a while all locks are listed again: of two that came at once, both see each other. A lock is refreshed
//! every five minutes; one that is half an hour old is stale and is cleared away.
//!
//! One whose process is gone is stale at once, where its process could be seen from here: bkp writes into a lock which kernel and
//! which table of processes its number is of. restic's locks say only host and number, and a container may have the host's name
//! and a table of its own; of such a lock the number is believed once a living holder would have refreshed it.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::id::ObjectId;
use crate::repository::document;
use crate::repository::error::RepositoryError;
use crate::repository::holder::{Holder, is_alive};
use crate::repository::time;
use crate::run::Run;
use crate::seal::MasterKey;
use crate::store::retry::chance;
use crate::store::{FileKind, Key, SharedStore, StoreError};

/// The spans of time between the acts on a lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How long others get to show a lock that they put at the same time.
    settle: Duration,
    refresh: Duration,
    /// How long one refresh may take before it is given up and counted as failed.
    patience: Duration,
    /// Between two tries while another holds a lock, on average.
    retry: Duration,
}

impl Pace {
    /// The first two are restic's own values.
    pub(super) const DEFAULT: Self = Self {
        settle: Duration::from_millis(200),
        refresh: Duration::from_mins(5),
        patience: Duration::from_mins(1),
        retry: Duration::from_secs(1),
    };
}

/// Once a lock is this old and was not refreshed, its holder gives up: others take it for stale seven minutes later.
const REFRESH_FAILED_S: i64 = 22 * 60 + 30;
const STALE_MINUTES: i64 = 30;
/// A living restic refreshes its lock every five minutes; twice that without one bears out that its process is gone.
const REFRESH_MISSED_MINUTES: i64 = 10;

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
pub(super) struct Lock {
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
    /// The kernel and the table of processes that the number is of; restic neither writes nor reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    processes: Option<String>,
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
            processes: holder.processes,
        }
    }

    /// Tells whether the holder is gone. `is_held` says so of a lock with our own process id.
    pub(super) fn is_stale(&self, now: DateTime<Utc>, is_held: bool) -> bool {
        let is_old = |minutes| now - self.time > TimeDelta::minutes(minutes);
        let us = Holder::of_this_process();
        let is_gone = || if self.pid == us.pid { !is_held } else { !is_alive(self.pid) };
        let is_visible = match &self.processes {
            Some(_) => self.processes == us.processes,
            None => self.hostname == us.hostname && is_old(REFRESH_MISSED_MINUTES),
        };
        is_old(STALE_MINUTES) || is_visible && is_gone()
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
    pub(super) standing: Arc<Standing>,
    pub(super) pace: Pace,
}

/// How it stands with the locks that were taken through one repository.
#[derive(Default)]
pub(super) struct Standing(Mutex<State>);

#[derive(Default)]
struct State {
    /// Set once a lock was lost: from then on nothing is published.
    lost: Option<RepositoryError>,
    kept: Vec<Kept>,
}

/// A lock that is held, and when it was last refreshed.
struct Kept {
    id: ObjectId,
    taken: DateTime<Utc>,
    clock: Arc<dyn Clock>,
}

impl Standing {
    /// Refuses once a lock was lost, or was not refreshed for so long that others may take it for stale. It is the wall clock that
    /// counts, as for those others: a machine that slept has lost its locks before it wakes.
    pub(super) fn check(&self) -> Result<(), RepositoryError> {
        let mut state = self.state();
        let is_late = |kept: &Kept| kept.clock.now() - kept.taken > TimeDelta::seconds(REFRESH_FAILED_S);
        if state.lost.is_none() && state.kept.iter().any(is_late) {
            let reason = format!("it was not refreshed for {} minutes", REFRESH_FAILED_S / 60);
            state.lost = Some(RepositoryError::LockLost { reason });
        }
        state.lost.clone().map_or(Ok(()), Err)
    }

    /// Like [`Self::check`], and looks for the locks themselves.
    pub(super) async fn prove(&self, store: &SharedStore) -> Result<(), RepositoryError> {
        self.check()?;
        let mut open = self.ids();
        while let Some(id) = open.pop() {
            if store.size(&key_of(id)).await?.is_some() {
                continue;
            }
            // A refresh may have put another in its place between the two looks.
            let now = self.ids();
            if now.contains(&id) {
                self.lose(removed());
                break;
            }
            open = now;
        }
        self.check()
    }

    fn lose(&self, error: RepositoryError) {
        self.state().lost.get_or_insert(error);
    }

    fn keep(&self, kept: Kept) {
        self.state().kept.push(kept);
    }

    fn replace(&self, before: ObjectId, next: ObjectId, taken: DateTime<Utc>) {
        let mut state = self.state();
        if let Some(kept) = state.kept.iter_mut().find(|kept| kept.id == before) {
            (kept.id, kept.taken) = (next, taken);
        }
    }

    fn give_back(&self, id: ObjectId) {
        self.state().kept.retain(|kept| kept.id != id);
    }

    fn ids(&self) -> Vec<ObjectId> {
        self.state().kept.iter().map(|kept| kept.id).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn removed() -> RepositoryError {
    RepositoryError::LockLost { reason: "somebody has removed it".to_owned() }
}

impl Place {
    async fn put(&self, lock: &Lock) -> Result<ObjectId, RepositoryError> {
        let sealed = self.seal(lock)?;
        let id = sealed.0;
        self.put_sealed(sealed).await?;
        Ok(id)
    }

    fn seal(&self, lock: &Lock) -> Result<(ObjectId, Key, Bytes), RepositoryError> {
        let json = serde_json::to_vec(lock).map_err(|error| RepositoryError::refused("lock", error))?;
        document::seal(&self.master, FileKind::Lock, &json)
    }

    async fn put_sealed(&self, (id, key, bytes): (ObjectId, Key, Bytes)) -> Result<(), RepositoryError> {
        held().insert(id);
        let put = self.store.put(&key, bytes).await;
        put.inspect_err(|_| {
            held().remove(&id);
        })?;
        Ok(())
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
        let loaded = document::load(&*self.store, &self.master, FileKind::Lock, &id.to_string()).await;
        let json = match loaded {
            Err(RepositoryError::Store(StoreError::Missing { .. })) => return Ok(None),
            Err(
                RepositoryError::Damaged { thing, reason }
                | RepositoryError::Store(StoreError::Unreadable { thing, reason, .. }),
            ) => return Err(RepositoryError::DamagedLock { thing, reason }),
            loaded => loaded?,
        };
        let damaged = |error: serde_json::Error| RepositoryError::DamagedLock {
            thing: key_of(id).to_string(),
            reason: error.to_string(),
        };
        serde_json::from_slice(&json).map(Some).map_err(damaged)
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
        // Two that came at once have both stepped back: they must not come back at once.
        let apart = place.pace.retry.mul_f64(0.5 + chance());
        pause(apart.min(wait.saturating_sub(start.elapsed())), run).await?;
    }
}

async fn try_acquire(place: &Place, mode: LockMode, run: &Run) -> Result<Result<LockGuard, Lock>, RepositoryError> {
    if let Some(conflict) = place.conflict(mode, None, run).await? {
        return Ok(Err(conflict));
    }
    let taken_at = run.now();
    let id = place.put(&Lock::new(mode, taken_at)).await?;
    let settled = async {
        pause(place.pace.settle, run).await?;
        place.conflict(mode, Some(id), run).await
    };
    match settled.await {
        Ok(None) => Ok(Ok(LockGuard::new(place.clone(), mode, id, taken_at, run))),
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

/// Tells whether a store does not let us put or delete a lock.
pub(super) fn is_not_allowed(error: &RepositoryError) -> bool {
    matches!(
        error,
        RepositoryError::Store(StoreError::Denied { .. } | StoreError::ReadOnly { .. } | StoreError::Protected { .. })
    )
}

/// Makes SIGHUP harmless: `restic unlock` sends one to the holder of a lock to see whether it lives.
fn survive_hangup() {
    // Once a listener was made, the default action, death, is gone for good; nobody has to listen.
    let _ = signal(SignalKind::hangup());
}

/// A lock that is held and refreshed until it is released or dropped.
pub struct LockGuard {
    place: Place,
    /// Whether a store that does not let us delete the lock is no failure.
    is_lenient: bool,
    stop: Option<oneshot::Sender<()>>,
    keeper: Option<JoinHandle<Result<(), RepositoryError>>>,
}

impl LockGuard {
    fn new(place: Place, mode: LockMode, id: ObjectId, taken_at: DateTime<Utc>, run: &Run) -> Self {
        let (stop, stopped) = oneshot::channel();
        let clock = Arc::clone(&run.clock);
        place.standing.keep(Kept { id, taken: taken_at, clock: Arc::clone(&clock) });
        let keeper = Keeper { place: place.clone(), mode, id, unsettled: Vec::new(), taken: taken_at, clock };
        Self { place, is_lenient: false, stop: Some(stop), keeper: Some(tokio::spawn(keeper.keep(stopped))) }
    }

    /// Makes it no failure that the store does not let the lock be deleted: it goes stale.
    pub(super) fn lenient(mut self) -> Self {
        self.is_lenient = true;
        self
    }

    /// Proves that the lock is still ours, for what must not happen without it.
    ///
    /// # Errors
    /// [`RepositoryError::LockLost`], or what the store says.
    pub async fn prove(&self) -> Result<(), RepositoryError> {
        self.place.standing.prove(&self.place.store).await
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// Where the lock's object could not be deleted: it then goes stale by itself.
    pub async fn release(mut self) -> Result<(), RepositoryError> {
        drop(self.stop.take());
        let Some(keeper) = self.keeper.take() else { return Ok(()) };
        match keeper.await.unwrap_or_else(|error| Err(RepositoryError::refused("lock", error))) {
            Err(error) if self.is_lenient && is_not_allowed(&error) => Ok(()),
            released => released,
        }
    }
}

impl std::fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LockGuard({})", self.place.store.location())
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
    /// Locks of refreshes that did not come to their end: they may be there.
    unsettled: Vec<ObjectId>,
    taken: DateTime<Utc>,
    clock: Arc<dyn Clock>,
}

impl Keeper {
    async fn keep(mut self, mut stopped: oneshot::Receiver<()>) -> Result<(), RepositoryError> {
        while tokio::time::timeout(self.place.pace.refresh, &mut stopped).await.is_err() {
            let patience = self.place.pace.patience;
            let refreshed = tokio::time::timeout(patience, self.refresh()).await;
            match refreshed.unwrap_or_else(|_| Err(RepositoryError::refused("lock", "the store does not answer"))) {
                Err(error) if self.is_fatal(&error) => {
                    self.lose(&error);
                    break;
                }
                // A failed refresh is tried again at the next turn: there is time for three of them.
                Ok(()) | Err(_) => {}
            }
        }
        self.place.standing.give_back(self.id);
        self.remove_unsettled().await;
        self.place.remove(self.id).await
    }

    /// Deletes what unfinished refreshes may have left. What stays goes stale by itself.
    async fn remove_unsettled(&mut self) {
        for id in std::mem::take(&mut self.unsettled) {
            if self.place.remove(id).await.is_err() {
                self.unsettled.push(id);
            }
        }
    }

    /// Puts a lock of now, then deletes the one before it. One that somebody deleted must not come back: others may have gone on.
    async fn refresh(&mut self) -> Result<(), RepositoryError> {
        self.check_present().await?;
        self.remove_unsettled().await;
        let now = self.clock.now();
        let sealed = self.place.seal(&Lock::new(self.mode, now))?;
        let next = sealed.0;
        self.unsettled.push(next);
        self.place.put_sealed(sealed).await?;
        tokio::time::sleep(self.place.pace.settle).await;
        self.check_present().await?;
        self.unsettled.retain(|id| *id != next);
        self.taken = now;
        let before = std::mem::replace(&mut self.id, next);
        self.place.standing.replace(before, next, now);
        self.unsettled.push(before);
        self.remove_unsettled().await;
        Ok(())
    }

    async fn check_present(&self) -> Result<(), RepositoryError> {
        let size = self.place.store.size(&key_of(self.id)).await?;
        size.map(|_| ()).ok_or_else(removed)
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
        self.place.standing.lose(lost);
    }
}

#[cfg(test)]
mod tests;
