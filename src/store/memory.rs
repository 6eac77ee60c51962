//! A store in memory, for tests and for the flow of a whole run without a disk. It has a lock as S3's Object Lock: what was made
//! immutable is not deleted before its time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::store::{FileKind, Key, Listed, Store, StoreError};

/// Keeps objects until it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<Key, Bytes>>,
    immutable: Mutex<BTreeMap<Key, DateTime<Utc>>>,
    /// How long what is put is immutable.
    retain: Option<Duration>,
}

impl MemoryStore {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a store that makes all that is put immutable for so long, but locks.
    #[must_use]
    pub fn immutable(retain: Duration) -> Self {
        Self { retain: Some(retain), ..Self::default() }
    }

    fn locks(&self) -> MutexGuard<'_, BTreeMap<Key, DateTime<Utc>>> {
        // A map is whole after each of its operations.
        self.immutable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Bytes>> {
        // A map is whole after each of its operations, so one that panicked elsewhere leaves nothing torn.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, act: &'static str, key: &Key) -> Result<Bytes, StoreError> {
        self.objects().get(key).cloned().ok_or_else(|| StoreError::Missing { act, thing: key.to_string() })
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        if let Some(retain) = self.retain.filter(|_| key.kind != FileKind::Lock) {
            self.locks().insert(key.clone(), Utc::now() + retain);
        }
        self.objects().insert(key.clone(), bytes);
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.find("get", key)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let whole = self.find("get", key)?;
        let stretch = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        match stretch {
            Some((start, end)) if start <= end && end <= whole.len() => Ok(whole.slice(start..end)),
            _ => Err(StoreError::Unreadable {
                act: "get",
                thing: key.to_string(),
                reason: format!("bytes {}..{} lie past its end at {}", range.start, range.end, whole.len()),
            }),
        }
    }

    async fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StoreError> {
        let objects = self.objects();
        let of_kind = objects.iter().filter(|(key, _)| key.kind == kind);
        let listed = of_kind.map(|(key, bytes)| Listed { name: key.name.clone(), size: bytes.len() as u64 });
        Ok(listed.collect())
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        Ok(self.objects().get(key).map(|bytes| bytes.len() as u64))
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let until = self.locks().get(key).copied();
        if until.is_some_and(|until| until > Utc::now()) {
            return Err(StoreError::Protected { act: "delete", thing: key.path(), until });
        }
        self.objects().remove(key);
        Ok(())
    }

    async fn immutable_until(&self, key: &Key) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.find("look at", key)?;
        Ok(self.locks().get(key).copied())
    }

    async fn keep_immutable(
        &self,
        key: &Key,
        least: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, StoreError> {
        self.find("make immutable", key)?;
        let mut locks = self.locks();
        let end = locks.entry(key.clone()).or_insert(until);
        if *end < least {
            *end = until;
        }
        Ok(*end)
    }
}
