//! What a replay is going to bring, and brought.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::render::shown;
use crate::human;
use crate::mysql::binlog::Clock;
use crate::mysql::manifest::Position;
use crate::policy::Policy;
use crate::replay::{Filter, Mark, ReplayPlan, Replayed, Way};
use crate::restore::replay::DatabaseReplay;

/// Names of what is passed over that are printed; JSON has them all.
const NAMES_SHOWN: usize = 5;

/// Tells which transactions come, before they do.
pub(super) fn plan(text: &mut String, policy: &Policy, replay: &DatabaseReplay) {
    of(text, policy, &replay.plan);
    if let Some(at) = replay.serves_at.filter(|at| replay.is_streamed && !replay.is_loaded && !at.ip().is_loopback()) {
        let port = if at.port() == 0 { "any port".to_owned() } else { format!("port {}", at.port()) };
        line!(
            text,
            "      note: the target must reach this machine at {}, {port}; it is tried before anything is loaded",
            at.ip()
        );
    }
}

/// Tells which transactions a plan brings.
pub(super) fn of(text: &mut String, policy: &Policy, plan: &ReplayPlan) {
    let ReplayPlan { transactions, bytes, feed, begin, end, last, first_excluded, .. } = plan;
    line!(
        text,
        "    replay {}, {} of {}, from {} to {}",
        human::counted(*transactions, "transaction", "transactions"),
        human::bytes(*bytes),
        human::counted(feed.segments.len() as u64, "binlog", "binlogs"),
        place(begin),
        place(end)
    );
    let none = || "none".to_owned();
    line!(text, "      last included:  {}", last.as_ref().map_or_else(none, |last| mark(policy, last)));
    line!(text, "      first excluded: {}", first_excluded.as_ref().map_or_else(none, |first| mark(policy, first)));
    if plan.way == Way::Session {
        let why = plan.way_why.as_deref().unwrap_or_default();
        line!(text, "      by one session, slower than as a replica: {}", shown(why));
        if plan.events_fire {
            line!(text, "      note: the account may not stop the target's event scheduler: its events fire meanwhile");
        }
    }
    notes(text, plan);
}

pub(super) fn notes(text: &mut String, plan: &ReplayPlan) {
    if plan.later > 0 {
        let count = human::counted(plan.later, "transaction that comes bears", "transactions that come bear");
        line!(
            text,
            "      note: {count} a later time than the point: a clock was set back, or a session's; `--yes` does not take them"
        );
    }
    if plan.last.as_ref().is_some_and(|last| last.clock == Clock::Session) {
        line!(text, "      note: times are those of the last statements, by the second: this product tells no others");
    }
    if plan.falls_short {
        line!(
            text,
            "      note: the binlogs do not lead to the point; what is lost behind their end, they cannot tell"
        );
    }
    for varying in plan.varying.iter().take(NAMES_SHOWN) {
        let (tables, at) = (varying.tables.join(", "), &varying.transaction);
        let gtid = at.gtid.as_ref().map(|gtid| format!(", {gtid}")).unwrap_or_default();
        line!(
            text,
            "      note: rows of {} get a default that each server works out for itself ({}{gtid}): other values than on the source",
            shown(tables),
            place(&at.begin)
        );
    }
    if plan.varying.len() > NAMES_SHOWN {
        line!(text, "      note: and {} more such transactions", plan.varying.len() - NAMES_SHOWN);
    }
    if let Filter::AllBut(places) = &plan.filter {
        let names: Vec<String> = places.iter().take(NAMES_SHOWN).map(name).collect();
        let more = if places.len() > NAMES_SHOWN {
            format!(" and {} more", places.len() - NAMES_SHOWN)
        } else {
            String::new()
        };
        line!(text, "      note: passed over, because the policy left it out of the dump: {}{more}", names.join(", "));
    }
    if !plan.has_gtids && plan.transactions > 0 {
        line!(text, "      note: the source had no GTIDs: should the target break down, the restore begins anew");
    }
}

/// Writes a table, or all of a schema.
fn name((schema, table): &(String, String)) -> String {
    shown(format!("{schema}.{}", if table.is_empty() { "*" } else { table }))
}

fn place(place: &Position) -> String {
    format!("{}:{}", shown(&place.file), place.offset)
}

/// Names a transaction: when it was committed, its GTID and its place.
pub(in crate::cli) fn mark(policy: &Policy, mark: &Mark) -> String {
    let gtid = mark.gtid.as_ref().map_or_else(|| "no GTID".to_owned(), ToString::to_string);
    let local = mark.time.with_timezone(&policy.timezone);
    let form = if mark.clock == Clock::Server { "%Y-%m-%d %H:%M:%S%.6f %Z" } else { "%Y-%m-%d %H:%M:%S %Z" };
    format!("{}, {gtid}, {} to {}", local.format(form), place(&mark.begin), mark.end.offset)
}

/// Names the recovery point of a database that is replayed.
pub(super) fn recovery_point(text: &mut String, policy: &Policy, source: &str, replay: &DatabaseReplay) {
    let last = replay.plan.last.as_ref();
    let last = last.map_or_else(|| "the dump itself".to_owned(), |last| mark(policy, last));
    line!(text, "  recovery point of {source}: {}; its last transaction: {last}", replay.point);
}

/// Tells what was replayed, or that it was not.
pub(super) fn done(
    text: &mut String,
    policy: &Policy,
    source: &str,
    replay: &DatabaseReplay,
    replayed: Option<&Replayed>,
) {
    let Some(replayed) = replayed else {
        line!(text, "{source:<10} NOT REPLAYED: tables of the dump are missing, on which the binlogs build");
        return;
    };
    let count = human::counted(replayed.transactions, "transaction", "transactions");
    let (bytes, took) = (human::bytes(replayed.bytes), human::duration(replayed.took));
    line!(text, "{source:<10} replayed {count}, {bytes}, in {took}; the target has executed what was planned");
    if let Some(last) = &replay.plan.last {
        line!(text, "{:<10} last transaction: {}", "", mark(policy, last));
    }
    left(text, replayed.prepared, &replayed.events_off);
}

/// Names what a replica leaves to the operator.
pub(super) fn left(text: &mut String, prepared: u64, events_off: &[String]) {
    if prepared > 0 {
        let count = human::counted(prepared, "transaction is", "transactions are");
        line!(text, "{:<10} {count} prepared and waiting for XA COMMIT or XA ROLLBACK: see XA RECOVER", "");
    }
    for event in events_off {
        line!(text, "{:<10} event {} is off, as on any replica: ALTER EVENT … ENABLE", "", shown(event));
    }
}

pub(super) fn plan_json(replay: &DatabaseReplay) -> Value {
    let plan = &replay.plan;
    json!({
        "point": replay.point.to_string(),
        "transactions": plan.transactions,
        "bytes": plan.bytes,
        "binlogs": plan.feed.segments.iter().map(|segment| segment.name.as_str()).collect::<Vec<_>>(),
        "begin": plan.begin,
        "end": plan.end,
        "last_included": plan.last,
        "first_excluded": plan.first_excluded,
        "later": plan.later,
        "executed": plan.executed.to_string(),
        "falls_short": plan.falls_short,
        "varying": plan.varying,
        "passed_over": passed_over(plan),
        "by": plan.way,
        "by_why": plan.way_why,
        "events_fire": plan.events_fire,
        "loaded_already": replay.is_loaded,
        "serves_at": replay.serves_at,
    })
}

fn passed_over(plan: &ReplayPlan) -> Vec<String> {
    match &plan.filter {
        Filter::AllBut(places) => places.iter().map(name).collect(),
        Filter::Everything | Filter::Only(_) => Vec::new(),
    }
}

pub(super) fn done_json(replayed: &Replayed) -> Value {
    json!({
        "transactions": replayed.transactions,
        "bytes": replayed.bytes,
        "millis": crate::backup::millis(replayed.took),
        "executed": replayed.executed,
        "prepared": replayed.prepared,
        "events_off": replayed.events_off,
    })
}
