//! Brings a repository into a second store, bytes verbatim, so that the copy is a whole repository of its own.
//!
//! Packs, indexes, snapshots and keys are immutable and named by the hash of their bytes. So a copy is: list both sides, put what
//! is missing, packs first and snapshots last. What is there with its whole size is not sent again, which makes an interrupted
//! copy resume where it stopped. Nothing is deleted: each store forgets and prunes alone.
//!
//! # What is damaged here
//! Every object is hashed after it is read and before it is sent. A pack that does not hash right is not sent. Before a snapshot
//! goes, the target is listed once more: a snapshot is held back and named if a blob of it lies in no pack that is there with its
//! whole size and is named by an index there; all other snapshots go. The indexes go too, although one of them names a pack that
//! failed: a copy that lacks it must say so when it is verified, and needs no repair once the pack is healed and sent.
//!
//! # Locks
//! The caller holds a shared lock on the repository here, so that no prune removes what is about to be sent. A copy only adds and
//! never reads an object twice, so two copies at once do no harm. But a `restic prune` *of the target* would take packs for
//! orphans whose index has not arrived. So a target that is a repository already is locked, shared, while anything is sent.
//!
//! # A target that can only be written
//! Credentials that may put and nothing else can neither see what is there nor take a lock back, so none is put: it would stand in
//! everybody's way until it is stale. What was sent and confirmed is in a [`Ledger`] here. That is sound as long as nobody deletes
//! there meanwhile. Whoever holds these credentials cannot; a prune by other credentials from this machine waits for the policy's
//! lock, and strikes off what it deletes; and what came with the store's own lock ([`Terms::retain`]) no prune of bkp touches before
//! its index has arrived. Any other prune from elsewhere is the operator's to keep apart; a verify with a reader's credentials finds
//! what it took, whether a snapshot there needs it or not, and the next copy sends it again.
//!
//! # The store's own lock
//! Where the store is to make objects immutable, the first that is put is looked at: a server that takes the wish and does not heed
//! it is found out before more go than are on their way. Every copy lengthens what ends soon.

mod ledger;
mod needs;
mod plan;
mod prolong;
mod transfer;

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::id::SnapshotId;
use crate::repository::{LockGuard, Repository, RepositoryError};
use crate::run::{Run, Stopped};
use crate::store::{FileKind, Key, Listed, SharedStore, StoreError};

pub use crate::copy::ledger::{Ledger, LedgerError, LedgerFile};
use crate::copy::needs::{NeedsError, held_back};
pub use crate::copy::plan::{CopyPlan, Listing};
use crate::copy::transfer::Transfer;

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("copy from `{place}`: no config object there")]
    NoRepository { place: String },
    #[error("copy to `{place}`: another repository is there")]
    AnotherRepository { place: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("lock the copy at `{place}`")]
    Lock {
        place: String,
        #[source]
        error: RepositoryError,
    },
    /// The repository here cannot say which snapshots need what is not in the target.
    #[error("find the snapshots whose packs are all in the copy")]
    Needs(#[source] RepositoryError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<NeedsError> for CopyError {
    fn from(error: NeedsError) -> Self {
        match error {
            NeedsError::Repository(error) => Self::Needs(error),
            NeedsError::Stopped(stopped) => Self::Stopped(stopped),
        }
    }
}

impl CopyError {
    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoRepository { .. } => Some("make one with `bkp init`".to_owned()),
            Self::AnotherRepository { .. } => {
                Some("give this policy's copy a prefix of its own; two repositories cannot share one".to_owned())
            }
            Self::Store(error) => error.hint(),
            Self::Lock { error, .. } | Self::Needs(error) => error.hint(),
            Self::Ledger(error) => error.hint(),
            Self::Stopped(_) => None,
        }
    }
}

/// Locks are lengthened once a tenth of their span is over, not at each copy: every third night for a month's.
const LOCK_SLACK: u32 = 10;

/// Under which terms a target is written.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Objects sent at once.
    pub at_once: usize,
    /// How long from now on the store's own lock shall keep what the repository holds.
    pub retain: Option<Duration>,
    pub ledger: Option<&'a Ledger>,
    /// Nobody can look at the target: what the ledger does not know is not there.
    pub is_blind: bool,
}

impl Terms<'_> {
    /// A target that can be looked at, and that has no lock of its own.
    #[must_use]
    pub fn plain(at_once: usize) -> Self {
        Self { at_once, retain: None, ledger: None, is_blind: false }
    }

    fn note(&self, key: &Key, size: u64, until: Option<DateTime<Utc>>) -> Result<(), LedgerError> {
        self.ledger.map_or(Ok(()), |ledger| ledger.note(key, size, until))
    }

    /// Returns what alone tells what is there, where nobody can look.
    fn only_word(&self) -> Option<&Ledger> {
        self.ledger.filter(|_| self.is_blind)
    }

    async fn listing(&self, store: &SharedStore) -> Result<Listing, StoreError> {
        if let Some(ledger) = self.only_word() {
            return Ok(ledger.listing());
        }
        Listing::of(store).await
    }

    async fn snapshots(&self, store: &SharedStore) -> Result<Vec<Listed>, StoreError> {
        if let Some(ledger) = self.only_word() {
            return Ok(ledger.of_kind(FileKind::Snapshot));
        }
        store.list(FileKind::Snapshot).await
    }
}

/// Why one object is not in the copy.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("its bytes here do not hash to its name")]
    Damaged,
    #[error("an index names it, and it is not here with its whole size")]
    Gone,
    #[error(transparent)]
    Read(StoreError),
    #[error(transparent)]
    Put(StoreError),
    #[error("not tried: the target had failed too often")]
    NotTried,
    #[error("it was put, and the target does not list it")]
    Vanished,
    #[error("it was put with a lock, and the server has not locked it: everything else was kept back")]
    NotLocked,
    #[error("its lock could not be lengthened")]
    Lock(#[source] StoreError),
}

/// What a copy did and what it could not do.
#[derive(Debug, Default)]
pub struct Copied {
    pub packs: u64,
    pub indexes: u64,
    pub snapshots: Vec<SnapshotId>,
    /// Bytes sent, keys and config included.
    pub bytes: u64,
    /// Objects that were in the copy before.
    pub skipped: u64,
    /// Objects whose lock in the store was looked after.
    pub prolonged: u64,
    pub failed: Vec<(Key, ObjectError)>,
    /// Snapshots whose packs are not all in the copy; the next copy tries them again.
    pub held_back: Vec<SnapshotId>,
}

impl Copied {
    /// Tells whether everything that was here at the start is now in the copy, by the target's own listing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.held_back.is_empty()
    }

    /// Tells whether the server took the wish for a lock and did not heed it.
    #[must_use]
    pub fn is_unlocked(&self) -> bool {
        self.failed.iter().any(|(_, error)| matches!(error, ObjectError::NotLocked))
    }

    /// Returns the objects here that are damaged.
    pub fn damaged(&self) -> impl Iterator<Item = &Key> {
        let is_damage = |error: &ObjectError| {
            use StoreError::{Missing, Unreadable};
            matches!(error, ObjectError::Damaged | ObjectError::Gone)
                || matches!(error, ObjectError::Read(Missing { .. } | Unreadable { .. }))
        };
        self.failed.iter().filter(move |(_, error)| is_damage(error)).map(|(key, _)| key)
    }
}

/// Copies a repository into a store, `at_once` objects at a time.
///
/// # Errors
/// Only where nothing further could be done: the sides cannot be listed, the target holds another repository, a signal. What fails
/// for single objects is in [`Copied::failed`].
pub async fn copy(from: &Repository, to: &SharedStore, at_once: usize, run: &Run) -> Result<Copied, CopyError> {
    copy_under(&Terms::plain(at_once), from, to, run).await
}

/// Like [`copy`], under terms.
///
/// # Errors
/// As [`copy`], and where the record of what was sent cannot be kept.
pub async fn copy_under(
    terms: &Terms<'_>,
    from: &Repository,
    to: &SharedStore,
    run: &Run,
) -> Result<Copied, CopyError> {
    let plan = plan_under(terms, from.store(), to, run).await?;
    warn_of_old_keys(&plan, to, run);
    let lock = if terms.is_blind { None } else { lock(from, to, &plan, run).await? };
    let copied = send(terms, from, to, &plan, lock.as_ref(), run).await;
    if let Some(lock) = lock {
        let released = lock.release().await.map_err(|error| CopyError::Lock { place: to.location(), error });
        // The first error is the one to tell.
        return copied.and_then(|copied| released.map(|()| copied));
    }
    copied
}

/// Sends what a plan says, in the order of publishing.
async fn send(
    terms: &Terms<'_>,
    from: &Repository,
    to: &SharedStore,
    plan: &CopyPlan,
    lock: Option<&LockGuard>,
    run: &Run,
) -> Result<Copied, CopyError> {
    let mut transfer = Transfer::new(*terms, from.store(), to, plan, run);
    transfer.send(FileKind::Key, &plan.keys).await?;
    transfer.send(FileKind::Config, &plan.config).await?;
    transfer.send(FileKind::Pack, &plan.packs).await?;
    transfer.send(FileKind::Index, &plan.indexes).await?;
    let there = transfer.list().await?;
    let held_back = held_back(from, plan, &there, run).await?;
    if let Some(lock) = lock {
        lock.prove().await.map_err(|error| CopyError::Lock { place: to.location(), error })?;
    }
    transfer.send(FileKind::Snapshot, &plan.snapshots_but(&held_back.snapshots)).await?;
    let mut copied = transfer.finish(plan, there, held_back).await?;
    if !copied.is_unlocked() {
        prolong::prolong(from, plan, to, terms, &mut copied, run).await?;
    }
    Ok(copied)
}

/// Locks the target, where it is a repository and there is anything to send.
async fn lock(from: &Repository, to: &SharedStore, plan: &CopyPlan, run: &Run) -> Result<Option<LockGuard>, CopyError> {
    if plan.is_empty() || !plan.config.is_empty() {
        return Ok(None);
    }
    let locked = from.lock_copy(to, run).await;
    locked.map_err(|error| match error {
        RepositoryError::Stopped(stopped) => stopped.into(),
        error => CopyError::Lock { place: to.location(), error },
    })
}

/// Compares both sides and returns what [`copy`] would send. `--dry-run` shows it.
///
/// # Errors
/// [`CopyError::NoRepository`], [`CopyError::AnotherRepository`], or a side that cannot be listed.
pub async fn plan(from: &SharedStore, to: &SharedStore, run: &Run) -> Result<CopyPlan, CopyError> {
    plan_under(&Terms::plain(1), from, to, run).await
}

/// Compares both sides and returns what [`copy_under`] would send.
///
/// # Errors
/// As [`plan`].
pub async fn plan_under(
    terms: &Terms<'_>,
    from: &SharedStore,
    to: &SharedStore,
    run: &Run,
) -> Result<CopyPlan, CopyError> {
    let look = async {
        check_config(terms, from, to).await?;
        let (here, there) = tokio::try_join!(Listing::of(from), terms.listing(to))?;
        Ok(CopyPlan::new(&here, &there))
    };
    let plan: Option<Result<_, CopyError>> = run.cancel.run_until_cancelled(look).await;
    plan.unwrap_or(Err(CopyError::Stopped(Stopped)))
}

/// Refuses a target that holds another repository: its config would be other bytes.
async fn check_config(terms: &Terms<'_>, from: &SharedStore, to: &SharedStore) -> Result<(), CopyError> {
    let here = config(from).await?.ok_or_else(|| CopyError::NoRepository { place: from.location() })?;
    // The ledger is this repository's, and nobody can look further.
    if terms.is_blind {
        return Ok(());
    }
    match config(to).await? {
        Some(there) if there != here => Err(CopyError::AnotherRepository { place: to.location() }),
        _ => Ok(()),
    }
}

fn warn_of_old_keys(plan: &CopyPlan, to: &SharedStore, run: &Run) {
    let count = plan.keys_only_there.len();
    if count > 0 {
        let place = to.location();
        run.events.warn(format!(
            "`{place}` has {count} key object(s) that the repository no longer has: an old password still opens the copy"
        ));
    }
}

async fn config(store: &SharedStore) -> Result<Option<bytes::Bytes>, StoreError> {
    match store.get(&Key::config()).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
