//! What would have to change in the rows of a living server, so that they are those of a sandbox: compared in the order of the key,
//! within one read view of the living server.
//!
//! Memory is bounded by [`STRETCH_ROWS`], whatever the tables hold: both sides are read in stretches of the key between bounds that
//! the servers themselves name, because only they know how a collation sorts. A stretch ends where either side has that many rows in
//! it. Of each row a hash is kept, and only rows that differ are read again, one by one.

mod field;
mod held;
mod read;
mod ties;

use std::collections::HashMap;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::event::Unit;
use crate::mysql::row::KeyColumn;
use crate::mysql::server::Server;
use crate::mysql::sql::ident;
use crate::mysql::wire::Wire;
use crate::run::Run;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::grants::Grants;
use crate::source::mysql::inventory::{Inventory, Table};
use crate::source::mysql::key::Key;
use crate::source::mysql::range::Range;
use crate::source::mysql::session::{Capabilities, connect, run_sql, settle, want_raw_bytes};

pub use field::{Exact, Field};
pub use held::{Held, check};
pub use ties::{Child, Parent, Ties, Unique};

use read::{Hashed, bound, exists, hashes, row};

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

    /// Returns the condition that a row comes no later than this one in the order of the key, which is the order of changes.
    #[must_use]
    pub fn up_to(&self, row: &Values) -> String {
        let upper: Option<Vec<String>> = self.key.iter().map(|at| row[*at].clone()).collect();
        Range { lower: None, upper }.condition(&self.order).unwrap_or_else(|| "TRUE".to_owned())
    }

    /// Tells whether a foreign key's other side is the table itself.
    #[must_use]
    pub fn is_itself(&self, schema: &str, name: &str) -> bool {
        self.schema == schema && self.name == name
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

    #[cfg(test)]
    pub(crate) fn of(self, condition: Option<&str>) -> Self {
        Self { condition: condition.map(str::to_owned), ..self }
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
    /// The longest statement that the living server takes.
    pub statement_bytes_max: u64,
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
        let bytes_max = capabilities.variable("max_allowed_packet").and_then(|bytes| bytes.parse().ok());
        // One byte before the statement says that it is one.
        let statement_bytes_max = bytes_max.unwrap_or(u64::MAX).saturating_sub(1);
        Ok(Self { sandbox, live, run, tables, statement_bytes_max, server: capabilities.evidence() })
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
            let found = hashes(&mut self.live, table, &range)?;
            task.add(wanted.len().max(found.len()) as u64);
            self.hand_on(table, &wanted, &found, &mut each)?;
            lower = upper;
            if lower.is_none() {
                return Ok(());
            }
        }
    }

    fn hand_on(
        &mut self,
        table: &Comparand,
        wanted: &[Hashed],
        found: &[Hashed],
        each: &mut impl FnMut(&mut Self, RowChange) -> Result<(), MysqlSourceError>,
    ) -> Result<(), MysqlSourceError> {
        for (what, key) in differences(wanted, found) {
            let change = match what {
                Differs::Missing => RowChange::Insert { new: self.row(table, key)? },
                Differs::Other => RowChange::Update { old: self.live_row(table, key)?, new: self.row(table, key)? },
                Differs::TooMany => RowChange::Delete { old: self.live_row(table, key)? },
            };
            each(self, change)?;
        }
        Ok(())
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
    let ties = Ties::read(live, wanted, &fields, all)?;
    let names = fields.iter().map(|field| &field.name).chain([&wanted.schema, &wanted.name]).chain(ties.names());
    if names.into_iter().any(|name| name.chars().any(char::is_control)) {
        return refuse("a name of it, or of a table that points to it, holds a control character");
    }
    let at = |name: &String| fields.iter().position(|field| field.name == *name);
    let Some(by) = key.columns.iter().map(at).collect::<Option<Vec<usize>>>() else {
        return refuse("its key is of a generated column");
    };
    let (schema, name, condition) = (wanted.schema.clone(), wanted.name.clone(), wanted.condition.clone());
    Ok(Comparand { schema, name, fields, key: by, ties, condition, order: key })
}

/// How a row of the living server differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Differs {
    Missing,
    Other,
    TooMany,
}

/// Returns the keys of the rows that differ, each kind in the order that both servers have them in.
fn differences<'a>(wanted: &'a [Hashed], found: &'a [Hashed]) -> Vec<(Differs, &'a [String])> {
    let by_key = |rows: &'a [Hashed]| rows.iter().map(|(key, hash)| (key, hash)).collect::<HashMap<_, _>>();
    let (then, now) = (by_key(wanted), by_key(found));
    let come = wanted.iter().filter_map(|(key, hash)| match now.get(key) {
        Some(same) if *same == hash => None,
        Some(_) => Some((Differs::Other, key.as_slice())),
        None => Some((Differs::Missing, key.as_slice())),
    });
    let go = found.iter().filter(|(key, _)| !then.contains_key(key)).map(|(key, _)| (Differs::TooMany, key.as_slice()));
    come.chain(go).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_differ_come_in_the_servers_order_and_not_in_that_of_texts() {
        let rows = |keys: &[(&str, u8)]| -> Vec<Hashed> {
            keys.iter().map(|(key, value)| (vec![(*key).to_owned()], [*value; 32])).collect()
        };
        let wanted = rows(&[("8", 1), ("9", 1), ("10", 1), ("11", 2)]);
        let found = rows(&[("8", 1), ("11", 1), ("99", 1), ("100", 1)]);
        let told: Vec<_> =
            differences(&wanted, &found).into_iter().map(|(what, key)| (what, key[0].as_str())).collect();
        let (missing, other, too_many) = (Differs::Missing, Differs::Other, Differs::TooMany);
        assert_eq!(told, [(missing, "9"), (missing, "10"), (other, "11"), (too_many, "99"), (too_many, "100")]);
    }
}
