//! What a backup did.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::backup::{Backed, Kind};
use crate::cli::render::copy::copies;
use crate::cli::render::forget::not_forgotten;
use crate::cli::render::{LINES_MAX, Told, more, shown};
use crate::cycle::done::BackupDone;
use crate::exit::Failure;
use crate::human;
use crate::policy::Policy;

pub(super) fn backup(told: &mut Told, policy: &Policy, done: &BackupDone) {
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
    if !backed.pauses.is_empty() {
        let all: u64 = backed.pauses.iter().map(|pause| pause.millis).sum();
        let each = backed.pauses.iter().map(|pause| format!("{} {}", human::millis(pause.millis), pause.reason.name()));
        line!(text, "{:<10} the dump paused for {}: {}", "", human::millis(all), each.collect::<Vec<_>>().join(", "));
    }
    for left_out in backed.incomplete.iter().take(LINES_MAX) {
        line!(text, "{:<10} incomplete: {}", "", shown(left_out));
    }
    more(text, backed.incomplete.len());
}

pub(super) fn failed_json(done: &BackupDone) -> Vec<Value> {
    let of = |(source, error): &(String, crate::backup::BackupError)| json!({ "source": source, "failure": Failure::from(error) });
    done.outcome.failed.iter().map(of).collect()
}
