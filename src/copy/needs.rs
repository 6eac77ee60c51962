//! Which snapshots could not be restored from the target, because something that they need is not there.

use std::collections::HashSet;

use crate::copy::ObjectError;
use crate::copy::plan::CopyPlan;
use crate::id::{BlobId, ObjectId, SnapshotId};
use crate::repository::{BlobKind, Repository, RepositoryError};
use crate::run::{Run, Stopped};
use crate::store::{FileKind, Key};

#[derive(Debug, thiserror::Error)]
pub enum NeedsError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Returns those of the plan's snapshots that the target could not restore, because of what failed. Where nothing
/// failed it reads nothing.
pub(super) async fn held_back(
    from: &Repository,
    plan: &CopyPlan,
    failed: &[(Key, ObjectError)],
    run: &Run,
) -> Result<Vec<SnapshotId>, NeedsError> {
    let planned = plan.snapshots.iter();
    let planned: HashSet<SnapshotId> = planned.filter_map(|it| it.name.parse().ok()).collect();
    if failed.is_empty() || planned.is_empty() {
        return Ok(Vec::new());
    }
    // Without an index, the config or a key nobody can tell what a snapshot lacks, so none goes.
    if failed.iter().any(|(key, _)| key.kind != FileKind::Pack) {
        return Ok(planned.into_iter().collect());
    }
    let packs = failed.iter().filter_map(|(key, _)| key.name.parse().ok());
    without_packs(from, &planned, packs.collect(), run).await
}

async fn without_packs(
    from: &Repository,
    planned: &HashSet<SnapshotId>,
    failed: HashSet<ObjectId>,
    run: &Run,
) -> Result<Vec<SnapshotId>, NeedsError> {
    from.load_index(run).await?;
    let mut walk = Walk { from, failed, whole: HashSet::new() };
    let mut held_back = Vec::new();
    for stored in from.snapshots().await? {
        if planned.contains(&stored.id) && !walk.is_whole(stored.snapshot.tree, run).await? {
            held_back.push(stored.id);
        }
    }
    Ok(held_back)
}

/// Walks trees, each once however many snapshots share it.
struct Walk<'a> {
    from: &'a Repository,
    failed: HashSet<ObjectId>,
    /// Trees that need no failed pack, nor does anything below them.
    whole: HashSet<BlobId>,
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

    /// Returns the trees below one, `None` where it or a file of it needs a failed pack. A tree that cannot be read
    /// is as good as missing.
    async fn below(&self, id: BlobId) -> Option<Vec<BlobId>> {
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

    fn is_there(&self, kind: BlobKind, id: &BlobId) -> bool {
        let pack = self.from.pack_of(kind, id);
        pack.is_some_and(|pack| !self.failed.contains(&pack))
    }
}
