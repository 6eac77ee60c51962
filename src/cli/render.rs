//! What verbs did, as lines for people and as JSON for machines.

macro_rules! line {
    ($text:expr, $($format:tt)*) => {{
        // Writing into a String cannot fail.
        let _infallible = writeln!($text, $($format)*);
    }};
}

mod against;
mod backup;
mod capture;
mod copy;
mod export;
mod forget;
mod part;
mod prune;
mod replay;
mod restore;
mod standby;
mod verify;

use std::fmt::{Display, Write as _};
use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::cli::ink;
use crate::cycle::Step;
use crate::cycle::done::{Done, DrillDone};
use crate::cycle::journal::Verb;
use crate::exit::Failure;
use crate::human;
use crate::policy::{Lint, Policy};

pub(super) use against::compared;
use backup::{backup, failed_json};
pub(super) use capture::chain;
use capture::{captured, captured_json};
pub(super) use copy::copy_plan;
use copy::{copies, copies_json};
pub(super) use export::exported;
pub(super) use forget::{forget_plan, forget_plan_json, forgotten, forgotten_json};
pub(super) use part::{change_set, part_copied, part_copied_json, part_copy, part_plan, part_plan_json};
pub(super) use prune::{prune_plan, prune_plan_json};
use prune::{pruned, pruned_json};
pub(super) use replay::mark;
pub(super) use restore::{Proofs, restore_plan, restore_plan_json, restored, restored_json, targets};
pub(super) use standby::{promoted, promoted_json, promotion, promotion_json, standby};
pub(super) use verify::heal_plan;
use verify::{heal, offer_heal, proof, verified};

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

/// What steps came to: lines for standard output, and those for standard error.
#[derive(Default)]
pub(super) struct Told {
    pub(super) text: String,
    pub(super) errors: String,
}

impl Told {
    pub(super) fn fail(&mut self, before: &str, error: &Failure) {
        self.errors.push_str(&failure(before, error));
    }
}

/// Tells the steps of one policy's run.
pub(super) fn steps(told: &mut Told, policy: &Policy, steps: &[Step]) {
    for step in steps {
        match &step.result {
            Ok(Done::Backup(done)) => backup(told, policy, done),
            Ok(Done::Capture(done)) => captured(told, policy, done),
            Ok(Done::Copy(done)) => copies(told, done),
            Ok(Done::Verify(report)) => {
                verified(&mut told.text, "verify", report);
                offer_heal(&mut told.text, policy, report);
            }
            Ok(Done::Heal(healed)) => heal(&mut told.text, healed),
            Ok(Done::Proof(done)) => proof(told, policy, done),
            Ok(Done::Prune(done)) => pruned(told, done),
            Ok(Done::Drill(done)) => drill(told, done),
            Err(error) => told.fail(&format!("{} {}: ", step.verb, policy.name), error),
        }
        if let Some(error) = &step.unrecorded {
            told.fail(&format!("record the {} of {}: ", step.verb, policy.name), error);
        }
    }
}

fn drill(told: &mut Told, done: &DrillDone) {
    told.text.push_str(&done.report.text(ink()));
    if let Some(error) = &done.failure {
        told.fail("drill: ", error);
    }
    line!(told.text, "report     {}", done.files.html.display());
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
            Ok(Done::Capture(done)) => captured_json(done),
            Ok(Done::Copy(done)) => json!({ "copies": copies_json(done) }),
            Ok(Done::Verify(report)) => json!({ "sound": report.is_sound(), "report": report }),
            Ok(Done::Heal(healed)) => json!({ "sound": healed.is_sound(), "report": healed.report, "healed": healed }),
            Ok(Done::Proof(done)) => json!({
                "sound": done.is_sound(),
                "report": done.report,
                "restored": done.outcome.snapshots,
                "checks": done.outcome.checks,
                "failure": done.failure,
            }),
            Ok(Done::Prune(done)) => pruned_json(done),
            Ok(Done::Drill(done)) => {
                json!({ "outcome": done.report.outcome, "failure": done.failure, "files": done.files })
            }
            Err(failure) => json!({ "failure": failure }),
        };
        json!({ "verb": step.verb, "exit": step.exit().code(), "result": what, "unrecorded": step.unrecorded })
    };
    steps.iter().map(of).collect()
}

/// Tells a policy that holds together, its next runs, and what is doubtful about it.
pub(super) fn policy(policy: &Policy, path: &Path, next: &[(Verb, DateTime<Utc>)], lints: &[Lint]) -> String {
    let mut text = format!("ok: {} is policy `{}`\n", path.display(), policy.name);
    for (verb, time) in next {
        line!(text, "    next {verb}: {}", human::time(*time, policy.timezone));
    }
    for lint in lints {
        line!(text, "warning: {}: {}", lint.subject, lint.what);
        line!(text, "hint: {}", lint.remedy);
    }
    text
}

/// Says how many faults were only counted: a restore remembers so many by name.
fn unnamed(text: &mut String, count: u64, named: usize) {
    let rest = count.saturating_sub(u64::try_from(named).unwrap_or(u64::MAX));
    if rest > 0 {
        line!(text, "{:<10} … and {rest} that were counted and not remembered", "");
    }
}
