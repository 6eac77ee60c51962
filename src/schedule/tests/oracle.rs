//! The slow truth: each minute of the real clock is looked at through the zone's wall clock.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::{Africa, America, Asia, Atlantic, Australia, Europe, Tz};
use proptest::prelude::*;
use proptest::sample::subsequence;

use crate::schedule::Cron;

#[derive(Debug, Clone)]
struct Fields {
    minutes: Vec<u32>,
    hours: Vec<u32>,
    /// `None`: a star.
    days: Option<Vec<u32>>,
    weekdays: Option<Vec<u32>>,
}

impl Fields {
    fn text(&self) -> String {
        let list = |values: &[u32]| values.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let or_star = |values: &Option<Vec<u32>>| values.as_deref().map_or("*".to_owned(), list);
        format!("{} {} {} * {}", list(&self.minutes), list(&self.hours), or_star(&self.days), or_star(&self.weekdays))
    }

    fn matches(&self, wall: NaiveDateTime) -> bool {
        let day = self.days.as_ref().map(|days| days.contains(&wall.day()));
        let weekday = wall.weekday().num_days_from_sunday();
        let weekday = self.weekdays.as_ref().map(|days| days.iter().any(|day| day % 7 == weekday));
        let date = match (day, weekday) {
            (Some(day), Some(weekday)) => day || weekday,
            (one, other) => one.or(other).unwrap_or(true),
        };
        date && self.hours.contains(&wall.hour()) && self.minutes.contains(&wall.minute())
    }

    fn fires(&self, tz: Tz, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let wall = |at: DateTime<Utc>| at.with_timezone(&tz).naive_local();
        let minute = TimeDelta::minutes(1);
        let is_hourly = self.hours.len() == 24;
        // Wall times that came before; a zone's shift is at most a few hours here, so a day of them is enough.
        let mut seen: BTreeSet<NaiveDateTime> = BTreeSet::new();
        let mut fires = Vec::new();
        let mut at = from - TimeDelta::days(1);
        while at <= until {
            let (before, now) = (wall(at - minute), wall(at));
            let mut is_fire = self.matches(now) && (is_hourly || !seen.contains(&now));
            let mut skipped = before + minute;
            while skipped < now {
                is_fire |= !is_hourly && self.matches(skipped);
                skipped += minute;
            }
            seen.insert(now);
            if is_fire && at >= from {
                fires.push(at);
            }
            at += minute;
        }
        fires
    }
}

fn fields() -> impl Strategy<Value = Fields> {
    let minutes = prop_oneof![Just((0..60).collect()), subsequence((0..60).collect::<Vec<u32>>(), 1..4),];
    let hours = prop_oneof![
        1 => Just((0..24).collect()),
        2 => subsequence((0..24).collect::<Vec<u32>>(), 1..5),
        2 => subsequence(vec![0, 1, 2, 3, 23], 1..4),
    ];
    let days = proptest::option::of(subsequence((1..=31).collect::<Vec<u32>>(), 1..10));
    let weekdays = proptest::option::of(subsequence((0..=7).collect::<Vec<u32>>(), 1..4));
    (minutes, hours, days, weekdays).prop_map(|(minutes, hours, days, weekdays)| Fields {
        minutes,
        hours,
        days,
        weekdays,
    })
}

/// Zones and days round their clock changes; one day is an ordinary one.
fn changes() -> impl Strategy<Value = (Tz, DateTime<Utc>)> {
    let day = |year, month, day| Utc.with_ymd_and_hms(year, month, day, 0, 0, 0).unwrap();
    let places = vec![
        (Europe::Berlin, day(2026, 3, 29)),
        (Europe::Berlin, day(2026, 10, 25)),
        (America::New_York, day(2026, 3, 8)),
        (America::New_York, day(2026, 11, 1)),
        (Australia::Lord_Howe, day(2026, 4, 4)),
        (Australia::Lord_Howe, day(2026, 10, 3)),
        (Africa::Cairo, day(2026, 4, 23)),
        (Africa::Cairo, day(2026, 10, 29)),
        (America::Havana, day(2026, 11, 1)),
        (Atlantic::Azores, day(2026, 10, 25)),
        (America::St_Johns, day(2005, 10, 30)),
        (Asia::Seoul, day(2026, 6, 1)),
    ];
    (proptest::sample::select(places), -3_000..3_000_i64)
        .prop_map(|((tz, day), minutes)| (tz, day + TimeDelta::minutes(minutes)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn each_moment_forward_and_back_is_the_one_that_a_minute_by_minute_search_finds(fields in fields(), (tz, from) in changes(), seconds in 0..60_i64) {
        let cron = Cron::parse(&fields.text()).unwrap();
        let until = from + TimeDelta::days(3);
        let expected = fields.fires(tz, from, until);

        let mut forward = Vec::new();
        let mut at = from - TimeDelta::seconds(1);
        while let Some(next) = cron.next_after(at, tz).filter(|next| *next <= until) {
            prop_assert!(next > at);
            forward.push(next);
            at = next;
        }
        prop_assert_eq!(&forward, &expected, "forward, {} in {}", fields.text(), tz);

        let mut back = Vec::new();
        let mut at = until + TimeDelta::seconds(1);
        while let Some(last) = cron.previous_before(at, tz).filter(|last| *last >= from) {
            prop_assert!(last < at);
            back.push(last);
            at = last;
        }
        back.reverse();
        prop_assert_eq!(&back, &expected, "back, {} in {}", fields.text(), tz);

        let between = from + TimeDelta::seconds(seconds);
        let next = expected.iter().copied().find(|fire| *fire > between);
        prop_assert!(next.is_none() || cron.next_after(between, tz) == next);
    }

}

proptest! {
    // A case walks through a year.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_largest_gap_is_the_largest_between_two_runs_of_the_year(fields in fields(), (tz, _) in changes()) {
        prop_assume!(fields.minutes.len() < 60);
        let cron = Cron::parse(&fields.text()).unwrap();
        let from = Utc.with_ymd_and_hms(2026, 1, 1, 12, 0, 0).unwrap();
        let gap = cron.largest_gap(tz, from).unwrap();
        // Moments of the year in steps of next_after, which the test above proves.
        let mut widest = TimeDelta::zero();
        let mut at = cron.next_after(from + TimeDelta::days(1), tz).unwrap();
        let end = from + TimeDelta::days(363);
        while at < end {
            let next = cron.next_after(at, tz).unwrap();
            widest = widest.max(next - at);
            at = next;
        }
        prop_assert!(gap.length() >= widest, "{} in {}: {:?} < {}", fields.text(), tz, gap, widest);
        prop_assert_eq!(cron.next_after(gap.from, tz), Some(gap.to));
    }
}
