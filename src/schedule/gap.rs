//! How far a schedule's runs can lie apart.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::schedule::cron::Cron;
use crate::schedule::fires::steady_offset;

/// The stretch between two runs that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

impl Gap {
    #[must_use]
    pub fn length(&self) -> TimeDelta {
        self.to - self.from
    }
}

/// A date's moments in brief, so that a year of `* * * * *` is 366 of these and not half a million.
#[derive(Clone, Copy)]
struct Span {
    first: DateTime<Utc>,
    last: DateTime<Utc>,
    /// The widest gap between its moments.
    widest: Option<Gap>,
}

impl Cron {
    /// Returns the longest stretch between two runs in the year after `from`; for a rarer schedule, that between its next
    /// two. `None` where it fires no second time.
    #[must_use]
    pub fn largest_gap(&self, tz: Tz, from: DateTime<Utc>) -> Option<Gap> {
        const DATES: usize = 367;
        let times: Vec<NaiveTime> = self.times().collect();
        let dates = from.with_timezone(&tz).date_naive().iter_days().skip(1).take(DATES);
        let days = dates.filter(|date| self.is_on(*date));
        let mut spans: Vec<Span> = days.flat_map(|date| self.spans_on(date, tz, &times)).collect();
        spans.sort_unstable_by_key(|span| span.first);
        let between = spans.windows(2).filter_map(|pair| match pair {
            [one, next] => Some(Gap { from: one.last, to: next.first }),
            _ => None,
        });
        let inside = spans.iter().filter_map(|span| span.widest);
        // Of equal ones the first.
        let widest = between.chain(inside).min_by_key(|gap| (-gap.length(), gap.from));
        widest.or_else(|| self.next_gap(tz, from))
    }

    /// Returns a date's moments as one span, or, where clocks change near it, each as a span of its own.
    fn spans_on(&self, date: NaiveDate, tz: Tz, times: &[NaiveTime]) -> Vec<Span> {
        let midnight = date.and_time(NaiveTime::MIN).and_utc();
        let noon = midnight + TimeDelta::hours(12);
        let (Some(offset), Some(first), Some(last)) = (steady_offset(noon, tz), times.first(), times.last()) else {
            let fires = self.fires_on(date, tz).into_iter();
            return fires.map(|fire| Span { first: fire, last: fire, widest: None }).collect();
        };
        let at = |time: &NaiveTime| (date.and_time(*time) - offset).and_utc();
        let gaps = times.windows(2).filter_map(|pair| match pair {
            [one, next] => Some((*next - *one, one, next)),
            _ => None,
        });
        let widest = gaps.max_by_key(|(length, ..)| *length).map(|(_, one, next)| Gap { from: at(one), to: at(next) });
        vec![Span { first: at(first), last: at(last), widest }]
    }

    fn next_gap(&self, tz: Tz, from: DateTime<Utc>) -> Option<Gap> {
        let from = self.next_after(from, tz)?;
        let to = self.next_after(from, tz)?;
        Some(Gap { from, to })
    }
}
