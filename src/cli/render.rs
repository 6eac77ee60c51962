//! What verbs did, as lines for people and as JSON for machines.

macro_rules! line {
    ($text:expr, $($format:tt)*) => {{
        // Writing into a String cannot fail.
        let _infallible = writeln!($text, $($format)*);
    }};
}

mod restore;

use std::fmt::{Display, Write as _};
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::backup::{Backed, Kind};
use crate::cli::ink;
use crate::copy::{Copied, CopyPlan};
use crate::cycle::Step;
use crate::cycle::journal::Verb;
use crate::cycle::steps::{BackupDone, CopyDone, Done, DrillDone};
use crate::exit::Failure;
use crate::forget::{ForgetPlan, Forgotten, Judgement};
use crate::human;
use crate::policy::Policy;
use crate::verify;

pub(super) use restore::{restore_plan, restore_plan_json, restored, restored_json, targets};

/// Faults that are listed; the counts are always whole, and `--json` has them all.
const LINES_MAX: usize = 20;

/// Makes a name from outside harmless to a terminal.
fn shown(name: impl Display) -> String {
    human::printable(&name.to_string())
}

/// Says how many lines were left out of a list.
fn more(text: &mut String, count: usize) {
    if count > LINES_MAX {
        line!(text, "{:<10} … and {} more; `--json` names them", "", count - LINES_MAX);
    }
}

pub(super) fn failure(before: &str, failure: &Failure) -> String {
    let mut text = format!("error: {before}{}\n", human::printable_lines(&failure.message));
    if let Some(hint) = &failure.hint {
        line!(text, "hint: {}", human::printable_lines(hint));
    }
    text
}

/// Tells the steps of one policy's run.
pub(super) fn steps(policy: &Policy, steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match &step.result {
            Ok(Done::Backup(done)) => backup(&mut text, policy, done),
            Ok(Done::Copy(done)) => copies(&mut text, done),
            Ok(Done::Verify(report)) => verified(&mut text, report),
            Ok(Done::Drill(done)) => drill(&mut text, done),
            Err(error) => text.push_str(&failure(&format!("{} {}: ", step.verb, policy.name), error)),
        }
    }
    text
}

fn backup(text: &mut String, policy: &Policy, done: &BackupDone) {
    for backed in &done.outcome.done {
        one_backup(text, policy, backed);
    }
    for (source, error) in &done.outcome.failed {
        let failed = Failure::from(error);
        text.push_str(&failure(&format!("back up {source}: "), &failed));
    }
    copies(text, &done.copies);
    match &done.forgotten {
        Ok((plan, forgotten)) => {
            if let Some(freeze) = &plan.frozen {
                line!(text, "retention  rests: {freeze}");
            } else if !forgotten.done.is_empty() {
                let kept = plan.judgements.iter().filter(|judgement| judgement.keep).count();
                line!(text, "retention  {} snapshots forgotten, {kept} kept", forgotten.done.len());
            }
        }
        Err(error) => text.push_str(&failure("forget: ", error)),
    }
}

fn one_backup(text: &mut String, policy: &Policy, backed: &Backed) {
    let items = match backed.kind {
        Kind::Mysql => format!("{} rows", human::count(backed.items)),
        Kind::Files => {
            format!("{} files, {} new or changed", human::count(backed.items), human::count(backed.items_changed))
        }
    };
    line!(
        text,
        "{:<10} snapshot {} of {}: {items}; {} in it, {} read, {} stored, in {}",
        backed.source,
        backed.id.short(),
        human::time(backed.time, policy.timezone),
        human::bytes(backed.bytes),
        human::bytes(backed.bytes_read),
        human::bytes(backed.bytes_stored),
        human::duration(Duration::from_millis(backed.millis)),
    );
    if let Some(stall) = backed.write_stall_ms {
        line!(text, "{:<10} writers were held up for {stall:.1} ms", "");
    }
    for left_out in backed.incomplete.iter().take(LINES_MAX) {
        line!(text, "{:<10} incomplete: {}", "", shown(left_out));
    }
    more(text, backed.incomplete.len());
}

fn copies(text: &mut String, copies: &[CopyDone]) {
    for copy in copies {
        match &copy.result {
            Ok(copied) => one_copy(text, &copy.name, copied),
            Err(error) => {
                text.push_str(&failure(&format!("copy to {}: ", copy.name), error));
                line!(text, "note: the snapshots are kept here, and the next run sends what is missing");
            }
        }
    }
}

fn one_copy(text: &mut String, name: &str, copied: &Copied) {
    line!(
        text,
        "{name:<10} copy: {} packs and {} snapshots sent, {}",
        copied.packs,
        copied.snapshots.len(),
        human::bytes(copied.bytes)
    );
    for (key, error) in copied.failed.iter().take(LINES_MAX) {
        line!(text, "{:<10} not sent: {}: {}", "", shown(key), shown(error));
    }
    more(text, copied.failed.len());
}

pub(super) fn copy_plan(name: &str, plan: &CopyPlan) -> String {
    format!("{name:<10} would send {} objects, {}\n", plan.count(), human::bytes(plan.bytes()))
}

fn verified(text: &mut String, report: &verify::Report) {
    let verdict = if report.is_sound() { "sound" } else { "DAMAGED" };
    let checked = report.checked;
    line!(
        text,
        "verify     {verdict}: {} snapshots, {} packs named, {} of them and {} blobs read ({})",
        checked.snapshots,
        checked.packs,
        checked.packs_read,
        checked.blobs_read,
        human::bytes(checked.bytes_read)
    );
    for finding in report.damaged.iter().chain(&report.missing).take(LINES_MAX) {
        line!(text, "           {}: {}", shown(&finding.object), shown(&finding.what));
        for cost in finding.costs.iter().take(LINES_MAX) {
            line!(text, "             costs {} of snapshot {}", shown(cost.path.display()), cost.snapshot.short());
        }
        if finding.costs_more > 0 {
            line!(text, "             and {} more", finding.costs_more);
        }
    }
    more(text, report.damaged.len() + report.missing.len());
}

fn drill(text: &mut String, done: &DrillDone) {
    text.push_str(&done.report.text(ink()));
    if let Some(error) = &done.failure {
        text.push_str(&failure("drill: ", error));
    }
    line!(text, "report     {}", done.files.html.display());
}

pub(super) fn steps_json(steps: &[Step]) -> Vec<Value> {
    let of = |step: &Step| {
        let what = match &step.result {
            Ok(Done::Backup(done)) => json!({
                "snapshots": done.outcome.done,
                "failed": failed_json(done),
                "copies": copies_json(&done.copies),
                "forgotten": done.forgotten.as_ref().map(|(_, forgotten)| &forgotten.done).ok(),
            }),
            Ok(Done::Copy(done)) => json!({ "copies": copies_json(done) }),
            Ok(Done::Verify(report)) => json!({ "sound": report.is_sound(), "report": report }),
            Ok(Done::Drill(done)) => {
                json!({ "outcome": done.report.outcome, "failure": done.failure, "files": done.files })
            }
            Err(failure) => json!({ "failure": failure }),
        };
        json!({ "verb": step.verb, "exit": step.exit().code(), "result": what })
    };
    steps.iter().map(of).collect()
}

fn failed_json(done: &BackupDone) -> Vec<Value> {
    let of = |(source, error): &(String, crate::backup::BackupError)| json!({ "source": source, "failure": Failure::from(error) });
    done.outcome.failed.iter().map(of).collect()
}

fn copies_json(copies: &[CopyDone]) -> Vec<Value> {
    let of = |copy: &CopyDone| match &copy.result {
        Ok(copied) => copied_json(&copy.name, copied),
        Err(failure) => json!({ "copy": copy.name, "complete": false, "failure": failure }),
    };
    copies.iter().map(of).collect()
}

pub(super) fn forget_plan(policy: &Policy, plan: &ForgetPlan) -> String {
    let mut text = String::new();
    if let Some(freeze) = &plan.frozen {
        line!(text, "retention rests, nothing is forgotten: {freeze}");
    }
    for verdict in &plan.judgements {
        let (mark, why) = if verdict.keep {
            ("keep  ", verdict.reasons.join(", "))
        } else {
            ("forget", "no rule holds it".to_owned())
        };
        let time = human::time(verdict.time, policy.timezone);
        line!(text, "{mark} {} {:<12} {time}  {why}", verdict.id.short(), verdict.source);
    }
    text
}

pub(super) fn forget_plan_json(plan: &ForgetPlan) -> Value {
    let of = |one: &Judgement| json!({ "id": one.id, "source": one.source, "time": one.time, "keep": one.keep, "reasons": one.reasons });
    let snapshots: Vec<Value> = plan.judgements.iter().map(of).collect();
    json!({ "frozen": plan.frozen.as_ref().map(ToString::to_string), "snapshots": snapshots, "others": plan.others })
}

pub(super) fn forgotten(forgotten: &Forgotten) -> String {
    let mut text = format!("{} snapshots forgotten\n", forgotten.done.len());
    for (id, error) in forgotten.failed.iter().take(LINES_MAX) {
        line!(text, "not forgotten: {}: {}", id.short(), shown(error));
    }
    more(&mut text, forgotten.failed.len());
    text
}

pub(super) fn forgotten_json(forgotten: &Forgotten) -> Value {
    let failed: Vec<Value> =
        forgotten.failed.iter().map(|(id, error)| json!({ "id": id, "error": human::chain(error) })).collect();
    json!({ "done": forgotten.done, "failed": failed })
}

fn copied_json(name: &str, copied: &Copied) -> Value {
    let failed: Vec<Value> = copied
        .failed
        .iter()
        .map(|(key, error)| json!({ "object": key.to_string(), "error": error.to_string() }))
        .collect();
    json!({
        "copy": name,
        "complete": copied.is_complete(),
        "packs": copied.packs,
        "snapshots": copied.snapshots,
        "bytes": copied.bytes,
        "there": copied.skipped,
        "failed": failed,
        "held_back": copied.held_back,
    })
}

/// Tells a policy that holds together, and its next runs.
pub(super) fn policy(policy: &Policy, path: &Path, next: &[(Verb, DateTime<Utc>)]) -> String {
    let mut text = format!("ok: {} is policy `{}`\n", path.display(), policy.name);
    for (verb, time) in next {
        line!(text, "    next {verb}: {}", human::time(*time, policy.timezone));
    }
    text
}
