//! Marks what the snapshots need: every tree that they name, each once, and every blob that a tree names.

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::event::Unit;
use crate::id::BlobId;
use crate::prune::PruneError;
use crate::repository::{BlobKind, Marked, Marks, Repository, RepositoryError, Tree};
use crate::run::Run;

/// Trees read at once. On an object store each may be a round trip.
const READS_IN_FLIGHT_MAX: usize = 16;

/// Trees taken from the list of those to do in one turn: a bound on what their results hold in memory.
const BATCH: usize = 256;

/// Marks all that the roots need.
///
/// # Errors
/// Where a tree does not open, or a blob is named that no index names.
pub(super) fn mark(repository: &Repository, mut roots: Vec<BlobId>, run: &Run) -> Result<Marks, PruneError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(READS_IN_FLIGHT_MAX).build();
    let pool = pool.map_err(|error| PruneError::Thread(error.to_string()))?;
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
        for (id, tree) in batch.iter().zip(trees) {
            let tree = match tree {
                Err(error) if error.is_damage() => {
                    return Err(PruneError::Doubt(format!("tree {} is damaged", id.short())));
                }
                tree => tree?,
            };
            for node in &tree.nodes {
                for blob in &node.content {
                    if repository.mark(&mut marks, BlobKind::Data, blob) == Marked::Unknown {
                        let name = node.name.to_string_lossy();
                        return Err(PruneError::Doubt(format!("no index names blob {} of `{name}`", blob.short())));
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
fn note(repository: &Repository, marks: &mut Marks, tree: BlobId, to_do: &mut Vec<BlobId>) -> Result<(), PruneError> {
    match repository.mark(marks, BlobKind::Tree, &tree) {
        Marked::First => to_do.push(tree),
        Marked::Again => {}
        Marked::Unknown => return Err(PruneError::Doubt(format!("no index names tree {}", tree.short()))),
    }
    Ok(())
}
