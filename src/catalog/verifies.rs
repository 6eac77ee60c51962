//! Verifies: what each looked at and whether it was whole; one that restores looks at two levels. They are few, and kept for ever.

use rusqlite::Row;
use rusqlite::params;

use crate::catalog::runs::{parse_at, run_id_at, time_at, time_text};
use crate::catalog::{Catalog, CatalogError, VerifyRecord};
use crate::verify::Level;

impl Catalog {
    /// Notes what a verify found.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be written.
    pub fn record_verify(&self, verify: &VerifyRecord) -> Result<(), CatalogError> {
        self.with("write a verify into", |connection| {
            connection.execute(
                "INSERT OR REPLACE INTO verifies (run, started, store, is_deep, subset, is_sound)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    verify.run.as_str(),
                    time_text(verify.started),
                    verify.store,
                    depth(verify.level),
                    verify.subset.map(|subset| subset.to_string()),
                    verify.is_sound
                ],
            )?;
            Ok(())
        })
    }

    /// Returns the verifies of a store, newest first and of one run the deepest first.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be read.
    pub fn verifies(&self, store: &str) -> Result<Vec<VerifyRecord>, CatalogError> {
        self.with("read verifies from", |connection| {
            let mut statement = connection.prepare(
                "SELECT run, started, store, is_deep, subset, is_sound FROM verifies
                 WHERE store = ?1 ORDER BY started DESC, run DESC, is_deep DESC",
            )?;
            let rows = statement.query_map([store], read_verify)?;
            rows.collect()
        })
    }
}

/// A program that knows no `restore` reads it as `data`: whatever is not zero is deep.
const fn depth(level: Level) -> i64 {
    match level {
        Level::Structure => 0,
        Level::Data => 1,
        Level::Restore => 2,
    }
}

const fn level(depth: i64) -> Level {
    match depth {
        0 => Level::Structure,
        2 => Level::Restore,
        _ => Level::Data,
    }
}

fn read_verify(row: &Row<'_>) -> rusqlite::Result<VerifyRecord> {
    let subset: Option<String> = row.get(4)?;
    Ok(VerifyRecord {
        run: run_id_at(row, 0)?,
        started: time_at(row, 1)?,
        store: row.get(2)?,
        level: level(row.get(3)?),
        subset: subset.map(|text| parse_at(4, &text)).transpose()?,
        is_sound: row.get(5)?,
    })
}
