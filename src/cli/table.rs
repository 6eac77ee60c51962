//! Lists for a terminal. No borders, so that a line can be cut out and pasted.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::catalog::SnapshotRecord;
use crate::find::Found;
use crate::human;
use crate::human::Ink;
use crate::id::SnapshotId;
use crate::keys::PlaceKeys;
use crate::mysql::binlog::{Ending, TableName, Touched};
use crate::repository::KeyRecord;

/// In which zone times are told, and beside which moment ages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) zone: Tz,
    pub(super) now: DateTime<Utc>,
}

/// Lays out rows under a heading. The columns whose places are named are aligned to the right.
#[must_use]
fn rows(heads: &[&str], right: &[usize], rows: &[Vec<String>], ink: Ink) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let align = |column: usize, text: &str| {
        let side = if right.contains(&column) { CellAlignment::Right } else { CellAlignment::Left };
        Cell::new(human::printable(text)).set_alignment(side)
    };
    let line = |cells: &[String]| -> Vec<Cell> {
        cells.iter().enumerate().map(|(column, text)| align(column, text)).collect()
    };
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    table.set_header(line(&heads));
    table.add_rows(rows.iter().map(|row| line(row)));
    let text = table.to_string();
    let mut lines = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    let head = ink.dim(lines.next().unwrap_or_default());
    let body: Vec<&str> = lines.collect();
    if body.is_empty() { format!("{head}\nnone\n") } else { format!("{head}\n{}\n", body.join("\n")) }
}

/// Lists snapshots, the newest last, each once with all stores that hold it.
#[must_use]
pub(super) fn snapshots(snapshots: &[SnapshotRecord], times: Times, ink: Ink) -> String {
    let mut stores: BTreeMap<SnapshotId, Vec<&str>> = BTreeMap::new();
    for snapshot in snapshots {
        stores.entry(snapshot.id).or_default().push(&snapshot.store);
    }
    let mut once: Vec<&SnapshotRecord> = snapshots.iter().collect();
    once.sort_by_key(|snapshot| (snapshot.time, snapshot.id));
    once.dedup_by_key(|snapshot| snapshot.id);
    let row = |snapshot: &SnapshotRecord| {
        vec![
            snapshot.id.short(),
            human::time(snapshot.time, times.zone),
            human::age(snapshot.time, times.now),
            snapshot.source.clone(),
            snapshot.kind.clone(),
            stores.get(&snapshot.id).map(|stores| stores.join(", ")).unwrap_or_default(),
            if snapshot.incomplete { "incomplete" } else { "" }.to_owned(),
        ]
    };
    let heads = ["snapshot", "time", "age", "source", "kind", "stores", ""];
    let cells: Vec<Vec<String>> = once.into_iter().map(row).collect();
    rows(&heads, &[2], &cells, ink)
}

/// Lists the keys of a repository; the one that opened it is marked.
#[must_use]
pub(super) fn keys(keys: &PlaceKeys, times: Times, ink: Ink) -> String {
    let row = |record: &KeyRecord| {
        let mark = if record.id == keys.used { "*" } else { "" };
        let created = human::time(record.created, times.zone);
        vec![mark.to_owned(), record.id.short(), record.user.clone(), record.host.clone(), created]
    };
    let cells: Vec<Vec<String>> = keys.list.found.iter().map(row).collect();
    rows(&["", "key", "user", "host", "created"], &[], &cells, ink)
}

/// What is shown of a statement: enough to know it again.
const STATEMENT_CHARS_MAX: usize = 80;

/// Tables of a transaction that are named.
const TABLES_SHOWN: usize = 3;

/// Lists transactions, the newest last, with the GTID whole: it is what a recovery is told.
#[must_use]
pub(super) fn transactions(found: &VecDeque<Found>, times: Times, ink: Ink) -> String {
    let row = |found: &Found| {
        let gtid = found.group.gtid.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        vec![
            human::exact_time(found.group.committed, times.zone),
            gtid,
            format!("{}:{}", found.file, found.group.begin),
            changes(found),
            statement(found),
        ]
    };
    let cells: Vec<Vec<String>> = found.iter().map(row).collect();
    rows(&["committed", "transaction", "position", "changes", "statement"], &[], &cells, ink)
}

fn changes(found: &Found) -> String {
    let mut changes: Vec<String> = found.tables.iter().take(TABLES_SHOWN).map(change).collect();
    if found.tables.len() > TABLES_SHOWN {
        changes.push(format!("{} more tables", found.tables.len() - TABLES_SHOWN));
    }
    if found.are_tables_more {
        changes.push("tables that are not known".to_owned());
    }
    match found.group.ending {
        Ending::Commit => {}
        Ending::Rollback => changes.push("rolled back".to_owned()),
        Ending::Prepare => changes.push("prepared (XA)".to_owned()),
        Ending::Incident => changes.push("the server lost events here".to_owned()),
    }
    changes.join(", ")
}

/// Tells what happened to a table: `mall.orders drop`, `mall.orders delete 120`.
fn change((name, touched): &(TableName, Touched)) -> String {
    let mut text = if name.table.is_empty() { name.schema.clone() } else { format!("{}.{}", name.schema, name.table) };
    for verb in &touched.verbs {
        text.push_str(&format!(" {verb}"));
    }
    for (verb, count) in [("insert", touched.inserted), ("update", touched.updated), ("delete", touched.deleted)] {
        if count > 0 {
            let least = if touched.is_least { ">=" } else { "" };
            text.push_str(&format!(" {verb} {least}{}", human::count(count)));
        }
    }
    text
}

fn statement(found: &Found) -> String {
    let Some(first) = found.texts.first() else { return String::new() };
    let words: Vec<&str> = first.split_whitespace().collect();
    let text = words.join(" ");
    let is_cut = text.chars().count() > STATEMENT_CHARS_MAX;
    let shown: String = text.chars().take(STATEMENT_CHARS_MAX).collect();
    let more = if is_cut || found.texts.len() > 1 || found.is_more { " …" } else { "" };
    format!("{shown}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::REPOSITORY;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap_or_default()
    }

    fn times() -> Times {
        Times { zone: chrono_tz::Asia::Seoul, now: at("2026-03-01T03:00:00Z") }
    }

    fn snapshot(store: &str, time: &str) -> SnapshotRecord {
        SnapshotRecord {
            store: store.to_owned(),
            id: SnapshotId::of(time.as_bytes()),
            source: "주문".to_owned(),
            kind: "mysql".to_owned(),
            time: at(time),
            run: None,
            incomplete: store == "offsite",
        }
    }

    #[test]
    fn a_snapshot_in_two_stores_is_one_line() {
        let list = [
            snapshot(REPOSITORY, "2026-02-28T17:15:00Z"),
            snapshot(REPOSITORY, "2026-02-27T17:15:00Z"),
            snapshot("offsite", "2026-02-27T17:15:00Z"),
        ];
        insta::assert_snapshot!(snapshots(&list, times(), Ink::plain()));
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(rows(&["a"], &[], &[], Ink::plain()), "a\nnone\n");
    }
}
