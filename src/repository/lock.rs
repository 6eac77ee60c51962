//! Locks, as restic makes and heeds them.

use crate::repository::error::RepositoryError;

/// Whether others may work beside the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Beside other shared holders: to read and to add.
    Shared,
    /// Alone: to delete.
    Exclusive,
}

/// A lock that is held and refreshed until it is released.
#[derive(Debug)]
pub struct LockGuard {}

impl LockGuard {
    /// Gives the lock back.
    ///
    /// # Errors
    /// Where the lock's object could not be deleted; it then goes stale by itself.
    #[allow(clippy::unused_async)]
    pub async fn release(self) -> Result<(), RepositoryError> {
        unimplemented!()
    }
}
