//! When what a capture holds had come: a clock that no session of the source can set. Pure.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::mysql::manifest::Position;
use crate::replay::segments::reaches;

/// A delay is kept to a part of it, and needs few marks for that.
const MARKS: i32 = 100;

/// A mark a second is near enough for any delay.
const STEP_MIN: TimeDelta = TimeDelta::seconds(1);

/// By when the segments held everything up to a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    place: Position,
    at: DateTime<Utc>,
    /// All that the source had committed by then lies before the place.
    as_of: Option<DateTime<Utc>>,
}

/// Marks along the segments, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Arrivals(Vec<Mark>);

impl Arrivals {
    /// Notes that everything before a place is here by now, where that is worth a mark.
    pub(super) fn note(&mut self, place: &Position, as_of: Option<DateTime<Utc>>, now: DateTime<Utc>, delay: Duration) {
        // What a clock noted that was set back since would hold its transactions until it is there again.
        self.0.retain(|mark| mark.at <= now);
        let step = TimeDelta::from_std(delay).unwrap_or(TimeDelta::MAX) / MARKS;
        let is_due = self.0.last().is_none_or(|last| {
            last.place != *place && now - last.at >= step.max(STEP_MIN) && reaches(place, &last.place)
        });
        if is_due {
            self.0.push(Mark { place: place.clone(), at: now, as_of });
        }
    }

    /// Returns a moment by which what ends at a place had come; `None`: that is not known yet.
    pub(super) fn of(&self, place: &Position) -> Option<DateTime<Utc>> {
        self.0.iter().find(|mark| reaches(&mark.place, place)).map(|mark| mark.at)
    }

    /// Forgets what is of no more use once everything before a place has been let through. Returns up to when that holds all that
    /// the source had committed, where that has become known.
    pub(super) fn forget_before(&mut self, place: &Position) -> Option<DateTime<Utc>> {
        let gone = self.0.iter().take_while(|mark| reaches(place, &mark.place)).count();
        self.0.drain(..gone).filter_map(|mark| mark.as_of).max()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn place(file: u32, offset: u64) -> Position {
        Position { file: format!("b.{file:06}"), offset }
    }

    #[test]
    fn a_transaction_came_by_the_first_mark_behind_it() {
        let mut arrivals = Arrivals::default();
        for (second, offset) in [(10, 100), (20, 200), (30, 200), (40, 300)] {
            arrivals.note(&place(1, offset), Some(at(second - 5)), at(second), Duration::from_mins(1));
        }
        arrivals.note(&place(2, 50), None, at(50), Duration::from_mins(1));
        let came = |file, offset| arrivals.of(&place(file, offset)).map(|at| at.timestamp());
        assert_eq!((came(1, 90), came(1, 100), came(1, 101), came(1, 201)), (Some(10), Some(10), Some(20), Some(40)));
        assert_eq!((came(1, 999), came(2, 50), came(2, 51)), (Some(50), Some(50), None));
        assert_eq!(arrivals.forget_before(&place(1, 250)), Some(at(15)));
        assert_eq!((arrivals.0.len(), arrivals.forget_before(&place(1, 250))), (2, None));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_up() {
        let mut arrivals = Arrivals::default();
        arrivals.note(&place(1, 100), None, at(10), Duration::from_mins(1));
        arrivals.note(&place(1, 200), None, at(3_700), Duration::from_mins(1));
        arrivals.note(&place(1, 200), None, at(100), Duration::from_mins(1));
        let came = |offset| arrivals.of(&place(1, offset)).map(|at| at.timestamp());
        assert_eq!((came(100), came(200)), (Some(10), Some(100)));
    }

    #[test]
    fn a_long_delay_needs_no_more_marks_than_a_short_one() {
        let mut arrivals = Arrivals::default();
        for second in 0..36_000_i64 {
            let place = place(1, 1_000 + second.unsigned_abs());
            arrivals.note(&place, None, at(second), Duration::from_hours(10));
        }
        assert_eq!(arrivals.0.len(), 100);
    }
}
