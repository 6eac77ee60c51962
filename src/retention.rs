//! Which snapshots stay, and why: a pure judgement over the snapshots of one source.
//!
//! A rule such as `daily = 7` keeps the newest snapshot of each of the seven newest days that have one, as `restic` counts:
//! a day without a snapshot does not use up a place. Days, ISO weeks, months and years begin in the policy's time zone.
//!
//! An incomplete snapshot (a run that could not read everything) is worth keeping and no substitute for a complete one. So it
//! stands for a period only where the period has no complete one, and it never uses up a place: `daily = 7` keeps
//! seven days with a complete snapshot and, between and above them, at most seven days with nothing but an incomplete one.
//!
//! Whatever the rules say, these stay: the newest complete snapshot (the newest at all where none is complete), what is held,
//! and what is dated in the future, because a clock that went wrong must not crowd out what is good.

use std::cmp::Reverse;

use chrono::{DateTime, Datelike, Utc};
use chrono_tz::Tz;

use crate::id::SnapshotId;
use crate::policy::Keep;

/// What a judgement has to know of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub id: SnapshotId,
    pub time: DateTime<Utc>,
    /// Its run read everything that it should.
    pub complete: bool,
    /// A person marked it to stay.
    pub held: bool,
}

/// Whether a snapshot stays, and the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub id: SnapshotId,
    pub keep: bool,
    /// Why it stays (`daily 2026-11-23`), or why it goes.
    pub reasons: Vec<String>,
}

/// One keep rule: how many periods, and which period a moment lies in.
struct Rule {
    name: &'static str,
    places: u32,
    period: fn(DateTime<Tz>) -> String,
}

/// Judges the snapshots of one source. The verdicts stand newest first.
#[must_use]
pub fn judge(snapshots: &[Candidate], keep: &Keep, timezone: Tz, now: DateTime<Utc>) -> Vec<Verdict> {
    let mut sorted: Vec<_> = snapshots.iter().collect();
    sorted.sort_by_key(|candidate| Reverse((candidate.time, candidate.id)));
    let (future, past): (Vec<_>, Vec<_>) = sorted.into_iter().partition(|c| c.time > now);
    let mut verdicts = past.iter().map(|c| (*c, Vec::new())).collect::<Vec<_>>();
    keep_newest(&mut verdicts);
    keep_last(&mut verdicts, keep.last);
    for rule in rules(keep) {
        keep_periods(&mut verdicts, &rule, timezone);
    }
    let future = future.into_iter().map(|c| (c, vec!["dated in the future".to_owned()]));
    let all = future.chain(verdicts);
    all.map(|(candidate, reasons)| verdict(candidate, reasons)).collect()
}

/// Judges the binlog's snapshots of one source: the newest holds all of the window and supersedes the others. The verdicts stand
/// newest first.
#[must_use]
pub fn judge_binlogs(snapshots: &[Candidate]) -> Vec<Verdict> {
    let mut sorted: Vec<_> = snapshots.iter().collect();
    sorted.sort_by_key(|candidate| Reverse((candidate.time, candidate.id)));
    // Of two of one moment, both: which one goes on from the other is not told by their names.
    let newest = sorted.first().map(|candidate| candidate.time);
    let judge = |candidate: &Candidate| {
        let is_newest = newest == Some(candidate.time);
        let reason = match (candidate.held, is_newest) {
            (true, _) => "held",
            (false, true) => "newest binlog",
            (false, false) => "a newer one holds its window",
        };
        Verdict { id: candidate.id, keep: candidate.held || is_newest, reasons: vec![reason.to_owned()] }
    };
    sorted.into_iter().map(judge).collect()
}

fn rules(keep: &Keep) -> [Rule; 4] {
    [
        Rule { name: "daily", places: keep.daily, period: |time| time.format("%Y-%m-%d").to_string() },
        Rule {
            name: "weekly",
            places: keep.weekly,
            // The ISO week has a year of its own: 1 January may lie in the last week of the year before.
            period: |time| {
                let week = time.iso_week();
                format!("{}-W{:02}", week.year(), week.week())
            },
        },
        Rule { name: "monthly", places: keep.monthly, period: |time| time.format("%Y-%m").to_string() },
        Rule { name: "yearly", places: keep.yearly, period: |time| time.format("%Y").to_string() },
    ]
}

/// A snapshot and the reasons that were found to keep it. The lists are sorted from the newest down.
type Judged<'a> = (&'a Candidate, Vec<String>);

/// Keeps what a recovery would start from.
fn keep_newest(verdicts: &mut [Judged<'_>]) {
    let complete = verdicts.iter().position(|(candidate, _)| candidate.complete);
    let (place, reason) = match complete {
        Some(place) => (place, "newest complete"),
        None => (0, "newest, none is complete"),
    };
    if let Some((_, reasons)) = verdicts.get_mut(place) {
        reasons.push(reason.to_owned());
    }
}

/// Keeps the newest ones, each a period of its own.
fn keep_last(verdicts: &mut [Judged<'_>], places: u32) {
    let mut left = Places::new(places);
    for (candidate, reasons) in verdicts {
        if let Some(place) = left.take(candidate.complete) {
            reasons.push(reason("last", &place.to_string(), candidate));
        }
    }
}

/// Keeps the newest of each period, a complete one where there is one.
fn keep_periods(verdicts: &mut [Judged<'_>], rule: &Rule, timezone: Tz) {
    let period = |(candidate, _): &Judged<'_>| (rule.period)(candidate.time.with_timezone(&timezone));
    let mut left = Places::new(rule.places);
    for group in verdicts.chunk_by_mut(|one, other| period(one) == period(other)) {
        let name = group.first().map(period).unwrap_or_default();
        let complete = group.iter().position(|(candidate, _)| candidate.complete);
        let (candidate, reasons) = &mut group[complete.unwrap_or(0)];
        if left.take(candidate.complete).is_some() {
            reasons.push(reason(rule.name, &name, candidate));
        }
    }
}

/// The places of a rule: so many for complete snapshots, and as many beside them for incomplete ones.
struct Places {
    each: u32,
    complete: u32,
    incomplete: u32,
}

impl Places {
    fn new(places: u32) -> Self {
        Self { each: places, complete: 0, incomplete: 0 }
    }

    /// Takes a place and returns its number, `None` when all are taken. Once those of the complete ones are,
    /// an incomplete one gets none either: it would be older than all that the rule is about.
    fn take(&mut self, complete: bool) -> Option<u32> {
        let taken = if complete {
            &mut self.complete
        } else if self.complete < self.each {
            &mut self.incomplete
        } else {
            return None;
        };
        (*taken < self.each).then(|| {
            *taken += 1;
            *taken
        })
    }
}

fn reason(rule: &str, period: &str, candidate: &Candidate) -> String {
    let mark = if candidate.complete { "" } else { " (incomplete)" };
    format!("{rule} {period}{mark}")
}

fn verdict(candidate: &Candidate, mut reasons: Vec<String>) -> Verdict {
    if candidate.held {
        reasons.insert(0, "held".to_owned());
    }
    let keep = !reasons.is_empty();
    if !keep {
        reasons.push("no rule keeps it".to_owned());
    }
    Verdict { id: candidate.id, keep, reasons }
}

#[cfg(test)]
mod tests;
