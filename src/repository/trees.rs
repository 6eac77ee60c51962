//! Reads trees. A walk wants most trees of a pack, and they lie side by side: a request brings a tree with its neighbours, which
//! are kept, sealed, until they are wanted.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::id::{BlobId, ObjectId};
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::repository::index::Location;
use crate::repository::pack::BlobKind;
use crate::repository::tree::Tree;
use crate::store::{FileKind, Key};

/// Read around a tree: a thousand directories of images, in the time of a few round trips. A whole pack would be too much where
/// one file is wanted.
const BLOCK_BYTES: u32 = 2 << 20;

/// Blocks kept, at 2 MiB each and whatever their last tree has over: a plan and the restore after it read most trees once.
const BLOCKS_MAX: usize = 16;

/// The newest blocks of trees.
#[derive(Debug, Default)]
pub(super) struct TreeCache {
    blocks: Mutex<VecDeque<Arc<Block>>>,
}

/// A stretch of a pack. Whoever asks first fetches it, the others wait for that.
#[derive(Debug)]
struct Block {
    pack: ObjectId,
    range: Range<u64>,
    bytes: OnceCell<Bytes>,
}

impl TreeCache {
    fn block(&self, location: &Location, near: impl FnOnce() -> Range<u64>) -> Arc<Block> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let range = location.blob.range();
        let holds = |block: &Block| {
            block.pack == location.pack && block.range.start <= range.start && range.end <= block.range.end
        };
        if let Some(block) = blocks.iter().find(|block| holds(block)) {
            return Arc::clone(block);
        }
        let block = Arc::new(Block { pack: location.pack, range: near(), bytes: OnceCell::new() });
        if blocks.len() == BLOCKS_MAX {
            blocks.pop_front();
        }
        blocks.push_back(Arc::clone(&block));
        block
    }
}

impl Repository {
    /// Reads a directory's entries.
    ///
    /// # Errors
    /// Like [`Repository::blob`], or where the blob is no tree.
    pub async fn tree(&self, id: &BlobId) -> Result<Tree, RepositoryError> {
        let json = match self.tree_among_others(id).await {
            // Alone, or from another pack, it may come whole.
            Err(error) if error.is_damage() => self.blob(BlobKind::Tree, id).await?,
            json => json?,
        };
        Tree::from_json(&json).map_err(|error| RepositoryError::damaged(format!("tree {}", id.short()), error))
    }

    /// Like [`Repository::tree`], from a thread that is no task's.
    ///
    /// # Errors
    /// Like [`Repository::tree`]; [`RepositoryError::Stopped`] once the run that opened the repository was told to stop.
    pub fn tree_blocking(&self, id: &BlobId) -> Result<Tree, RepositoryError> {
        self.wait(self.tree(id))
    }

    async fn tree_among_others(&self, id: &BlobId) -> Result<Vec<u8>, RepositoryError> {
        let kind = BlobKind::Tree;
        let location = self.locate(kind, id).ok_or(RepositoryError::MissingBlob { kind, id: *id })?;
        let block = self.trees.block(&location, || self.trees_near(&location));
        let key = Key::new(FileKind::Pack, location.pack.to_string());
        let bytes = block.bytes.get_or_try_init(|| self.near().get_range(&key, block.range.clone())).await?;
        let place = |at: u64| usize::try_from(at - block.range.start).unwrap_or(usize::MAX);
        let range = location.blob.range();
        let opened = self.open_at(&location, bytes.get(place(range.start)..place(range.end)).unwrap_or_default());
        if let (Err(_), Some(cache)) = (&opened, self.cache.get()) {
            // Whether it rotted here or came damaged: it must not be what is read the next time.
            cache.forget(&key, &block.range).await;
        }
        opened
    }

    fn trees_near(&self, location: &Location) -> Range<u64> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).trees_near(location, BLOCK_BYTES)
    }
}
