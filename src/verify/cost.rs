//! What faults cost: the paths in each snapshot that need a blob which nothing holds whole any more.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::entry::DEPTH_MAX;
use crate::id::{BlobId, SnapshotId};
use crate::repository::{BlobKind, Node, Repository, SnapshotList};
use crate::run::Run;
use crate::verify::report::{Cost, Draft, Object};
use crate::verify::{VerifyError, rows};

/// Paths that a finding lists; further ones are counted.
const PATHS_MAX: usize = 1000;

/// As deep as a source may be, below a path that may itself be as deep: the search is a recursion on the stack.
const TREES_DEEP_MAX: usize = 2 * DEPTH_MAX;

/// The paths that one finding costs.
#[derive(Debug, Default)]
pub(super) struct Paths {
    listed: HashSet<Cost>,
    more: u64,
}

impl Paths {
    fn add(&mut self, cost: Cost) {
        if self.listed.len() < PATHS_MAX {
            self.listed.insert(cost);
        } else if !self.listed.contains(&cost) {
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
    let lost = lost_blobs(repository, draft);
    let mut search = Search { repository, run, lost, whole: HashSet::new(), costs: Costs::new() };
    if !search.lost.is_empty() {
        for stored in &snapshots.found {
            search.tree(stored.id, &stored.snapshot.tree, Path::new("/"), 0)?;
        }
    }
    let mut costs = search.costs;
    rows::tell(repository, snapshots, &mut costs, run)?;
    Ok(costs)
}

/// Returns the blobs that no pack holds whole, and the object to blame for each: a second pack may still have one.
fn lost_blobs(repository: &Repository, draft: &Draft) -> HashMap<(BlobKind, BlobId), Object> {
    let mut lost = HashMap::new();
    for (object, fault) in &draft.faults {
        for (kind, id) in &fault.lost {
            if !lost.contains_key(&(*kind, *id)) && repository.blob_blocking(*kind, id).is_err() {
                lost.insert((*kind, *id), object.clone());
            }
        }
    }
    lost
}

struct Search<'a> {
    repository: &'a Repository,
    run: &'a Run,
    lost: HashMap<(BlobKind, BlobId), Object>,
    /// Trees below which nothing is lost: no second snapshot that shares them needs to look.
    whole: HashSet<BlobId>,
    costs: Costs,
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
        self.costs.entry(object.clone()).or_default().add(cost);
        true
    }
}
