//! The moment that a dump is true of: the server's clock, the binlog's position and the GTID set.

use chrono::{DateTime, NaiveDateTime, Utc};

use crate::mysql::manifest::{Consistency, Position};
use crate::mysql::wire::Wire;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::grants::Grants;
use crate::source::mysql::session::{Capabilities, rows, text_rows};

/// When and where the read views stand.
#[derive(Debug, Clone)]
pub struct Moment {
    /// On the server's clock.
    pub taken_at: DateTime<Utc>,
    pub consistency: Consistency,
    pub position: Option<Position>,
    pub gtid: Option<String>,
    /// What a replica of MariaDB had applied of its primary's.
    pub gtid_slave_pos: Option<String>,
    /// Whether nothing can change a table and leave position and GTID set as they are.
    pub binlog_tells_all: bool,
    /// How long writers were held up at most, in milliseconds.
    pub write_stall_ms: f64,
}

/// Reads clock and position while nothing is written.
pub(crate) fn read(
    wire: &mut Wire,
    capabilities: &Capabilities,
    grants: &Grants,
    consistency: Consistency,
) -> Result<Moment, MysqlSourceError> {
    let taken_at = clock(wire)?;
    let Place { position, gtid, is_filtered } = if capabilities.has_binlog() && grants.sees_position() {
        position(wire, capabilities)?
    } else {
        Place::default()
    };
    let gtid_slave_pos =
        if capabilities.is_mariadb() { gtid_of(wire, "SELECT @@global.gtid_slave_pos")? } else { None };
    // MySQL's set has what a replica applies, too, whether that is in its binlog or not; MariaDB's has not.
    let binlog_tells_all = !capabilities.is_mariadb() && gtid.is_some() && !is_filtered;
    Ok(Moment { taken_at, consistency, position, gtid, gtid_slave_pos, binlog_tells_all, write_stall_ms: 0.0 })
}

/// Returns the server's time.
pub(crate) fn clock(wire: &mut Wire) -> Result<DateTime<Utc>, MysqlSourceError> {
    let row = rows(wire, "ask for the server's time", "SELECT CAST(UTC_TIMESTAMP(6) AS CHAR)")?;
    time(row.first().map_or("", |row| row.text(0)))
}

fn time(text: &str) -> Result<DateTime<Utc>, MysqlSourceError> {
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f");
    time.map(|time| time.and_utc()).map_err(|_| MysqlSourceError::Clock { text: text.to_owned() })
}

/// Where the binlog stands.
#[derive(Debug, Default)]
struct Place {
    position: Option<Position>,
    gtid: Option<String>,
    /// It leaves schemas out.
    is_filtered: bool,
}

fn position(wire: &mut Wire, capabilities: &Capabilities) -> Result<Place, MysqlSourceError> {
    let act = "read the binlog's position";
    // MySQL 9 knows only the first, older servers and MariaDB only the second.
    let found = match wire.query("SHOW BINARY LOG STATUS") {
        Ok(found) => text_rows(act, found)?,
        Err(error) if error.code() == Some(1064) => rows(wire, act, "SHOW MASTER STATUS")?,
        Err(error) => return Err(MysqlSourceError::query(act)(error)),
    };
    let Some(row) = found.first() else {
        return Ok(Place::default());
    };
    let is_filtered = !row.text(2).is_empty() || !row.text(3).is_empty();
    let position = Position { file: row.text(0).to_owned(), offset: row.number(1) };
    let gtid = if capabilities.is_mariadb() {
        gtid_of(wire, "SELECT @@gtid_binlog_pos")?
    } else {
        // The server breaks long sets into lines.
        Some(row.text(4).replace('\n', "")).filter(|text| !text.is_empty())
    };
    Ok(Place { position: Some(position), gtid, is_filtered })
}

/// Returns MariaDB's GTID list at a position.
pub(crate) fn gtid_at(wire: &mut Wire, position: &Position) -> Result<Option<String>, MysqlSourceError> {
    let statement =
        format!("SELECT BINLOG_GTID_POS({}, {})", crate::mysql::sql::string(&position.file), position.offset);
    gtid_of(wire, &statement)
}

fn gtid_of(wire: &mut Wire, statement: &str) -> Result<Option<String>, MysqlSourceError> {
    let row = rows(wire, "read the binlog's position", statement)?;
    let text = row.first().map(|row| row.text(0).to_owned());
    Ok(text.filter(|text| !text.is_empty()))
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_cannot_be_read_is_no_moment() {
        assert_eq!(time("2026-03-01 10:00:00.250000").expect("a time").timestamp_millis(), 1_772_359_200_250);
        let error = time("0000-00-00").expect_err("no time");
        assert_eq!(error.to_string(), "ask for the server's time: it says `0000-00-00`");
    }
}
