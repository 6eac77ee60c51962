//! What binds the rows of a table to others: unique indexes, foreign keys to and from it, triggers.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::mysql::sql;
use crate::mysql::wire::Wire;
use crate::source::mysql::changes::{Field, Wanted, uncomparable};
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::session::{TextRow, rows};

/// A unique index beside the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unique {
    pub name: String,
    pub fields: Vec<usize>,
}

/// A foreign key of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parent {
    pub name: String,
    pub schema: String,
    pub table: String,
    /// The table's own fields, and the columns that they point to.
    pub columns: Vec<(usize, String)>,
}

/// A foreign key that points to the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Child {
    pub schema: String,
    pub table: String,
    /// Its columns, and the fields of the table that they point to.
    pub columns: Vec<(String, usize)>,
    /// A row that goes takes its rows along, or changes them.
    pub acts_on_delete: bool,
    pub acts_on_update: bool,
    /// Its rows are compared, too.
    pub is_compared: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Ties {
    /// With the primary key, whichever names the rows.
    pub uniques: Vec<Unique>,
    pub parents: Vec<Parent>,
    pub children: Vec<Child>,
}

impl Ties {
    /// Reads what binds a table of the living server.
    pub(super) fn read(
        wire: &mut Wire,
        table: &Wanted,
        fields: &[Field],
        all: &[Wanted],
    ) -> Result<Self, MysqlSourceError> {
        refuse_triggers(wire, table)?;
        let ties = Self {
            uniques: uniques(wire, table, fields)?,
            parents: parents(wire, table, fields)?,
            children: children(wire, table, fields, all)?,
        };
        let is_own = |child: &Child| child.schema == table.schema && child.table == table.name;
        if ties.children.iter().any(|child| is_own(child) && (child.acts_on_delete || child.acts_on_update)) {
            return Err(uncomparable(table, "a foreign key with a cascade points from it to itself"));
        }
        Ok(ties)
    }
}

impl Ties {
    /// Returns the names that statements hold for the sake of foreign keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.children.iter().flat_map(|child| {
            [&child.schema, &child.table].into_iter().chain(child.columns.iter().map(|(column, _)| column))
        })
    }
}

fn refuse_triggers(wire: &mut Wire, table: &Wanted) -> Result<(), MysqlSourceError> {
    let statement = format!(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = {} AND EVENT_OBJECT_TABLE = {}",
        sql::string(&table.schema),
        sql::string(&table.name)
    );
    match rows(wire, "list the triggers", &statement)?.first() {
        Some(row) => Err(uncomparable(
            table,
            format!(
                "its trigger `{}` would run for each row that is written back, and nobody has reviewed that",
                row.text(0)
            ),
        )),
        None => Ok(()),
    }
}

fn position(fields: &[Field], column: &str) -> Option<usize> {
    fields.iter().position(|field| field.name.eq_ignore_ascii_case(column))
}

/// An index on an expression, a part of a value or a generated column is left to the server, which refuses what it forbids.
fn uniques(wire: &mut Wire, table: &Wanted, fields: &[Field]) -> Result<Vec<Unique>, MysqlSourceError> {
    let statement = format!(
        "SELECT INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0 \
         AND TABLE_SCHEMA = {} AND TABLE_NAME = {} ORDER BY INDEX_NAME, SEQ_IN_INDEX",
        sql::string(&table.schema),
        sql::string(&table.name)
    );
    let mut found: BTreeMap<String, Option<Vec<usize>>> = BTreeMap::new();
    for row in rows(wire, "list the indexes", &statement)? {
        let at = row.option(1).and_then(|column| position(fields, column)).filter(|_| row.option(2).is_none());
        let index = found.entry(row.text(0).to_owned()).or_insert_with(|| Some(Vec::new()));
        *index = index.take().zip(at).map(|(mut columns, at)| {
            columns.push(at);
            columns
        });
    }
    Ok(found.into_iter().filter_map(|(name, fields)| fields.map(|fields| Unique { name, fields })).collect())
}

/// Lists the columns of foreign keys, one after the other: the key's place and name, its column, what it points to, its rules.
fn keys(wire: &mut Wire, condition: &str) -> Result<Vec<TextRow>, MysqlSourceError> {
    let statement = format!(
        "SELECT k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_SCHEMA, \
         k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, r.DELETE_RULE, r.UPDATE_RULE \
         FROM information_schema.KEY_COLUMN_USAGE k JOIN information_schema.REFERENTIAL_CONSTRAINTS r \
         ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND r.TABLE_NAME = k.TABLE_NAME \
         WHERE {condition} AND k.REFERENCED_TABLE_NAME IS NOT NULL \
         ORDER BY k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION"
    );
    rows(wire, "list the foreign keys", &statement)
}

fn no_field(table: &Wanted) -> MysqlSourceError {
    uncomparable(table, "a foreign key of it, or to it, is of a generated column")
}

fn parents(wire: &mut Wire, table: &Wanted, fields: &[Field]) -> Result<Vec<Parent>, MysqlSourceError> {
    let (schema, name) = (sql::string(&table.schema), sql::string(&table.name));
    let mut found: Vec<Parent> = Vec::new();
    for row in keys(wire, &format!("k.TABLE_SCHEMA = {schema} AND k.TABLE_NAME = {name}"))? {
        let field = position(fields, row.text(3)).ok_or_else(|| no_field(table))?;
        let column = (field, row.text(6).to_owned());
        match found.last_mut().filter(|last| last.name == row.text(2)) {
            Some(last) => last.columns.push(column),
            None => found.push(Parent {
                name: row.text(2).to_owned(),
                schema: row.text(4).to_owned(),
                table: row.text(5).to_owned(),
                columns: vec![column],
            }),
        }
    }
    Ok(found)
}

fn children(wire: &mut Wire, table: &Wanted, fields: &[Field], all: &[Wanted]) -> Result<Vec<Child>, MysqlSourceError> {
    let (schema, name) = (sql::string(&table.schema), sql::string(&table.name));
    let mut found: Vec<(String, Child)> = Vec::new();
    for row in keys(wire, &format!("k.REFERENCED_TABLE_SCHEMA = {schema} AND k.REFERENCED_TABLE_NAME = {name}"))? {
        let field = position(fields, row.text(6)).ok_or_else(|| no_field(table))?;
        let column = (row.text(3).to_owned(), field);
        let is_same = |(name, child): &&mut (String, Child)| {
            name == row.text(2) && child.schema == row.text(0) && child.table == row.text(1)
        };
        if let Some((_, last)) = found.last_mut().filter(is_same) {
            last.columns.push(column);
            continue;
        }
        let child = Child {
            schema: row.text(0).to_owned(),
            table: row.text(1).to_owned(),
            columns: vec![column],
            acts_on_delete: acts(row.text(7)),
            acts_on_update: acts(row.text(8)),
            is_compared: all.iter().any(|one| one.schema == row.text(0) && one.name == row.text(1)),
        };
        found.push((row.text(2).to_owned(), child));
    }
    Ok(found.into_iter().map(|(_, child)| child).collect())
}

/// Tells whether a rule changes rows, and does not only forbid.
fn acts(rule: &str) -> bool {
    rule == "CASCADE" || rule.starts_with("SET ")
}
