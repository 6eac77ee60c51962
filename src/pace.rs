//! A pace of so many bytes a second, for whatever must leave room beside it: a line, a server.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

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
    pub async fn pay(&self, bytes: u64) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

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
}
