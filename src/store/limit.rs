//! A store that keeps to a bandwidth and to a number of puts and of gets at once.
//!
//! Bytes are paced by object here: an object of `n` bytes keeps the next one waiting for `n / rate` seconds. So the average
//! over any stretch of time stays within the rate plus one object (a pack, 16 MiB), however many tasks share the store. That is
//! what a directory gets. A store on the network takes the same [`Pace`] into its own hands and pays grain by grain, as the bytes
//! leave: `store::s3::wire`.

use std::ops::Range;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use crate::id::ObjectId;
use crate::pace::Pace;
use crate::store::{FileKind, Key, Listed, SharedStore, Store, StoreError};

/// Gets at once. A get waits for a round trip and is mostly small: so many fill a line of 1 Gbit/s at 50 ms with half a MiB each,
/// and no object store takes offence.
const GETS_IN_FLIGHT_MAX: usize = 16;

/// Limits the bytes a second, the puts and the gets at once of a store. What moves no bytes is never kept waiting.
pub struct Limit {
    inner: SharedStore,
    /// Each way has the whole rate: a copy that uploads is not slowed by a restore that downloads.
    up: Option<Pace>,
    down: Option<Pace>,
    puts: Semaphore,
    gets: Semaphore,
}

impl Limit {
    /// Wraps a store. `None`: as fast as the line. At least one put is always let through.
    pub fn new(inner: SharedStore, bytes_per_second: Option<u64>, puts_max: usize) -> Self {
        let pace = || bytes_per_second.map(Pace::new);
        Self {
            inner,
            up: pace(),
            down: pace(),
            puts: Semaphore::new(puts_max.clamp(1, Semaphore::MAX_PERMITS)),
            gets: Semaphore::new(GETS_IN_FLIGHT_MAX),
        }
    }
}

/// Waits for a place among the operations at once. `None` never happens: the semaphore is not closed.
async fn place(among: &Semaphore) -> Option<SemaphorePermit<'_>> {
    among.acquire().await.ok()
}

async fn pay(pace: Option<&Pace>, bytes: u64) {
    if let Some(pace) = pace {
        pace.pay(bytes).await;
    }
}

#[async_trait::async_trait]
impl Store for Limit {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        // A lock is a few bytes, and must not go stale behind packs that wait for a slow line.
        if key.kind == FileKind::Lock {
            return self.inner.put(key, bytes).await;
        }
        let _place = place(&self.puts).await;
        pay(self.up.as_ref(), bytes.len() as u64).await;
        self.inner.put(key, bytes).await
    }

    /// Pays after the fact: the size is not known before, and the next get waits for it.
    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        let _place = place(&self.gets).await;
        pay(self.down.as_ref(), 0).await;
        let bytes = self.inner.get(key).await?;
        if let Some(pace) = &self.down {
            pace.reserve(bytes.len() as u64, Instant::now());
        }
        Ok(bytes)
    }

    async fn hash(&self, key: &Key) -> Result<ObjectId, StoreError> {
        let _place = place(&self.gets).await;
        if let Some(pace) = &self.down {
            // Where bytes are paced they come over a line, and a hash moves as many as a get.
            pace.pay(0).await;
            let size = self.inner.size(key).await?.unwrap_or(0);
            pace.reserve(size, Instant::now());
        }
        self.inner.hash(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let _place = place(&self.gets).await;
        pay(self.down.as_ref(), range.end.saturating_sub(range.start)).await;
        self.inner.get_range(key, range).await
    }

    async fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(kind).await
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        self.inner.size(key).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn immutable_until(&self, key: &Key) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.inner.immutable_until(key).await
    }

    async fn keep_immutable(
        &self,
        key: &Key,
        least: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, StoreError> {
        self.inner.keep_immutable(key, least, until).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::*;
    use crate::store::faulty::{Fault, Faulty, Operation, Rule};
    use crate::store::memory::MemoryStore;

    const MIB: u64 = 1 << 20;

    fn pack(n: u8) -> Key {
        Key::new(FileKind::Pack, hex::encode([n; 32]))
    }

    #[tokio::test]
    async fn puts_and_gets_of_known_and_unknown_size_are_paid_for() {
        let limit = Limit::new(Arc::new(MemoryStore::new()), Some(MIB), 8);
        let start = Instant::now();
        let bytes = Bytes::from(vec![1; 512]);
        limit.put(&pack(1), bytes).await.unwrap();
        limit.get(&pack(1)).await.unwrap();
        limit.get_range(&pack(1), 0..256).await.unwrap();
        let owed = |pace: &Option<Pace>| {
            let pace = pace.as_ref().unwrap();
            pace.reserve(0, start) - start
        };
        assert!(owed(&limit.up) >= Duration::from_nanos(488_281));
        assert!(owed(&limit.down) >= Duration::from_nanos(732_421));
    }

    #[tokio::test]
    async fn a_lock_overtakes_packs_on_a_slow_line() {
        let limit = Limit::new(Arc::new(MemoryStore::new()), Some(1), 1);
        limit.put(&pack(1), Bytes::from(vec![1; 1 << 20])).await.unwrap();
        let (second, lock) = (pack(2), Key::new(FileKind::Lock, "ab".repeat(32)));
        assert!(futures_util::poll!(limit.put(&second, Bytes::from_static(b"x"))).is_pending());
        assert!(futures_util::poll!(limit.put(&lock, Bytes::from_static(b"lock"))).is_ready());
    }

    #[tokio::test]
    async fn no_more_puts_and_gets_run_at_once_than_allowed() {
        for (operation, at_once) in [(Operation::Put, 3), (Operation::GetRange, GETS_IN_FLIGHT_MAX)] {
            let faulty = Arc::new(Faulty::new(Arc::new(MemoryStore::new())));
            faulty.add(Rule::every(operation, Fault::Stall));
            let limit = Limit::new(faulty.clone(), None, 3);
            let limit = &limit;
            let stalled = (0..40).map(|n| async move {
                match operation {
                    Operation::Put => limit.put(&pack(n), Bytes::new()).await,
                    _ => limit.get_range(&pack(n), 0..1).await.map(drop),
                }
            });
            let mut stalled = Box::pin(join_all(stalled));
            assert!(futures_util::poll!(&mut stalled).is_pending());
            assert_eq!(faulty.at_once_max(), at_once, "{operation:?}");
            // What moves no bytes passes all the same.
            assert_eq!(limit.size(&pack(0)).await.unwrap(), None);
        }
    }
}
