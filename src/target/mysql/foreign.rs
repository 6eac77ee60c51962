//! Foreign keys, added and looked at after a load. While rows go in nothing checks them, so that rows come back as they were; whether
//! each points to a row that is there is asked at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use serde::Serialize;

use crate::event::Unit;
use crate::mysql::server::Server;
use crate::mysql::sql;
use crate::run::Run;
use crate::target::mysql::control;
use crate::target::mysql::index::{Columns, Foreign};
use crate::target::mysql::patience::Patience;
use crate::target::mysql::plan::TableName;
use crate::target::mysql::session::OwnConn;
use crate::target::mysql::{Load, LoadError, until_stopped};

/// Adds the foreign keys that waited for their indexes, one list for each table of the plan; those of an interrupted load that are
/// there already stay. Nothing reads the rows for it, because the session checks no foreign keys.
///
/// One table at a time: MariaDB 10.11.19 went down where several sessions altered tables that point to each other.
pub(super) async fn add(
    load: &Load,
    mut conn: OwnConn,
    waiting: &[Vec<Foreign>],
    failed: &mut BTreeMap<usize, LoadError>,
) -> Result<OwnConn, LoadError> {
    let mut patience = Patience::default();
    loop {
        let error = match try_add(load, &mut conn, waiting, failed).await {
            Ok(()) => return Ok(conn),
            Err(error) => error,
        };
        let Some(delay) = patience.after(&error) else { return Err(error) };
        load.opener.abandon(conn);
        tokio::time::sleep(delay).await;
        conn = control::answering(load, None).await?;
    }
}

async fn try_add(
    load: &Load,
    conn: &mut Conn,
    waiting: &[Vec<Foreign>],
    failed: &mut BTreeMap<usize, LoadError>,
) -> Result<(), LoadError> {
    let tables = load.plan.tables.iter().zip(waiting).enumerate().filter(|(_, (_, keys))| !keys.is_empty());
    let tables: Vec<_> = tables.map(|(place, (step, keys))| (place, &step.table, keys)).collect();
    let schemas: BTreeSet<&str> = tables.iter().map(|(_, table, _)| table.schema.as_str()).collect();
    let mut there = BTreeSet::new();
    for schema in schemas {
        there.extend(names(conn, schema).await?.into_iter().map(|(table, key)| (schema, table, key)));
    }
    for (place, table, keys) in tables {
        let place_of = |key: &Foreign| (table.schema.as_str(), table.name.to_lowercase(), key.name.to_lowercase());
        let missing = keys.iter().filter(|key| !there.contains(&place_of(key)));
        let added: Vec<String> = missing.map(|key| format!("ADD {}", key.definition)).collect();
        if added.is_empty() || failed.contains_key(&place) {
            continue;
        }
        let name = sql::qualified(&table.schema, &table.name);
        let at = || LoadError::at(format!("add the foreign keys of {name}"));
        conn.query_drop(format!("USE {}", sql::ident(&table.schema))).await.map_err(at())?;
        let altered = conn.query_drop(format!("ALTER TABLE {name} {}", added.join(", "))).await;
        match altered.map_err(at()) {
            Err(error) if error.is_of_one_table() && !error.is_passing() => {
                load.run.events.warn(format!("{}: the table has its rows, and lacks these keys", error.in_full()));
                failed.insert(place, error);
            }
            altered => altered?,
        }
    }
    Ok(())
}

/// Returns a schema's foreign keys as table and name, in small letters: no two names differ by case alone, and a target may fold
/// those of tables.
async fn names(conn: &mut Conn, schema: &str) -> Result<Vec<(String, String)>, LoadError> {
    let asked = format!(
        "SELECT LOWER(TABLE_NAME), LOWER(CONSTRAINT_NAME) FROM information_schema.TABLE_CONSTRAINTS WHERE CONSTRAINT_TYPE = 'FOREIGN KEY' AND \
         TABLE_SCHEMA = {}",
        sql::string(schema)
    );
    conn.query(asked).await.map_err(LoadError::at("list the target's foreign keys"))
}

/// What was found of the foreign keys of some tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KeyCheck {
    /// Keys that were looked at.
    pub keys: usize,
    pub orphans: Vec<Orphans>,
}

/// Rows whose foreign key points to no row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphans {
    pub schema: String,
    pub table: String,
    pub key: String,
    /// The table that it points to.
    pub parent_schema: String,
    pub parent: String,
    pub rows: u64,
}

impl fmt::Display for Orphans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, parent) =
            (sql::qualified(&self.schema, &self.table), sql::qualified(&self.parent_schema, &self.parent));
        write!(f, "{table}: {} rows point by `{}` to no row of {parent}", self.rows, self.key)
    }
}

/// A foreign key: columns of the table, each with the column that it points to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ForeignKey {
    schema: String,
    table: String,
    name: String,
    parent_schema: String,
    parent: String,
    columns: Vec<(String, String)>,
}

/// Looks for rows of these tables, named as the server lists them, whose foreign keys point to no row.
///
/// # Errors
/// Those of the connection, and [`LoadError::Stopped`] after a signal.
pub async fn check_foreign_keys(
    server: &Server,
    tables: &BTreeSet<TableName>,
    run: &Run,
) -> Result<KeyCheck, LoadError> {
    until_stopped(&run.cancel, async {
        let mut conn = server.connect().await?;
        for limit in ["max_execution_time", "max_statement_time"] {
            // MySQL knows the one, MariaDB the other; a server that allows neither cuts a long count off, and that is told.
            conn.query_drop(format!("SET SESSION {limit} = 0")).await.ok();
        }
        let keys = keys(&mut conn, tables).await?;
        let task = run.events.task("check foreign keys", Unit::Objects, keys.len() as u64);
        let mut check = KeyCheck { keys: keys.len(), orphans: Vec::new() };
        for key in keys {
            let rows = count(&mut conn, &key).await?;
            task.add(1);
            if rows > 0 {
                let ForeignKey { schema, table, name: key, parent_schema, parent, .. } = key;
                check.orphans.push(Orphans { schema, table, key, parent_schema, parent, rows });
            }
        }
        // A connection that does not close well is closed all the same.
        conn.disconnect().await.ok();
        Ok(check)
    })
    .await
}

/// Schema, table, key, column; schema, table, column that it points to.
type Part = (String, String, String, String, String, String, String);

async fn keys(conn: &mut Conn, tables: &BTreeSet<TableName>) -> Result<Vec<ForeignKey>, LoadError> {
    let schemas: BTreeSet<String> = tables.iter().map(|(schema, _)| sql::string(schema)).collect();
    if schemas.is_empty() {
        return Ok(Vec::new());
    }
    let asked = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME, \
         REFERENCED_COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE WHERE REFERENCED_TABLE_NAME IS NOT NULL AND \
         TABLE_SCHEMA IN ({}) ORDER BY TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION",
        schemas.into_iter().collect::<Vec<_>>().join(", ")
    );
    let parts: Vec<Part> = conn.query(asked).await.map_err(LoadError::at("list the target's foreign keys"))?;
    Ok(gathered(parts.into_iter().filter(|part| tables.contains(&(part.0.clone(), part.1.clone())))))
}

/// Returns to which columns of these tables foreign keys of the target point, each table as `schema.table`: a table that stays
/// there keeps its key, and without an index for it the server refuses the table that it points to.
pub(super) async fn referenced(conn: &mut Conn, tables: &[TableName]) -> Result<Vec<(String, Columns)>, LoadError> {
    let schemas: BTreeSet<String> = tables.iter().map(|(schema, _)| sql::string(schema)).collect();
    if schemas.is_empty() {
        return Ok(Vec::new());
    }
    let asked = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME, \
         REFERENCED_COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE WHERE REFERENCED_TABLE_SCHEMA IN ({}) \
         ORDER BY TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION",
        schemas.into_iter().collect::<Vec<_>>().join(", ")
    );
    let parts: Vec<Part> = conn.query(asked).await.map_err(LoadError::at("list the target's foreign keys"))?;
    let names: Vec<String> = tables.iter().map(|(schema, name)| format!("{schema}.{name}")).collect();
    Ok(pointed_to(&names, &gathered(parts.into_iter())))
}

/// Returns, of these tables, the columns that keys point to. A target that folds names lists them in small letters; an index too
/// many is built early where two names differ by these alone.
fn pointed_to(tables: &[String], keys: &[ForeignKey]) -> Vec<(String, Columns)> {
    let mut by_name: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for table in tables {
        by_name.entry(table.to_lowercase()).or_default().push(table);
    }
    let of_key = |key: &ForeignKey| {
        let columns: Columns = key.columns.iter().map(|(_, to)| to.clone()).collect();
        let named = by_name.get(&format!("{}.{}", key.parent_schema, key.parent).to_lowercase());
        named.into_iter().flatten().map(|table| ((*table).clone(), columns.clone())).collect::<Vec<_>>()
    };
    keys.iter().flat_map(of_key).collect()
}

/// Gathers the columns of each key, which come one after the other.
fn gathered(parts: impl Iterator<Item = Part>) -> Vec<ForeignKey> {
    let mut keys: Vec<ForeignKey> = Vec::new();
    for (schema, table, name, column, parent_schema, parent, to) in parts {
        match keys.last_mut() {
            Some(key) if key.schema == schema && key.table == table && key.name == name => {
                key.columns.push((column, to));
            }
            _ => keys.push(ForeignKey { schema, table, name, parent_schema, parent, columns: vec![(column, to)] }),
        }
    }
    keys
}

const NO_SCHEMA: u16 = 1049;
const NO_TABLE: u16 = 1146;

/// Counts the rows whose key points to no row. Where the whole table that it points to is missing, those are all that point at all.
async fn count(conn: &mut Conn, key: &ForeignKey) -> Result<u64, LoadError> {
    let act = format!("check the foreign key `{}` of {}", key.name, sql::qualified(&key.schema, &key.table));
    let counted: Result<Option<u64>, Error> = conn.query_first(key.orphans()).await;
    let counted = match counted {
        Err(Error::Server(error)) if matches!(error.code, NO_SCHEMA | NO_TABLE) => {
            conn.query_first(key.pointing()).await
        }
        counted => counted,
    };
    Ok(counted.map_err(LoadError::at(act))?.unwrap_or(0))
}

impl ForeignKey {
    /// Returns the statement that counts the rows whose key is whole: one with a NULL in it points nowhere and may.
    fn pointing(&self) -> String {
        let whole: Vec<String> =
            self.columns.iter().map(|(column, _)| format!("child.{} IS NOT NULL", sql::ident(column))).collect();
        format!(
            "SELECT COUNT(*) FROM {} AS child WHERE {}",
            sql::qualified(&self.schema, &self.table),
            whole.join(" AND ")
        )
    }

    /// Returns the statement that counts those of them that point to no row.
    fn orphans(&self) -> String {
        let same: Vec<String> = self
            .columns
            .iter()
            .map(|(column, to)| format!("parent.{} = child.{}", sql::ident(to), sql::ident(column)))
            .collect();
        format!(
            "{} AND NOT EXISTS (SELECT 1 FROM {} AS parent WHERE {})",
            self.pointing(),
            sql::qualified(&self.parent_schema, &self.parent),
            same.join(" AND ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, column: &str, to: &str) -> Part {
        let [name, column, to] = [name, column, to].map(str::to_owned);
        ("s".to_owned(), "t`x".to_owned(), name, column, "p".to_owned(), "parents".to_owned(), to)
    }

    #[test]
    fn a_key_of_a_table_that_stays_is_found_however_the_target_writes_names() {
        let keys = gathered([part("one", "a", "x"), part("two", "a", "x"), part("two", "b", "y")].into_iter());
        let columns = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Columns>();
        let found = pointed_to(&["P.Parents".to_owned(), "p.others".to_owned()], &keys);
        let wanted = [columns(&["x"]), columns(&["x", "y"])].map(|columns| ("P.Parents".to_owned(), columns));
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_key_of_two_columns_points_by_both_or_not_at_all() {
        let keys = gathered([part("one", "a", "x"), part("two", "a", "x"), part("two", "b`c", "y")].into_iter());
        assert_eq!(keys.len(), 2);
        assert_eq!(
            keys[1].orphans(),
            "SELECT COUNT(*) FROM `s`.`t``x` AS child WHERE child.`a` IS NOT NULL AND child.`b``c` IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM `p`.`parents` AS parent WHERE parent.`x` = child.`a` AND parent.`y` = child.`b``c`)"
        );
    }
}
