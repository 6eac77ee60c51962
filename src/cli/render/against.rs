//! How sources stand to their snapshots.

use std::fmt::Write as _;

use crate::against::{Compared, Report};
use crate::cli::render::{LINES_MAX, Told, more, shown};
use crate::exit::Failure;
use crate::human;
use crate::policy::Policy;

pub(in crate::cli) fn compared(told: &mut Told, policy: &Policy, compared: &Compared) {
    match &compared.result {
        Ok(report) => told.text.push_str(&text(policy, report)),
        Err(error) => told.fail(&format!("{}: ", compared.source), &Failure::from(error)),
    }
}

fn text(policy: &Policy, report: &Report) -> String {
    let mut text = String::new();
    let place = match (report.is_unmoved, report.is_damage()) {
        (_, true) => "DAMAGED: rows differ, and the source's binlog stands where it stood",
        (Some(true), false) => "the source's binlog stands where it stood",
        (Some(false), _) => "the source has moved on since",
        (None, _) => "without a binlog, what changed since cannot be told from damage",
    };
    line!(
        text,
        "{:<10} {} equal to snapshot {} of {}; {place}",
        shown(&report.source),
        human::counted(report.equal as u64, "table", "tables"),
        report.snapshot.short(),
        human::time(report.snapshot_time, policy.timezone),
    );
    let changed = report.changed.iter().map(|it| format!("changed: {}, now {}", it.rows, human::count(it.rows_now)));
    let altered = report.altered.iter().map(|table| format!("altered: {table} has other columns or another key"));
    let gone = report.gone.iter().map(|table| format!("gone: {table}"));
    let new = report.new.iter().map(|table| format!("new: {table}"));
    let lines: Vec<String> = changed.chain(altered).chain(gone).chain(new).collect();
    for line in lines.iter().take(LINES_MAX) {
        line!(text, "           {}", shown(line));
    }
    more(&mut text, lines.len());
    text
}
