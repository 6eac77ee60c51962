//! Marks what the snapshots need: every tree that they name, each once, and every blob that a tree names.

use std::sync::Arc;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::event::Unit;
use crate::id::BlobId;
use crate::repository::error::RepositoryError;
use crate::repository::{BlobKind, Marked, Marks, Repository, SnapshotList, Tree};
use crate::run::Run;

/// Trees read at once. On an object store each may be a round trip.
const READS_IN_FLIGHT_MAX: usize = 16;

/// Trees taken from the list of those to do in one turn: a bound on what their results hold in memory.
const BATCH: usize = 256;

impl Repository {
    /// Marks all that snapshots need. They were listed before the index was loaded.
    ///
    /// # Errors
    /// Where a snapshot or a tree does not open, or names what no index does: then nobody can tell what is needed.
    pub async fn mark_needed(self: &Arc<Self>, snapshots: &SnapshotList, run: &Run) -> Result<Marks, RepositoryError> {
        if let Some(fault) = snapshots.damaged.first() {
            return Err(fault.error.clone());
        }
        let roots = snapshots.found.iter().map(|stored| stored.snapshot.tree).collect();
        let (repository, marking) = (Arc::clone(self), run.clone());
        let marked = tokio::task::spawn_blocking(move || mark(&repository, roots, &marking)).await;
        marked.map_err(|error| RepositoryError::refused("marks", error))?
    }
}

/// Marks all that the roots need.
fn mark(repository: &Repository, mut roots: Vec<BlobId>, run: &Run) -> Result<Marks, RepositoryError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(READS_IN_FLIGHT_MAX).build();
    let pool = pool.map_err(|error| RepositoryError::refused("marks", error))?;
    let task = run.events.task("find what is needed", Unit::Objects, 0);
    let mut marks = repository.marks();
    let mut to_do = Vec::new();
    roots.sort_unstable();
    for root in roots {
        note(repository, &mut marks, root, &mut to_do)?;
    }
    while !to_do.is_empty() {
        run.check()?;
        let batch = to_do.split_off(to_do.len().saturating_sub(BATCH));
        let trees: Vec<Result<Tree, RepositoryError>> =
            pool.install(|| batch.par_iter().map(|id| repository.tree_blocking(id)).collect());
        for tree in trees {
            for node in &tree?.nodes {
                for blob in &node.content {
                    if repository.mark(&mut marks, BlobKind::Data, blob) == Marked::Unknown {
                        return Err(RepositoryError::MissingBlob { kind: BlobKind::Data, id: *blob });
                    }
                }
                if let Some(subtree) = node.subtree {
                    note(repository, &mut marks, subtree, &mut to_do)?;
                }
            }
        }
        task.add(batch.len() as u64);
    }
    Ok(marks)
}

/// Marks a tree, and puts it on the list where it was not met before.
fn note(
    repository: &Repository,
    marks: &mut Marks,
    tree: BlobId,
    to_do: &mut Vec<BlobId>,
) -> Result<(), RepositoryError> {
    match repository.mark(marks, BlobKind::Tree, &tree) {
        Marked::First => to_do.push(tree),
        Marked::Again => {}
        Marked::Unknown => return Err(RepositoryError::MissingBlob { kind: BlobKind::Tree, id: tree }),
    }
    Ok(())
}
