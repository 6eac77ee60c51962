//! A store in memory, for tests and for the flow of a whole run without a disk.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::store::{FileKind, Key, Listed, Store, StoreError};

/// Keeps objects until it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<Key, Bytes>>,
}

impl MemoryStore {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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
        self.objects().remove(key);
        Ok(())
    }
}
