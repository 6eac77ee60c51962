//! Verify: proves that a repository, or a copy of one, holds what it says.
//!
//! `structure` proves that all that is named exists: each index entry's pack is there with the right size, each snapshot's tree can be
//! walked, each blob that is named is in the index. `data` reads the packs as well: each hashes to its name, its header agrees with
//! the index, each blob opens to the bytes that its id names. A verify never stops at the first fault: it names every object that is
//! damaged or missing, and what that costs in each snapshot.

mod cost;
mod packs;
mod report;
mod rows;
mod subset;
mod walk;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub use crate::verify::report::{Checked, Cost, Finding, Object, Report};
pub use crate::verify::rows::Rows;
pub use crate::verify::subset::{Subset, SubsetError};

use crate::id::ObjectId;
use crate::repository::{Repository, RepositoryError, SnapshotList};
use crate::run::Run;
use crate::store::{FileKind, Key, StoreError};
use crate::verify::report::Draft;

/// How deep a verify looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All that is named exists.
    Structure,
    /// Every byte hashes right.
    Data,
    /// Structure, and the newest snapshot of each source comes back and is compared: what restores it stands below this module.
    Restore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    pub level: Level,
    /// The packs that `data` reads; `None`: all.
    pub subset: Option<Subset>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum VerifyError {
    #[error("verify: {0}")]
    Repository(#[from] RepositoryError),
    #[error("verify: {0}")]
    Work(String),
}

impl VerifyError {
    /// Gives the next step, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Repository(error) => error.hint(),
            Self::Work(_) => None,
        }
    }
}

/// Verifies a repository. The caller holds a shared lock, so that nothing is pruned meanwhile.
///
/// # Errors
/// Where the store cannot be reached, or the run was stopped. Damage is no error: it is in the report.
pub async fn verify(repository: &Arc<Repository>, options: Options, run: &Run) -> Result<Report, VerifyError> {
    verify_but(repository, options, HashSet::new(), run).await
}

/// Verifies a repository, and leaves out the packs that were read before and found whole: what was mended since, and what nobody
/// could read then, is looked at again.
///
/// # Errors
/// Like [`verify`].
pub(crate) async fn verify_but(
    repository: &Arc<Repository>,
    options: Options,
    whole: HashSet<ObjectId>,
    run: &Run,
) -> Result<Report, VerifyError> {
    let mut draft = Draft::new(options);
    let snapshots = check_snapshots(repository, &mut draft).await?;
    check_index(repository, &mut draft, run).await?;
    check_documents(repository, &mut draft, run).await?;
    check_presence(repository, &mut draft).await?;
    let (repository, run) = (Arc::clone(repository), run.clone());
    blocking(move || {
        walk::check_trees(&repository, &snapshots, &mut draft, &run)?;
        if options.level == Level::Data {
            packs::read(&repository, options.subset, &whole, &mut draft, &run)?;
        }
        let costs = cost::count(&repository, &snapshots, &draft, &run)?;
        Ok(draft.settle(costs))
    })
    .await
}

/// Lists the snapshots: before the index is loaded, so that whatever they name is in it.
async fn check_snapshots(repository: &Repository, draft: &mut Draft) -> Result<SnapshotList, RepositoryError> {
    let list = repository.list_snapshots().await?;
    draft.checked.snapshots = (list.found.len() + list.damaged.len()) as u64;
    for fault in &list.damaged {
        draft.found(fault.object.clone(), &fault.error)?;
        note_twin(repository, &fault.object, draft).await?;
    }
    Ok(list)
}

async fn check_index(repository: &Repository, draft: &mut Draft, run: &Run) -> Result<(), RepositoryError> {
    draft.checked.indexes = repository.store().list(FileKind::Index).await?.len() as u64;
    repository.load_index(run).await?;
    for fault in repository.index_faults() {
        draft.found(fault.object, &fault.error)?;
    }
    draft.spare.extend(repository.worthless_index_files().into_iter().map(Object::Stored));
    Ok(())
}

/// Notes that a damaged file holds nothing that its twin under the right name does not.
async fn note_twin(repository: &Repository, key: &Key, draft: &mut Draft) -> Result<(), RepositoryError> {
    if repository.has_twin(key).await? {
        draft.spare.insert(Object::Stored(key.clone()));
    }
    Ok(())
}

/// Checks the small objects that nothing else reads: the config, keys and locks.
async fn check_documents(repository: &Repository, draft: &mut Draft, run: &Run) -> Result<(), RepositoryError> {
    check_document(repository, Key::config(), draft, run).await?;
    for kind in [FileKind::Key, FileKind::Lock] {
        let listed = repository.store().list(kind).await?;
        if kind == FileKind::Key && listed.is_empty() {
            draft.add_keyless();
        }
        for listed in listed {
            check_document(repository, Key::new(kind, listed.name), draft, run).await?;
        }
    }
    Ok(())
}

async fn check_document(
    repository: &Repository,
    key: Key,
    draft: &mut Draft,
    run: &Run,
) -> Result<(), RepositoryError> {
    run.check()?;
    match repository.check_document(&key).await {
        Ok(()) => Ok(()),
        // A lock may be given back or refreshed between the list and the look.
        Err(RepositoryError::Store(StoreError::Missing { .. })) if key.kind == FileKind::Lock => Ok(()),
        Err(error) => {
            draft.found(key.clone(), &error)?;
            if key.kind == FileKind::Key { note_twin(repository, &key, draft).await } else { Ok(()) }
        }
    }
}

/// Compares the packs that the index names with those that are there.
async fn check_presence(repository: &Repository, draft: &mut Draft) -> Result<(), RepositoryError> {
    let listed = repository.store().list(FileKind::Pack).await?;
    let sizes = listed.into_iter().filter_map(|listed| Some((listed.name.parse().ok()?, listed.size)));
    let mut sizes: HashMap<ObjectId, u64> = sizes.collect();
    let packs = repository.packs();
    draft.checked.packs = packs.len() as u64;
    draft.checked.blobs = packs.blobs() as u64;
    for pack in packs {
        packs::check_size(&pack, sizes.remove(&pack.id), draft);
    }
    let orphans = sizes.into_keys().map(|id| Key::new(FileKind::Pack, id.to_string()));
    draft.orphans = orphans.collect();
    draft.orphans.sort();
    Ok(())
}

/// Runs what reads and hashes on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VerifyError> + Send + 'static,
) -> Result<T, VerifyError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(VerifyError::Work(error.to_string())))
}
