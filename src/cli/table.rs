//! Lists for a terminal: snapshots, runs, drills. No borders, so that a line can be cut out and pasted.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use comfy_table::{presets, Cell, CellAlignment, Table};

use crate::catalog::{Outcome, RunRecord, SnapshotRecord};
use crate::drill::outcome::DrillOutcome;
use crate::human;
use crate::human::Ink;
use crate::id::SnapshotId;

/// In which zone times are told, and beside which moment ages.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub zone: Tz,
    pub now: DateTime<Utc>,
}

/// Lays out rows under a heading. The columns whose places are named are aligned to the right.
#[must_use]
pub fn rows(heads: &[&str], right: &[usize], rows: Vec<Vec<String>>, ink: Ink) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let align = |column: usize, text: &str| {
        let side = if right.contains(&column) {
            CellAlignment::Right
        } else {
            CellAlignment::Left
        };
        Cell::new(human::printable(text)).set_alignment(side)
    };
    let line = |cells: &[String]| -> Vec<Cell> {
        cells
            .iter()
            .enumerate()
            .map(|(column, text)| align(column, text))
            .collect()
    };
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    table.set_header(line(&heads));
    table.add_rows(rows.iter().map(|row| line(row)));
    let text = table.to_string();
    let mut lines = text
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    let head = ink.dim(lines.next().unwrap_or_default());
    let body: Vec<&str> = lines.collect();
    if body.is_empty() {
        format!("{head}\nnone\n")
    } else {
        format!("{head}\n{}\n", body.join("\n"))
    }
}

/// Lists snapshots, the newest last, each once with all stores that hold it.
#[must_use]
pub fn snapshots(snapshots: &[SnapshotRecord], times: Times, ink: Ink) -> String {
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
            stores
                .get(&snapshot.id)
                .map(|stores| stores.join(", "))
                .unwrap_or_default(),
            if snapshot.incomplete {
                "incomplete"
            } else {
                ""
            }
            .to_owned(),
        ]
    };
    let heads = ["snapshot", "time", "age", "source", "kind", "stores", ""];
    rows(&heads, &[2], once.into_iter().map(row).collect(), ink)
}

/// Lists runs in the order given.
#[must_use]
pub fn runs(runs: &[RunRecord], times: Times, ink: Ink) -> String {
    let row = |run: &RunRecord| {
        let took = run
            .ended
            .and_then(|ended| ended.signed_duration_since(run.started).to_std().ok());
        vec![
            run.id.to_string(),
            human::time(run.started, times.zone),
            run.verb.clone(),
            outcome(run),
            took.map(human::duration).unwrap_or_default(),
            human::bytes(run.bytes_read),
            human::bytes(run.bytes_stored),
            human::bytes(run.bytes_copied),
        ]
    };
    let heads = [
        "run", "started", "verb", "outcome", "took", "read", "stored", "copied",
    ];
    rows(&heads, &[4, 5, 6, 7], runs.iter().map(row).collect(), ink)
}

fn outcome(run: &RunRecord) -> String {
    match (run.outcome, run.exit_code) {
        (Outcome::Failed, Some(code)) => format!("failed ({code})"),
        (outcome, _) => outcome.as_str().to_owned(),
    }
}

/// Lists drills in the order given.
#[must_use]
pub fn drills(drills: &[DrillOutcome], times: Times, ink: Ink) -> String {
    let span = |millis: Option<u64>| millis.map_or_else(|| "–".to_owned(), human::millis);
    let row = |drill: &DrillOutcome| {
        vec![
            drill.run.to_string(),
            human::time(drill.started, times.zone),
            span(drill.rta_ms),
            span(drill.objectives.rto_ms),
            span(drill.rpa_ms),
            span(drill.objectives.rpo_ms),
            if drill.passed() {
                "passed"
            } else {
                "not passed"
            }
            .to_owned(),
        ]
    };
    let heads = ["run", "started", "RTA", "RTO", "RPA", "RPO", "result"];
    rows(&heads, &[2, 3, 4, 5], drills.iter().map(row).collect(), ink)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::REPOSITORY;
    use crate::id::RunId;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap_or_default()
    }

    fn times() -> Times {
        Times {
            zone: chrono_tz::Asia::Seoul,
            now: at("2026-03-01T03:00:00Z"),
        }
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
    fn a_run_that_failed_shows_its_exit_code() {
        let started = at("2026-02-28T17:15:00Z");
        let run = RunRecord {
            id: RunId::new(started, 5),
            policy: "mall".to_owned(),
            verb: "backup".to_owned(),
            started,
            ended: Some(at("2026-02-28T17:19:12Z")),
            outcome: Outcome::Failed,
            exit_code: Some(15),
            error: None,
            phases: Vec::new(),
            bytes_read: 5 << 30,
            bytes_stored: 12 << 20,
            bytes_copied: 0,
            snapshots: Vec::new(),
        };
        insta::assert_snapshot!(runs(&[run], times(), Ink::plain()));
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(rows(&["a"], &[], Vec::new(), Ink::plain()), "a\nnone\n");
    }
}
