//! What faults cost: the paths in each snapshot that need a blob which nothing holds whole any more.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::entry::DEPTH_MAX;
use crate::id::{BlobId, ObjectId, SnapshotId};
use crate::repository::{BlobKind, Node, Repository, RepositoryError, SnapshotList};
use crate::run::Run;
use crate::store::{FileKind, Key};
use crate::verify::report::{Cost, Draft, Object, State};
use crate::verify::{VerifyError, rows};

/// Paths that a finding lists; further ones are counted.
const PATHS_MAX: usize = 1000;

/// Paths that all findings list together: of a lost disk there are tens of thousands, and nobody reads a list of millions.
const PATHS_IN_ALL_MAX: usize = 100_000;

/// As deep as a source may be, below a path that may itself be as deep: the search is a recursion on the stack.
const TREES_DEEP_MAX: usize = 2 * DEPTH_MAX;

/// The paths that one finding costs.
#[derive(Debug, Default)]
pub(super) struct Paths {
    listed: HashSet<Cost>,
    more: u64,
}

impl Paths {
    /// Lists a path, where there is `room` for it.
    fn add(&mut self, cost: Cost, room: &mut usize) {
        if self.listed.contains(&cost) {
            return;
        }
        if self.listed.len() < PATHS_MAX && *room > 0 {
            self.listed.insert(cost);
            *room -= 1;
        } else {
            self.more += 1;
        }
    }

    pub(super) fn listed(&self) -> impl Iterator<Item = &Cost> {
        self.listed.iter()
    }

    pub(super) fn change(&mut self, change: impl Fn(&mut Cost)) {
        let changed = self.listed.drain().map(|mut cost| {
            change(&mut cost);
            cost
        });
        self.listed = changed.collect();
    }

    pub(super) fn into_parts(self) -> (Vec<Cost>, u64) {
        let mut listed: Vec<_> = self.listed.into_iter().collect();
        listed.sort();
        (listed, self.more)
    }
}

pub(super) type Costs = HashMap<Object, Paths>;

/// Counts what the faults found so far cost in each snapshot.
pub(super) fn count(
    repository: &Repository,
    snapshots: &SnapshotList,
    draft: &Draft,
    run: &Run,
) -> Result<Costs, VerifyError> {
    let lost = lost_blobs(repository, draft, run)?;
    let mut search =
        Search { repository, run, lost, whole: HashSet::new(), costs: Costs::new(), room: PATHS_IN_ALL_MAX };
    if !search.lost.is_empty() {
        for stored in &snapshots.found {
            search.tree(stored.id, &stored.snapshot.tree, Path::new("/"), 0)?;
        }
    }
    let mut costs = search.costs;
    rows::tell(repository, snapshots, &mut costs, run)?;
    Ok(costs)
}

/// Returns the blobs that no pack holds whole, and the object to blame for each: a second pack may still have one. A store is not asked
/// for what is in packs that it does not have: of a lost disk those are millions of blobs.
fn lost_blobs(
    repository: &Repository,
    draft: &Draft,
    run: &Run,
) -> Result<HashMap<(BlobKind, BlobId), Object>, VerifyError> {
    let gone: HashSet<&Object> =
        draft.faults.iter().filter(|(_, fault)| fault.state == State::Missing).map(|(object, _)| object).collect();
    let is_there = |pack: &ObjectId| !gone.contains(&Object::Stored(Key::new(FileKind::Pack, pack.to_string())));
    let mut lost = HashMap::new();
    for (object, fault) in &draft.faults {
        for (kind, id) in &fault.lost {
            run.check().map_err(RepositoryError::from)?;
            let is_lost = || !repository.is_in(*kind, id, is_there) || repository.blob_blocking(*kind, id).is_err();
            if !lost.contains_key(&(*kind, *id)) && is_lost() {
                lost.insert((*kind, *id), object.clone());
            }
        }
    }
    Ok(lost)
}

struct Search<'a> {
    repository: &'a Repository,
    run: &'a Run,
    lost: HashMap<(BlobKind, BlobId), Object>,
    /// Trees below which nothing is lost: no second snapshot that shares them needs to look.
    whole: HashSet<BlobId>,
    costs: Costs,
    /// How many more paths are listed.
    room: usize,
}

impl Search<'_> {
    /// Notes what is lost below a tree; tells whether nothing is. Past the depth that is restored nothing can be lost.
    fn tree(&mut self, snapshot: SnapshotId, id: &BlobId, path: &Path, depth: usize) -> Result<bool, VerifyError> {
        if self.whole.contains(id) || depth > TREES_DEEP_MAX {
            return Ok(true);
        }
        self.run.check().map_err(crate::repository::RepositoryError::from)?;
        if self.note(snapshot, (BlobKind::Tree, *id), path) {
            return Ok(false);
        }
        // One that cannot be read was found by the walk, and is lost: it does not come here.
        let Ok(tree) = self.repository.tree_blocking(id) else {
            return Ok(false);
        };
        let mut is_whole = true;
        for node in &tree.nodes {
            is_whole &= self.node(snapshot, node, &path.join(&node.name), depth)?;
        }
        if is_whole {
            self.whole.insert(*id);
        }
        Ok(is_whole)
    }

    fn node(&mut self, snapshot: SnapshotId, node: &Node, path: &Path, depth: usize) -> Result<bool, VerifyError> {
        let mut is_whole = true;
        for id in &node.content {
            is_whole &= !self.note(snapshot, (BlobKind::Data, *id), path);
        }
        if let Some(subtree) = &node.subtree {
            is_whole &= self.tree(snapshot, subtree, path, depth + 1)?;
        }
        Ok(is_whole)
    }

    /// Notes a path if the blob is lost; tells whether it is.
    fn note(&mut self, snapshot: SnapshotId, blob: (BlobKind, BlobId), path: &Path) -> bool {
        let Some(object) = self.lost.get(&blob) else {
            return false;
        };
        let cost = Cost { snapshot, path: path.to_owned(), rows: Vec::new() };
        self.costs.entry(object.clone()).or_default().add(cost, &mut self.room);
        true
    }
}
