//! What verifies mended, and what they had to leave.

use rusqlite::Row;
use rusqlite::params;

use crate::catalog::runs::{json_at, run_id_at, time_at, time_text, to_json, to_signed, unsigned_at};
use crate::catalog::{Catalog, CatalogError, HealRecord};

impl Catalog {
    /// Notes what was mended in a store.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be written.
    pub fn record_heal(&self, heal: &HealRecord) -> Result<(), CatalogError> {
        self.with("write a heal into", |connection| {
            connection.execute(
                "INSERT OR REPLACE INTO heals (run, started, store, mended, bytes, left_over) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    heal.run.as_str(),
                    time_text(heal.started),
                    heal.store,
                    to_json(&heal.mended)?,
                    to_signed(heal.bytes),
                    to_json(&heal.left)?
                ],
            )?;
            Ok(())
        })
    }

    /// Returns what was mended, newest first. The trace is never dropped: it grows only where something rots.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be read.
    pub fn heals(&self, limit: u32) -> Result<Vec<HealRecord>, CatalogError> {
        self.with("read heals from", |connection| {
            let mut statement = connection.prepare(
                "SELECT run, started, store, mended, bytes, left_over FROM heals
                 ORDER BY started DESC, run DESC LIMIT ?1",
            )?;
            let rows = statement.query_map([limit], read_heal)?;
            rows.collect()
        })
    }
}

fn read_heal(row: &Row<'_>) -> rusqlite::Result<HealRecord> {
    Ok(HealRecord {
        run: run_id_at(row, 0)?,
        started: time_at(row, 1)?,
        store: row.get(2)?,
        mended: json_at(row, 3)?,
        bytes: unsigned_at(row, 4)?,
        left: json_at(row, 5)?,
    })
}
