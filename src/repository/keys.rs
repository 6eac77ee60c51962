//! The passwords of a repository: key files listed, added and taken away.

use bytes::Bytes;

use crate::id::ObjectId;
use crate::repository::document::{check_name, put_proved};
use crate::repository::error::RepositoryError;
use crate::repository::key::{Cost, KeyRecord, Opened};
use crate::repository::open::{seal_key, try_key};
use crate::repository::{Fault, Repository};
use crate::run::Run;
use crate::secret::Secret;
use crate::store::{FileKind, Key, StoreError};

/// The key files of a repository, and those that cannot be read.
#[derive(Debug, Clone, Default)]
pub struct KeyList {
    /// Oldest first.
    pub found: Vec<KeyRecord>,
    pub damaged: Vec<Fault>,
}

impl Repository {
    /// Returns the key file that the repository was opened with.
    #[must_use]
    pub fn key(&self) -> ObjectId {
        self.key
    }

    /// Lists the key files: one for each password.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn keys(&self) -> Result<KeyList, RepositoryError> {
        let mut list = KeyList::default();
        for listed in self.store.list(FileKind::Key).await? {
            let object = Key::new(FileKind::Key, listed.name);
            match self.key_record(&object).await {
                Ok(record) => list.found.push(record),
                Err(RepositoryError::Store(StoreError::Missing { .. })) => {} // removed meanwhile
                Err(error) if error.is_damage() => list.damaged.push(Fault { object, error }),
                Err(error) => return Err(error),
            }
        }
        list.found.sort_by_key(|record| (record.created, record.id));
        Ok(list)
    }

    async fn key_record(&self, object: &Key) -> Result<KeyRecord, RepositoryError> {
        let file = self.store.get(object).await?;
        check_name(object, &file)?;
        KeyRecord::of(object.name.parse()?, &file).map_err(|reason| RepositoryError::damaged(object, reason))
    }

    /// Seals the repository's key under a password. The file is returned, and not put anywhere.
    ///
    /// # Errors
    /// Where the machine has no entropy, or scrypt refuses the cost.
    pub async fn seal_key(&self, password: &Secret, cost: Cost, run: &Run) -> Result<Bytes, RepositoryError> {
        seal_key(&self.master, password, cost, run).await
    }

    /// Tells whether a password opens a key file, and finds this repository's key in it.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub async fn is_opened_by(&self, file: &Bytes, password: &Secret) -> Result<bool, RepositoryError> {
        match try_key(file.clone(), password).await? {
            Opened::Key(master) => Ok(master == *self.master),
            Opened::Refused => Ok(false),
            Opened::Damaged(reason) => Err(RepositoryError::damaged("the key file", reason)),
        }
    }

    /// Lists the key files that a password opens, those included whose bytes are not the ones that their names say.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn keys_opened_by(&self, password: &Secret) -> Result<Vec<ObjectId>, RepositoryError> {
        let mut opened = Vec::new();
        for listed in self.store.list(FileKind::Key).await? {
            let object = Key::new(FileKind::Key, listed.name);
            match self.store.get(&object).await.map_err(RepositoryError::from) {
                Ok(file) if matches!(try_key(file.clone(), password).await?, Opened::Key(_)) => {
                    opened.push(object.name.parse()?);
                }
                Err(error) if !error.is_damage() => return Err(error),
                Ok(_) | Err(_) => {} // what cannot be read opens nothing
            }
        }
        Ok(opened)
    }

    /// Puts a key file and proves that what came to lie there opens with its password. One that is there already is only proved.
    ///
    /// # Errors
    /// Where the store refuses, or what it gives back does not open.
    pub async fn put_key(&self, file: &Bytes, password: &Secret) -> Result<ObjectId, RepositoryError> {
        let id = ObjectId::of(file);
        let object = Key::new(FileKind::Key, id.to_string());
        // A store that keeps versions would keep one more each time.
        if !self.store.get(&object).await.is_ok_and(|there| there == *file) {
            put_proved(&self.store, &object, id, file.clone()).await?;
        }
        let back = self.store.get(&object).await?;
        if self.is_opened_by(&back, password).await? {
            return Ok(id);
        }
        Err(RepositoryError::Unproved { thing: object.to_string(), reason: "it does not open".to_owned() })
    }

    /// Deletes a key file. That another opens the repository is for the caller to see to.
    ///
    /// # Errors
    /// Where the store refuses, or the lock was lost.
    pub async fn remove_key(&self, id: ObjectId) -> Result<(), RepositoryError> {
        self.check_lock()?;
        Ok(self.store.delete(&Key::new(FileKind::Key, id.to_string())).await?)
    }
}
