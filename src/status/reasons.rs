//! Why a status is not simply "ok": one sentence for each thing that is not.

use std::collections::BTreeMap;

use crate::catalog::HealRecord;
use crate::catalog::Outcome;
use crate::catalog::REPOSITORY;
use crate::drill::outcome::ChecksVerdict;
use crate::drill::outcome::Judgement;
use crate::forget::Freeze;
use crate::human;
use crate::status::binlog;
use crate::status::facts::{self, age_ms};
use crate::status::{CopyStatus, DrillStatus, Inputs, NextRun, Reason, RunStatus, SourceStatus, Status, Verdict};

/// Exit codes that say more than "failed" (see `exit`): they are published and never change.
const EXIT_DAMAGED: u8 = 13;
const EXIT_GUARD: u8 = 15;

/// A disk that begins to rot goes on: a month is long enough to see a second time, and short enough to be read.
const HEAL_TOLD_MS: u64 = 30 * DAY_MS;

/// A first backup or a restore of many terabytes may take this long.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Returns the reasons, the worst first.
pub(super) fn of(status: &Status, inputs: &Inputs<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for source in &status.sources {
        reasons.extend(of_source(status, source));
        reasons.extend(binlog::reasons(status, inputs, source));
    }
    reasons.extend(status.last_backup.as_ref().and_then(of_backup));
    reasons.extend(status.last_verify.as_ref().and_then(of_verify));
    reasons.extend(status.last_compare.as_ref().and_then(of_compare));
    for copy in &status.copies {
        reasons.extend(of_copy(status, copy));
    }
    reasons.extend(inputs.damaged.iter().map(|store| {
        bad(format!("a verify found damage in `{store}`, and none that looked as deep has found it mended"))
    }));
    reasons.extend(of_heals(status, inputs.heals));
    reasons.extend(inputs.freeze.and_then(|freeze| of_freeze(status, freeze)));
    reasons.extend(of_drill(status.drill.as_ref()));
    reasons.extend(facts::last_run(inputs, &["drill"]).and_then(|run| of_unbegun_drill(status, &run)));
    reasons.extend(status.running.iter().filter_map(|run| of_running(status, run)));
    reasons.extend(status.next_runs.iter().filter_map(|next| of_missed(status, next)));
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.verdict));
    reasons
}

/// What was mended is whole; the disk or the store that hurt it is the same as before.
fn of_heals(status: &Status, newest_first: &[HealRecord]) -> Vec<Reason> {
    let is_recent = |heal: &&HealRecord| !heal.mended.is_empty() && age_ms(heal.started, status.time) < HEAL_TOLD_MS;
    let mut stores: BTreeMap<&str, (u64, &HealRecord)> = BTreeMap::new();
    for heal in newest_first.iter().filter(is_recent) {
        let (mended, _) = stores.entry(&heal.store).or_insert((0, heal));
        *mended += heal.mended.len() as u64;
    }
    let tell = |(store, (mended, newest)): (&str, (u64, &HealRecord))| {
        let objects = human::counted(mended, "object", "objects");
        let time = human::time(newest.started, status.timezone);
        warning(format!(
            "verify healed {objects} of `{store}` in the last 30 days, the last on {time}: look at its disk"
        ))
    };
    stores.into_iter().map(tell).collect()
}

fn bad(text: String) -> Reason {
    Reason { verdict: Verdict::Bad, text }
}

fn warning(text: String) -> Reason {
    Reason { verdict: Verdict::Warning, text }
}

fn of_source(status: &Status, source: &SourceStatus) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let name = &source.source;
    match &source.last_good {
        None => reasons.push(bad(format!("`{name}` has no good backup"))),
        Some(good) => {
            if source.rpo == Judgement::Breached {
                reasons.push(bad(format!(
                    "the newest good backup of `{name}` is {} old; the RPO is {}",
                    human::millis(good.age_ms),
                    objective(status.objectives.rpo_ms)
                )));
            }
            if good.time > status.time {
                reasons.push(warning(format!(
                    "the newest backup of `{name}` is dated {}: a clock is wrong",
                    human::age(good.time, status.time)
                )));
            }
            if !good.stores.iter().any(|store| store == REPOSITORY) {
                reasons.push(warning(format!(
                    "the newest good backup of `{name}` lies only in {}, not in the repository",
                    good.stores.join(", ")
                )));
            }
        }
    }
    if source.newer_incomplete.is_some() {
        reasons.push(warning(format!("the newest backup of `{name}` is incomplete")));
    }
    reasons
}

fn of_backup(run: &RunStatus) -> Option<Reason> {
    let why = because(run);
    match (run.outcome, run.exit_code) {
        (Outcome::Failed, Some(EXIT_GUARD)) => Some(bad(format!("a guard refused the last backup{why}"))),
        (Outcome::Failed, Some(EXIT_DAMAGED)) => {
            Some(bad(format!("the last backup met damage in the repository{why}")))
        }
        (Outcome::Failed, _) => Some(bad(format!("the last backup failed{why}"))),
        _ => of_ended("backup", run),
    }
}

/// A source whose newest backup failed is bad though a later one of another source went well.
fn of_freeze(status: &Status, freeze: &Freeze) -> Option<Reason> {
    let is_told = status.last_backup.as_ref().is_some_and(|run| run.outcome == Outcome::Failed);
    match freeze {
        Freeze::GuardTripped { .. } | Freeze::RunFailed { .. } if !is_told => Some(bad(freeze.to_string())),
        Freeze::GuardTripped { .. } | Freeze::RunFailed { .. } | Freeze::RunStopped { .. } | Freeze::Damaged { .. } => {
            None
        }
    }
}

fn of_verify(run: &RunStatus) -> Option<Reason> {
    match (run.outcome, run.exit_code) {
        (Outcome::Failed, Some(EXIT_DAMAGED)) => Some(bad(format!("the last verify found damage{}", because(run)))),
        _ => of_ended("verify", run),
    }
}

/// That rows have changed since the snapshot, which ends it as incomplete, is nothing to worry about.
fn of_compare(run: &RunStatus) -> Option<Reason> {
    let is_damage = run.outcome == Outcome::Failed && run.exit_code == Some(EXIT_DAMAGED);
    is_damage.then(|| bad(format!("a snapshot held against its source showed damage{}", because(run))))
}

fn of_ended(verb: &str, run: &RunStatus) -> Option<Reason> {
    let why = because(run);
    match run.outcome {
        Outcome::Ok | Outcome::Running => None,
        Outcome::Failed => Some(warning(format!("the last {verb} failed{why}"))),
        Outcome::Incomplete => Some(warning(format!("the last {verb} was incomplete{why}"))),
        Outcome::Stopped => Some(warning(format!("the last {verb} was stopped by a signal"))),
        Outcome::Interrupted => {
            Some(warning(format!("the last {verb} was interrupted: its process is gone and left no outcome")))
        }
    }
}

/// A run that hangs holds its policy's lock, and none comes after it.
fn of_running(status: &Status, run: &RunStatus) -> Option<Reason> {
    let longest = status.objectives.rpo_ms.unwrap_or(0).max(DAY_MS);
    let age = age_ms(run.started, status.time);
    let text = || format!("a {} has been running for {}: it may hang", run.verb, human::millis(age));
    (age > longest).then(|| bad(text()))
}

/// A backup that was missed is what this program is for; a verify or a drill can wait for a person.
fn of_missed(status: &Status, next: &NextRun) -> Option<Reason> {
    let due = human::time(next.missed?, status.timezone);
    let text = format!("`{}` was due at {due} and has not been done since", next.verb);
    Some(if next.verb == "backup" { bad(text) } else { warning(text) })
}

fn because(run: &RunStatus) -> String {
    let error = run.error.as_ref();
    error.map_or_else(String::new, |error| format!(": {error}"))
}

fn of_copy(status: &Status, copy: &CopyStatus) -> Option<Reason> {
    let name = &copy.name;
    if copy.behind == 0 {
        return None;
    }
    let waiting = human::counted(copy.behind as u64, "snapshot", "snapshots");
    let lag = human::millis(copy.lag_ms);
    let text = match copy.newest {
        None => format!("copy `{name}` holds no snapshot yet; the oldest here is {lag} old"),
        Some(_) => format!("copy `{name}` is {waiting} behind, the oldest since {lag}"),
    };
    let is_late = status.objectives.rpo_ms.is_some_and(|rpo| copy.lag_ms > rpo);
    Some(if is_late { bad(text) } else { warning(text) })
}

/// A drill that could not even begin has no outcome of its own, and the one before it proves nothing of today.
fn of_unbegun_drill(status: &Status, run: &RunStatus) -> Option<Reason> {
    let has_outcome = status.drill.as_ref().is_some_and(|drill| drill.run == run.run);
    let text = || format!("the last drill could not begin{}", because(run));
    (run.outcome == Outcome::Failed && !has_outcome).then(|| bad(text()))
}

fn of_drill(drill: Option<&DrillStatus>) -> Vec<Reason> {
    let Some(drill) = drill else {
        return vec![warning("no drill has been run: how long a recovery takes is not known".to_owned())];
    };
    let mut reasons = of_drill_verdict(drill);
    if drill.policy_changed {
        reasons.push(warning("the policy has changed since the last drill: what it proved needs verifying".to_owned()));
    }
    reasons
}

fn of_drill_verdict(drill: &DrillStatus) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Some(error) = &drill.error {
        reasons.push(bad(format!("the last drill failed: {error}")));
    }
    if drill.verdict.checks == ChecksVerdict::Failed {
        let failed = human::counted(drill.checks_failed as u64, "check", "checks");
        reasons.push(bad(format!("the last drill failed {failed}")));
    }
    if drill.verdict.rto == Judgement::Breached {
        reasons.push(bad(breach("recovery took", drill.rta_ms, "RTO", drill.objectives.rto_ms)));
    }
    if drill.verdict.rpo == Judgement::Breached {
        reasons.push(bad(breach("recovery lost", drill.rpa_ms, "RPO", drill.objectives.rpo_ms)));
    }
    let is_unproved = !drill.passed && reasons.is_empty();
    if is_unproved {
        reasons.push(warning(
            "the last drill left something unproved: a check did not run, or an objective was not measured".to_owned(),
        ));
    }
    reasons
}

fn breach(what: &str, actual: Option<u64>, name: &str, objective_ms: Option<u64>) -> String {
    format!("in the last drill {what} {}; the {name} is {}", objective(actual), objective(objective_ms))
}

fn objective(span: Option<u64>) -> String {
    span.map_or_else(|| "not set".to_owned(), human::millis)
}
