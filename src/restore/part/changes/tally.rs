//! Holds the statements of a change set against its header: row changes of its tables, as many as it says, and nothing else.
//!
//! The digest at the end of the file proves that it is whole, and nothing of who wrote it.

use crate::mysql::sql::qualified;
use crate::restore::part::changes::TableCounts;

/// The statements that were seen, per table.
#[derive(Debug)]
pub(super) struct Tally {
    tables: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    title: String,
    /// As statements name it.
    name: String,
    insert: u64,
    update: u64,
    delete: u64,
}

impl Tally {
    pub(super) fn new(tables: &[(String, String)]) -> Self {
        let seen = |(schema, table): &(String, String)| Seen {
            title: format!("{schema}.{table}"),
            name: qualified(schema, table),
            insert: 0,
            update: 0,
            delete: 0,
        };
        Self { tables: tables.iter().map(seen).collect() }
    }

    /// Takes in a statement.
    ///
    /// # Errors
    /// What is wrong with one that changes no row of these tables alone.
    pub(super) fn take(&mut self, statement: &str) -> Result<(), &'static str> {
        let known = self.tables.iter_mut().any(|table| table.take(statement));
        if known { Ok(()) } else { Err("it has a statement that is no change of a row of its tables") }
    }

    /// Compares with what the header says. A row that changes may be written as one that goes and one that comes.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(&self, said: &[TableCounts]) -> Result<(), &'static str> {
        let agrees = |seen: &Seen| {
            let said = said.iter().find(|said| said.table == seen.title);
            said.is_some_and(|said| seen.agrees(said))
        };
        if said.len() == self.tables.len() && self.tables.iter().all(agrees) {
            Ok(())
        } else {
            Err("it has other statements than its header counts")
        }
    }
}

impl Seen {
    fn take(&mut self, statement: &str) -> bool {
        let verbs = [
            ("INSERT INTO ", " (", &mut self.insert),
            ("UPDATE ", " SET ", &mut self.update),
            ("DELETE FROM ", " WHERE ", &mut self.delete),
        ];
        for (before, after, count) in verbs {
            let rest = statement.strip_prefix(before).and_then(|rest| rest.strip_prefix(&self.name));
            if rest.is_some_and(|rest| rest.starts_with(after)) {
                *count += 1;
                return true;
            }
        }
        false
    }

    fn agrees(&self, said: &TableCounts) -> bool {
        let gone_and_come = said.update.checked_sub(self.update);
        gone_and_come.is_some_and(|both| self.insert == said.insert + both && self.delete == said.delete + both)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn tally(statements: &[&str]) -> Result<Tally, &'static str> {
        let mut tally = Tally::new(&[("mall".to_owned(), "orders".to_owned())]);
        statements.iter().try_for_each(|statement| tally.take(statement)).map(|()| tally)
    }

    const INSERT: &str = "INSERT INTO `mall`.`orders` (`id`) VALUES (1);";
    const UPDATE: &str = "UPDATE `mall`.`orders` SET `a` = 1 WHERE `id` = 1;";
    const DELETE: &str = "DELETE FROM `mall`.`orders` WHERE `id` = 1;";

    #[test]
    fn a_statement_changes_rows_of_the_tables_of_the_header_and_no_others() {
        assert!(tally(&[INSERT, UPDATE, DELETE]).is_ok());
        for statement in [
            "DELETE FROM `mall`.`carts` WHERE `id` = 1;",
            "DELETE FROM `mall`.`orders`;",
            "DELETE FROM `mall`.`orders` USING `mall`.`orders` JOIN `mall`.`carts`;",
            "UPDATE `mall`.`orders`, `mall`.`carts` SET `a` = 1;",
            "DROP TABLE `mall`.`orders`;",
        ] {
            assert!(tally(&[statement]).is_err(), "{statement}");
        }
    }

    #[test]
    fn the_header_counts_the_statements() {
        let said = |insert, update, delete| [TableCounts { table: "mall.orders".to_owned(), insert, update, delete }];
        let tally = tally(&[INSERT, INSERT, UPDATE, DELETE]).unwrap();
        assert!(tally.check(&said(2, 1, 1)).is_ok());
        assert!(tally.check(&said(1, 2, 0)).is_ok(), "a row went and came");
        for (insert, update, delete) in [(2, 1, 0), (1, 1, 1), (2, 0, 1), (2, 2, 1)] {
            assert!(tally.check(&said(insert, update, delete)).is_err(), "{insert} {update} {delete}");
        }
        assert!(tally.check(&[]).is_err());
    }
}
