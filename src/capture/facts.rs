//! What a server says of itself and of its binlogs before it is followed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::capture::CaptureError;
use crate::capture::chain::Origin;
use crate::capture::semi_sync::SemiSync;
use crate::mysql::manifest::Product;
use crate::mysql::product;
use crate::mysql::wire::{TextRow, Wire};

/// The variables that are asked for.
const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
    ('version', 'server_uuid', 'server_id', 'log_bin', 'binlog_format', 'binlog_row_image', 'encrypt_binlog', \
     'gtid_mode') OR Variable_name LIKE 'rpl_semi_sync_%'";

/// Whether it waits for replicas, and how it goes.
const SEMI_SYNC: &str = "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_%'";

/// A server's binlogs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub origin: Origin,
    /// Name and bytes, the oldest first.
    pub files: Vec<(String, u64)>,
    /// The server's clock, as it began to tell.
    pub(crate) clock: Option<DateTime<Utc>>,
    variables: BTreeMap<String, String>,
}

/// The clock that the server dates transactions by, in microseconds since 1970.
const CLOCK: &str = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";

/// Asks a server what it is and which binlogs it has.
///
/// # Errors
/// Where it writes none, or does not let us see them.
pub fn facts(wire: &mut Wire) -> Result<Facts, CaptureError> {
    let act = "ask the server what it is";
    let product = product::told_by(ask(wire, act, product::PROBE)?.len());
    let mut variables = BTreeMap::new();
    for statement in [VARIABLES, SEMI_SYNC] {
        let told = ask(wire, act, statement)?;
        variables.extend(told.iter().map(|row| (text(row, 0).to_ascii_lowercase(), text(row, 1))));
    }
    let variable = |name: &str| variables.get(name).cloned().unwrap_or_default();
    if variable("log_bin") != "ON" {
        return Err(CaptureError::NoBinlog);
    }
    let server = variable(if product == Product::MySql { "server_uuid" } else { "server_id" });
    let origin = Origin { product, version: variable("version"), server };
    let micros = ask(wire, "ask the server for the time", CLOCK)?.first().and_then(|row| text(row, 0).parse().ok());
    let clock = micros.and_then(DateTime::from_timestamp_micros);
    let listed = ask(wire, "list the server's binlogs", "SHOW BINARY LOGS")?;
    let files = listed.iter().map(|row| (text(row, 0), text(row, 1).parse().unwrap_or(0))).collect();
    Ok(Facts { origin, files, clock, variables })
}

impl Facts {
    #[cfg(test)]
    pub(crate) fn with(variables: &[(&str, &str)]) -> Self {
        let origin = Origin { product: Product::MariaDb, version: String::new(), server: String::new() };
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { origin, files: Vec::new(), clock: None, variables }
    }

    #[cfg(test)]
    pub(crate) fn new(origin: Origin, files: Vec<(String, u64)>) -> Self {
        Self { origin, files, clock: None, variables: BTreeMap::new() }
    }

    /// Returns how many bytes of a file the server has; `None` where it no longer has the file.
    #[must_use]
    pub fn bytes_of(&self, file: &str) -> Option<u64> {
        self.files.iter().find(|(name, _)| name == file).map(|(_, bytes)| *bytes)
    }

    /// Tells whether each file names by GTIDs what was executed before it: numbers of files that leap then prove nothing.
    pub(crate) fn names_all_by_gtid(&self) -> bool {
        self.origin.product == Product::MariaDb || self.variable("gtid_mode") == "ON"
    }

    /// Returns how the server waits for replicas; `None` where it cannot.
    #[must_use]
    pub fn semi_sync(&self) -> Option<SemiSync> {
        SemiSync::of(|name| self.variables.get(name).map(String::as_str))
    }

    /// Returns a variable's value, empty where the product does not have it.
    #[must_use]
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }
}

fn ask(wire: &mut Wire, act: &'static str, statement: &str) -> Result<Vec<TextRow>, CaptureError> {
    wire.query(statement).map_err(|error| CaptureError::Ask { act, error })
}

fn text(row: &TextRow, column: usize) -> String {
    let bytes = row.get(column).and_then(Option::as_deref).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}
