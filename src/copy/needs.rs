//! Which snapshots could not be restored from the target, because something that they need is not there.

use std::collections::{HashMap, HashSet};

use crate::copy::plan::{CopyPlan, Listing};
use crate::id::{BlobId, ObjectId, SnapshotId};
use crate::repository::{BlobKind, Repository, RepositoryError};
use crate::run::{Run, Stopped};
use crate::store::FileKind;

#[derive(Debug, thiserror::Error)]
pub enum NeedsError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The snapshots that must not go, and packs that are to blame and are not even here.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    pub(super) snapshots: Vec<SnapshotId>,
    pub(super) gone: Vec<ObjectId>,
}

/// Returns those of the plan's snapshots that the target, as it was listed after the packs and indexes were sent, could not
/// restore. Where it has every pack that the index names, no tree is read.
pub(super) async fn held_back(
    from: &Repository,
    plan: &CopyPlan,
    there: &Listing,
    run: &Run,
) -> Result<HeldBack, NeedsError> {
    let planned: HashSet<SnapshotId> = plan.snapshots.iter().filter_map(|it| it.name.parse().ok()).collect();
    if planned.is_empty() {
        return Ok(HeldBack::default());
    }
    from.load_index(run).await?;
    if !can_be_opened(from, plan, there) {
        return Ok(HeldBack { snapshots: planned.into_iter().collect(), gone: Vec::new() });
    }
    let absent = absent_packs(from, there);
    if absent.is_empty() {
        return Ok(HeldBack::default());
    }
    without_packs(from, &planned, absent, plan, run).await
}

/// Tells whether the target has its config, a key, and every index that is whole here: without them nobody can tell what a snapshot
/// lacks. Of an index that is damaged here only the packs are missed that no other index names.
fn can_be_opened(from: &Repository, plan: &CopyPlan, there: &Listing) -> bool {
    let faults = from.index_faults();
    let damaged: HashSet<_> = faults.iter().map(|fault| &fault.object).collect();
    let mut missing = plan.missing_in(there).into_iter().filter(|key| key.kind == FileKind::Index);
    !there.config.is_empty() && !there.keys.is_empty() && missing.all(|key| damaged.contains(&key))
}

/// Returns the packs that the target lacks, has with another size, or has without an index that names them.
fn absent_packs(from: &Repository, there: &Listing) -> HashSet<ObjectId> {
    let sizes: HashMap<&str, u64> = there.packs.iter().map(|listed| (listed.name.as_str(), listed.size)).collect();
    let is_there = |id: &ObjectId, size: u64| sizes.get(id.to_string().as_str()) == Some(&size);
    let absent = from.pack_sizes().into_iter().filter(|(id, size)| !is_there(id, *size)).map(|(id, _)| id);
    absent.chain(from.packs_without_index()).collect()
}

async fn without_packs(
    from: &Repository,
    planned: &HashSet<SnapshotId>,
    absent: HashSet<ObjectId>,
    plan: &CopyPlan,
    run: &Run,
) -> Result<HeldBack, NeedsError> {
    let mut walk = Walk { from, absent, whole: HashSet::new(), blamed: HashSet::new() };
    let mut held_back = HeldBack::default();
    for stored in from.snapshots().await? {
        if planned.contains(&stored.id) && !walk.is_whole(stored.snapshot.tree, run).await? {
            held_back.snapshots.push(stored.id);
        }
    }
    let gone = walk.blamed.into_iter().filter(|pack| !plan.is_here(FileKind::Pack, &pack.to_string()));
    held_back.gone = gone.collect();
    held_back.gone.sort_unstable();
    Ok(held_back)
}

/// Walks trees, each once however many snapshots share it.
struct Walk<'a> {
    from: &'a Repository,
    absent: HashSet<ObjectId>,
    /// Trees that need no absent pack, nor does anything below them.
    whole: HashSet<BlobId>,
    /// Absent packs that were needed.
    blamed: HashSet<ObjectId>,
}

impl Walk<'_> {
    async fn is_whole(&mut self, root: BlobId, run: &Run) -> Result<bool, Stopped> {
        let mut seen = HashSet::new();
        let mut open = vec![root];
        while let Some(tree) = open.pop() {
            run.check()?;
            if self.whole.contains(&tree) || !seen.insert(tree) {
                continue;
            }
            let Some(below) = self.below(tree).await else {
                return Ok(false);
            };
            open.extend(below);
        }
        self.whole.extend(seen);
        Ok(true)
    }

    /// Returns the trees below one, `None` where it or a file of it needs an absent pack. A tree that cannot be read
    /// is as good as missing.
    async fn below(&mut self, id: BlobId) -> Option<Vec<BlobId>> {
        if !self.is_there(BlobKind::Tree, &id) {
            return None;
        }
        let tree = self.from.tree(&id).await.ok()?;
        let mut content = tree.nodes.iter().flat_map(|node| &node.content);
        if !content.all(|blob| self.is_there(BlobKind::Data, blob)) {
            return None;
        }
        Some(tree.nodes.iter().filter_map(|node| node.subtree).collect())
    }

    fn is_there(&mut self, kind: BlobKind, id: &BlobId) -> bool {
        let is_there = self.from.is_in(kind, id, |pack| !self.absent.contains(pack));
        if !is_there {
            self.blamed.extend(self.from.pack_of(kind, id));
        }
        is_there
    }
}
