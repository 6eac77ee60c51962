//! What the recovery of some tables is going to do, and did.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::render::{LINES_MAX, more, replay, shown};
use crate::human;
use crate::policy::Policy;
use crate::replay::Replayed;
use crate::restore::part::changes::Header;
use crate::restore::part::{Copied, Of, PartPlan};
use crate::target::mysql::LoadPlan;

fn names(tables: &[(String, String)]) -> String {
    tables.iter().map(|(schema, table)| format!("{schema}.{table}")).collect::<Vec<_>>().join(", ")
}

/// Tells what is recovered in the sandbox, and from what.
pub(in crate::cli) fn part_plan(policy: &Policy, plan: &PartPlan, of: Option<&Of>) -> String {
    let mut text = String::new();
    let whose = of.map_or_else(|| "all rows".to_owned(), |of| format!("rows with {} = {}", of.column, of.value));
    line!(text, "recover in a sandbox, {} of {}:", shown(whose), shown(names(&plan.tables)));
    let chosen = &plan.chosen;
    let time = human::time(chosen.stored.snapshot.time, policy.timezone);
    line!(text, "  load them from {} of {time} (snapshot {})", chosen.source, chosen.id().short());
    let others: Vec<_> = plan.family.iter().filter(|table| !plan.tables.contains(table)).cloned().collect();
    if !others.is_empty() {
        line!(text, "    and {}, whose rows take theirs along (foreign keys with a cascade)", shown(names(&others)));
    }
    replay::of(&mut text, policy, &plan.replay);
    for (table, counts) in &plan.scan.changes {
        line!(
            text,
            "      {}: {} inserted, {} updated, {} deleted by then",
            shown(table),
            human::count(counts.inserted),
            human::count(counts.updated),
            human::count(counts.deleted)
        );
    }
    for definition in plan.scan.definitions.iter().take(LINES_MAX) {
        let verbs: Vec<&str> = definition.verbs.iter().map(|verb| verb.name()).collect();
        let time = human::time(definition.time, policy.timezone);
        line!(text, "      {}: {} at {time}", shown(&definition.table), verbs.join(", "));
    }
    more(&mut text, plan.scan.definitions.len());
    line!(text, "  recovery point: {}", plan.point);
    text
}

pub(in crate::cli) fn part_plan_json(plan: &PartPlan) -> Value {
    json!({
        "source": plan.chosen.source,
        "snapshot": plan.chosen.id(),
        "time": plan.chosen.stored.snapshot.time,
        "point": plan.point.to_string(),
        "tables": plan.tables.iter().map(|(schema, table)| format!("{schema}.{table}")).collect::<Vec<_>>(),
        "loaded": plan.family.iter().map(|(schema, table)| format!("{schema}.{table}")).collect::<Vec<_>>(),
        "transactions": plan.replay.transactions,
        "last_included": plan.replay.last,
        "first_excluded": plan.replay.first_excluded,
        "falls_short": plan.replay.falls_short,
        "later": plan.replay.later,
        "changes": plan.scan.changes,
        "definitions": plan.scan.definitions,
    })
}

/// Tells where the tables are copied to.
pub(in crate::cli) fn part_copy(load: &LoadPlan, server: &str) -> String {
    let mut text = String::new();
    let tables: Vec<_> = load.tables.iter().map(|step| (step.table.schema.clone(), step.table.name.clone())).collect();
    line!(text, "  copy them to {server}, as {}", shown(names(&tables)));
    for drop in &load.drops {
        let keyword = drop.holding.keyword().to_lowercase();
        line!(text, "    drop {keyword} `{}`.`{}` first", shown(&drop.schema), shown(&drop.name));
    }
    for note in &load.notes {
        line!(text, "    note: {}", shown(note));
    }
    text
}

/// Tells what was copied.
pub(in crate::cli) fn part_copied(copied: &Copied, replayed: &Replayed) -> String {
    let mut text = String::new();
    let count = human::counted(replayed.transactions, "transaction", "transactions");
    line!(text, "followed {count} in {}", human::duration(replayed.took));
    let rows = human::counted(copied.loaded.rows, "row", "rows");
    let tables = human::counted(copied.loaded.tables as u64, "table", "tables");
    line!(text, "copied {rows} into {tables}");
    for failed in copied.loaded.failed.iter().take(LINES_MAX) {
        line!(text, "not copied: {}: {}", shown(&failed.what), shown(human::chain(&failed.error)));
    }
    more(&mut text, copied.loaded.failed.len());
    for difference in copied.differences.iter().take(LINES_MAX) {
        line!(text, "NOT EQUAL: {}", shown(difference));
    }
    more(&mut text, copied.differences.len());
    for (table, why) in &copied.uncompared {
        line!(text, "not compared: {}: {why}", shown(table));
    }
    for key in &copied.lost_keys {
        line!(text, "left out: foreign key {}: the table that it points to is not among these", shown(key));
    }
    for trigger in &copied.lost_triggers {
        line!(text, "left out: trigger {}: it would have run for each row of others that was left out", shown(trigger));
    }
    if copied.is_whole() {
        line!(text, "verified: every row of the copy is as in the sandbox");
    }
    text
}

pub(in crate::cli) fn part_copied_json(copied: &Copied) -> Value {
    let failed: Vec<Value> = copied
        .loaded
        .failed
        .iter()
        .map(|one| json!({ "what": one.what, "error": human::chain(&one.error), "hint": one.error.hint() }))
        .collect();
    json!({
        "rows": copied.loaded.rows,
        "tables": copied.loaded.tables,
        "failed": failed,
        "differences": copied.differences,
        "uncompared": copied.uncompared,
        "lost_foreign_keys": copied.lost_keys,
        "lost_triggers": copied.lost_triggers,
        "verified": copied.is_whole(),
    })
}

/// Tells what a change set would change, and what stands in its way.
pub(in crate::cli) fn change_set(header: &Header, file: &Path) -> String {
    let mut text = String::new();
    let about = &header.about;
    let whose = about.of.as_ref().map_or_else(|| "all rows".to_owned(), |of| format!("rows with {of}"));
    line!(text, "change set `{}`: {} as they were at {}", shown(file.display()), shown(whose), shown(&about.point));
    line!(text, "  last transaction before that: {}", shown(about.last.as_deref().unwrap_or("none since the dump")));
    for table in &header.tables {
        line!(
            text,
            "  {}: {} to insert, {} to update, {} to delete",
            shown(&table.table),
            human::count(table.insert),
            human::count(table.update),
            human::count(table.delete)
        );
    }
    for conflict in header.conflicts.iter().take(LINES_MAX) {
        line!(text, "  CONFLICT: {}", shown(conflict));
    }
    more(&mut text, header.conflicts.len());
    if header.conflicting > 0 {
        let count = human::counted(header.conflicting, "conflict", "conflicts");
        line!(text, "{count}: it cannot be applied as it is");
    } else if header.rows() == 0 {
        line!(text, "nothing to change: the rows are what they were");
    } else {
        line!(
            text,
            "review it; `--changes {} --apply --in-place --confirm-host HOST` applies it, all or nothing",
            shown(file.display())
        );
    }
    text
}
