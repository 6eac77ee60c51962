//! Fits the definitions of a dump to a target of another product or version, before anything is written.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::mysql::manifest::{ObjectKind, Product, TableEntry};
use crate::mysql::sql;
use crate::target::mysql::dialect::{Dialect, Fit};
use crate::target::mysql::dump::DumpReader;
use crate::target::mysql::plan::{Drop, LoadPlan, Omitted, TableStep, edition, objects};
use crate::target::mysql::state::TargetState;
use crate::target::mysql::{LoadError, tables};

/// What is not on the target as it was in the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub what: String,
    /// The tables and schemas that it is true of, quoted.
    pub of: Vec<String>,
}

/// A table that the target cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    pub schema: String,
    pub table: String,
    pub why: String,
    /// Its place among the tables that were to come before all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

impl LoadPlan {
    /// Translates what the target does not understand as the dump says it, and leaves out the tables that it cannot hold. Where
    /// product and version are the dump's own, nothing is read, but of tables whose engine the target lacks, and of events.
    ///
    /// # Errors
    /// When a definition cannot be read from the dump.
    pub async fn fit(&mut self, dump: &dyn DumpReader, state: &TargetState) -> Result<(), LoadError> {
        let manifest = dump.manifest();
        let (from, to) = (edition(manifest.product, &manifest.version), edition(state.product, &state.version));
        let dialect = Dialect::new(from, to, state.abilities.clone());
        // Before MySQL 8 another collation went without saying.
        let is_old = from.product == Product::MySql && from.series < (8, 0) && to.series >= (8, 0);
        let is_other = from.product != to.product || from.series > to.series || is_old;
        let mut changes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if is_other {
            self.fit_schemas(&dialect, &mut changes);
        }
        let is_suspect = |step: &TableStep| is_other || !dialect.has_engine(&step.table.engine);
        let suspects = self.tables.iter().filter(|step| is_suspect(step)).map(|step| step.table.create.clone());
        let mut texts = tables::definitions(dump, suspects.collect()).await?.into_iter();
        let mut checks: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for mut step in std::mem::take(&mut self.tables) {
            let text = if is_suspect(&step) { texts.next() } else { None };
            let fit = text.map(|text| dialect.table(&text, checks.entry(step.table.schema.clone()).or_default()));
            if fit.is_none_or(|fit| self.fit_table(fit, &mut step, &mut changes)) {
                self.tables.push(step);
            }
        }
        self.leave_out_triggers();
        self.keep_what_is_not_replaced();
        self.changes = changes.into_iter().map(|(what, of)| Change { what, of }).collect();
        self.dialect = is_other.then_some(dialect);
        self.note_unknown_zones(dump, state).await;
        Ok(())
    }

    fn fit_schemas(&mut self, dialect: &Dialect, changes: &mut BTreeMap<String, Vec<String>>) {
        for schema in &mut self.schemas {
            let (create, notes) = dialect.schema(&schema.create);
            schema.create = create;
            note(changes, notes, &sql::ident(&schema.name));
        }
    }

    /// Fits one table; `false` where the target cannot hold it.
    fn fit_table(&mut self, fit: Fit, step: &mut TableStep, changes: &mut BTreeMap<String, Vec<String>>) -> bool {
        let TableEntry { schema, name, .. } = &step.table;
        match fit {
            Fit::Holds { create, notes, sorts_otherwise } => {
                note(changes, notes, &sql::qualified(schema, name));
                step.is_comparable = !(sorts_otherwise && is_ordered_by_text(&step.table));
                step.definition = Some(create);
                true
            }
            Fit::Refused { why } => {
                let (schema, table) = (schema.clone(), name.clone());
                self.refused.push(Refused { schema, table, why, rank: step.rank });
                false
            }
        }
    }

    /// A trigger stays behind with its table.
    fn leave_out_triggers(&mut self) {
        let refused: BTreeSet<(&str, &str)> =
            self.refused.iter().map(|refused| (refused.schema.as_str(), refused.table.as_str())).collect();
        let omitted = &mut self.omitted;
        self.objects.retain(|step| {
            let object = &step.object;
            let table = object.schema.as_deref().zip(object.table.as_deref());
            let stays = object.kind != ObjectKind::Trigger || table.is_none_or(|table| !refused.contains(&table));
            if !stays {
                omitted.push(Omitted { what: objects::describe(object), why: "its table is left out".to_owned() });
            }
            stays
        });
    }

    /// What bears the name of a table that does not come is not dropped for it.
    fn keep_what_is_not_replaced(&mut self) {
        let refused = &self.refused;
        let is_of = |drop: &Drop, one: &Refused| {
            drop.schema.eq_ignore_ascii_case(&one.schema) && drop.name.eq_ignore_ascii_case(&one.table)
        };
        self.drops.retain(|drop| !refused.iter().any(|one| is_of(drop, one)));
    }
}

fn note(changes: &mut BTreeMap<String, Vec<String>>, notes: BTreeSet<String>, of: &str) {
    for what in notes {
        changes.entry(what).or_default().push(of.to_owned());
    }
}

/// How the types of columns begin that are ordered as texts, here or there; `…text` and `…blob` can be keys of MariaDB alone.
const TEXTS: [&str; 12] = [
    "char",
    "varchar",
    "tinytext",
    "text",
    "mediumtext",
    "longtext",
    "tinyblob",
    "blob",
    "mediumblob",
    "longblob",
    "uuid",
    "inet",
];

/// Tells whether texts decide in which order a table's rows are read.
fn is_ordered_by_text(table: &TableEntry) -> bool {
    let is_text = |sql_type: &str| TEXTS.iter().any(|text| sql_type.starts_with(text));
    table.columns.iter().any(|column| table.key.contains(&column.name) && is_text(&column.sql_type))
}
