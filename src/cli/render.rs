//! What verbs did, as lines for people and as JSON for machines.

use std::fmt::{Display, Write as _};
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::backup::{Backed, Kind};
use crate::cli::ink;
use crate::copy::{Copied, CopyPlan};
use crate::cycle::Step;
use crate::cycle::done::{BackupDone, CopyDone, Done, DrillDone, PruneDone};
use crate::cycle::journal::Verb;
use crate::exit::Failure;
use crate::forget::{ForgetPlan, Forgotten, Judgement};
use crate::heal::{HealPlan, Healed};
use crate::human;
use crate::policy::{Lint, Policy};
use crate::prune::plan::{Planned, PrunePlan};
use crate::repository::RepositoryError;
use crate::restore::choose::Moment;
use crate::restore::{Plan, Proof, Restored};
use crate::store::{FileKind, Key, StoreError};
use crate::target::mysql::{LoadPlan, Orphans};
use crate::verify;
use crate::verify::Object;

/// Faults that are listed; the counts are always whole, and `--json` has them all.
const LINES_MAX: usize = 20;

macro_rules! line {
    ($text:expr, $($format:tt)*) => {{
        // Writing into a String cannot fail.
        let _infallible = writeln!($text, $($format)*);
    }};
}

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
            Ok(Done::Copy(done)) => copies(told, done),
            Ok(Done::Verify(report)) => {
                verified(&mut told.text, "verify", report);
                offer_heal(&mut told.text, policy, report);
            }
            Ok(Done::Heal(healed)) => heal(&mut told.text, healed),
            Ok(Done::Prune(done)) => pruned(told, done),
            Ok(Done::Drill(done)) => drill(told, done),
            Err(error) => told.fail(&format!("{} {}: ", step.verb, policy.name), error),
        }
        if let Some(error) = &step.unrecorded {
            told.fail(&format!("record the {} of {}: ", step.verb, policy.name), error);
        }
    }
}

fn backup(told: &mut Told, policy: &Policy, done: &BackupDone) {
    for backed in &done.outcome.done {
        one_backup(&mut told.text, policy, backed);
    }
    for (source, error) in &done.outcome.failed {
        told.fail(&format!("back up {source}: "), &Failure::from(error));
    }
    copies(told, &done.copies);
    match &done.forgotten {
        Ok((plan, forgotten)) => {
            if let Some(freeze) = &plan.frozen {
                line!(told.text, "retention  rests: {freeze}");
            } else if !forgotten.done.is_empty() {
                let kept = plan.judgements.iter().filter(|judgement| judgement.keep).count();
                line!(told.text, "retention  {} snapshots forgotten, {kept} kept", forgotten.done.len());
            }
            not_forgotten(told, forgotten);
        }
        Err(error) => told.fail("forget: ", error),
    }
}

fn not_forgotten(told: &mut Told, forgotten: &Forgotten) {
    for (id, error) in forgotten.failed.iter().take(LINES_MAX) {
        if let RepositoryError::Store(StoreError::Protected { until, .. }) = error {
            let until =
                until.map_or_else(String::new, |until| format!(" until {}", human::time(until, chrono_tz::UTC)));
            line!(told.text, "protected  snapshot {}: the store keeps it{until}", id.short());
            continue;
        }
        told.fail(&format!("forget {}: ", id.short()), &Failure::from(error));
    }
    more(&mut told.errors, forgotten.failed.len());
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

fn copies(told: &mut Told, copies: &[CopyDone]) {
    for copy in copies {
        match &copy.result {
            Ok(copied) => one_copy(told, &copy.name, copied),
            Err(error) => {
                told.fail(&format!("copy to {}: ", copy.name), error);
                line!(told.errors, "note: the snapshots are kept here, and the next run sends what is missing");
            }
        }
    }
}

fn one_copy(told: &mut Told, name: &str, copied: &Copied) {
    line!(
        told.text,
        "{name:<10} copy: {} packs and {} snapshots sent, {}",
        copied.packs,
        copied.snapshots.len(),
        human::bytes(copied.bytes)
    );
    if copied.prolonged > 0 {
        line!(told.text, "{:<10} {} kept immutable", "", human::counted(copied.prolonged, "object", "objects"));
    }
    for (key, error) in copied.failed.iter().take(LINES_MAX) {
        let error = human::chain(error);
        line!(told.errors, "error: copy to {name}: {}: {}", shown(key), shown(error));
    }
    more(&mut told.errors, copied.failed.len());
}

pub(super) fn copy_plan(name: &str, plan: &CopyPlan) -> String {
    format!("{name:<10} would send {} objects, {}\n", plan.count(), human::bytes(plan.bytes()))
}

fn verified(text: &mut String, what: &str, report: &verify::Report) {
    let verdict = if report.is_sound() { "sound" } else { "DAMAGED" };
    let checked = report.checked;
    line!(
        text,
        "{what:<10} {verdict}: {} snapshots, {} packs named, {} of them and {} blobs read ({})",
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
            for rows in cost.rows.iter().take(LINES_MAX) {
                line!(text, "             which is {rows}");
            }
        }
        if finding.costs_more > 0 {
            line!(text, "             and {} more", finding.costs_more);
        }
    }
    more(text, report.damaged.len() + report.missing.len());
}

fn offer_heal(text: &mut String, policy: &Policy, report: &verify::Report) {
    if !report.is_sound() {
        let level = match report.level {
            verify::Level::Structure => "",
            verify::Level::Data => " --level data",
        };
        line!(text, "{:<10} `bkp verify {}{level} --heal` puts back what another store holds whole", "", policy.name);
    }
}

/// Tells what a verify that heals found, what is whole again, and why the rest is not.
fn heal(text: &mut String, healed: &Healed) {
    verified(text, &healed.store, &healed.report);
    for left in healed.left.iter().take(LINES_MAX) {
        line!(text, "           not healed: {}: {}", shown(&left.object), shown(&left.why));
    }
    more(text, healed.left.len());
    if let Some(why) = &healed.unseen {
        line!(text, "           not looked at again: {}", shown(why));
    }
    if healed.is_locked() {
        line!(
            text,
            "           a lock stands in the way: run it again once its holder is done; what nobody holds `restic unlock` removes"
        );
    }
    if healed.mended.is_empty() {
        return;
    }
    let objects = human::counted(healed.mended.len() as u64, "object", "objects");
    line!(text, "{:<10} healed {objects}, {} put back", healed.store, human::bytes(healed.bytes()));
    for mended in healed.mended.iter().take(LINES_MAX) {
        line!(text, "           {}", shown(mended));
    }
    more(text, healed.mended.len());
}

pub(super) fn heal_plan(store: &str, report: &verify::Report, plan: &HealPlan) -> String {
    let mut text = String::new();
    verified(&mut text, store, report);
    for one in plan.put_back.iter().take(LINES_MAX) {
        let from = one.from.join(" or ");
        line!(text, "           would put back {}, {}, from {from}", shown(&one.object), human::bytes(one.bytes));
    }
    more(&mut text, plan.put_back.len());
    for one in plan.gathered.iter().take(LINES_MAX) {
        let (object, from) = (shown(&one.object), Vec::from_iter(one.from.clone()).join(" and "));
        let (blobs, bytes) = (one.blobs.len(), human::bytes(one.bytes));
        line!(
            text,
            "           would gather {blobs} of {} lost blobs of {object}, {bytes}, from other packs of {from}",
            one.lost
        );
    }
    more(&mut text, plan.gathered.len());
    for key in plan.replaced.iter().take(LINES_MAX) {
        line!(text, "           would replace {}: no snapshot needs what is lost with it", shown(key));
    }
    more(&mut text, plan.replaced.len());
    if plan.rebuilds_index {
        line!(text, "           would make an index from the headers of packs that have none");
        let is_put_back = |key: &Key| plan.put_back.iter().any(|one| one.object == *key);
        for finding in report.findings() {
            if let Object::Stored(key) = &finding.object
                && key.kind == FileKind::Index
                && !is_put_back(key)
            {
                line!(text, "           would then remove {}, once all packs are named", shown(key));
            }
        }
    }
    for key in plan.removed.iter().take(LINES_MAX) {
        line!(text, "           would remove {}: it is worth nothing any more", shown(key));
    }
    for left in plan.left.iter().take(LINES_MAX) {
        line!(text, "           cannot heal {}: {}", shown(&left.object), shown(&left.why));
    }
    more(&mut text, plan.left.len());
    if !plan.is_empty() {
        let objects = human::counted((plan.put_back.len() + plan.gathered.len()) as u64, "object", "objects");
        line!(
            text,
            "{store:<10} {objects}, {} in all; more may come to light once they are back",
            human::bytes(plan.bytes())
        );
    }
    text
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
            Ok(Done::Copy(done)) => json!({ "copies": copies_json(done) }),
            Ok(Done::Verify(report)) => json!({ "sound": report.is_sound(), "report": report }),
            Ok(Done::Heal(healed)) => json!({ "sound": healed.is_sound(), "report": healed.report, "healed": healed }),
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

pub(super) fn prune_plan(plan: &PrunePlan) -> String {
    let mut text = String::new();
    protected(&mut text, plan);
    if plan.is_empty() {
        line!(text, "nothing to free: {} in {} packs are needed", human::bytes(plan.bytes_kept), plan.packs_kept);
        return text;
    }
    let mut told = |what: &str, packs: &[Planned]| {
        let bytes: u64 = packs.iter().map(|pack| pack.size).sum();
        if !packs.is_empty() {
            line!(text, "{what:<10} {}, {}", human::counted(packs.len() as u64, "pack", "packs"), human::bytes(bytes));
        }
    };
    told("unused", &plan.unused);
    told("orphans", &plan.orphans);
    told("repack", &plan.repack);
    line!(text, "{:<10} {} into new packs", "write", human::bytes(plan.bytes_repacked));
    line!(
        text,
        "{:<10} {}; {} stay, {} of them unused",
        "frees",
        human::bytes(plan.bytes_freed()),
        human::bytes(plan.bytes_kept + plan.bytes_repacked),
        human::bytes(plan.bytes_unused_kept)
    );
    text
}

/// Tells what the store's own lock keeps, and from when on a prune frees it.
fn protected(text: &mut String, plan: &PrunePlan) {
    let (Some(first), Some(last)) =
        (plan.protected.iter().map(|it| it.until).min(), plan.protected.iter().map(|it| it.until).max())
    else {
        return;
    };
    let bytes: u64 = plan.protected.iter().map(|it| it.pack.size).sum();
    let packs = human::counted(plan.protected.len() as u64, "pack", "packs");
    let (first, last) = (human::time(first, chrono_tz::UTC), human::time(last, chrono_tz::UTC));
    line!(text, "protected  {packs}, {}: the store's lock ends from {first} to {last}", human::bytes(bytes));
    for it in plan.protected.iter().take(LINES_MAX) {
        line!(text, "{:<10} {} until {}", "", it.pack.id, human::time(it.until, chrono_tz::UTC));
    }
    more(text, plan.protected.len());
}

pub(super) fn prune_plan_json(plan: &PrunePlan) -> Value {
    let of = |packs: &[Planned]| -> Vec<Value> {
        packs.iter().map(|pack| json!({ "pack": pack.id, "bytes": pack.size })).collect()
    };
    let protected: Vec<Value> = plan
        .protected
        .iter()
        .map(|it| json!({ "pack": it.pack.id, "bytes": it.pack.size, "until": it.until }))
        .collect();
    json!({
        "protected": protected,
        "unused": of(&plan.unused),
        "orphans": of(&plan.orphans),
        "repack": of(&plan.repack),
        "bytes_repacked": plan.bytes_repacked,
        "bytes_freed": plan.bytes_freed(),
        "packs_kept": plan.packs_kept,
        "bytes_kept": plan.bytes_kept,
        "bytes_unused_kept": plan.bytes_unused_kept,
    })
}

fn pruned(told: &mut Told, done: &PruneDone) {
    let (plan, pruned) = match done {
        PruneDone::Rested(freeze) => {
            line!(told.text, "prune      rests: {freeze}");
            return;
        }
        PruneDone::Pruned { plan, pruned } => (plan, pruned),
    };
    if plan.is_empty() {
        told.text.push_str(&prune_plan(plan));
        return;
    }
    protected(&mut told.text, plan);
    let freed = pruned.bytes_deleted.saturating_sub(pruned.bytes_written);
    let deleted = human::counted(pruned.packs_deleted, "pack", "packs");
    let written = match pruned.packs_written {
        0 => String::new(),
        count => {
            let packs = human::counted(count, "new pack", "new packs");
            format!("; {} written into {packs}", human::bytes(pruned.bytes_written))
        }
    };
    line!(told.text, "prune      {deleted} deleted, {} freed{written}", human::bytes(freed));
    for (key, error) in pruned.failed.iter().take(LINES_MAX) {
        told.fail(&format!("delete {key}: "), &Failure::from(error));
    }
    more(&mut told.errors, pruned.failed.len());
}

fn pruned_json(done: &PruneDone) -> Value {
    match done {
        PruneDone::Rested(freeze) => json!({ "rests": freeze.to_string() }),
        PruneDone::Pruned { plan, pruned } => {
            let failed: Vec<Value> = pruned
                .failed
                .iter()
                .map(|(key, error)| json!({ "object": key.to_string(), "error": error.to_string() }))
                .collect();
            json!({
                "plan": prune_plan_json(plan),
                "packs_deleted": pruned.packs_deleted,
                "bytes_deleted": pruned.bytes_deleted,
                "packs_written": pruned.packs_written,
                "bytes_written": pruned.bytes_written,
                "failed": failed,
            })
        }
    }
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
        line!(text, "{mark} {} {:<12} {time}  {why}", verdict.id.short(), shown(&verdict.source));
    }
    text
}

pub(super) fn forget_plan_json(plan: &ForgetPlan) -> Value {
    let of = |one: &Judgement| json!({ "id": one.id, "source": one.source, "time": one.time, "keep": one.keep, "reasons": one.reasons });
    let snapshots: Vec<Value> = plan.judgements.iter().map(of).collect();
    json!({ "frozen": plan.frozen.as_ref().map(ToString::to_string), "snapshots": snapshots, "others": plan.others })
}

pub(super) fn forgotten(told: &mut Told, forgotten: &Forgotten) {
    line!(told.text, "{} snapshots forgotten", forgotten.done.len());
    not_forgotten(told, forgotten);
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
        .map(|(key, error)| json!({ "object": key.to_string(), "error": human::chain(error) }))
        .collect();
    json!({
        "copy": name,
        "complete": copied.is_complete(),
        "packs": copied.packs,
        "snapshots": copied.snapshots,
        "bytes": copied.bytes,
        "there": copied.skipped,
        "prolonged": copied.prolonged,
        "failed": failed,
        "held_back": copied.held_back,
    })
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

pub(super) fn targets(plan: &Plan) -> String {
    let servers = plan.databases.iter().map(|database| database.server.name());
    let dirs = plan.trees.iter().map(|tree| tree.dir.display().to_string());
    servers.chain(dirs).collect::<Vec<_>>().join(" and ")
}

/// Tells what a restore will do, before it does it.
pub(super) fn restore_plan(policy: &Policy, plan: &Plan, from: Option<&str>) -> String {
    let mut text = String::new();
    let place = from.map_or_else(|| "the repository".to_owned(), |copy| format!("copy `{copy}`"));
    line!(text, "restore from {place}:");
    for database in &plan.databases {
        let chosen = &database.chosen;
        let time = human::time(chosen.stored.snapshot.time, policy.timezone);
        line!(text, "  {} of {time} (snapshot {}) into {}", chosen.source, chosen.id().short(), database.server.name());
        load_plan(&mut text, &database.load);
    }
    for tree in &plan.trees {
        let chosen = &tree.chosen;
        let time = human::time(chosen.stored.snapshot.time, policy.timezone);
        line!(text, "  {} of {time} (snapshot {}) into {}", chosen.source, chosen.id().short(), tree.dir.display());
        let files = &tree.files;
        line!(
            text,
            "    {} files in {} directories, {}",
            human::count(files.files),
            human::count(files.dirs),
            human::bytes(files.bytes)
        );
        if !files.missing.is_empty() {
            line!(text, "    note: {} files cannot be restored, their bytes are missing", files.missing.len());
        }
    }
    recovery_point(&mut text, policy, plan);
    match plan.predicted {
        Some(predicted) => {
            line!(text, "  predicted duration: {} (from the newest drill's rates)", human::duration(predicted));
        }
        None => line!(text, "  predicted duration: unknown, no drill has measured it yet"),
    }
    text
}

fn load_plan(text: &mut String, load: &LoadPlan) {
    let verb = if load.resumes { "go on loading" } else { "load" };
    let (tables, objects) = (load.tables.len(), load.objects.len());
    line!(
        text,
        "    {verb} {} rows, {}, into {tables} tables of {}; {objects} other objects",
        human::count(load.rows()),
        human::bytes(load.bytes()),
        load.target
    );
    for drop in load.drops.iter().take(LINES_MAX) {
        let (schema, name) = (shown(&drop.schema), shown(&drop.name));
        line!(text, "    drop {} `{schema}`.`{name}` first", drop.holding.keyword().to_lowercase());
    }
    more(text, load.drops.len());
    for omitted in load.omitted.iter().take(LINES_MAX) {
        line!(text, "    left out: {}: {}", shown(&omitted.what), shown(&omitted.why));
    }
    more(text, load.omitted.len());
    for note in &load.notes {
        line!(text, "    note: {}", shown(note));
    }
}

/// Names the recovery point and what it loses: until binlogs are captured, all that was written after the snapshot.
fn recovery_point(text: &mut String, policy: &Policy, plan: &Plan) {
    let chosen =
        || plan.databases.iter().map(|database| &database.chosen).chain(plan.trees.iter().map(|tree| &tree.chosen));
    let Some(oldest) = chosen().min_by_key(|chosen| chosen.stored.snapshot.time) else { return };
    let time = human::time(oldest.stored.snapshot.time, policy.timezone);
    let lost = human::duration(oldest.lost.to_std().unwrap_or_default());
    let until = match &plan.moment {
        Moment::At(time) => human::time(*time, policy.timezone),
        Moment::Latest | Moment::Snapshot(_) => "now".to_owned(),
    };
    line!(text, "  recovery point: {time}; what was written in the {lost} from then until {until} is lost");
    line!(text, "  (this version restores snapshots; it does not replay binlogs)");
    for chosen in chosen().filter(|chosen| chosen.is_incomplete) {
        let (id, source) = (chosen.id().short(), &chosen.source);
        line!(text, "  note: snapshot {id} of {source} is incomplete: some entries could not be read when it was made");
    }
}

pub(super) fn restore_plan_json(plan: &Plan) -> Value {
    let databases: Vec<Value> = plan
        .databases
        .iter()
        .map(|database| {
            json!({
                "source": database.chosen.source,
                "snapshot": database.chosen.id(),
                "time": database.chosen.stored.snapshot.time,
                "lost_seconds": database.chosen.lost.num_seconds(),
                "incomplete": database.chosen.is_incomplete,
                "server": database.server.name(),
                "bytes": database.load.bytes(),
                "plan": database.load,
            })
        })
        .collect();
    let trees: Vec<Value> = plan
        .trees
        .iter()
        .map(|tree| {
            json!({
                "source": tree.chosen.source,
                "snapshot": tree.chosen.id(),
                "time": tree.chosen.stored.snapshot.time,
                "lost_seconds": tree.chosen.lost.num_seconds(),
                "incomplete": tree.chosen.is_incomplete,
                "dir": tree.dir.to_string_lossy(),
                "files": tree.files.files,
                "bytes": tree.files.bytes,
                "missing": tree.files.missing.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "databases": databases, "trees": trees, "predicted_seconds": plan.predicted.map(|span| span.as_secs()) })
}

/// What was looked at after a restore, where that was asked for.
#[derive(Clone, Copy)]
pub(super) struct Proofs<'a> {
    pub(super) snapshot: Option<&'a Proof>,
    pub(super) foreign_keys: Option<&'a [Orphans]>,
}

/// Tells what a restore did, what it could not, and what the proofs found.
pub(super) fn restored(
    policy: &Policy,
    plan: &Plan,
    restored: &Restored,
    proofs: Proofs<'_>,
    took: Duration,
) -> String {
    let mut text = String::new();
    for (source, loaded) in &restored.databases {
        line!(text, "{source:<10} loaded {} rows into {} tables", human::count(loaded.rows), loaded.tables);
        for failed in loaded.failed.iter().take(LINES_MAX) {
            line!(text, "{:<10} not restored: {}: {}", "", shown(&failed.what), shown(human::chain(&failed.error)));
        }
        more(&mut text, loaded.failed.len());
    }
    for (source, tree) in &restored.trees {
        line!(
            text,
            "{source:<10} {} files restored, {}; {} were there already",
            human::count(tree.files),
            human::bytes(tree.bytes),
            human::count(tree.skipped)
        );
        for (path, reason) in tree.failed.iter().take(LINES_MAX) {
            line!(text, "{:<10} not restored: {}: {}", "", shown(path.display()), shown(reason));
        }
        more(&mut text, tree.failed.len());
        unnamed(&mut text, tree.failures, tree.failed.len());
        for (path, without) in tree.reduced.iter().take(LINES_MAX) {
            line!(text, "{:<10} restored without {}: {}", "", shown(without), shown(path.display()));
        }
        more(&mut text, tree.reduced.len());
        unnamed(&mut text, tree.reductions, tree.reduced.len());
        if tree.owners_lost > 0 {
            line!(
                text,
                "{:<10} {} entries belong to you instead of their owner: only root may give files away",
                "",
                tree.owners_lost
            );
        }
    }
    match proofs.snapshot {
        None => {}
        Some(Proof { differing: 0, .. }) => {
            line!(text, "verified: every chunk of rows and every file that was restored equals the snapshot");
        }
        Some(proof) => {
            line!(text, "NOT EQUAL to the snapshot in {} places:", human::count(proof.differing));
            for difference in proof.lines.iter().take(LINES_MAX) {
                line!(text, "  {}", shown(difference));
            }
            more(&mut text, proof.lines.len());
        }
    }
    match proofs.foreign_keys {
        None => {}
        Some([]) => line!(text, "foreign keys: every restored row points to a row that is there"),
        Some(orphans) => {
            line!(text, "FOREIGN KEYS point to rows that are not there:");
            for orphans in orphans.iter().take(LINES_MAX) {
                line!(text, "  {}", shown(orphans));
            }
            more(&mut text, orphans.len());
        }
    }
    line!(text, "restored in {}", human::duration(took));
    recovery_point(&mut text, policy, plan);
    text
}

pub(super) fn restored_json(restored: &Restored) -> Value {
    let databases: Vec<Value> = restored
        .databases
        .iter()
        .map(|(source, loaded)| {
            let failed: Vec<Value> = loaded
                .failed
                .iter()
                .map(|one| json!({ "what": one.what, "error": human::chain(&one.error) }))
                .collect();
            json!({ "source": source, "rows": loaded.rows, "tables": loaded.tables, "failed": failed })
        })
        .collect();
    let trees: Vec<Value> = restored
        .trees
        .iter()
        .map(|(source, tree)| {
            let failed: Vec<Value> = tree
                .failed
                .iter()
                .map(|(path, reason)| json!({ "path": path.to_string_lossy(), "reason": reason }))
                .collect();
            let reduced: Vec<Value> = tree
                .reduced
                .iter()
                .map(|(path, without)| json!({ "path": path.to_string_lossy(), "without": without }))
                .collect();
            json!({
                "source": source,
                "files": tree.files,
                "bytes": tree.bytes,
                "skipped": tree.skipped,
                "failures": tree.failures,
                "failed": failed,
                "reductions": tree.reductions,
                "reduced": reduced,
                "owners_lost": tree.owners_lost,
            })
        })
        .collect();
    json!({ "databases": databases, "trees": trees })
}

/// Says how many faults were only counted: a restore remembers so many by name.
fn unnamed(text: &mut String, count: u64, named: usize) {
    let rest = count.saturating_sub(u64::try_from(named).unwrap_or(u64::MAX));
    if rest > 0 {
        line!(text, "{:<10} … and {rest} that were counted and not remembered", "");
    }
}
