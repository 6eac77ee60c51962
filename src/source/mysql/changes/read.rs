//! Reads one side: rows in the order of the key, as hashes and as literals.

use sha2::{Digest, Sha256};

use crate::mysql::row::{Encoder, KeyColumn};
use crate::mysql::sql::{ident, idents, qualified};
use crate::mysql::wire::{Wire, WireError};
use crate::source::mysql::changes::{Comparand, STRETCH_ROWS, Values};
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::range::Range;
use crate::source::mysql::session::rows;

/// Returns what stands behind `FROM` for the rows of a range that are meant, in the order of the key. An index is named only where
/// all rows are meant: else the server knows a better one.
fn from(table: &Comparand, range: &Range) -> String {
    let mut sql = format!("FROM {}", qualified(&table.schema, &table.name));
    if table.condition.is_none() {
        sql.push_str(&format!(" FORCE INDEX ({})", ident(&table.order.index)));
    }
    let conditions: Vec<String> =
        table.condition.iter().cloned().chain(range.condition(&table.order)).map(|one| format!("({one})")).collect();
    if !conditions.is_empty() {
        sql.push_str(&format!(" WHERE {}", conditions.join(" AND ")));
    }
    sql.push_str(&format!(" ORDER BY {}", idents(table.order.order.iter().map(String::as_str))));
    sql
}

/// Returns the key of the last row of a stretch, where the range has so many.
pub(super) fn bound(
    wire: &mut Wire,
    table: &Comparand,
    range: &Range,
) -> Result<Option<Vec<String>>, MysqlSourceError> {
    let columns = idents(table.order.columns.iter().map(String::as_str));
    let statement = format!("SELECT {columns} {} LIMIT 1 OFFSET {}", from(table, range), STRETCH_ROWS - 1);
    let parts = table.order.parts_alone();
    let mut found = None;
    each_packet(wire, table, &statement, |encoder, packet| {
        found = Some(encoder.key(packet, &parts)?);
        Ok(())
    })?;
    Ok(found)
}

fn select(table: &Comparand) -> String {
    format!("SELECT {}", idents(table.fields.iter().map(|field| field.name.as_str())))
}

/// A row's key as literals, and a hash of all its values.
pub(super) type Hashed = (Vec<String>, [u8; 32]);

/// Returns the rows in the server's order, which no text of a key tells.
pub(super) fn hashes(wire: &mut Wire, table: &Comparand, range: &Range) -> Result<Vec<Hashed>, MysqlSourceError> {
    let parts: Vec<KeyColumn> =
        table.key.iter().map(|at| KeyColumn { index: *at, kind: table.fields[*at].kind.clone() }).collect();
    let (mut found, mut line) = (Vec::new(), Vec::new());
    each_packet(wire, table, &format!("{} {}", select(table), from(table, range)), |encoder, packet| {
        line.clear();
        encoder.encode(packet, &mut line)?;
        found.push((encoder.key(packet, &parts)?, Sha256::digest(&line).into()));
        Ok(())
    })?;
    Ok(found)
}

pub(super) fn row(wire: &mut Wire, table: &Comparand, key: &[String]) -> Result<Values, MysqlSourceError> {
    let conditions = table.order.columns.iter().zip(key).map(|(name, value)| format!("{} = {value}", ident(name)));
    let conditions: Vec<String> = conditions.collect();
    let statement =
        format!("{} FROM {} WHERE {}", select(table), qualified(&table.schema, &table.name), conditions.join(" AND "));
    let (columns, mut found) = (table.columns(), None);
    each_packet(wire, table, &statement, |encoder, packet| {
        found = Some(encoder.literals(packet, &columns)?);
        Ok(())
    })?;
    found.ok_or_else(|| MysqlSourceError::TableChanged { table: table.title() })
}

fn each_packet(
    wire: &mut Wire,
    table: &Comparand,
    statement: &str,
    mut take: impl FnMut(&Encoder, &[u8]) -> Result<(), WireError>,
) -> Result<(), MysqlSourceError> {
    let failed = |error: WireError| MysqlSourceError::reading(&table.title(), error);
    let mut read = wire.read(statement).map_err(failed)?;
    let encoder = Encoder::new(read.columns()).map_err(failed)?;
    while let Some(packet) = read.next().map_err(failed)? {
        take(&encoder, packet).map_err(failed)?;
    }
    if read.warnings() > 0 {
        let warning = "the server warns of a value that it cut short".to_owned();
        return Err(MysqlSourceError::Cut { table: table.title(), warning });
    }
    Ok(())
}

pub(super) fn exists(wire: &mut Wire, schema: &str, name: &str, condition: &str) -> Result<bool, MysqlSourceError> {
    let statement = format!("SELECT 1 FROM {} WHERE {condition} LIMIT 1", qualified(schema, name));
    Ok(!rows(wire, &format!("look for a row of `{schema}.{name}`"), &statement)?.is_empty())
}
