//! Drills: their outcomes, kept for ever. They are few, and auditors ask for years of them.

use rusqlite::params;

use crate::catalog::runs::{json_at, time_text, to_json};
use crate::catalog::{Catalog, CatalogError};
use crate::drill::outcome::DrillOutcome;

impl Catalog {
    /// Notes what a drill found.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be written.
    pub fn record_drill(&self, drill: &DrillOutcome) -> Result<(), CatalogError> {
        self.with("write a drill into", |connection| {
            connection.execute(
                "INSERT OR REPLACE INTO drills (run, started, outcome) VALUES (?1, ?2, ?3)",
                params![drill.run.as_str(), time_text(drill.started), to_json(drill)?],
            )?;
            Ok(())
        })
    }

    /// Returns the newest drills, newest first.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be read.
    pub fn drills(&self, limit: u32) -> Result<Vec<DrillOutcome>, CatalogError> {
        self.with("read drills from", |connection| {
            let mut statement =
                connection.prepare("SELECT outcome FROM drills ORDER BY started DESC, run DESC LIMIT ?1")?;
            let rows = statement.query_map([limit], |row| json_at(row, 0))?;
            rows.collect()
        })
    }
}
