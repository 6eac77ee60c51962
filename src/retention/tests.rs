#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;

const NOTHING: Keep = Keep { last: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0 };

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn good(text: &str) -> Candidate {
    Candidate { id: SnapshotId::of(text.as_bytes()), time: at(text), complete: true, held: false }
}

fn partial(text: &str) -> Candidate {
    Candidate { complete: false, ..good(text) }
}

/// Judges on 30 November 2026 at noon and returns `time: reasons` of what stays, newest first.
fn kept(snapshots: &[Candidate], keep: Keep, timezone: Tz) -> Vec<String> {
    let verdicts = judge(snapshots, &keep, timezone, at("2026-11-30T12:00:00Z"));
    let time = |id| snapshots.iter().find(|c| c.id == id).unwrap().time;
    verdicts
        .into_iter()
        .filter(|verdict| verdict.keep)
        .map(|verdict| {
            let time = time(verdict.id).format("%m-%d %H:%M");
            format!("{time}: {}", verdict.reasons.join(", "))
        })
        .collect()
}

#[test]
fn a_rule_keeps_the_newest_of_each_period_and_skips_empty_ones() {
    let snapshots = [
        good("2026-11-30T02:00:00Z"),
        good("2026-11-29T14:00:00Z"),
        good("2026-11-29T02:00:00Z"),
        good("2026-11-20T02:00:00Z"),
        good("2026-11-19T02:00:00Z"),
    ];
    let daily = Keep { daily: 3, ..NOTHING };
    assert_eq!(
        kept(&snapshots, daily, Tz::UTC),
        [
            "11-30 02:00: newest complete, daily 2026-11-30",
            "11-29 14:00: daily 2026-11-29",
            "11-20 02:00: daily 2026-11-20",
        ]
    );
}

#[test]
fn periods_begin_in_the_policys_time_zone() {
    // In Seoul these two lie on the 29th and the 30th, in UTC both on the 29th.
    let snapshots = [good("2026-11-29T14:30:00Z"), good("2026-11-29T15:30:00Z")];
    let daily = Keep { daily: 9, ..NOTHING };
    assert_eq!(kept(&snapshots, daily, Tz::Asia__Seoul).len(), 2);
    assert_eq!(kept(&snapshots, daily, Tz::UTC).len(), 1);
}

#[test]
fn weeks_are_iso_weeks_across_the_new_year() {
    // Thursday 31 December 2026 and Friday 1 January 2027 lie in week 53 of 2026, Monday the 4th in week 1.
    let snapshots = [good("2026-12-31T10:00:00Z"), good("2027-01-01T10:00:00Z"), good("2027-01-04T10:00:00Z")];
    let weekly = Keep { weekly: 9, ..NOTHING };
    let verdicts = judge(&snapshots, &weekly, Tz::UTC, at("2027-01-05T00:00:00Z"));
    let reasons: Vec<_> = verdicts.iter().map(|verdict| verdict.reasons.join(", ")).collect();
    assert_eq!(reasons, ["newest complete, weekly 2027-W01", "weekly 2026-W53", "no rule keeps it"]);
}

#[test]
fn rules_count_each_for_itself() {
    let snapshots = [good("2026-11-30T02:00:00Z"), good("2026-10-31T02:00:00Z"), good("2025-12-31T02:00:00Z")];
    let keep = Keep { last: 1, daily: 1, weekly: 1, monthly: 2, yearly: 2 };
    assert_eq!(
        kept(&snapshots, keep, Tz::UTC),
        [
            "11-30 02:00: newest complete, last 1, daily 2026-11-30, weekly 2026-W49, monthly 2026-11, yearly 2026",
            "10-31 02:00: monthly 2026-10",
            "12-31 02:00: yearly 2025",
        ]
    );
}

#[test]
fn an_incomplete_snapshot_uses_up_no_place() {
    let snapshots = [
        partial("2026-11-30T02:00:00Z"),
        partial("2026-11-29T14:00:00Z"),
        good("2026-11-29T02:00:00Z"),
        good("2026-11-28T02:00:00Z"),
        partial("2026-11-27T02:00:00Z"),
    ];
    let daily = Keep { daily: 2, ..NOTHING };
    assert_eq!(
        kept(&snapshots, daily, Tz::UTC),
        [
            "11-30 02:00: daily 2026-11-30 (incomplete)",
            "11-29 02:00: newest complete, daily 2026-11-29",
            "11-28 02:00: daily 2026-11-28",
        ]
    );
}

#[test]
fn a_source_that_is_never_read_whole_does_not_keep_everything() {
    let snapshots: Vec<_> = (10..30).map(|day| partial(&format!("2026-11-{day}T02:00:00Z"))).collect();
    let daily = Keep { daily: 3, ..NOTHING };
    assert_eq!(
        kept(&snapshots, daily, Tz::UTC),
        [
            "11-29 02:00: newest, none is complete, daily 2026-11-29 (incomplete)",
            "11-28 02:00: daily 2026-11-28 (incomplete)",
            "11-27 02:00: daily 2026-11-27 (incomplete)",
        ]
    );
}

#[test]
fn a_wrong_clock_does_not_crowd_out_what_is_good() {
    let snapshots = [good("2036-01-01T00:00:00Z"), good("2026-11-29T02:00:00Z")];
    let last = Keep { last: 1, ..NOTHING };
    assert_eq!(
        kept(&snapshots, last, Tz::UTC),
        ["01-01 00:00: dated in the future", "11-29 02:00: newest complete, last 1",]
    );
}

#[test]
fn a_hold_outranks_every_rule() {
    let held = Candidate { held: true, ..partial("2020-01-01T00:00:00Z") };
    let snapshots = [good("2026-11-29T02:00:00Z"), held];
    assert_eq!(kept(&snapshots, NOTHING, Tz::UTC), ["11-29 02:00: newest complete", "01-01 00:00: held"]);
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (0..40_000_i64, any::<bool>(), prop::bool::weighted(0.05));
    prop::collection::vec(one, 0..60).prop_map(|many| {
        let candidate = |(n, (hours, complete, held)): (usize, (i64, bool, bool))| Candidate {
            id: SnapshotId::of(&n.to_le_bytes()),
            time: at("2022-06-01T00:00:00Z") + TimeDelta::hours(hours),
            complete,
            held,
        };
        many.into_iter().enumerate().map(candidate).collect()
    })
}

fn keeps() -> impl Strategy<Value = Keep> {
    (0..4_u32, 0..8_u32, 0..5_u32, 0..6_u32, 0..3_u32).prop_map(|(last, daily, weekly, monthly, yearly)| Keep {
        last,
        daily,
        weekly,
        monthly,
        yearly,
    })
}

fn stays(snapshots: &[Candidate], keep: &Keep) -> BTreeSet<SnapshotId> {
    let verdicts = judge(snapshots, keep, Tz::Asia__Seoul, at("2026-11-30T12:00:00Z"));
    verdicts.into_iter().filter(|verdict| verdict.keep).map(|verdict| verdict.id).collect()
}

proptest! {
    #[test]
    fn the_newest_complete_one_always_stays(snapshots in candidates(), keep in keeps()) {
        let stays = stays(&snapshots, &keep);
        let now = at("2026-11-30T12:00:00Z");
        let past = snapshots.iter().filter(|c| c.complete && c.time <= now);
        if let Some(newest) = past.max_by_key(|c| (c.time, c.id)) {
            prop_assert!(stays.contains(&newest.id));
        }
        prop_assert!(snapshots.is_empty() || !stays.is_empty());
    }

    #[test]
    fn every_snapshot_gets_one_verdict_with_a_reason(snapshots in candidates(), keep in keeps()) {
        let verdicts = judge(&snapshots, &keep, Tz::UTC, at("2026-11-30T12:00:00Z"));
        let judged: BTreeSet<_> = verdicts.iter().map(|verdict| verdict.id).collect();
        prop_assert_eq!(judged.len(), snapshots.len());
        prop_assert_eq!(verdicts.len(), snapshots.len());
        prop_assert!(verdicts.iter().all(|verdict| !verdict.reasons.is_empty()));
    }

    #[test]
    fn judging_what_stayed_keeps_all_of_it(snapshots in candidates(), keep in keeps()) {
        let once = stays(&snapshots, &keep);
        let left: Vec<_> = snapshots.into_iter().filter(|c| once.contains(&c.id)).collect();
        prop_assert_eq!(stays(&left, &keep), once);
    }

    #[test]
    fn a_larger_rule_keeps_at_least_as_much(snapshots in candidates(), keep in keeps(), more in keeps()) {
        let larger = Keep {
            last: keep.last + more.last,
            daily: keep.daily + more.daily,
            weekly: keep.weekly + more.weekly,
            monthly: keep.monthly + more.monthly,
            yearly: keep.yearly + more.yearly,
        };
        prop_assert!(stays(&snapshots, &larger).is_superset(&stays(&snapshots, &keep)));
    }

    #[test]
    fn a_rule_keeps_no_more_than_twice_its_places(snapshots in candidates(), daily in 0..8_u32) {
        let keep = Keep { daily, ..NOTHING };
        let plain: Vec<_> = snapshots.into_iter().filter(|c| !c.held && c.time <= at("2026-11-30T12:00:00Z")).collect();
        prop_assert!(stays(&plain, &keep).len() <= 2 * daily as usize + 1);
    }
}

#[test]
fn the_newest_binlog_supersedes_the_others_but_those_that_are_held() {
    let held = Candidate { held: true, ..good("2026-11-30T09:00:00Z") };
    let snapshots = [good("2026-11-30T11:00:00Z"), held, good("2026-11-30T11:01:00Z"), good("2026-11-01T00:00:00Z")];
    let kept: Vec<_> = judge_binlogs(&snapshots).into_iter().filter(|verdict| verdict.keep).collect();
    let reasons: Vec<_> = kept.iter().map(|verdict| (verdict.id, verdict.reasons.join(", "))).collect();
    assert_eq!(reasons, [(snapshots[2].id, "newest binlog".to_owned()), (held.id, "held".to_owned())]);
    let twins = [good("2026-11-30T11:00:00Z"), good("2026-11-30T11:00:00Z")];
    assert!(judge_binlogs(&twins).iter().all(|verdict| verdict.keep), "their names do not tell which is the newer");
    assert!(judge_binlogs(&[]).is_empty());
}
