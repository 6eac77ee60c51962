//! Puts good bytes back under the name of an object that is damaged or missing.

use bytes::Bytes;

use crate::id::ObjectId;
use crate::repository::config::Config;
use crate::repository::error::RepositoryError;
use crate::repository::{Repository, document};
use crate::seal;
use crate::store::{FileKind, Key, StoreError};

impl Repository {
    /// Proves that bytes are what belongs under a name: they hash to it, and what is sealed opens. A config has no name; it opens
    /// and is this repository's.
    ///
    /// # Errors
    /// [`RepositoryError::Damaged`].
    pub fn check_bytes(&self, key: &Key, bytes: &[u8]) -> Result<(), RepositoryError> {
        if key.kind != FileKind::Config {
            document::check_name(key, bytes)?;
        }
        // What a pack holds is proved blob by blob, and a key file is not sealed.
        if matches!(key.kind, FileKind::Pack | FileKind::Key) {
            return Ok(());
        }
        let opened = seal::open_document(&self.master, bytes);
        let json = opened.map_err(|error| RepositoryError::damaged(key, error))?;
        if key.kind == FileKind::Config && Config::from_json(&json, &self.store.location())?.id != self.config.id {
            return Err(RepositoryError::damaged(key, "it is another repository's"));
        }
        Ok(())
    }

    /// Tells whether a file's bytes lie here under their right name as well.
    pub(crate) async fn has_twin(&self, key: &Key) -> Result<bool, RepositoryError> {
        let actual = match self.store.hash(key).await {
            Ok(actual) => actual.to_string(),
            Err(StoreError::Missing { .. } | StoreError::Unreadable { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        Ok(actual != key.name && self.is_whole(&Key::new(key.kind, actual)).await?)
    }

    /// Tells whether a small object is what its name says.
    pub(crate) async fn is_whole(&self, key: &Key) -> Result<bool, RepositoryError> {
        match self.check_document(key).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_damage() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts bytes that [`Repository::check_bytes`] has proved where an object is damaged or missing, and has the store hash them. A
    /// store puts an object whole or not at all, in the place of one that is there, so nothing has to be deleted first; and nothing
    /// is deleted if they come back wrong.
    ///
    /// # Errors
    /// Where the store refuses or gives other bytes back, or the lock was lost.
    pub async fn put_back(&self, key: &Key, bytes: Bytes) -> Result<(), RepositoryError> {
        self.check_lock()?;
        // The config is the only object that is not named by its hash, and it is small.
        let id = key.name.parse().unwrap_or_else(|_| ObjectId::of(&bytes));
        document::put_over(&self.store, key, id, bytes).await
    }
}
