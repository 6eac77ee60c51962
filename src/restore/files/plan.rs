//! How much a restore is going to write.

use std::path::{Path, PathBuf};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::entry::{DEPTH_MAX, Kind};
use crate::id::BlobId;
use crate::repository::BlobKind;
use crate::repository::Node;
use crate::repository::Repository;
use crate::restore::files::RestoreFilesError;
use crate::restore::files::below;
use crate::restore::files::place::Place;
use crate::restore::files::selection::{Meant, Selection};
use crate::run::Run;

/// As many paths of what is missing are kept for the plan.
const MISSING_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) dirs: u64,
    pub(super) others: u64,
    pub(super) missing: Vec<PathBuf>,
}

impl Sum {
    fn and(mut self, mut other: Self) -> Self {
        self.files += other.files;
        self.bytes += other.bytes;
        self.dirs += other.dirs;
        self.others += other.others;
        self.missing.append(&mut other.missing);
        self.missing.truncate(MISSING_MAX);
        self
    }
}

struct Walk<'a> {
    repository: &'a Repository,
    selection: &'a Selection,
    run: &'a Run,
}

/// Adds up what is meant of a place.
pub(super) fn sum(
    repository: &Repository,
    place: &Place,
    selection: &Selection,
    run: &Run,
) -> Result<Sum, RestoreFilesError> {
    let walk = Walk { repository, selection, run };
    walk.directory(Path::new(""), 0, &place.tree, selection.is_all())
}

impl Walk<'_> {
    fn directory(&self, path: &Path, depth: usize, tree: &BlobId, is_meant: bool) -> Result<Sum, RestoreFilesError> {
        self.run.check()?;
        let missing = || Ok(Sum { missing: vec![path.to_owned()], ..Sum::default() });
        if depth > DEPTH_MAX {
            return missing();
        }
        let tree = match self.repository.tree_blocking(tree) {
            Ok(tree) => tree,
            Err(error) if error.is_damage() => return missing(),
            Err(error) => return Err(error.into()),
        };
        let sums = tree.nodes.par_iter().map(|node| self.node(&below(path, node), depth, node, is_meant));
        sums.try_reduce(Sum::default, |a, b| Ok(a.and(b)))
    }

    fn node(&self, path: &Path, depth: usize, node: &Node, is_meant: bool) -> Result<Sum, RestoreFilesError> {
        let meant = if is_meant { Meant::All } else { self.selection.means(path) };
        let mut sum = Sum::default();
        match (meant, &node.metadata.kind, node.subtree) {
            (Meant::No, _, _) => {}
            (_, Kind::Dir, Some(tree)) => {
                sum = self.directory(path, depth + 1, &tree, meant == Meant::All)?;
                sum.dirs += u64::from(meant == Meant::All);
            }
            (Meant::Below, _, _) => {}
            (Meant::All, Kind::Dir, None) => sum.missing.push(path.to_owned()),
            (Meant::All, Kind::File, _) => {
                let is_there = |blob| self.repository.has(BlobKind::Data, blob);
                sum.files = 1;
                sum.bytes = node.metadata.size;
                if !node.content.iter().all(is_there) {
                    sum.missing.push(path.to_owned());
                }
            }
            (Meant::All, _, _) => sum.others = 1,
        }
        Ok(sum)
    }
}
