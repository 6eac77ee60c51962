//! Definitions that give rows other values on the target than on the source (`ADD COLUMN c … DEFAULT uuid()`): each server works them
//! out for itself, and no binlog holds them.

use serde::Serialize;

use crate::mysql::binlog::{Event, Kind, Malformed, Query, Verb, statement};
use crate::mysql::sql;
use crate::replay::plan::Mark;
use crate::replay::segments::reaches;

/// What is kept to be told.
const FOUND_MAX: usize = 100;

const WORD: &[u8] = b"DEFAULT";

/// A transaction that does so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Varying {
    pub tables: Vec<String>,
    pub transaction: Mark,
}

#[derive(Debug, Default)]
pub(super) struct Definitions {
    found: Vec<Varying>,
    /// Of the transaction at hand.
    tables: Vec<String>,
}

impl Definitions {
    /// Looks at an event of a transaction.
    pub(super) fn see(&mut self, event: &Event<'_>) -> Result<(), Malformed> {
        let has_word = || event.body().windows(WORD.len()).any(|bytes| bytes.eq_ignore_ascii_case(WORD));
        let may_be = match event.header.kind {
            Kind::QUERY => has_word(),
            Kind::QUERY_COMPRESSED => true,
            _ => false,
        };
        let Some(query) = (if may_be { Query::parse(event)? } else { None }) else { return Ok(()) };
        let read = statement::read(&query.text, &query.schema);
        if read.is_varying && read.verbs.contains(&Verb::Alter) {
            self.tables.extend(read.tables.iter().map(|table| sql::qualified(&table.schema, &table.table)));
        }
        Ok(())
    }

    /// Ends the transaction at hand; `None`: one that is not replayed.
    pub(super) fn end(&mut self, mark: Option<&Mark>) {
        let tables = std::mem::take(&mut self.tables);
        if let Some(mark) = mark.filter(|_| !tables.is_empty() && self.found.len() < FOUND_MAX) {
            self.found.push(Varying { tables, transaction: mark.clone() });
        }
    }

    /// Returns those of the first so many transactions: they end at `last`.
    pub(super) fn up_to(self, last: Option<&Mark>) -> Vec<Varying> {
        let is_within = |varying: &Varying| last.is_some_and(|last| reaches(&last.end, &varying.transaction.end));
        self.found.into_iter().filter(is_within).collect()
    }
}
