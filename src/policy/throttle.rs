//! How much of a database server a dump may take, and when.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, NaiveTime, Utc};
use chrono_tz::Tz;

/// How a dump makes way for the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttle {
    /// At any time of day that `hours` do not name.
    pub usual: Limits,
    /// The first that holds the time of day counts.
    pub hours: Vec<Hours>,
    /// How long all pauses of one dump may take together: as long as its read views are open, the server keeps old rows for them.
    pub pause_max: Duration,
    /// As long as this file is there, no dump reads. It is how an operator stops one and loses nothing.
    pub pause_file: Option<PathBuf>,
    pub timezone: Tz,
}

/// What a dump keeps to. `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// The readers pause while the server runs more threads than these; their own are not counted.
    pub threads_running_max: Option<u32>,
    /// Bytes a second of rows, as the dump writes them, of all readers together.
    pub bandwidth: Option<u64>,
}

/// Times of day, in the policy's time zone, with limits of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    pub from: NaiveTime,
    /// The first moment that is not of these hours; before `from`, it is of the next day.
    pub to: NaiveTime,
    /// What is `None` is as usual.
    pub limits: Limits,
}

impl Throttle {
    /// So long a dump may pause where the policy does not say.
    pub const PAUSE_MAX_DEFAULT: Duration = Duration::from_hours(1);

    /// Returns what counts at a moment.
    #[must_use]
    pub fn limits_at(&self, now: DateTime<Utc>) -> Limits {
        let time = now.with_timezone(&self.timezone).time();
        let own = self.hours.iter().find(|hours| hours.hold(time)).map(|hours| hours.limits).unwrap_or_default();
        Limits {
            threads_running_max: own.threads_running_max.or(self.usual.threads_running_max),
            bandwidth: own.bandwidth.or(self.usual.bandwidth),
        }
    }

    /// Takes all limits off. The pause file stays: it is an operator's word of now.
    pub fn lift(&mut self) {
        self.usual = Limits::default();
        self.hours.clear();
    }

    /// Returns the bandwidths that count at one time of day or another.
    pub fn bandwidths(&self) -> impl Iterator<Item = u64> {
        let own = self.hours.iter().map(|hours| hours.limits.bandwidth);
        std::iter::once(self.usual.bandwidth).chain(own).flatten()
    }
}

impl Default for Throttle {
    /// Keeps from nothing.
    fn default() -> Self {
        Self {
            usual: Limits::default(),
            hours: Vec::new(),
            pause_max: Self::PAUSE_MAX_DEFAULT,
            pause_file: None,
            timezone: Tz::UTC,
        }
    }
}

impl Hours {
    fn hold(&self, time: NaiveTime) -> bool {
        if self.from < self.to { self.from <= time && time < self.to } else { time >= self.from || time < self.to }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn hours(from: &str, to: &str, threads_running_max: Option<u32>, bandwidth: Option<u64>) -> Hours {
        let time = |text| NaiveTime::parse_from_str(text, "%H:%M").unwrap();
        Hours { from: time(from), to: time(to), limits: Limits { threads_running_max, bandwidth } }
    }

    fn at(throttle: &Throttle, time: &str) -> (Option<u32>, Option<u64>) {
        let limits = throttle.limits_at(format!("2026-03-01T{time}:00+09:00").parse().unwrap());
        (limits.threads_running_max, limits.bandwidth)
    }

    #[test]
    fn limits_are_those_of_the_policys_time_of_day() {
        let throttle = Throttle {
            usual: Limits { threads_running_max: Some(40), bandwidth: Some(80) },
            hours: vec![hours("09:00", "18:00", Some(10), Some(20)), hours("17:00", "02:00", None, Some(5))],
            timezone: Tz::Asia__Seoul,
            ..Throttle::default()
        };
        let (usual, day, evening) = ((Some(40), Some(80)), (Some(10), Some(20)), (Some(40), Some(5)));
        for (time, expected) in [
            ("08:59", usual),
            ("09:00", day),
            ("17:30", day),
            ("18:00", evening),
            ("23:59", evening),
            ("00:00", evening),
            ("01:59", evening),
            ("02:00", usual),
        ] {
            assert_eq!(at(&throttle, time), expected, "{time}");
        }
    }

    #[test]
    fn a_lifted_throttle_limits_nothing_and_hears_the_operator() {
        let mut throttle = Throttle {
            usual: Limits { threads_running_max: Some(40), bandwidth: Some(80) },
            hours: vec![hours("00:00", "00:00", Some(1), Some(1))],
            pause_file: Some("/var/lib/bkp/mall/pause".into()),
            ..Throttle::default()
        };
        assert_eq!(at(&throttle, "12:00"), (Some(1), Some(1)), "from a time to itself is the whole day");
        throttle.lift();
        assert_eq!(at(&throttle, "12:00"), (None, None));
        assert!(throttle.pause_file.is_some());
    }
}
