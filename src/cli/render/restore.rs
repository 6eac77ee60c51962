//! What a restore is going to do, and did.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::render::{LINES_MAX, more, replay, shown, unnamed};
use crate::human;
use crate::mysql::sql;
use crate::policy::Policy;
use crate::restore::choose::Moment;
use crate::restore::{Plan, Proof, Restored};
use crate::target::mysql::{Failed, KeyCheck, LoadPlan};

pub(in crate::cli) fn targets(plan: &Plan) -> String {
    let servers = plan.databases.iter().map(|database| database.server.name());
    let dirs = plan.trees.iter().map(|tree| tree.dir.display().to_string());
    servers.chain(dirs).collect::<Vec<_>>().join(" and ")
}

/// Tells what a restore will do, before it does it.
pub(in crate::cli) fn restore_plan(policy: &Policy, plan: &Plan, from: Option<&str>) -> String {
    let mut text = String::new();
    let place = from.map_or_else(|| "the repository".to_owned(), |copy| format!("copy `{copy}`"));
    line!(text, "restore from {place}:");
    for database in &plan.databases {
        let chosen = &database.chosen;
        let time = human::time(chosen.stored.snapshot.time, policy.timezone);
        line!(text, "  {} of {time} (snapshot {}) into {}", chosen.source, chosen.id().short(), database.server.name());
        load_plan(&mut text, &database.load);
        if let Some(replay) = &database.replay {
            replay::plan(&mut text, policy, replay);
        }
        first_order(&mut text, &database.load, plan.predicted_first);
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
    for refused in load.refused.iter().take(LINES_MAX) {
        let (table, why) = (sql::qualified(&refused.schema, &refused.table), &refused.why);
        line!(text, "    left out, so that the restore ends with 3: table {}: {}", shown(table), shown(why));
    }
    more(text, load.refused.len());
    for change in &load.changes {
        line!(text, "    changed: {}: {}", shown(&change.what), shown(some(&change.of)));
    }
    for note in &load.notes {
        line!(text, "    note: {}", shown(note));
    }
}

/// Writes the first of some names.
fn some(names: &[String]) -> String {
    const NAMES_MAX: usize = 5;
    let first = names.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Names the tables that come before all others, and when they should be there.
fn first_order(text: &mut String, load: &LoadPlan, predicted: Option<Duration>) {
    for refused in load.first_refused() {
        let table = sql::qualified(&refused.schema, &refused.table);
        line!(text, "    first: NOT {}, which is left out: there is no time to first order", shown(table));
    }
    let tables = load.first().len() as u64;
    if tables == 0 {
        return;
    }
    let (count, bytes) = (human::counted(tables, "table", "tables"), human::bytes(load.first_bytes()));
    let predicted = predicted.map_or_else(|| "unknown".to_owned(), human::duration);
    line!(
        text,
        "    first: {} ({count}, {bytes}); predicted time to first order: {predicted}",
        shown(load.first_named())
    );
}

/// Names the recovery point and what it loses: where no binlogs are replayed, all that was written after the snapshot.
fn recovery_point(text: &mut String, policy: &Policy, plan: &Plan) {
    for database in &plan.databases {
        if let Some(replay) = &database.replay {
            replay::recovery_point(text, policy, &database.chosen.source, replay);
        }
    }
    let dumps = plan.databases.iter().filter(|database| database.replay.is_none()).map(|database| &database.chosen);
    let chosen = || dumps.clone().chain(plan.trees.iter().map(|tree| &tree.chosen));
    let Some(oldest) = chosen().min_by_key(|chosen| chosen.stored.snapshot.time) else { return };
    let time = human::time(oldest.stored.snapshot.time, policy.timezone);
    let lost = human::duration(oldest.lost.to_std().unwrap_or_default());
    let until = match &plan.moment {
        Moment::At(time) => human::time(*time, policy.timezone),
        Moment::Latest | Moment::Snapshot(_) => "now".to_owned(),
    };
    line!(text, "  recovery point: {time}; what was written in the {lost} from then until {until} is lost");
    if dumps.clone().next().is_some() {
        line!(text, "  (no binlogs are replayed: `--point-in-time` with `--binlogs DIR` does that)");
    }
    for chosen in chosen().filter(|chosen| chosen.is_incomplete) {
        let (id, source) = (chosen.id().short(), &chosen.source);
        line!(text, "  note: snapshot {id} of {source} is incomplete: some entries could not be read when it was made");
    }
}

pub(in crate::cli) fn restore_plan_json(plan: &Plan) -> Value {
    let databases: Vec<Value> = plan
        .databases
        .iter()
        .map(|database| {
            json!({
                "source": database.chosen.source,
                "snapshot": database.chosen.id(),
                "time": database.chosen.stored.snapshot.time,
                "lost_seconds": database.replay.is_none().then(|| database.chosen.lost.num_seconds()),
                "incomplete": database.chosen.is_incomplete,
                "server": database.server.name(),
                "bytes": database.load.bytes(),
                "plan": database.load,
                "replay": database.replay.as_ref().map(replay::plan_json),
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
    let mut planned = json!({
        "databases": null,
        "trees": trees,
        "predicted_seconds": plan.predicted.map(|span| span.as_secs()),
        "predicted_first_order_seconds": plan.predicted_first.map(|span| span.as_secs()),
    });
    // Moved and not copied, as the macro would: it may be large.
    planned["databases"] = databases.into();
    planned
}

/// What was looked at after a restore, where that was asked for.
#[derive(Clone, Copy)]
pub(in crate::cli) struct Proofs<'a> {
    pub(in crate::cli) snapshot: Option<&'a Proof>,
    pub(in crate::cli) foreign_keys: Option<&'a KeyCheck>,
}

/// Tells what a restore did, what it could not, and what the proofs found.
pub(in crate::cli) fn restored(
    policy: &Policy,
    plan: &Plan,
    restored: &Restored,
    proofs: Proofs<'_>,
    took: Duration,
) -> String {
    let mut text = String::new();
    for (database, (source, loaded)) in plan.databases.iter().zip(&restored.databases) {
        line!(text, "{source:<10} loaded {} rows into {} tables", human::count(loaded.rows), loaded.tables);
        if let Some(took) = loaded.first_took {
            let (took, tables) = (human::duration(took), shown(database.load.first_named()));
            line!(text, "{:<10} time to first order {took}: {tables}", "");
        }
        not_loaded(&mut text, &loaded.failed);
    }
    for (database, replayed) in plan.databases.iter().zip(&restored.replayed) {
        if let Some(replay) = &database.replay {
            replay::done(&mut text, policy, &database.chosen.source, replay, replayed.as_ref());
        }
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
    if let Some(proof) = proofs.snapshot {
        proved(&mut text, proof);
    }
    if let Some(check) = proofs.foreign_keys {
        keys(&mut text, check);
    }
    line!(text, "restored in {}", human::duration(took));
    recovery_point(&mut text, policy, plan);
    text
}

/// Names the tables and objects that did not come, and the next step for each kind of reason once.
fn not_loaded(text: &mut String, failed: &[Failed]) {
    for failed in failed.iter().take(LINES_MAX) {
        line!(text, "{:<10} not restored: {}: {}", "", shown(&failed.what), shown(human::chain(&failed.error)));
    }
    more(text, failed.len());
    let hints: BTreeSet<String> = failed.iter().filter_map(|failed| failed.error.hint()).collect();
    for hint in hints {
        line!(text, "{:<10} hint: {}", "", shown(hint));
    }
}

fn keys(text: &mut String, check: &KeyCheck) {
    let count = human::counted(check.keys as u64, "foreign key", "foreign keys");
    match (check.keys, check.orphans.len()) {
        (0, _) => line!(text, "foreign keys: no table that came whole has any"),
        (_, 0) => line!(text, "{count} checked: every row of the tables that came whole points to a row that is there"),
        (_, orphaned) => {
            line!(text, "{count} checked, and {orphaned} of them POINT TO ROWS THAT ARE NOT THERE:");
        }
    }
    for orphans in check.orphans.iter().take(LINES_MAX) {
        line!(text, "  {}", shown(orphans));
    }
    more(text, check.orphans.len());
}

fn proved(text: &mut String, proof: &Proof) {
    match proof {
        Proof { differing: 0, uncompared, .. } if uncompared.is_empty() => {
            line!(text, "verified: every chunk of rows and every file that was restored equals the snapshot");
        }
        Proof { differing: 0, .. } => line!(text, "NOT ALL was compared with the snapshot; what was equals it"),
        proof => line!(text, "NOT EQUAL to the snapshot in {} places:", human::count(proof.differing)),
    }
    for difference in proof.lines.iter().take(LINES_MAX) {
        line!(text, "  {}", shown(difference));
    }
    more(text, proof.lines.len());
    for (table, why) in proof.uncompared.iter().take(LINES_MAX) {
        line!(text, "  not compared: {}: {why}", shown(table));
    }
    more(text, proof.uncompared.len());
}

pub(in crate::cli) fn restored_json(restored: &Restored) -> Value {
    let databases: Vec<Value> = restored
        .databases
        .iter()
        .enumerate()
        .map(|(nth, (source, loaded))| {
            let replayed = restored.replayed.get(nth).and_then(Option::as_ref);
            let failed: Vec<Value> = loaded
                .failed
                .iter()
                .map(|one| json!({ "what": one.what, "error": human::chain(&one.error), "hint": one.error.hint() }))
                .collect();
            json!({
                "source": source,
                "rows": loaded.rows,
                "tables": loaded.tables,
                "first_order_millis": loaded.first_took.map(crate::backup::millis),
                "replayed": replayed.map(replay::done_json),
                "failed": failed,
            })
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
