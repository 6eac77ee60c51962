//! Walks every tree that a snapshot names, each once, and looks up every blob that a tree names.
//!
//! In memory are a bit for each tree, the ids of those that wait, and the trees that are read at the moment.

use std::collections::HashSet;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::event::Unit;
use crate::id::BlobId;
use crate::repository::{BlobKind, Marked, Marks, Repository, RepositoryError, SnapshotList, Tree};
use crate::run::Run;
use crate::verify::VerifyError;
use crate::verify::packs::pool;
use crate::verify::report::{Draft, Fault, Object, State};

/// Trees read at once. On an object store each is a round trip.
const READS_IN_FLIGHT_MAX: usize = 16;

/// Trees taken from the list of those to do in one turn: a bound on what their results hold in memory.
const BATCH: usize = 512;

/// What one tree said.
struct Looked {
    subtrees: Vec<BlobId>,
    /// Data blobs that no index names.
    unnamed: Vec<BlobId>,
}

pub(super) fn check_trees(
    repository: &Repository,
    snapshots: &SnapshotList,
    draft: &mut Draft,
    run: &Run,
) -> Result<(), VerifyError> {
    let pool = pool(READS_IN_FLIGHT_MAX)?;
    let task = run.events.task("walk trees", Unit::Objects, 0);
    let (mut seen, mut to_do) = (Seen::new(repository), Vec::new());
    let roots = snapshots.found.iter().map(|stored| stored.snapshot.tree);
    to_do.extend(roots.filter(|root| seen.is_new(repository, root)));
    while !to_do.is_empty() {
        run.check().map_err(RepositoryError::from)?;
        let batch = to_do.split_off(to_do.len().saturating_sub(BATCH));
        let looked: Vec<_> = pool.install(|| batch.par_iter().map(|id| (*id, look(repository, id))).collect());
        for (id, looked) in looked {
            match looked {
                Ok(looked) => {
                    looked.unnamed.into_iter().for_each(|id| draft.add_unnamed(BlobKind::Data, id));
                    to_do.extend(looked.subtrees.into_iter().filter(|subtree| seen.is_new(repository, subtree)));
                }
                Err(error) => draft.add_unread(repository, id, error)?,
            }
        }
        draft.checked.trees += batch.len() as u64;
        task.set_total(draft.checked.trees + to_do.len() as u64);
        task.add(batch.len() as u64);
    }
    Ok(())
}

/// The trees that were met: a bit for each that the index names, so that ten million directories take a megabyte.
struct Seen {
    marks: Marks,
    /// Those that no index names.
    unnamed: HashSet<BlobId>,
}

impl Seen {
    fn new(repository: &Repository) -> Self {
        Self { marks: repository.marks(), unnamed: HashSet::new() }
    }

    fn is_new(&mut self, repository: &Repository, tree: &BlobId) -> bool {
        match repository.mark(&mut self.marks, BlobKind::Tree, tree) {
            Marked::First => true,
            Marked::Again => false,
            Marked::Unknown => self.unnamed.insert(*tree),
        }
    }
}

fn look(repository: &Repository, id: &BlobId) -> Result<Looked, RepositoryError> {
    let tree: Tree = repository.tree_blocking(id)?;
    let content = tree.nodes.iter().flat_map(|node| &node.content);
    let unnamed = content.filter(|id| !repository.has(BlobKind::Data, id));
    Ok(Looked {
        unnamed: unnamed.copied().collect(),
        subtrees: tree.nodes.iter().filter_map(|node| node.subtree).collect(),
    })
}

impl Draft {
    fn add_unnamed(&mut self, kind: BlobKind, id: BlobId) {
        let fault = Fault {
            state: State::Missing,
            what: "a tree names it, but no index does".to_owned(),
            lost: vec![(kind, id)],
        };
        self.add(Object::Blob(kind, id), fault);
    }

    /// Blames a tree that cannot be read on the pack that should hold it.
    fn add_unread(
        &mut self,
        repository: &Repository,
        id: BlobId,
        error: RepositoryError,
    ) -> Result<(), RepositoryError> {
        let Some(pack) = repository.pack_of(BlobKind::Tree, &id) else {
            self.add_unnamed(BlobKind::Tree, id);
            return Ok(());
        };
        let fault = Fault::of(&error).ok_or(error)?;
        self.add_pack(pack, fault.losing([(BlobKind::Tree, id)]));
        Ok(())
    }
}
