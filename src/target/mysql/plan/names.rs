//! Other names for what a dump holds: a table beside the one that is there, a schema beside its original. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::mysql::manifest::{Manifest, SchemaEntry, TableEntry};
use crate::mysql::sql;
use crate::target::mysql::{LoadError, state};

/// Schema and name of a table.
pub type TableName = (String, String);

/// What bears another name on the target than in the dump.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// The only table to come: its name in the dump, and on the target.
    pub table: Option<(TableName, TableName)>,
    /// Schemas: by the name in the dump, the name on the target.
    pub schemas: BTreeMap<String, String>,
}

impl Names {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_none() && self.schemas.is_empty()
    }

    /// Returns a table's name on the target.
    #[must_use]
    pub fn of(&self, schema: &str, table: &str) -> TableName {
        match &self.table {
            Some((dumped, given)) if dumped.0 == schema && dumped.1 == table => given.clone(),
            _ => (self.of_schema(schema).to_owned(), table.to_owned()),
        }
    }

    fn of_schema<'a>(&'a self, schema: &'a str) -> &'a str {
        self.schemas.get(schema).map_or(schema, String::as_str)
    }

    /// Tells whether a table of this name on the target stands alone beside the others: nothing may bind it to them.
    pub(super) fn is_beside(&self, schema: &str, table: &str) -> bool {
        self.table.as_ref().is_some_and(|(_, given)| given.0 == schema && given.1 == table)
    }

    /// Tells whether a schema comes at all: where some are given other names, those alone do.
    pub(super) fn has_schema(&self, schema: &str) -> bool {
        self.schemas.is_empty() || self.schemas.contains_key(schema)
    }

    /// Returns the manifest as the target is to have it. What is not a table stays out: its statements name the old schema or table.
    ///
    /// # Errors
    /// When a schema is not in the dump, a new one is the server's own or bkp's, or two tables would bear one name.
    pub fn apply(&self, manifest: &Manifest) -> Result<Manifest, LoadError> {
        if self.is_empty() {
            return Ok(manifest.clone());
        }
        let known = |name: &&String| manifest.schemas.iter().any(|entry| entry.name == **name);
        if let Some(schema) = self.schemas.keys().find(|name| !known(name)) {
            return Err(LoadError::NoSchema { schema: schema.clone() });
        }
        let given = self.schemas.values().chain(self.table.iter().map(|(_, (schema, _))| schema));
        if let Some(schema) = given.into_iter().find(|name| state::is_own(name)) {
            return Err(LoadError::OwnSchema { schema: schema.clone() });
        }
        let comes = |table: &&TableEntry| self.has_schema(&table.schema);
        let tables: Vec<TableEntry> = manifest.tables.iter().filter(comes).map(|table| self.renamed(table)).collect();
        one_name_each(&tables)?;
        Ok(Manifest {
            schemas: self.schema_entries(manifest),
            tables,
            objects: Vec::new(),
            version: manifest.version.clone(),
            server: manifest.server.clone(),
            position: manifest.position.clone(),
            gtid: manifest.gtid.clone(),
            gtid_slave_pos: manifest.gtid_slave_pos.clone(),
            variables: manifest.variables.clone(),
            extent: manifest.extent.clone(),
            ..*manifest
        })
    }

    fn renamed(&self, table: &TableEntry) -> TableEntry {
        let (schema, name) = self.of(&table.schema, &table.name);
        TableEntry { schema, name, ..table.clone() }
    }

    /// Returns the schemas by their new names. That of a table beside the others has the defaults of the one it comes from.
    fn schema_entries(&self, manifest: &Manifest) -> Vec<SchemaEntry> {
        let mut entries: Vec<SchemaEntry> = Vec::new();
        let mut add = |entry: &SchemaEntry, name: &str| {
            if !entries.iter().any(|there| there.name == name) {
                let create = entry.create.replacen(&sql::ident(&entry.name), &sql::ident(name), 1);
                entries.push(SchemaEntry { name: name.to_owned(), create });
            }
        };
        for entry in manifest.schemas.iter().filter(|entry| self.has_schema(&entry.name)) {
            add(entry, self.of_schema(&entry.name));
        }
        if let Some((dumped, given)) = &self.table
            && let Some(entry) = manifest.schemas.iter().find(|entry| entry.name == dumped.0)
        {
            add(entry, &given.0);
        }
        entries
    }

    /// Says what the other names mean for who must agree to the plan.
    pub(super) fn notes(&self) -> Vec<String> {
        let schema = |(old, new): (&String, &String)| {
            format!(
                "{} comes as {}, its tables and rows alone and without foreign keys into other schemas and defaults from \
                 sequences: what else the dump holds stays behind",
                sql::ident(old),
                sql::ident(new)
            )
        };
        let table = |((of, old), (schema, new)): &(TableName, TableName)| {
            format!(
                "{} comes as {}, without its foreign keys, triggers and defaults from sequences: they would bind it to what is beside it",
                sql::qualified(of, old),
                sql::qualified(schema, new)
            )
        };
        self.schemas.iter().map(schema).chain(self.table.iter().map(table)).collect()
    }
}

fn one_name_each(tables: &[TableEntry]) -> Result<(), LoadError> {
    let mut seen = BTreeSet::new();
    let twice = tables.iter().find(|table| !seen.insert((&table.schema, &table.name)));
    match twice {
        Some(table) => Err(LoadError::NameTwice { table: sql::qualified(&table.schema, &table.name) }),
        None => Ok(()),
    }
}
