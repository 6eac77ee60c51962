//! Where each snapshot lies, and how far each copy has come.

use rusqlite::Connection;
use rusqlite::Row;
use rusqlite::params;

use crate::catalog::runs::{
    infer, link, optional_time_at, parse_at, snapshot_id_at, time_at, time_text, to_json, to_run_id,
};
use crate::catalog::{Catalog, CatalogError, CopyRecord, REPOSITORY, SnapshotRecord};
use crate::id::SnapshotId;

impl Catalog {
    /// Notes snapshots that stores now hold.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be written.
    pub fn record_snapshots(&self, snapshots: &[SnapshotRecord]) -> Result<(), CatalogError> {
        self.with("write snapshots into", |connection| {
            let transaction = connection.transaction()?;
            for snapshot in snapshots {
                insert(&transaction, snapshot)?;
            }
            transaction.commit()
        })
    }

    /// Notes that a store no longer holds these snapshots.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be written.
    pub fn drop_snapshots(&self, store: &str, ids: &[SnapshotId]) -> Result<(), CatalogError> {
        self.with("drop snapshots from", |connection| {
            let transaction = connection.transaction()?;
            for id in ids {
                transaction
                    .execute("DELETE FROM snapshots WHERE store = ?1 AND id = ?2", params![store, id.to_string()])?;
            }
            transaction.commit()
        })
    }

    /// Returns all snapshots of all stores, oldest first.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be read.
    pub fn snapshots(&self) -> Result<Vec<SnapshotRecord>, CatalogError> {
        self.with("read snapshots from", |connection| {
            let mut statement = connection.prepare(
                "SELECT store, id, source, kind, time, run, incomplete FROM snapshots ORDER BY time, id, store",
            )?;
            let rows = statement.query_map([], read_snapshot)?;
            rows.collect()
        })
    }

    /// Takes over what the stores hold, and drops what they do not. What is known of the stores in `unread` stays. Runs that
    /// made a snapshot and are not listed come back as far as their snapshots tell. Listed runs, drills and the times of copies
    /// stay.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be written; then nothing has changed.
    pub fn rebuild(&self, policy: &str, snapshots: &[SnapshotRecord], unread: &[&str]) -> Result<(), CatalogError> {
        self.with("rebuild", |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "DELETE FROM snapshots WHERE store NOT IN (SELECT value FROM json_each(?1))",
                [to_json(&unread)?],
            )?;
            for snapshot in snapshots {
                insert(&transaction, snapshot)?;
                if let Some(run) = &snapshot.run {
                    infer(&transaction, policy, run, snapshot)?;
                    link(&transaction, run, &snapshot.source, &snapshot.id)?;
                }
            }
            infer_copies(&transaction)?;
            if !unread.contains(&REPOSITORY) {
                transaction.execute("DELETE FROM marks WHERE name = 'unfilled'", [])?;
            }
            transaction.commit()
        })
    }

    /// Tells whether the catalog was begun anew and has not been filled from the repository since: what it does not list may
    /// well be there.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be read.
    pub fn is_unfilled(&self) -> Result<bool, CatalogError> {
        self.with("read", |connection| {
            connection.query_row("SELECT EXISTS (SELECT 1 FROM marks WHERE name = 'unfilled')", [], |row| row.get(0))
        })
    }

    /// Notes that a copy is complete now: it holds all that the repository holds, up to that snapshot.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be written.
    pub fn record_copy(&self, copy: &CopyRecord) -> Result<(), CatalogError> {
        self.with("write a copy into", |connection| {
            connection.execute(
                "INSERT OR REPLACE INTO copies (name, completed, snapshot, snapshot_time) VALUES (?1, ?2, ?3, ?4)",
                params![
                    copy.name,
                    copy.completed.map(time_text),
                    copy.snapshot.map(|id| id.to_string()),
                    copy.snapshot_time.map(time_text)
                ],
            )?;
            Ok(())
        })
    }

    /// Returns the copies by name.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be read.
    pub fn copies(&self) -> Result<Vec<CopyRecord>, CatalogError> {
        self.with("read copies from", |connection| {
            let mut statement =
                connection.prepare("SELECT name, completed, snapshot, snapshot_time FROM copies ORDER BY name")?;
            let rows = statement.query_map([], read_copy)?;
            rows.collect()
        })
    }
}

pub(super) fn insert(connection: &Connection, snapshot: &SnapshotRecord) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT OR REPLACE INTO snapshots (store, id, source, kind, time, run, incomplete)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            snapshot.store,
            snapshot.id.to_string(),
            snapshot.source,
            snapshot.kind,
            time_text(snapshot.time),
            snapshot.run.as_ref().map(|run| run.as_str().to_owned()),
            snapshot.incomplete
        ],
    )?;
    Ok(())
}

/// Lists each store beside the repository as a copy, with the newest snapshot it holds.
fn infer_copies(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO copies (name, snapshot, snapshot_time)
         SELECT store, id, max(time) FROM snapshots WHERE store <> ?1 GROUP BY store
         ON CONFLICT (name) DO UPDATE SET snapshot = excluded.snapshot, snapshot_time = excluded.snapshot_time",
        [REPOSITORY],
    )?;
    Ok(())
}

fn read_snapshot(row: &Row<'_>) -> rusqlite::Result<SnapshotRecord> {
    let run: Option<String> = row.get(5)?;
    Ok(SnapshotRecord {
        store: row.get(0)?,
        id: snapshot_id_at(row, 1)?,
        source: row.get(2)?,
        kind: row.get(3)?,
        time: time_at(row, 4)?,
        run: run.map(|run| to_run_id(5, run)).transpose()?,
        incomplete: row.get(6)?,
    })
}

fn read_copy(row: &Row<'_>) -> rusqlite::Result<CopyRecord> {
    let snapshot: Option<String> = row.get(2)?;
    Ok(CopyRecord {
        name: row.get(0)?,
        completed: optional_time_at(row, 1)?,
        snapshot: snapshot.map(|id| parse_at(2, &id)).transpose()?,
        snapshot_time: optional_time_at(row, 3)?,
    })
}
