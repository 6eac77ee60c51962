//! How long a load tries again, and how soon. Pure.

use std::time::Duration;

use crate::target::mysql::LoadError;

/// A chunk that meets another session so often does not do so by chance.
const CONFLICTS_MAX: u32 = 6;

/// The wait before the second try; it doubles with each.
const DELAY: Duration = Duration::from_millis(200);

/// A server that restarts is asked this often, so that no more time is lost once it is back.
const DELAY_MAX: Duration = Duration::from_secs(10);

/// A server that was killed for want of memory is back within a minute or two; one that is not needs a person.
const WAIT_MAX: Duration = Duration::from_mins(2);

#[derive(Debug, Default)]
pub(super) struct Patience {
    conflicts: u32,
    losses: u32,
    waited: Duration,
}

impl Patience {
    /// Returns how long to wait before the next try, or none where the same would not help or has been tried enough.
    pub(super) fn after(&mut self, error: &LoadError) -> Option<Duration> {
        if !error.is_passing() {
            return None;
        }
        if error.is_conflict() {
            self.conflicts += 1;
            return (self.conflicts < CONFLICTS_MAX).then(|| doubled(self.conflicts - 1));
        }
        let delay = doubled(self.losses);
        self.losses += 1;
        self.waited += delay;
        (self.waited <= WAIT_MAX).then_some(delay)
    }

    /// Returns how many tries there were, the first included.
    pub(super) fn tries(&self) -> u32 {
        (self.conflicts + self.losses).max(1)
    }
}

fn doubled(times: u32) -> Duration {
    DELAY.saturating_mul(2_u32.saturating_pow(times)).min(DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16) -> LoadError {
        let source = mysql_async::ServerError { code, message: String::new(), state: String::new() };
        LoadError::Sql { act: String::new(), source: Box::new(source.into()) }
    }

    fn waits(code: u16) -> Vec<Duration> {
        let mut patience = Patience::default();
        std::iter::from_fn(|| patience.after(&error(code))).take(1_000).collect()
    }

    #[test]
    fn a_server_that_is_away_is_waited_for_about_two_minutes() {
        let waits = waits(2013);
        assert_eq!(waits[..3], [200, 400, 800].map(Duration::from_millis));
        assert!(waits.iter().all(|wait| *wait <= DELAY_MAX));
        let all: Duration = waits.iter().sum();
        assert!((100..=120).contains(&all.as_secs()), "{all:?}");
    }

    #[test]
    fn a_deadlock_is_tried_six_times_in_all_and_a_refusal_once() {
        assert_eq!(waits(1213).len(), 5);
        assert_eq!(waits(1366).len(), 0);
    }
}
