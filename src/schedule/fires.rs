//! The moments at which a schedule fires, in a time zone whose clocks change.

use chrono::{
    DateTime, Days, FixedOffset, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone, Utc,
};
use chrono_tz::Tz;

use crate::schedule::cron::Cron;

/// No clock change moves further than a day (Samoa, 2011); beyond this it is forgotten.
const SHIFT_MAX: TimeDelta = TimeDelta::hours(26);
/// 29 February on one weekday can be 40 years away; what does not fire within that never does.
const DATES_MAX: u64 = 41 * 366;

impl Cron {
    /// Returns the first moment after `after` at which it fires; `None` beyond the calendar.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>, tz: Tz) -> Option<DateTime<Utc>> {
        let local = after.with_timezone(&tz).naive_local();
        if let Some(offset) = steady_offset(after, tz) {
            let soon = self.walls_on(local.date()).find(|wall| *wall > local);
            if let Some(wall) = soon {
                return Some((wall - offset).and_utc());
            }
        }
        let first = local.date().pred_opt()?;
        let dates = (0..DATES_MAX).map_while(|days| first.checked_add_days(Days::new(days)));
        self.best(dates, tz, |fires| fires.into_iter().filter(|fire| *fire > after).min())
    }

    /// Returns the last moment before `before` at which it fired; `None` beyond the calendar.
    #[must_use]
    pub fn previous_before(&self, before: DateTime<Utc>, tz: Tz) -> Option<DateTime<Utc>> {
        let local = before.with_timezone(&tz).naive_local();
        if let Some(offset) = steady_offset(before, tz) {
            let recent = self.walls_on(local.date()).take_while(|wall| *wall < local).last();
            if let Some(wall) = recent {
                return Some((wall - offset).and_utc());
            }
        }
        let last = local.date().succ_opt()?;
        let dates = (0..DATES_MAX).map_while(|days| last.checked_sub_days(Days::new(days)));
        self.best(dates, tz, |fires| fires.into_iter().filter(|fire| *fire < before).max())
    }

    /// Returns the moments that belong to a date, in no order where clocks change.
    pub(super) fn fires_on(&self, date: NaiveDate, tz: Tz) -> Vec<DateTime<Utc>> {
        let mut fires = Vec::new();
        for wall in self.walls_on(date) {
            match tz.from_local_datetime(&wall) {
                MappedLocalTime::Single(fire) => fires.push(fire.to_utc()),
                MappedLocalTime::Ambiguous(first, second) => {
                    fires.push(first.to_utc());
                    fires.extend(self.is_hourly().then(|| second.to_utc()));
                }
                MappedLocalTime::None if self.is_hourly() => {}
                MappedLocalTime::None => fires.extend(end_of_gap(wall, tz)),
            }
        }
        fires
    }

    /// Returns the best moment of the first date that has one, or of the date after it: where clocks change at midnight, two
    /// dates can overlap.
    fn best(
        &self,
        dates: impl Iterator<Item = NaiveDate>,
        tz: Tz,
        pick: impl Fn(Vec<DateTime<Utc>>) -> Option<DateTime<Utc>>,
    ) -> Option<DateTime<Utc>> {
        let mut found = Vec::new();
        for date in dates {
            let was_found = !found.is_empty();
            found.extend(pick(self.fires_on(date, tz)));
            if was_found {
                break;
            }
        }
        pick(found)
    }

    fn walls_on(&self, date: NaiveDate) -> impl Iterator<Item = NaiveDateTime> {
        let is_on = self.is_on(date);
        self.times().take_while(move |_| is_on).map(move |time| date.and_time(time))
    }

    /// Returns the times of day, in order.
    pub(super) fn times(&self) -> impl Iterator<Item = NaiveTime> {
        let (hours, minutes) = (self.hours, self.minutes);
        let hours = (0..24).filter(move |hour| hours >> hour & 1 == 1);
        let minutes = move || (0..60).filter(move |minute| minutes >> minute & 1 == 1);
        hours.flat_map(move |hour| minutes().filter_map(move |minute| NaiveTime::from_hms_opt(hour, minute, 0)))
    }
}

/// Returns the zone's offset at a moment with no clock change near it.
pub(super) fn steady_offset(at: DateTime<Utc>, tz: Tz) -> Option<FixedOffset> {
    let offset = offset_at(at, tz);
    let is_steady = offset_at(at - SHIFT_MAX, tz) == offset && offset_at(at + SHIFT_MAX, tz) == offset;
    is_steady.then_some(offset)
}

/// Returns the first moment after the gap in which a wall time is left out.
fn end_of_gap(wall: NaiveDateTime, tz: Tz) -> Option<DateTime<Utc>> {
    let mut before = wall.and_utc() - SHIFT_MAX;
    let old = offset_at(before, tz);
    // Under the old offset the wall time would come at this moment, so by then the clocks have changed.
    let mut after = (wall - old).and_utc();
    if offset_at(after, tz) == old {
        return None;
    }
    while after - before > TimeDelta::seconds(1) {
        let middle = before + TimeDelta::seconds((after - before).num_seconds() / 2);
        let side = if offset_at(middle, tz) == old { &mut before } else { &mut after };
        *side = middle;
    }
    Some(after)
}

fn offset_at(at: DateTime<Utc>, tz: Tz) -> FixedOffset {
    tz.offset_from_utc_datetime(&at.naive_utc()).fix()
}
