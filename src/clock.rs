//! What time it is, as an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

/// Tells the time of day and measures spans.
pub trait Clock: Send + Sync {
    /// Returns the time of day. It may jump.
    fn now(&self) -> DateTime<Utc>;

    /// Returns a moment that never goes backwards, for measuring spans.
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// A clock that stands until it is told to move.
#[derive(Debug, Clone, Default)]
pub struct FixedClock {
    micros: Arc<AtomicI64>,
}

impl FixedClock {
    #[must_use]
    pub fn at(time: DateTime<Utc>) -> Self {
        Self { micros: Arc::new(AtomicI64::new(time.timestamp_micros())) }
    }

    pub fn advance(&self, by: TimeDelta) {
        self.micros.fetch_add(by.num_microseconds().unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.micros.load(Ordering::Relaxed)).unwrap_or_default()
    }
}
