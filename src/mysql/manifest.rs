//! `manifest.json`: what a dump holds, kept in the snapshot's own tree.
//!
//! Paths are relative to the dump's root, `/mysql/<source>/`. Row files are `LOAD DATA` text: fields end with a tab, rows with a
//! newline, backslash escapes, `\N` for NULL, raw bytes (`CHARACTER SET binary`).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::policy;

/// The manifest's own version; a reader refuses a newer one.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    MySql,
    MariaDb,
}

/// How the dump came to be true of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Read views opened together under a short global read lock.
    GlobalLock,
    /// Read views opened without a lock, proved to be at one binlog position.
    LockFree,
    /// `LOCK TABLES … READ` on the dumped tables while the read views opened.
    TableLocks,
    /// None: the operator allowed it.
    Inconsistent,
}

/// A place in the server's binlog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub file: String,
    pub offset: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub product: Product,
    /// As `SELECT VERSION()` says.
    pub version: String,
    /// MySQL's `server_uuid`, or MariaDB's `server_id`, as text.
    pub server: String,
    /// The moment the rows are true of, on the server's clock, in UTC.
    pub taken_at: DateTime<Utc>,
    pub consistency: Consistency,
    pub position: Option<Position>,
    /// GTID set executed (MySQL) or `gtid_binlog_pos`-style list (MariaDB) at that moment.
    pub gtid: Option<String>,
    /// `gtid_slave_pos` of a MariaDB replica at that moment: where to go on following its primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtid_slave_pos: Option<String>,
    /// How long writers were held up, in milliseconds.
    pub write_stall_ms: f64,
    /// Global variables that decide how text is read back (`sql_mode`, `character_set_server`, …).
    pub variables: BTreeMap<String, String>,
    /// What the dump was to hold.
    #[serde(default, skip_serializing_if = "Extent::is_everything")]
    pub extent: Extent,
    pub schemas: Vec<SchemaEntry>,
    pub tables: Vec<TableEntry>,
    pub objects: Vec<ObjectEntry>,
}

/// Which of a server's schemas and tables a dump holds, in the words of its policy. The server's own schemas are in none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extent {
    /// Empty: all.
    pub schemas: Vec<String>,
    /// `schema.table`, or `schema.*`.
    pub exclude: Vec<String>,
}

impl Extent {
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.schemas.is_empty() && self.exclude.is_empty()
    }

    /// Tells whether it leaves a table out, or, with an empty name, a schema and all that it will ever hold.
    #[must_use]
    pub fn leaves_out(&self, schema: &str, table: &str) -> bool {
        let is_chosen = self.schemas.is_empty() || self.schemas.iter().any(|name| name == schema);
        let is_excluded = self.exclude.iter().any(|pattern| policy::names_table(pattern, schema, table));
        !is_chosen || is_excluded
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaEntry {
    pub name: String,
    /// `CREATE DATABASE …` with its character set and collation.
    pub create: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableEntry {
    pub schema: String,
    pub name: String,
    /// Path of `schema.sql`: the `CREATE TABLE` statement, exactly as the server prints it.
    pub create: String,
    pub engine: String,
    /// The table keeps a history of its rows, and the dump does not hold it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub history_lost: bool,
    /// The columns of the row files, in their order; generated columns are left out.
    pub columns: Vec<Column>,
    /// The columns that ranges are cut by; empty for a table without a usable key.
    pub key: Vec<String>,
    pub rows: u64,
    /// Plain bytes of all its row files.
    pub bytes: u64,
    pub chunks: Vec<Chunk>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// `COLUMN_TYPE` as `information_schema` prints it.
    pub sql_type: String,
    /// An expression on the user variable `@v` that turns the row file's text into the column's value, where the text alone
    /// does not do (`ST_GeomFromWKB(@v)` …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<String>,
}

/// A row file: the rows with `lower < key <= upper`, by the full key tuple, in key order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    pub path: String,
    /// SQL literals, one for each key column; `None` means no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<Vec<String>>,
    pub rows: u64,
    /// Plain bytes.
    pub bytes: u64,
    /// SHA-256 of the plain bytes, as hexadecimal digits.
    pub sha256: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    Sequence,
    View,
    Function,
    Procedure,
    Package,
    Trigger,
    Event,
    Role,
    User,
    Grant,
}

/// A schema object other than a table, as statements in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    pub kind: ObjectKind,
    /// `None` for users, roles and grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The table of a trigger, so that some tables can be restored with theirs; `None` for every other kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    pub name: String,
    /// File with a JSON array of statements to run in order in one session (each is one statement; no DELIMITER).
    pub statements: String,
    /// The same as a script for the plain client.
    pub script: String,
}

impl Manifest {
    /// Returns the rows of all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// Returns the plain bytes of all row files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).sum()
    }
}
