//! How a standby is: what it has applied, how far it lags, and whether its stream stands.

use chrono::{DateTime, TimeDelta, Utc};

use crate::run::Run;
use crate::standby::progress::Progress;
use crate::standby::{Standby, StandbyError};

/// A standby, as it is and as whoever serves it told.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    pub source: String,
    pub target: String,
    /// What it has executed, in the words of its product.
    pub executed: String,
    /// All that the source had committed by then is applied; `None`: nobody knows yet.
    pub as_of: Option<DateTime<Utc>>,
    pub lag_ms: Option<u64>,
    /// The part of the lag that is wanted.
    pub delay_ms: u64,
    /// Somebody serves it, it receives, and it applies.
    pub is_streaming: bool,
    pub is_read_only: bool,
    pub is_promoting: bool,
    pub error: Option<String>,
}

impl Status {
    /// Returns by how much it lags more than is wanted.
    #[must_use]
    pub fn late_ms(&self) -> Option<u64> {
        self.lag_ms.map(|lag| lag.saturating_sub(self.delay_ms))
    }
}

/// Whoever serves a standby tells twice a second how far it is, but for the minutes that a segment takes from the repository.
const SILENCE_MAX: TimeDelta = TimeDelta::minutes(5);

/// Tells whether whoever serves the standby has told nothing for long: it hangs.
fn is_stale(told_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    told_at.is_some_and(|told_at| now - told_at > SILENCE_MAX)
}

impl Standby<'_> {
    /// Looks how the standby is, beside whoever serves it.
    ///
    /// # Errors
    /// [`StandbyError`] where the server cannot be asked, or is no standby of the source.
    pub async fn status(&self, run: &Run) -> Result<Status, StandbyError> {
        let seen = self.target().await?.look().await?;
        let mark = self.own(seen.record.as_ref())?;
        let told = Progress::read(self, mark)?.filter(|told| told.is_of(&seen.executed)).unwrap_or_default();
        let lag = told.as_of.map(|as_of| (run.now() - as_of).max(TimeDelta::zero()));
        let is_served = seen.is_held && !is_stale(told.told_at, run.now());
        let is_streaming = is_served && seen.is_receiving && seen.is_applying && !mark.is_promoting;
        Ok(Status {
            source: self.source.to_owned(),
            target: self.server.name(),
            executed: seen.executed.to_string(),
            as_of: told.as_of,
            lag_ms: lag.and_then(|lag| lag.num_milliseconds().try_into().ok()),
            delay_ms: u64::try_from(told.delay.as_millis()).unwrap_or(u64::MAX),
            is_streaming,
            is_read_only: seen.is_read_only,
            is_promoting: mark.is_promoting,
            // What broke the stream earlier is of no interest once it stands again.
            error: seen.error.or_else(|| told.error.filter(|_| !is_streaming)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_told_nothing_for_long_does_not_stream() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::hours(1);
        assert!(is_stale(Some(now - TimeDelta::minutes(6)), now));
        assert!(!is_stale(Some(now - TimeDelta::minutes(4)), now));
        assert!(!is_stale(None, now), "another machine serves it, or it has just begun");
    }
}
