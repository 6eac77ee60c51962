//! The tables that come before all others: those without which nothing can be sold.

use std::collections::BTreeMap;

use crate::mysql::manifest::Manifest;
use crate::mysql::sql;
use crate::policy;
use crate::target::mysql::plan::{LoadPlan, Names, Refused, TableName, TableStep};

/// At most this many names stand in a line.
const NAMES_MAX: usize = 5;

impl LoadPlan {
    /// Lets tables come before all others, in this order: `schema.table` and `schema.*`, in the names of the dump. What names no
    /// table of the dump is told.
    pub fn bring_first(&mut self, first: &[String], manifest: &Manifest, names: &Names) {
        let mut ranks: BTreeMap<TableName, usize> = BTreeMap::new();
        for (rank, pattern) in first.iter().enumerate() {
            let is_named = |schema: &str, table: &str| policy::names_table(pattern, schema, table);
            let mut named = manifest.tables.iter().filter(|table| is_named(&table.schema, &table.name)).peekable();
            if named.peek().is_none() {
                self.notes.push(format!("`{pattern}` is to come first, and the dump holds no such table"));
            }
            for table in named.filter(|table| names.has_schema(&table.schema)) {
                ranks.entry(names.of(&table.schema, &table.name)).or_insert(rank);
            }
        }
        for step in &mut self.tables {
            step.rank = ranks.get(&(step.table.schema.clone(), step.table.name.clone())).copied();
        }
    }

    /// Returns the tables that come before all others, in their order.
    #[must_use]
    pub fn first(&self) -> Vec<&TableStep> {
        let mut first: Vec<&TableStep> = self.tables.iter().filter(|step| step.rank.is_some()).collect();
        first.sort_by_key(|step| step.rank);
        first
    }

    /// Returns those that were to come before all others and do not come, because the target cannot hold them.
    pub fn first_refused(&self) -> impl Iterator<Item = &Refused> {
        self.refused.iter().filter(|refused| refused.rank.is_some())
    }

    /// Returns the plain bytes of those that come, as far as they are still to load.
    #[must_use]
    pub fn first_bytes(&self) -> u64 {
        let pending = |step: &TableStep| step.pending.iter().map(|chunk| step.table.chunks[*chunk].bytes).sum::<u64>();
        self.tables.iter().filter(|step| step.rank.is_some()).map(pending).sum()
    }

    /// Names those that come for people; empty where there is none.
    #[must_use]
    pub fn first_named(&self) -> String {
        let first = self.first();
        let name = |step: &&TableStep| sql::qualified(&step.table.schema, &step.table.name);
        let names: Vec<String> = first.iter().take(NAMES_MAX).map(name).collect();
        let more = first.len().saturating_sub(NAMES_MAX);
        let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("{}{rest}", names.join(", "))
    }
}
