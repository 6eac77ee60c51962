//! Sends objects, several at once, each hashed before it leaves.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use tokio::sync::{OnceCell, Semaphore};

use crate::copy::needs::HeldBack;
use crate::copy::plan::{CopyPlan, Listing};
use crate::copy::{Copied, CopyError, LOCK_SLACK, ObjectError, Terms};
use crate::event::{TaskGuard, Unit};
use crate::id::{ObjectId, SnapshotId};
use crate::run::{Run, Stopped};
use crate::store::{FileKind, Key, Listed, SharedStore, StoreError};

/// Objects are read whole before they are sent: eight packs of the usual 16 MiB fit, or one of restic's largest.
const KIB_IN_FLIGHT_MAX: u32 = 128 << 10;
/// A store that failed so many puts, each after its retries, will fail the rest: the next run tries again.
const PUTS_FAILED_MAX: usize = 8;

/// One copy at work, and what it did so far.
pub(super) struct Transfer<'a> {
    sender: Sender<'a>,
    terms: Terms<'a>,
    run: &'a Run,
    copied: Copied,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        terms: Terms<'a>,
        from: &'a SharedStore,
        to: &'a SharedStore,
        plan: &CopyPlan,
        run: &'a Run,
    ) -> Self {
        let name = format!("copy to {}", to.location());
        let sender = Sender {
            terms,
            from,
            to,
            run,
            is_locked: OnceCell::new(),
            kib_free: Semaphore::new(KIB_IN_FLIGHT_MAX as usize),
            puts_failed: AtomicUsize::new(0),
            task: run.events.task(name, Unit::Bytes, plan.bytes()),
        };
        let copied = Copied { skipped: plan.skipped, ..Copied::default() };
        Self { sender, terms, run, copied }
    }

    /// Sends objects of one kind, and returns when each is there or has failed: the next kind must not overtake them.
    ///
    /// # Errors
    /// [`CopyError::Stopped`], and [`CopyError::Ledger`]: what is sent unrecorded would be sent again and again. What is under way is
    /// given up.
    pub(super) async fn send(&mut self, kind: FileKind, objects: &[Listed]) -> Result<(), CopyError> {
        let sender = &self.sender;
        let one = |listed: Listed| async move { sender.send(kind, listed).await };
        // Owned: a closure over borrowed items would make the future of a copy impossible to spawn.
        let mut sending =
            futures_util::stream::iter(objects.to_vec()).map(one).buffer_unordered(self.terms.at_once.max(1));
        let cancel = &self.run.cancel;
        while let Some((listed, sent)) = cancel.run_until_cancelled(sending.next()).await.ok_or(Stopped)? {
            match sent {
                Ok(until) => {
                    self.terms.note(&Key::new(kind, &listed.name), listed.size, until)?;
                    self.copied.count(kind, &listed);
                }
                Err(error) => self.copied.failed.push((Key::new(kind, &listed.name), error)),
            }
        }
        Ok(())
    }

    /// Lists the target as it is now.
    ///
    /// # Errors
    /// [`CopyError::Stopped`], or what the store says.
    pub(super) async fn list(&self) -> Result<Listing, CopyError> {
        let listed = self.run.cancel.run_until_cancelled(self.terms.listing(self.sender.to)).await;
        Ok(listed.ok_or(Stopped)??)
    }

    /// Lists the snapshots of the target as well and returns what was done: what has vanished is a failure.
    pub(super) async fn finish(
        self,
        plan: &CopyPlan,
        there: Listing,
        held_back: HeldBack,
    ) -> Result<Copied, CopyError> {
        let mut copied = self.copied;
        copied.held_back = held_back.snapshots;
        let gone = held_back.gone.iter().map(|pack| Key::new(FileKind::Pack, pack.to_string()));
        copied.failed.extend(gone.map(|key| (key, ObjectError::Gone)));
        let listed = self.run.cancel.run_until_cancelled(self.terms.snapshots(self.sender.to)).await;
        let snapshots = listed.ok_or(Stopped)??;
        let vanished = plan.missing_in(&Listing { snapshots, ..there });
        let known = copied.known_missing();
        let vanished = vanished.into_iter().filter(|key| !known.contains(key));
        copied.failed.extend(vanished.map(|key| (key, ObjectError::Vanished)));
        Ok(copied)
    }
}

impl Copied {
    fn count(&mut self, kind: FileKind, sent: &Listed) {
        self.bytes += sent.size;
        match kind {
            FileKind::Pack => self.packs += 1,
            FileKind::Index => self.indexes += 1,
            FileKind::Snapshot => self.snapshots.extend(sent.name.parse::<SnapshotId>()),
            FileKind::Config | FileKind::Key | FileKind::Lock => {}
        }
    }

    /// Returns what is known already not to be in the target.
    pub(super) fn known_missing(&self) -> HashSet<Key> {
        let held_back = self.held_back.iter().map(|id| Key::new(FileKind::Snapshot, id.to_string()));
        held_back.chain(self.failed.iter().map(|(key, _)| key.clone())).collect()
    }
}

/// What every object that is under way shares.
struct Sender<'a> {
    terms: Terms<'a>,
    run: &'a Run,
    /// Whether the first object that was put is locked, once that was looked at.
    is_locked: OnceCell<bool>,
    from: &'a SharedStore,
    to: &'a SharedStore,
    kib_free: Semaphore,
    puts_failed: AtomicUsize,
    task: TaskGuard,
}

impl Sender<'_> {
    /// Sends an object and returns the end of its lock, where it was put with one.
    async fn send(&self, kind: FileKind, listed: Listed) -> (Listed, Result<Option<DateTime<Utc>>, ObjectError>) {
        let key = Key::new(kind, &listed.name);
        let sent = self.send_object(&key, listed.size).await;
        (listed, sent)
    }

    async fn send_object(&self, key: &Key, size: u64) -> Result<Option<DateTime<Utc>>, ObjectError> {
        let kib = u32::try_from(size.div_ceil(1024)).unwrap_or(u32::MAX);
        // Never closed, so this always waits until there is room.
        let _room = self.kib_free.acquire_many(kib.min(KIB_IN_FLIGHT_MAX)).await;
        if self.puts_failed.load(Ordering::Relaxed) >= PUTS_FAILED_MAX {
            return Err(ObjectError::NotTried);
        }
        let bytes = read_undamaged(self.from, key).await?;
        // Asked before the put: the lock ends no sooner than this.
        let until = self.terms.retain.map(|retain| self.run.now() + retain);
        if let Err(error) = self.to.put(key, bytes).await {
            self.count_failure(&error);
            return Err(ObjectError::Put(error));
        }
        self.task.add(size);
        if !self.is_locked(key).await? {
            self.puts_failed.fetch_add(PUTS_FAILED_MAX, Ordering::Relaxed);
            return Err(ObjectError::NotLocked);
        }
        Ok(until)
    }

    /// Tells whether the server locks what it is asked to: looks at the first object, and remembers. Where nobody may look, the lock
    /// is asked for once more, which a server that has none refuses.
    async fn is_locked(&self, first: &Key) -> Result<bool, ObjectError> {
        let Some(retain) = self.terms.retain else { return Ok(true) };
        let look = async || {
            let least = self.run.now() + retain - retain / LOCK_SLACK;
            let until = self.run.now() + retain;
            if self.terms.is_blind {
                return match self.to.keep_immutable(first, least, until).await {
                    // It was put a moment ago: what the server does not find is the request.
                    Err(StoreError::Missing { .. }) => Ok(false),
                    end => end.map(|_| true),
                };
            }
            Ok(self.to.immutable_until(first).await?.is_some_and(|until| until >= least))
        };
        let is_locked = self.is_locked.get_or_try_init(look).await;
        is_locked.copied().inspect_err(|error| self.count_failure(error)).map_err(ObjectError::Lock)
    }

    /// A target that is full or denies one object denies all.
    fn count_failure(&self, error: &StoreError) {
        let weight = if error.is_final() { PUTS_FAILED_MAX } else { 1 };
        self.puts_failed.fetch_add(weight, Ordering::Relaxed);
    }
}

/// Reads an object and proves that its bytes are those of its name. The config has none; it was compared before.
async fn read_undamaged(from: &SharedStore, key: &Key) -> Result<Bytes, ObjectError> {
    let bytes = from.get(key).await.map_err(ObjectError::Read)?;
    if key.kind == FileKind::Config {
        return Ok(bytes);
    }
    let hashed = bytes.clone();
    // A pack takes tens of milliseconds to hash, too long for the threads that wait.
    let id = tokio::task::spawn_blocking(move || ObjectId::of(&hashed)).await;
    match id {
        Ok(id) if id.to_string() == key.name => Ok(bytes),
        _ => Err(ObjectError::Damaged),
    }
}
