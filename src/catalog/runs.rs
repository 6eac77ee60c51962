//! Runs: begun, ended, listed.

use chrono::{DateTime, SecondsFormat, Utc};
use rusqlite::Connection;
use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::catalog::holder;
use crate::catalog::snapshots::insert;
use crate::catalog::{
    Catalog, CatalogError, Outcome, RunEnd, RunRecord, RunSnapshot, RunStart, SnapshotRecord, SourceEnd,
};
use crate::id::RunId;
use crate::id::SnapshotId;

/// A run every minute fills this in a month; older ones tell nothing that snapshots and drills do not.
const RUNS_MAX: u32 = 40_000;

const COLUMNS: &str = "id, policy, verb, started, ended, outcome, exit_code, error, phases, \
                       bytes_read, bytes_stored, bytes_copied, holder";

impl Catalog {
    /// Notes that a run has begun. Until [`Self::end`] it shows as running, and as interrupted once its process is gone.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be written, or the id is taken.
    pub fn begin(&self, run: &RunStart) -> Result<(), CatalogError> {
        self.with("write a run into", |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "INSERT INTO runs (id, policy, verb, started, holder) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![run.id.as_str(), run.policy, run.verb, time_text(run.started), holder::this_process()],
            )?;
            for source in &run.sources {
                transaction.execute(
                    "INSERT OR REPLACE INTO run_sources (run, source) VALUES (?1, ?2)",
                    params![run.id.as_str(), source],
                )?;
            }
            drop_oldest(&transaction)?;
            transaction.commit()
        })
    }

    /// Notes how a run ended.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be written, or the run was never begun.
    pub fn end(&self, id: &RunId, end: &RunEnd) -> Result<(), CatalogError> {
        self.with("write a run's end into", |connection| write_end(connection, id, end))
    }

    /// Returns the newest runs, newest first.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be read.
    pub fn runs(&self, limit: u32) -> Result<Vec<RunRecord>, CatalogError> {
        self.with("read runs from", |connection| {
            let query = format!("SELECT {COLUMNS} FROM runs ORDER BY started DESC, id DESC LIMIT ?1");
            let mut statement = connection.prepare(&query)?;
            let rows = statement.query_map([limit], read_run)?;
            let mut runs: Vec<RunRecord> = rows.collect::<Result<_, _>>()?;
            for run in &mut runs {
                run.snapshots = snapshots_of(connection, &run.id)?;
            }
            Ok(runs)
        })
    }

    /// Returns what says how a policy stands: the newest run of each verb that has ended, and all that have not; newest first.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be read.
    pub fn standing(&self) -> Result<Vec<RunRecord>, CatalogError> {
        self.with("read runs from", |connection| {
            let query = format!(
                "SELECT {COLUMNS} FROM runs AS run WHERE ended IS NULL OR started =
                 (SELECT max(started) FROM runs WHERE verb = run.verb AND ended IS NOT NULL)
                 ORDER BY started DESC, id DESC"
            );
            let mut statement = connection.prepare(&query)?;
            let rows = statement.query_map([], read_run)?;
            rows.collect()
        })
    }

    /// Notes how a backup ended for its sources, and the snapshots that it made.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be written.
    pub fn end_sources(&self, run: &RunId, ended: &[SourceEnd]) -> Result<(), CatalogError> {
        self.with("write a run's sources into", |connection| {
            let transaction = connection.transaction()?;
            for SourceEnd { source, exit_code, snapshot } in ended {
                transaction.execute(
                    "INSERT OR REPLACE INTO run_sources (run, source, exit_code) VALUES (?1, ?2, ?3)",
                    params![run.as_str(), source, exit_code],
                )?;
                if let Some(snapshot) = snapshot {
                    insert(&transaction, snapshot)?;
                    link(&transaction, run, source, &snapshot.id)?;
                }
            }
            transaction.commit()
        })
    }

    /// Returns the newest backup that was to read a source, and its exit code for that source; `None` where it never came to
    /// that. A backup that has not ended counts once it is through with the source.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be read.
    pub fn newest_of_source(&self, source: &str) -> Result<Option<(RunId, Option<u8>)>, CatalogError> {
        self.with("read runs from", |connection| {
            let mut statement = connection.prepare(
                "SELECT run.id, source.exit_code, run.outcome, run.holder
                 FROM run_sources AS source JOIN runs AS run ON run.id = source.run
                 WHERE source.source = ?1 ORDER BY run.started DESC, run.id DESC",
            )?;
            let mut rows = statement.query([source])?;
            while let Some(row) = rows.next()? {
                let code: Option<u8> = row.get(1)?;
                let (outcome, holder): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
                if code.is_some() || outcome_of(outcome.as_deref(), holder.as_deref()) != Outcome::Running {
                    return Ok(Some((run_id_at(row, 0)?, code)));
                }
            }
            Ok(None)
        })
    }
}

/// Writes the run that must have made a snapshot, where the catalog has lost it.
pub(super) fn infer(
    transaction: &Transaction<'_>,
    policy: &str,
    id: &RunId,
    snapshot: &SnapshotRecord,
) -> rusqlite::Result<()> {
    let (outcome, code) = if snapshot.incomplete { (Outcome::Incomplete, 3) } else { (Outcome::Ok, 0) };
    let started = time_text(start_of(id).unwrap_or(snapshot.time));
    transaction.execute(
        "INSERT OR IGNORE INTO runs (id, policy, verb, started, ended, outcome, exit_code)
         VALUES (?1, ?2, 'backup', ?3, ?4, ?5, ?6)",
        params![id.as_str(), policy, started, time_text(snapshot.time), outcome.as_str(), code],
    )?;
    transaction.execute(
        "INSERT INTO run_sources (run, source, exit_code) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET exit_code = coalesce(exit_code, excluded.exit_code)",
        params![id.as_str(), snapshot.source, code],
    )?;
    Ok(())
}

pub(super) fn link(connection: &Connection, run: &RunId, source: &str, id: &SnapshotId) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT OR IGNORE INTO run_snapshots (run, source, id) VALUES (?1, ?2, ?3)",
        params![run.as_str(), source, id.to_string()],
    )?;
    Ok(())
}

/// Reads the start out of a run id.
fn start_of(id: &RunId) -> Option<DateTime<Utc>> {
    let (start, _) = id.as_str().split_once('-')?;
    let start = chrono::NaiveDateTime::parse_from_str(start, "%Y%m%dT%H%M%SZ").ok()?;
    Some(start.and_utc())
}

fn write_end(connection: &Connection, id: &RunId, end: &RunEnd) -> rusqlite::Result<()> {
    let changed = connection.execute(
        "UPDATE runs SET ended = ?2, outcome = ?3, exit_code = ?4, error = ?5, phases = ?6,
         bytes_read = ?7, bytes_stored = ?8, bytes_copied = ?9, holder = NULL WHERE id = ?1",
        params![
            id.as_str(),
            time_text(end.ended),
            Outcome::of_exit(end.exit_code).as_str(),
            end.exit_code,
            end.error,
            to_json(&end.phases)?,
            to_signed(end.bytes_read),
            to_signed(end.bytes_stored),
            to_signed(end.bytes_copied)
        ],
    )?;
    if changed == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(changed)) }
}

fn drop_oldest(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let dropped = transaction.execute(
        "DELETE FROM runs WHERE started <
         (SELECT started FROM runs ORDER BY started DESC LIMIT 1 OFFSET ?1)",
        [RUNS_MAX],
    )?;
    if dropped > 0 {
        for table in ["run_snapshots", "run_sources"] {
            transaction.execute(&format!("DELETE FROM {table} WHERE run NOT IN (SELECT id FROM runs)"), [])?;
        }
    }
    Ok(())
}

fn read_run(row: &Row<'_>) -> rusqlite::Result<RunRecord> {
    let outcome: Option<String> = row.get(5)?;
    let holder: Option<String> = row.get(12)?;
    Ok(RunRecord {
        id: run_id_at(row, 0)?,
        policy: row.get(1)?,
        verb: row.get(2)?,
        started: time_at(row, 3)?,
        ended: optional_time_at(row, 4)?,
        outcome: outcome_of(outcome.as_deref(), holder.as_deref()),
        exit_code: row.get(6)?,
        error: row.get(7)?,
        phases: json_at(row, 8)?,
        bytes_read: unsigned_at(row, 9)?,
        bytes_stored: unsigned_at(row, 10)?,
        bytes_copied: unsigned_at(row, 11)?,
        snapshots: Vec::new(),
    })
}

fn outcome_of(written: Option<&str>, holder: Option<&str>) -> Outcome {
    match (written, holder) {
        (Some(outcome), _) => Outcome::parse(outcome),
        (None, Some(holder)) if holder::is_alive(holder) => Outcome::Running,
        (None, _) => Outcome::Interrupted,
    }
}

fn snapshots_of(connection: &Connection, run: &RunId) -> rusqlite::Result<Vec<RunSnapshot>> {
    let mut statement =
        connection.prepare_cached("SELECT source, id FROM run_snapshots WHERE run = ?1 ORDER BY source, id")?;
    let rows = statement
        .query_map([run.as_str()], |row| Ok(RunSnapshot { source: row.get(0)?, id: snapshot_id_at(row, 1)? }))?;
    rows.collect()
}

/// Writes a moment so that texts sort as the moments do.
pub(super) fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub(super) fn time_at(row: &Row<'_>, column: usize) -> rusqlite::Result<DateTime<Utc>> {
    parse_at(column, &row.get::<_, String>(column)?)
}

pub(super) fn optional_time_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<DateTime<Utc>>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| parse_at(column, &text)).transpose()
}

pub(super) fn snapshot_id_at(row: &Row<'_>, column: usize) -> rusqlite::Result<SnapshotId> {
    parse_at(column, &row.get::<_, String>(column)?)
}

pub(super) fn run_id_at(row: &Row<'_>, column: usize) -> rusqlite::Result<RunId> {
    to_run_id(column, row.get(column)?)
}

pub(super) fn to_run_id(column: usize, text: String) -> rusqlite::Result<RunId> {
    serde_json::from_value(serde_json::Value::String(text)).map_err(|error| unreadable(column, error))
}

pub(super) fn json_at<T: for<'de> Deserialize<'de>>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| unreadable(column, error))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

pub(super) fn parse_at<T>(column: usize, text: &str) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error| unreadable(column, error))
}

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

/// SQLite knows only signed integers; eight exbibytes are enough.
pub(super) fn to_signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn unsigned_at(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let count: i64 = row.get(column)?;
    Ok(u64::try_from(count).unwrap_or(0))
}
