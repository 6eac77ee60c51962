//! A store that keeps to a bandwidth and to a number of puts and of gets at once.
//!
//! Bytes are paced by object here: an object of `n` bytes keeps the next one waiting for `n / rate` seconds. So the average
//! over any stretch of time stays within the rate plus one object (a pack, 16 MiB), however many tasks share the store. That is
//! what a directory gets. A store on the network takes the same [`Pace`] into its own hands and pays grain by grain, as the bytes
//! leave: `store::s3::wire`.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use crate::store::{FileKind, Key, Listed, SharedStore, Store, StoreError};

/// How late a sender may come and still have the time that he lost: timers and a busy machine are late by some milliseconds each
/// time, and without this the line would be idle for all of them.
const LATE_MAX: Duration = Duration::from_millis(100);
/// The bytes of so much time are paid for at once: often enough that no window of a few seconds shows it.
const GRAINS_PER_SECOND: u64 = 20;
/// On a fast line a grain is as much as a socket takes at once.
const GRAIN_BYTES_MAX: u64 = 256 << 10;

/// Hands out time slots on a line of so many bytes a second.
///
/// There is no bucket to refill: each payment moves the moment at which the line is free again, so the pace is exact at
/// any grain and needs no timer of its own. In any window `w` no more passes than `w`, [`LATE_MAX`] and one grain are worth.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), free_at: Mutex::new(None) }
    }

    /// Returns how many bytes are best paid for at once.
    #[must_use]
    pub fn grain(&self) -> usize {
        let grain = (self.bytes_per_second / GRAINS_PER_SECOND).clamp(1, GRAIN_BYTES_MAX);
        usize::try_from(grain).unwrap_or(usize::MAX)
    }

    /// Waits until the line is free, and takes it for as long as `bytes` need.
    ///
    /// A payment whose future is dropped while it waits stays paid: the line is idle for that stretch, never too fast.
    async fn pay(&self, bytes: u64) {
        let start = self.reserve(bytes, Instant::now());
        tokio::time::sleep_until(start).await;
    }

    /// Returns the moment from which on the line belongs to these bytes.
    pub fn reserve(&self, bytes: u64, now: Instant) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(LATE_MAX).unwrap_or(now);
        let start = free_at.map_or(now, |free_at| free_at.max(earliest));
        *free_at = Some(start + self.span(bytes));
        start
    }

    fn span(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

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

    use futures_util::future::join_all;

    use super::*;
    use crate::store::faulty::{Fault, Faulty, Operation, Rule};
    use crate::store::memory::MemoryStore;

    const MIB: u64 = 1 << 20;

    fn pack(n: u8) -> Key {
        Key::new(FileKind::Pack, hex::encode([n; 32]))
    }

    #[test]
    fn tasks_together_keep_to_the_bandwidth() {
        let pace = Pace::new(2 * MIB);
        let now = Instant::now();
        let starts: Vec<_> = (0..21).map(|_| pace.reserve(MIB, now) - now).collect();
        assert_eq!(starts[0], Duration::ZERO);
        assert_eq!(starts[1], Duration::from_millis(500));
        assert_eq!(starts[20], Duration::from_secs(10));
    }

    /// Sends for a minute, each grain up to `late` too late, and returns the most and the least that passed in any window of three
    /// seconds, as shares of what was allowed.
    fn shares(bytes_per_second: u64, late: impl Fn(u64) -> Duration) -> (f64, f64) {
        const WINDOW: Duration = Duration::from_secs(3);
        let pace = Pace::new(bytes_per_second);
        let (start, mut now, mut sent) = (Instant::now(), Instant::now(), Vec::new());
        for n in 0.. {
            now = now.max(pace.reserve(pace.grain() as u64, now)) + late(n);
            if now - start > Duration::from_mins(1) {
                break;
            }
            sent.push(now - start);
        }
        #[expect(clippy::cast_precision_loss)]
        let share = |from: Duration| {
            let passed = sent.iter().filter(|at| (from..from + WINDOW).contains(*at)).count() * pace.grain();
            passed as f64 / (bytes_per_second as f64 * WINDOW.as_secs_f64())
        };
        let shares = || (1..56_000).step_by(50).map(|at| share(Duration::from_millis(at)));
        (shares().fold(0.0, f64::max), shares().fold(f64::MAX, f64::min))
    }

    #[test]
    fn any_three_seconds_hold_within_a_tenth_also_where_every_timer_is_late() {
        for rate in [64 << 10, MIB, 80 * MIB] {
            let on_time = shares(rate, |_| Duration::ZERO);
            let late = shares(rate, |n| Duration::from_micros(n * 7_919 % 40_000));
            for (most, least) in [on_time, late] {
                assert!(most < 1.1, "{rate}: {most}");
                assert!(least > 0.9 || rate > MIB, "{rate}: {least}");
            }
        }
    }

    #[test]
    fn idle_time_is_not_saved_up_for_a_burst() {
        let pace = Pace::new(MIB);
        let now = Instant::now();
        pace.reserve(MIB, now);
        let later = now + Duration::from_hours(1);
        assert_eq!(pace.reserve(MIB, later), later - LATE_MAX);
        assert_eq!(pace.reserve(MIB, later), later - LATE_MAX + Duration::from_secs(1));
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
