//! What is the case, without a judgement of the whole.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::catalog::Outcome;
use crate::catalog::REPOSITORY;
use crate::catalog::RunRecord;
use crate::catalog::SnapshotRecord;
use crate::drill::outcome::{CheckState, Judgement, ObjectivesMs};
use crate::id::SnapshotId;
use crate::status::binlog;
use crate::status::{CopyStatus, DrillStatus, Inputs, RunStatus, SnapshotStatus, SourceStatus};

/// The verbs whose runs make snapshots.
pub(super) const BACKUP_VERBS: [&str; 2] = ["backup", "run"];

pub(super) fn sources(inputs: &Inputs<'_>) -> Vec<SourceStatus> {
    let mysql = inputs.policy.mysql.keys().map(|name| (name, "mysql"));
    let files = inputs.policy.files.keys().map(|name| (name, "files"));
    mysql.chain(files).map(|(name, kind)| source(inputs, name, kind)).collect()
}

fn source(inputs: &Inputs<'_>, name: &str, kind: &str) -> SourceStatus {
    let own: Vec<&SnapshotRecord> =
        inputs.snapshots.iter().filter(|snapshot| snapshot.source == name && snapshot.kind == kind).collect();
    let last_good = newest(&own, inputs.now, false);
    let newer_incomplete = newest(&own, inputs.now, true)
        .filter(|incomplete| last_good.as_ref().is_none_or(|good| good.time < incomplete.time));
    let rpo_ms = ObjectivesMs::from(inputs.policy.objectives).rpo_ms;
    let binlog = if kind == "mysql" { binlog::of(inputs, name) } else { None };
    // What came after the dump, the binlog brings back: as far as the repository has it, and without a gap.
    let recoverable = binlog.as_ref().filter(|binlog| binlog.window.is_some()).and_then(|it| it.repository_lag_ms);
    let age_ms = last_good.as_ref().map(|good| recoverable.map_or(good.age_ms, |lag| lag.min(good.age_ms)));
    let rpo = judge(age_ms, rpo_ms);
    SourceStatus {
        source: name.to_owned(),
        kind: kind.to_owned(),
        overdue: matches!(rpo, Judgement::Breached | Judgement::NotMeasured),
        last_good,
        newer_incomplete,
        rpo,
        binlog,
        snapshots: own.iter().filter(|snapshot| snapshot.store == REPOSITORY).count(),
    }
}

fn judge(age_ms: Option<u64>, rpo_ms: Option<u64>) -> Judgement {
    match (age_ms, rpo_ms) {
        (_, None) => Judgement::NoObjective,
        (None, Some(_)) => Judgement::NotMeasured,
        (Some(age), Some(rpo)) if age <= rpo => Judgement::Met,
        (Some(_), Some(_)) => Judgement::Breached,
    }
}

fn newest(own: &[&SnapshotRecord], now: DateTime<Utc>, is_incomplete: bool) -> Option<SnapshotStatus> {
    let of_kind = own.iter().filter(|snapshot| snapshot.incomplete == is_incomplete);
    let newest = of_kind.max_by_key(|snapshot| snapshot.time)?;
    let holding = own.iter().filter(|snapshot| snapshot.id == newest.id);
    Some(SnapshotStatus {
        id: newest.id,
        time: newest.time,
        age_ms: age_ms(newest.time, now),
        stores: holding.map(|snapshot| snapshot.store.clone()).collect(),
    })
}

/// Returns how long ago a moment was; zero where a clock puts it ahead of us.
pub(super) fn age_ms(then: DateTime<Utc>, now: DateTime<Utc>) -> u64 {
    u64::try_from(now.signed_duration_since(then).num_milliseconds()).unwrap_or(0)
}

pub(super) fn copies(inputs: &Inputs<'_>) -> Vec<CopyStatus> {
    let places = inputs.policy.copies.iter();
    places.map(|place| copy(inputs, &place.name)).collect()
}

/// A capture makes a snapshot each interval, and sends them each five minutes: those in between are not late.
const BINLOG_PATIENCE_MS: u64 = 10 * 60 * 1_000;

fn copy(inputs: &Inputs<'_>, name: &str) -> CopyStatus {
    let held = newest_by_source(inputs.snapshots, name);
    // Each store prunes alone: a copy is behind only by what is newer than what it holds.
    let waiting: BTreeMap<SnapshotId, DateTime<Utc>> = inputs
        .snapshots
        .iter()
        .filter(|snapshot| snapshot.store == REPOSITORY)
        .filter(|snapshot| snapshot.kind != "binlog" || age_ms(snapshot.time, inputs.now) > BINLOG_PATIENCE_MS)
        .filter(|snapshot| held.get(&of(snapshot)).is_none_or(|newest| snapshot.time > *newest))
        .map(|snapshot| (snapshot.id, snapshot.time))
        .collect();
    let record = inputs.copies.iter().find(|copy| copy.name == name);
    CopyStatus {
        name: name.to_owned(),
        completed: record.and_then(|copy| copy.completed),
        newest: held.values().max().copied(),
        behind: waiting.len(),
        lag_ms: waiting.values().min().map_or(0, |oldest| age_ms(*oldest, inputs.now)),
    }
}

/// A source, and what of it: a database has dumps and its binlog.
type Of<'a> = (&'a str, &'a str);

fn of(snapshot: &SnapshotRecord) -> Of<'_> {
    (&snapshot.source, &snapshot.kind)
}

fn newest_by_source<'a>(snapshots: &'a [SnapshotRecord], store: &str) -> BTreeMap<Of<'a>, DateTime<Utc>> {
    let mut newest = BTreeMap::new();
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.store == store) {
        let time = newest.entry(of(snapshot)).or_insert(snapshot.time);
        *time = snapshot.time.max(*time);
    }
    newest
}

pub(super) fn drill(inputs: &Inputs<'_>) -> Option<DrillStatus> {
    let drill = inputs.drills.iter().max_by_key(|drill| drill.started)?;
    Some(DrillStatus {
        run: drill.run.clone(),
        started: drill.started,
        age_ms: age_ms(drill.started, inputs.now),
        passed: drill.passed(),
        rta_ms: drill.rta_ms,
        rpa_ms: drill.rpa_ms,
        first_order_ms: drill.first_order.as_ref().and_then(|first| first.ms),
        objectives: drill.objectives,
        verdict: drill.verdict,
        checks_passed: drill.checks_in(CheckState::Pass).count(),
        checks_failed: drill.checks_in(CheckState::Fail).count(),
        checks_not_run: drill.checks_in(CheckState::NotRun).count(),
        policy_changed: drill.policy_hash != inputs.policy.hash,
        error: drill.error.clone(),
    })
}

fn newest_ended<'a>(inputs: &Inputs<'a>, verbs: &[&str]) -> Option<&'a RunRecord> {
    let ended = inputs.runs.iter().filter(|run| run.outcome != Outcome::Running && verbs.contains(&run.verb.as_str()));
    ended.max_by_key(|run| run.started)
}

pub(super) fn last_run(inputs: &Inputs<'_>, verbs: &[&str]) -> Option<RunStatus> {
    newest_ended(inputs, verbs).map(run_status)
}

pub(super) fn running(inputs: &Inputs<'_>) -> Vec<RunStatus> {
    let running = inputs.runs.iter().filter(|run| run.outcome == Outcome::Running);
    running.map(run_status).collect()
}

fn run_status(run: &RunRecord) -> RunStatus {
    RunStatus {
        run: run.id.clone(),
        verb: run.verb.clone(),
        started: run.started,
        outcome: run.outcome,
        exit_code: run.exit_code,
        error: run.error.clone(),
    }
}
