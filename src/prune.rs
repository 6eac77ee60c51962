//! The verb that frees what no snapshot needs.
//!
//! A plan first: what each snapshot names is needed; packs of which nothing is needed go, and of packs that are mostly dead or
//! small the rest is copied into new ones. Then, under the exclusive lock, in an order that a kill at any point leaves whole:
//! new packs, new index files, a proof that both are there, and only then the old index files go, and after them the old packs.
//! Whatever is in doubt (a damaged snapshot, a blob that no index names, a pack that is gone) stops it before anything is deleted.
//!
//! What the store's own lock keeps stays as it is, and with it what it names; it is named in the plan, and a later prune frees it.
//!
//! A copy is pruned alone, by the needs of its own snapshots, but the packs that the repository itself holds stay as they are in it:
//! rewritten, they would be sent again.

pub mod plan;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};

use crate::event::Unit;
use crate::forget::Alone;
use crate::id::ObjectId;
use crate::prune::plan::{Damaged, Limits, Protected, PrunePlan};
use crate::repository::{Marks, PackContents, Repository, RepositoryError};
use crate::run::{Run, Stopped};
use crate::store::{FileKind, Key, Listed, SharedStore, StoreError};

#[derive(Debug, Clone, thiserror::Error)]
pub enum PruneError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("plan the prune: {0}, so nobody can tell what is needed")]
    Doubt(String),
    #[error("plan the prune: {0}")]
    Damaged(#[from] Damaged),
}

impl From<StoreError> for PruneError {
    fn from(error: StoreError) -> Self {
        Self::Repository(error.into())
    }
}

impl From<Stopped> for PruneError {
    fn from(stopped: Stopped) -> Self {
        Self::Repository(stopped.into())
    }
}

impl PruneError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Repository(error) => error.hint(),
            Self::Doubt(_) | Self::Damaged(_) => Some(
                "nothing was deleted; `bkp verify --heal` brings what is damaged back from another store and makes a lost index \
                 anew; what it cannot heal it names: forget the snapshots that need it"
                    .to_owned(),
            ),
        }
    }
}

/// What a prune did.
#[derive(Debug, Default)]
pub struct Pruned {
    pub packs_deleted: u64,
    pub bytes_deleted: u64,
    pub packs_written: u64,
    pub bytes_written: u64,
    /// What the store would not delete; it frees nothing, and the next prune tries again.
    pub failed: Vec<(Key, StoreError)>,
}

/// Computes what a prune would do. Reads snapshots, index and trees, and lists the packs; writes nothing.
///
/// # Errors
/// [`PruneError::Doubt`] and [`PruneError::Damaged`] where something is missing that would tell what is needed.
pub async fn plan(repository: &Arc<Repository>, limits: &Limits, run: &Run) -> Result<PrunePlan, PruneError> {
    let snapshots = repository.list_snapshots().await?;
    if let Some(fault) = snapshots.damaged.first() {
        return Err(PruneError::Doubt(format!("snapshot {} is damaged", fault.object.name)));
    }
    repository.load_index(run).await?;
    if let Some(fault) = repository.index_faults().first().filter(|_| repository.worthless_index_files().is_empty()) {
        return Err(PruneError::Doubt(format!("`{}` is damaged", fault.object)));
    }
    let marks = repository.mark_needed(&snapshots, run).await.map_err(|error| match error {
        error if error.is_damage() => PruneError::Doubt(error.to_string()),
        error => error.into(),
    })?;
    // Listed after the index was loaded: whatever it names was put before.
    let listed = repository.store().list(FileKind::Pack).await?;
    let there: HashSet<(&str, u64)> = listed.iter().map(|pack| (pack.name.as_str(), pack.size)).collect();
    let mut whole = repository.pack_sizes();
    whole.retain(|(id, size)| there.contains(&(id.to_string().as_str(), *size)));
    let whole = whole.into_iter().map(|(id, _)| id).collect();
    unprotected(repository, &listed, &whole, limits.clone(), &marks, run).await
}

/// Plans with ever more packs that stay, until none that goes is kept by the store's own lock.
async fn unprotected(
    repository: &Repository,
    listed: &[Listed],
    whole: &HashSet<ObjectId>,
    mut limits: Limits,
    marks: &Marks,
    run: &Run,
) -> Result<PrunePlan, PruneError> {
    let (mut protected, mut known) = (Vec::new(), HashMap::new());
    loop {
        let mut marks = marks.clone();
        let uses = repository.uses(&mut marks, whole, &limits.kept);
        let mut plan = PrunePlan::new(&uses, listed, &limits, marks)?;
        let naming = repository.index_files_naming(&plan.gone());
        let ends = ends_of_locks(repository.store(), &plan, &naming, &mut known, run).await?;
        if ends.is_empty() {
            protected.sort_unstable();
            plan.protected = protected;
            plan.indexes = naming.into_iter().map(|(name, _)| name).collect();
            return Ok(plan);
        }
        let kept = plan.deleted().filter_map(|pack| Some(Protected { pack: *pack, until: *ends.get(&pack.id)? }));
        protected.extend(kept);
        limits.kept.extend(ends.into_keys());
    }
}

/// Returns the packs of a plan that the store does not let go yet, and from when on it does: an index file that cannot go pins the
/// packs that it names, or a reader would miss them. What is `known` of an object is not asked for again.
async fn ends_of_locks(
    store: &SharedStore,
    plan: &PrunePlan,
    naming: &[(String, Vec<ObjectId>)],
    known: &mut HashMap<Key, Option<DateTime<Utc>>>,
    run: &Run,
) -> Result<HashMap<ObjectId, DateTime<Utc>>, PruneError> {
    let packs = plan.deleted().map(|pack| (Key::new(FileKind::Pack, pack.id.to_string()), vec![pack.id]));
    let indexes = naming.iter().map(|(name, packs)| (Key::new(FileKind::Index, name), packs.clone()));
    let objects: Vec<_> = packs.chain(indexes).collect();
    let unknown: Vec<_> = objects.iter().map(|(key, _)| key).filter(|key| !known.contains_key(*key)).cloned().collect();
    let look = |key: Key| async move { (store.immutable_until(&key).await, key) };
    let mut looks = stream::iter(unknown).map(look).buffer_unordered(LOOKS_IN_FLIGHT_MAX);
    while let Some(looked) = run.cancel.run_until_cancelled(looks.next()).await.ok_or(Stopped)? {
        let until = match looked.0 {
            Err(StoreError::Missing { .. }) => None,
            until => until?,
        };
        known.insert(looked.1, until);
    }
    let mut ends = HashMap::new();
    for (key, packs) in objects {
        let Some(until) = known.get(&key).copied().flatten().filter(|until| *until > run.now()) else { continue };
        for pack in packs {
            let end = ends.entry(pack).or_insert(until);
            *end = until.max(*end);
        }
    }
    Ok(ends)
}

/// Objects whose lock is asked for at once: each is a round trip that moves no bytes.
const LOOKS_IN_FLIGHT_MAX: usize = 16;

/// Does what the plan says. The lock is exclusive, and was taken before the plan was made.
///
/// # Errors
/// [`PruneError`] before anything was deleted, or where the lock was lost. What the store would not delete is no error but in
/// the result.
pub async fn apply(plan: &PrunePlan, repository: &Repository, lock: &Alone, run: &Run) -> Result<Pruned, PruneError> {
    let gone = plan.gone();
    // Before a byte is written: a place that has rotted ends this, and the next prune comes to the same one.
    repository.prove_last_places(plan.marks(), &gone, run).await?;
    let needed = repository.needed(plan.marks(), &plan.repack.iter().map(|pack| pack.id).collect());
    let written = repository.repack(&needed, run).await?;
    let reindexed = repository.reindex(&gone, &written, plan.merges_index(), run).await?;
    repository.prove_reindexed(&reindexed, &gone, plan.marks()).await?;
    let mut pruned = Pruned {
        packs_written: written.len() as u64,
        bytes_written: written.iter().map(PackContents::size).sum(),
        ..Pruned::default()
    };
    let old = reindexed.old.iter().map(|name| (Key::new(FileKind::Index, name), 0));
    let indexes = delete(repository, lock, old.collect(), run).await?;
    if !indexes.failed.is_empty() {
        // An index file that stays names packs that must stay with it.
        pruned.failed = indexes.failed;
        return Ok(pruned);
    }
    let packs = plan.deleted().map(|pack| (Key::new(FileKind::Pack, pack.id.to_string()), pack.size));
    let packs = delete(repository, lock, packs.collect(), run).await?;
    pruned.packs_deleted = packs.done;
    pruned.bytes_deleted = packs.bytes;
    pruned.failed = packs.failed;
    Ok(pruned)
}

struct Deleted {
    done: u64,
    bytes: u64,
    failed: Vec<(Key, StoreError)>,
}

/// Objects that are deleted at once: on an object store each is a round trip.
const DELETES_IN_FLIGHT_MAX: usize = 8;

/// Deletes objects; a failure with one does not spare the next, unless every other would fare the same.
async fn delete(
    repository: &Repository,
    lock: &Alone,
    objects: Vec<(Key, u64)>,
    run: &Run,
) -> Result<Deleted, PruneError> {
    let mut deleted = Deleted { done: 0, bytes: 0, failed: Vec::new() };
    if objects.is_empty() {
        return Ok(deleted);
    }
    let task = run.events.task("delete", Unit::Objects, objects.len() as u64);
    lock.prove().await?;
    let delete_one = |(key, size): (Key, u64)| async move {
        run.check()?;
        repository.check_lock()?;
        let gone = repository.store().delete(&key).await;
        Ok::<_, PruneError>((key, size, gone))
    };
    let mut deletes = stream::iter(objects).map(delete_one).buffer_unordered(DELETES_IN_FLIGHT_MAX);
    while let Some(gone) = deletes.next().await {
        match gone? {
            (_, size, Ok(())) => {
                deleted.done += 1;
                deleted.bytes += size;
            }
            (_, _, Err(error)) if error.is_final() => return Err(error.into()),
            (key, _, Err(error)) => deleted.failed.push((key, error)),
        }
        task.add(1);
    }
    Ok(deleted)
}

/// Returns the packs that a store holds.
///
/// # Errors
/// Where it cannot be listed.
pub async fn packs_of(store: &SharedStore) -> Result<HashSet<ObjectId>, PruneError> {
    let listed = store.list(FileKind::Pack).await?;
    Ok(listed.iter().filter_map(|pack| pack.name.parse().ok()).collect())
}
