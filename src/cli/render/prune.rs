//! What a prune would do, and did.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::render::{LINES_MAX, Told, more};
use crate::cycle::done::PruneDone;
use crate::exit::Failure;
use crate::human;
use crate::prune::plan::{Planned, PrunePlan};

pub(in crate::cli) fn prune_plan(plan: &PrunePlan) -> String {
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

pub(in crate::cli) fn prune_plan_json(plan: &PrunePlan) -> Value {
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

pub(super) fn pruned(told: &mut Told, done: &PruneDone) {
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

pub(super) fn pruned_json(done: &PruneDone) -> Value {
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
