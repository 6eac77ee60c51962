//! Brings a repository into a second store, bytes verbatim, so that the copy is a whole repository of its own.
//!
//! Packs, indexes, snapshots and keys are immutable and named by the hash of their bytes. So a copy is: list both sides, put what
//! is missing, packs first and snapshots last. What is there with its whole size is not sent again, which makes an interrupted
//! copy resume where it stopped. Nothing is deleted: each store forgets and prunes alone.
//!
//! # What is damaged here
//! Every object is hashed after it is read and before it is sent. A pack that does not hash right is not sent; a snapshot
//! that needs it is held back and named, and all other snapshots go. The indexes go too, although one of them names the pack: a
//! copy that lacks it must say so when it is verified, and needs no repair once the pack is healed and sent.
//!
//! # Locks
//! The caller holds a shared lock on the repository here, so that no prune removes what is about to be sent. A copy only adds and
//! never reads an object twice, so two copies at once do no harm and this verb takes no lock in the target by itself. But a
//! `restic prune` *of the target* would take packs for orphans whose index has not arrived. So a caller that is
//! able to open the target locks it, shared, for as long; and at the end the target is listed once more, and what has
//! vanished is a failure, not a success.

mod needs;
mod plan;
mod transfer;

use crate::id::SnapshotId;
use crate::repository::{Repository, RepositoryError};
use crate::run::{Run, Stopped};
use crate::store::{FileKind, Key, SharedStore, StoreError};

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
    /// Some packs could not be copied, and the repository here cannot say which snapshots need them.
    #[error("find the snapshots that need the packs which failed")]
    Needs(#[source] RepositoryError),
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
            Self::Store(_) | Self::Needs(_) | Self::Stopped(_) => None,
        }
    }
}

/// Why one object is not in the copy.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("its bytes here do not hash to its name")]
    Damaged,
    #[error(transparent)]
    Read(StoreError),
    #[error(transparent)]
    Put(StoreError),
    #[error("not tried: the target had failed too often")]
    NotTried,
    #[error("it was put, and the target does not list it")]
    Vanished,
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

    /// Returns the objects here that are damaged.
    pub fn damaged(&self) -> impl Iterator<Item = &Key> {
        self.failed.iter().filter(|(_, error)| matches!(error, ObjectError::Damaged)).map(|(key, _)| key)
    }
}

/// Copies a repository into a store, `at_once` objects at a time.
///
/// # Errors
/// Only where nothing further could be done: the sides cannot be listed, the target holds another repository, a signal. What fails
/// for single objects is in [`Copied::failed`].
pub async fn copy(from: &Repository, to: &SharedStore, at_once: usize, run: &Run) -> Result<Copied, CopyError> {
    let plan = plan(from.store(), to, run).await?;
    warn_of_old_keys(&plan, to, run);
    let mut transfer = Transfer::new(from.store(), to, at_once, &plan, run);
    transfer.send(FileKind::Key, &plan.keys).await?;
    transfer.send(FileKind::Config, &plan.config).await?;
    transfer.send(FileKind::Pack, &plan.packs).await?;
    transfer.send(FileKind::Index, &plan.indexes).await?;
    let held_back = held_back(from, &plan, transfer.failed(), run).await?;
    let snapshots = plan.snapshots_but(&held_back);
    transfer.send(FileKind::Snapshot, &snapshots).await?;
    transfer.finish(&plan, held_back).await
}

/// Compares both sides and returns what [`copy`] would send. `--dry-run` shows it.
///
/// # Errors
/// [`CopyError::NoRepository`], [`CopyError::AnotherRepository`], or a side that cannot be listed.
pub async fn plan(from: &SharedStore, to: &SharedStore, run: &Run) -> Result<CopyPlan, CopyError> {
    let look = async {
        check_config(from, to).await?;
        let (here, there) = tokio::try_join!(Listing::of(from), Listing::of(to))?;
        Ok(CopyPlan::new(&here, &there))
    };
    let plan: Option<Result<_, CopyError>> = run.cancel.run_until_cancelled(look).await;
    plan.unwrap_or(Err(CopyError::Stopped(Stopped)))
}

/// Refuses a target that holds another repository: its config would be other bytes.
async fn check_config(from: &SharedStore, to: &SharedStore) -> Result<(), CopyError> {
    let here = config(from).await?.ok_or_else(|| CopyError::NoRepository { place: from.location() })?;
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
