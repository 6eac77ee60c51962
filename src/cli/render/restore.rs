//! What a restore is going to do, and did.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::render::{LINES_MAX, more, shown, unnamed};
use crate::human;
use crate::policy::Policy;
use crate::restore::choose::Moment;
use crate::restore::{Plan, Proof, Restored};
use crate::target::mysql::{LoadPlan, Orphans};

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

pub(in crate::cli) fn restore_plan_json(plan: &Plan) -> Value {
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
pub(in crate::cli) struct Proofs<'a> {
    pub(in crate::cli) snapshot: Option<&'a Proof>,
    pub(in crate::cli) foreign_keys: Option<&'a [Orphans]>,
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

pub(in crate::cli) fn restored_json(restored: &Restored) -> Value {
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
