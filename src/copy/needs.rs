//! Which snapshots cannot be restored from the target, because packs that they need are not there.

use std::collections::HashSet;

use crate::copy::plan::CopyPlan;
use crate::id::{BlobId, ObjectId, SnapshotId};
use crate::repository::{BlobKind, Repository, RepositoryError};
use crate::run::{Run, Stopped};

#[derive(Debug, thiserror::Error)]
pub enum NeedsError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Returns those of the plan's snapshots that need one of the packs which failed. Without such a pack it reads nothing.
pub(super) async fn snapshots_without_packs(
    from: &Repository,
    plan: &CopyPlan,
    failed: HashSet<ObjectId>,
    run: &Run,
) -> Result<Vec<SnapshotId>, NeedsError> {
    if failed.is_empty() || plan.snapshots.is_empty() {
        return Ok(Vec::new());
    }
    from.load_index(run).await?;
    let planned: HashSet<_> = plan.snapshots.iter().map(|listed| &listed.name).collect();
    let mut walk = Walk {
        from,
        failed,
        whole: HashSet::new(),
    };
    let mut held_back = Vec::new();
    for stored in from.snapshots().await? {
        let is_planned = planned.contains(&stored.id.to_string());
        if is_planned && !walk.is_whole(stored.snapshot.tree, run).await? {
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
