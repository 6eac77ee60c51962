//! A store that tries again what may succeed the next time.
//!
//! Only [`StoreError::Transient`] is tried again. Every operation may be: a put names its bytes by their hash, a delete of what is
//! gone is no error, and the rest only reads.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::id::ObjectId;
use crate::store::{FileKind, Key, Listed, SharedStore, Store, StoreError};

/// Twelve tries with the waits below span 70 s where chance makes each as short as can be, and 141 s at most: an object store that
/// restarts or throttles for a minute is outlived, and a longer outage is for the next run.
const TRIES_MAX: u32 = 12;
/// A throttled request is let through again within a fraction of a second.
const DELAY_MS_FIRST: u64 = 200;
/// Past this, waiting longer does not spare the server and only delays the run.
const DELAY_MS_MAX: u64 = 30_000;
/// A server that asks for more than this is asked again after this, and given up with the tries: the next run asks anew.
const ASKED_DELAY_MAX: Duration = Duration::from_mins(2);

/// How often and how long after each other an operation is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub tries_max: u32,
    pub delay_first: Duration,
    pub delay_max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            tries_max: TRIES_MAX,
            delay_first: Duration::from_millis(DELAY_MS_FIRST),
            delay_max: Duration::from_millis(DELAY_MS_MAX),
        }
    }
}

impl Backoff {
    /// Returns the wait before the next try after `tries` failed ones, `None` when it is time to give up.
    ///
    /// The wait doubles with each try up to its maximum; `chance` (0 to 1) takes up to half of it away, so that
    /// uploads which failed together do not come back together.
    #[must_use]
    pub fn delay(&self, tries: u32, chance: f64) -> Option<Duration> {
        if tries >= self.tries_max {
            return None;
        }
        let doubled = 2_u32.saturating_pow(tries.saturating_sub(1));
        let full = self.delay_first.saturating_mul(doubled).min(self.delay_max);
        Some(full.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0))
    }
}

/// Tries transient failures again, with growing and jittered waits.
pub struct Retry {
    inner: SharedStore,
    backoff: Backoff,
    cancel: CancellationToken,
}

impl Retry {
    /// Wraps a store. A cancelled run tries nothing again: the failure at hand is returned at once.
    pub fn new(inner: SharedStore, backoff: Backoff, cancel: CancellationToken) -> Self {
        Self { inner, backoff, cancel }
    }

    /// Waits before the next try, or returns the error when there shall be none.
    async fn pause(&self, tries: u32, error: StoreError) -> Result<(), StoreError> {
        if !error.is_transient() {
            return Err(error);
        }
        let Some(delay) = self.backoff.delay(tries, chance()) else {
            return Err(exhausted(error, tries));
        };
        let delay = match &error {
            StoreError::Busy { after, .. } => delay.max((*after).min(ASKED_DELAY_MAX)),
            _ => delay,
        };
        let slept = self.cancel.run_until_cancelled(tokio::time::sleep(delay)).await;
        slept.ok_or(error)
    }
}

/// Tries an operation until it succeeds or [`Retry::pause`] gives up. A macro, because the futures borrow the key.
macro_rules! retried {
    ($self:ident, $operation:expr) => {{
        let mut tries = 0;
        loop {
            match $operation.await {
                Ok(value) => return Ok(value),
                Err(error) => {
                    tries += 1;
                    $self.pause(tries, error).await?;
                }
            }
        }
    }};
}

#[async_trait::async_trait]
impl Store for Retry {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        retried!(self, self.inner.put(key, bytes.clone()))
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        retried!(self, self.inner.get(key))
    }

    async fn hash(&self, key: &Key) -> Result<ObjectId, StoreError> {
        retried!(self, self.inner.hash(key))
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        retried!(self, self.inner.get_range(key, range.clone()))
    }

    async fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StoreError> {
        retried!(self, self.inner.list(kind))
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        retried!(self, self.inner.size(key))
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        retried!(self, self.inner.delete(key))
    }

    async fn immutable_until(&self, key: &Key) -> Result<Option<DateTime<Utc>>, StoreError> {
        retried!(self, self.inner.immutable_until(key))
    }

    async fn keep_immutable(
        &self,
        key: &Key,
        least: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, StoreError> {
        retried!(self, self.inner.keep_immutable(key, least, until))
    }
}

/// Returns the error with the number of tries in it: an operator asks how persistent we were.
fn exhausted(error: StoreError, tries: u32) -> StoreError {
    match error {
        StoreError::Transient { act, thing, reason } | StoreError::Busy { act, thing, reason, .. } if tries > 1 => {
            StoreError::Transient { act, thing, reason: format!("{reason} (tried {tries} times)") }
        }
        other => other,
    }
}

/// Returns a number from 0 to 1; without entropy every wait is the full one.
pub(crate) fn chance() -> f64 {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_or(0.0, |()| f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;
    use crate::store::faulty::{Fault, Faulty, Operation, Rule};
    use crate::store::memory::MemoryStore;

    fn key() -> Key {
        Key::new(FileKind::Pack, "ab".repeat(32))
    }

    fn flaky(times: u64) -> Arc<Faulty> {
        let faulty = Faulty::new(Arc::new(MemoryStore::new()));
        for nth in 1..=times {
            faulty.add(Rule::nth(Operation::Put, nth, Fault::Transient));
        }
        Arc::new(faulty)
    }

    /// Tries as often as by default, without the waits.
    fn retry(inner: &Arc<Faulty>) -> Retry {
        let backoff = Backoff { delay_max: Duration::ZERO, ..Backoff::default() };
        Retry::new(inner.clone(), backoff, CancellationToken::new())
    }

    #[test]
    fn waits_double_up_to_the_maximum_and_end() {
        let backoff = Backoff::default();
        let millis = |tries| backoff.delay(tries, 0.0).map(|delay| delay.as_millis());
        assert_eq!(millis(1), Some(200));
        assert_eq!(millis(2), Some(400));
        assert_eq!(millis(9), Some(30_000));
        assert_eq!(millis(12), None);
        assert_eq!(backoff.delay(2, 1.0), Some(Duration::from_millis(200)));
    }

    #[test]
    fn all_waits_together_span_more_than_a_minute_whatever_chance_says() {
        let sum = |chance| -> Duration { (1..).map_while(|tries| Backoff::default().delay(tries, chance)).sum() };
        assert!(sum(1.0).as_secs() > 60, "{:?}", sum(1.0));
        assert!(sum(0.0).as_secs() < 150, "{:?}", sum(0.0));
    }

    /// A store that answers every put so for so many seconds.
    fn away(seconds: u64, fault: Fault) -> Arc<Faulty> {
        let faulty = Arc::new(Faulty::new(Arc::new(MemoryStore::new())));
        faulty.add(Rule::every(Operation::Put, fault));
        let back = faulty.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            back.heal();
        });
        faulty
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_for_a_minute_is_outlived() {
        for _ in 0..50 {
            let away = away(60, Fault::Transient);
            let retry = Retry::new(away.clone(), Backoff::default(), CancellationToken::new());
            retry.put(&key(), Bytes::from_static(b"x")).await.unwrap();
            assert_eq!(away.size(&key()).await.unwrap(), Some(1));
            assert!(away.count(Operation::Put) > 8);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_says_when_to_come_back_is_asked_no_sooner() {
        let away = away(44, Fault::Busy(Duration::from_secs(45)));
        let retry = Retry::new(away.clone(), Backoff::default(), CancellationToken::new());
        retry.put(&key(), Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(away.count(Operation::Put), 2);
    }

    #[tokio::test]
    async fn a_transient_failure_is_tried_again_until_it_passes() {
        let faulty = flaky(3);
        let bytes = Bytes::from_static(b"x");
        retry(&faulty).put(&key(), bytes.clone()).await.unwrap();
        assert_eq!(faulty.count(Operation::Put), 4);
        assert_eq!(faulty.get(&key()).await.unwrap(), bytes);
    }

    #[tokio::test]
    async fn a_store_that_stays_away_is_given_up_after_twelve_tries() {
        let faulty = flaky(100);
        let error = retry(&faulty).put(&key(), Bytes::new()).await.unwrap_err();
        assert!(error.to_string().contains("(tried 12 times)"), "{error}");
        assert_eq!(faulty.count(Operation::Put), 12);
    }

    #[tokio::test]
    async fn a_lasting_failure_is_not_tried_again() {
        let faulty = flaky(0);
        let error = retry(&faulty).get(&key()).await.unwrap_err();
        assert!(matches!(error, StoreError::Missing { .. }), "{error}");
        assert_eq!(faulty.count(Operation::Get), 1);
    }

    #[tokio::test]
    async fn a_cancelled_run_tries_nothing_again() {
        let faulty = flaky(100);
        let cancel = CancellationToken::new();
        cancel.cancel();
        let retry = Retry::new(faulty.clone(), Backoff::default(), cancel);
        assert!(retry.put(&key(), Bytes::new()).await.is_err());
        assert_eq!(faulty.count(Operation::Put), 1);
    }
}
