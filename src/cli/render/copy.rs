//! What a copy would do, and did.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::render::{LINES_MAX, Told, more, shown};
use crate::copy::{Copied, CopyPlan};
use crate::cycle::done::CopyDone;
use crate::human;

pub(super) fn copies(told: &mut Told, copies: &[CopyDone]) {
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

pub(in crate::cli) fn copy_plan(name: &str, plan: &CopyPlan) -> String {
    format!("{name:<10} would send {} objects, {}\n", plan.count(), human::bytes(plan.bytes()))
}

pub(super) fn copies_json(copies: &[CopyDone]) -> Vec<Value> {
    let of = |copy: &CopyDone| match &copy.result {
        Ok(copied) => copied_json(&copy.name, copied),
        Err(failure) => json!({ "copy": copy.name, "complete": false, "failure": failure }),
    };
    copies.iter().map(of).collect()
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
