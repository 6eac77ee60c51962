//! What would have to change in the rows of a living server, so that they are those of a sandbox: compared in the order of the key,
//! within one read view of the living server.
//!
//! Memory is bounded by [`STRETCH_ROWS`], whatever the tables hold: both sides are read in stretches of the key between bounds that
//! the servers themselves name, because only they know how a collation sorts. A stretch ends where either side has that many rows in
//! it. Of each row a hash is kept, and only rows that differ are read again, one by one.

mod field;
mod ties;

use std::collections::BTreeMap;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::event::Unit;
use crate::mysql::row::{Encoder, KeyColumn};
use crate::mysql::server::Server;
use crate::mysql::sql::{ident, idents, qualified};
use crate::mysql::wire::{Wire, WireError};
use crate::run::Run;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::grants::Grants;
use crate::source::mysql::inventory::{Inventory, Table};
use crate::source::mysql::key::Key;
use crate::source::mysql::range::Range;
use crate::source::mysql::session::{Capabilities, connect, rows, run_sql, settle, want_raw_bytes};

pub use field::{Exact, Field};
pub use ties::{Child, Parent, Ties, Unique};

/// Rows of either side that are held as hashes: some MiB.
const STRETCH_ROWS: u64 = 10_000;

/// A table to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub schema: String,
    pub name: String,
    /// Which rows are meant; `None`: all.
    pub condition: Option<String>,
}

/// A row's values as literals, in the order of the fields; NULL as none.
pub type Values = Vec<Option<String>>;

/// What has to be done with a row of the living server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    Insert { new: Values },
    Update { old: Values, new: Values },
    Delete { old: Values },
}

/// A table that both sides have, with one definition.
#[derive(Debug, Clone)]
pub struct Comparand {
    pub schema: String,
    pub name: String,
    pub fields: Vec<Field>,
    /// The fields that name a row.
    pub key: Vec<usize>,
    pub ties: Ties,
    condition: Option<String>,
    order: Key,
}

impl Comparand {
    /// Returns the name for people.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Returns the condition that a row has these values in some fields; none where one is NULL, which equals nothing.
    #[must_use]
    pub fn equals(&self, fields: &[usize], values: &Values) -> Option<String> {
        let one = |at: &usize| Some(format!("{} = {}", ident(&self.fields[*at].name), values[*at].as_ref()?));
        let all: Option<Vec<String>> = fields.iter().map(one).collect();
        all.map(|all| all.join(" AND "))
    }

    #[cfg(test)]
    pub(crate) fn for_tests(schema: &str, name: &str, fields: Vec<Field>, key: Vec<usize>, ties: Ties) -> Self {
        let columns: Vec<String> = key.iter().map(|at| fields[*at].name.clone()).collect();
        let parts = key.iter().map(|at| KeyColumn { index: *at, kind: fields[*at].kind.clone() }).collect();
        let collations = vec![None; key.len()];
        let (index, order) = ("PRIMARY".to_owned(), columns.clone());
        let order = Key { index, columns, parts, order, is_unique: true, collations };
        let (schema, name) = (schema.to_owned(), name.to_owned());
        Self { schema, name, fields, key, ties, condition: None, order }
    }

    fn columns(&self) -> Vec<KeyColumn> {
        let kinds = self.fields.iter().map(|field| field.kind.clone());
        kinds.enumerate().map(|(index, kind)| KeyColumn { index, kind }).collect()
    }
}

/// The living server and the sandbox, each on a connection.
pub struct Pair<'a> {
    sandbox: Wire,
    live: Wire,
    run: &'a Run,
    pub tables: Vec<Comparand>,
    /// By what the living server differs from others.
    pub server: String,
}

impl<'a> Pair<'a> {
    /// Connects to both, opens a read view on the living server and sets the definitions side by side. Blocks.
    ///
    /// # Errors
    /// [`MysqlSourceError::Uncomparable`] where a table is another one now, or rows of it cannot be told apart or written back.
    pub fn open(sandbox: &Server, live: &Server, wanted: &[Wanted], run: &'a Run) -> Result<Self, MysqlSourceError> {
        let (mut sandbox, mut live) = (connect(sandbox, run)?, connect(live, run)?);
        prepare(&mut sandbox)?;
        let capabilities = prepare(&mut live)?;
        Grants::read(&mut live, capabilities.product)?.check_sees_ties()?;
        run_sql(&mut live, "open a read view", "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")?;
        let there = inventory(&mut sandbox, wanted)?;
        let here = inventory(&mut live, wanted)?;
        let mut tables = Vec::new();
        for one in wanted {
            let find = |inventory: &Inventory| {
                inventory.tables.iter().find(|table| table.place() == (one.schema.as_str(), one.name.as_str())).cloned()
            };
            let (Some(then), Some(now)) = (find(&there), find(&here)) else {
                return Err(uncomparable(one, "the living server has no such table"));
            };
            let fields = field::read(&mut live, one)?;
            if fields != field::read(&mut sandbox, one)? || then.columns != now.columns || then.key != now.key {
                return Err(uncomparable(
                    one,
                    "it has been altered since: its definitions now and then are not the same",
                ));
            }
            tables.push(comparand(one, &now, fields, &mut live, wanted)?);
        }
        Ok(Self { sandbox, live, run, tables, server: capabilities.evidence() })
    }

    /// Returns a digest of the definitions that row changes rely on.
    #[must_use]
    pub fn footing(&self) -> String {
        footing_of(&self.tables)
    }

    /// Hands on every row of a table that differs. Blocks.
    ///
    /// # Errors
    /// Those of either connection, and of `each`.
    pub fn compare(
        &mut self,
        table: &Comparand,
        mut each: impl FnMut(&mut Self, RowChange) -> Result<(), MysqlSourceError>,
    ) -> Result<(), MysqlSourceError> {
        let task = self.run.events.task(format!("compare {}", table.title()), Unit::Rows, 0);
        let mut lower = None;
        loop {
            self.run.check().map_err(|_| MysqlSourceError::Stopped)?;
            let then = bound(&mut self.sandbox, table, &Range { lower: lower.clone(), upper: None })?;
            let now = bound(&mut self.live, table, &Range { lower: lower.clone(), upper: then.clone() })?;
            let upper = now.or(then);
            let range = Range { lower, upper: upper.clone() };
            let wanted = hashes(&mut self.sandbox, table, &range)?;
            let mut found = hashes(&mut self.live, table, &range)?;
            task.add(wanted.len().max(found.len()) as u64);
            for (key, hash) in wanted {
                let change = match found.remove(&key) {
                    Some(same) if same == hash => continue,
                    Some(_) => RowChange::Update { old: self.live_row(table, &key)?, new: self.row(table, &key)? },
                    None => RowChange::Insert { new: self.row(table, &key)? },
                };
                each(self, change)?;
            }
            for key in found.into_keys() {
                let old = self.live_row(table, &key)?;
                each(self, RowChange::Delete { old })?;
            }
            lower = upper;
            if lower.is_none() {
                return Ok(());
            }
        }
    }

    fn row(&mut self, table: &Comparand, key: &[String]) -> Result<Values, MysqlSourceError> {
        row(&mut self.sandbox, table, key)
    }

    fn live_row(&mut self, table: &Comparand, key: &[String]) -> Result<Values, MysqlSourceError> {
        row(&mut self.live, table, key)
    }

    /// Tells whether the living server has such a row, in its read view.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn is_live(&mut self, schema: &str, name: &str, condition: &str) -> Result<bool, MysqlSourceError> {
        exists(&mut self.live, schema, name, condition)
    }

    /// Tells whether the sandbox has such a row.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn is_recovered(&mut self, schema: &str, name: &str, condition: &str) -> Result<bool, MysqlSourceError> {
        exists(&mut self.sandbox, schema, name, condition)
    }

    /// Returns the condition of a table's rows that are meant, where not all are.
    #[must_use]
    pub fn condition(table: &Comparand) -> Option<&str> {
        table.condition.as_deref()
    }
}

/// Returns the server's name for itself and the digest of the definitions that row changes of some tables rely on. Blocks.
///
/// # Errors
/// Those of the connection; a trigger that is there by now.
pub fn footing(live: &Server, tables: &[(String, String)], run: &Run) -> Result<(String, String), MysqlSourceError> {
    let mut live = connect(live, run)?;
    let capabilities = prepare(&mut live)?;
    Grants::read(&mut live, capabilities.product)?.check_sees_ties()?;
    let wanted =
        |(schema, name): &(String, String)| Wanted { schema: schema.clone(), name: name.clone(), condition: None };
    let wanted: Vec<Wanted> = tables.iter().map(wanted).collect();
    let inventory = inventory(&mut live, &wanted)?;
    let mut found = Vec::new();
    for one in &wanted {
        let table = inventory.tables.iter().find(|table| table.place() == (one.schema.as_str(), one.name.as_str()));
        let table = table.ok_or_else(|| uncomparable(one, "the living server has no such table"))?;
        let fields = field::read(&mut live, one)?;
        found.push(comparand(one, table, fields, &mut live, &wanted)?);
    }
    Ok((capabilities.evidence(), footing_of(&found)))
}

fn footing_of(tables: &[Comparand]) -> String {
    let mut digest = Sha256::new();
    for table in tables {
        let fields = table.fields.iter().map(|field| (field.name.as_str(), field.definition.as_str()));
        let text = json!([table.schema, table.name, fields.collect::<Vec<_>>(), table.key, table.ties]);
        digest.update(text.to_string());
    }
    hex::encode(digest.finalize())
}

fn uncomparable(table: &Wanted, problem: impl Into<String>) -> MysqlSourceError {
    MysqlSourceError::Uncomparable { table: format!("{}.{}", table.schema, table.name), problem: problem.into() }
}

fn prepare(wire: &mut Wire) -> Result<Capabilities, MysqlSourceError> {
    let capabilities = Capabilities::probe(wire)?;
    settle(wire, &capabilities)?;
    want_raw_bytes(wire)?;
    Ok(capabilities)
}

fn inventory(wire: &mut Wire, wanted: &[Wanted]) -> Result<Inventory, MysqlSourceError> {
    let capabilities = Capabilities::probe(wire)?;
    let mut schemas: Vec<String> = wanted.iter().map(|one| one.schema.clone()).collect();
    schemas.sort();
    schemas.dedup();
    Inventory::list(wire, &capabilities, &schemas, &[])
}

/// Takes a table in, if its rows can be told apart and written back without a side effect.
fn comparand(
    wanted: &Wanted,
    table: &Table,
    fields: Vec<Field>,
    live: &mut Wire,
    all: &[Wanted],
) -> Result<Comparand, MysqlSourceError> {
    let refuse = |problem: &str| Err(uncomparable(wanted, problem));
    if table.has_history || table.history_lost {
        return refuse("it keeps a history, which row changes would add to");
    }
    if !table.is_transactional() {
        return refuse("it is of an engine without transactions");
    }
    let Some(key) = table.key.clone().filter(|key| key.is_unique) else {
        return refuse("it has no primary key by whose values its rows can be told apart");
    };
    let names = fields.iter().map(|field| &field.name).chain([&wanted.schema, &wanted.name]);
    if names.into_iter().any(|name| name.chars().any(char::is_control)) {
        return refuse("a name of it holds a control character");
    }
    let ties = Ties::read(live, wanted, &fields, all)?;
    let at = |name: &String| fields.iter().position(|field| field.name == *name);
    let Some(by) = key.columns.iter().map(at).collect::<Option<Vec<usize>>>() else {
        return refuse("its key is of a generated column");
    };
    let (schema, name, condition) = (wanted.schema.clone(), wanted.name.clone(), wanted.condition.clone());
    Ok(Comparand { schema, name, fields, key: by, ties, condition, order: key })
}

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
fn bound(wire: &mut Wire, table: &Comparand, range: &Range) -> Result<Option<Vec<String>>, MysqlSourceError> {
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

fn hashes(
    wire: &mut Wire,
    table: &Comparand,
    range: &Range,
) -> Result<BTreeMap<Vec<String>, [u8; 32]>, MysqlSourceError> {
    let parts: Vec<KeyColumn> =
        table.key.iter().map(|at| KeyColumn { index: *at, kind: table.fields[*at].kind.clone() }).collect();
    let (mut found, mut line) = (BTreeMap::new(), Vec::new());
    each_packet(wire, table, &format!("{} {}", select(table), from(table, range)), |encoder, packet| {
        line.clear();
        encoder.encode(packet, &mut line)?;
        found.insert(encoder.key(packet, &parts)?, Sha256::digest(&line).into());
        Ok(())
    })?;
    Ok(found)
}

fn row(wire: &mut Wire, table: &Comparand, key: &[String]) -> Result<Values, MysqlSourceError> {
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

fn exists(wire: &mut Wire, schema: &str, name: &str, condition: &str) -> Result<bool, MysqlSourceError> {
    let statement = format!("SELECT 1 FROM {} WHERE {condition} LIMIT 1", qualified(schema, name));
    Ok(!rows(wire, &format!("look for a row of `{schema}.{name}`"), &statement)?.is_empty())
}
