//! What the binlogs say of some tables between a dump and a point, and whether following them makes exact rows of them.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::mysql::binlog::{Changes, Ending, Group, TEXT_CHARS_MAX, TableName as Named, Touched, Transaction, Verb};
use crate::replay::ReplayPlan;
use crate::restore::part::PartError;
use crate::run::Run;
use crate::target::mysql::plan::TableName;

/// Definitions that are kept to be told.
const DEFINITIONS_MAX: usize = 100;

/// What happened to the tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Scan {
    /// By `schema.table`, in rows.
    pub changes: BTreeMap<String, Counts>,
    /// Statements that made the tables other ones, the first hundred.
    pub definitions: Vec<Definition>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

/// A statement that made a table another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Definition {
    pub time: DateTime<Utc>,
    pub table: String,
    pub verbs: Vec<Verb>,
}

/// The tables to look for.
#[derive(Debug, Clone, Default)]
pub(super) struct Followed {
    pub(super) tables: Vec<TableName>,
    /// Those of them whose rows have no order of their own in the dump: no key.
    pub(super) keyless: Vec<TableName>,
    /// The server leaves out XA transactions that are not theirs: MySQL stops at one.
    pub(super) passes_xa: bool,
}

/// Reads the transactions that a plan replays. Blocks.
///
/// # Errors
/// [`PartError`] names the first transaction that leaves the rows in doubt.
pub(super) fn scan(plan: &ReplayPlan, tables: &Followed, run: &Run) -> Result<Scan, PartError> {
    let mut scan = Scan::default();
    plan.each("look for these tables in the binlogs", run, |transaction, file| scan.take(&transaction, tables, file))?;
    Ok(scan)
}

impl Scan {
    fn take(&mut self, transaction: &Transaction, followed: &Followed, file: &str) -> Result<(), PartError> {
        let Transaction { group, changes } = transaction;
        let doubt = doubt(group, changes).or_else(|| leaves(changes, followed));
        let doubt = doubt.or_else(|| stops(group, changes, followed));
        if let Some(why) = doubt {
            let place = format!("{file}:{}", group.begin);
            let gtid = group.gtid.as_ref().map_or_else(|| "no GTID".to_owned(), ToString::to_string);
            return Err(PartError::Doubt { why, time: group.committed, gtid, place });
        }
        for (name, touched) in &changes.tables {
            for (schema, table) in followed.tables.iter().filter(|table| is_about(name, table)) {
                self.note(format!("{schema}.{table}"), touched, group.committed);
            }
        }
        Ok(())
    }

    fn note(&mut self, table: String, touched: &Touched, time: DateTime<Utc>) {
        if !touched.verbs.is_empty() && self.definitions.len() < DEFINITIONS_MAX {
            let verbs = touched.verbs.iter().copied().collect();
            self.definitions.push(Definition { time, table: table.clone(), verbs });
        }
        let counts = self.changes.entry(table).or_default();
        counts.inserted += touched.inserted;
        counts.updated += touched.updated;
        counts.deleted += touched.deleted;
    }
}

/// Tells whether a name of the binlog means a table, or the schema that it is in.
fn is_about(name: &Named, (schema, table): &TableName) -> bool {
    name.schema.eq_ignore_ascii_case(schema) && (name.table.is_empty() || name.table.eq_ignore_ascii_case(table))
}

/// Returns what makes it impossible to say what a transaction did to a table.
fn doubt(group: &Group, changes: &Changes) -> Option<&'static str> {
    const ROWS: [Verb; 3] = [Verb::Insert, Verb::Update, Verb::Delete];
    let has_statement = |verbs: &BTreeSet<Verb>| ROWS.iter().any(|verb| verbs.contains(verb));
    if group.ending == Ending::Incident {
        return Some("the server lost events there");
    }
    if changes.has_calls {
        return Some("there is a call of a routine instead of the rows that it changed (binlog_format is not ROW)");
    }
    if has_statement(&changes.verbs) || changes.tables.values().any(|touched| has_statement(&touched.verbs)) {
        return Some("there is a statement instead of the rows that it changed (binlog_format is not ROW)");
    }
    changes.are_tables_more.then_some("it changes tables that cannot be told, or more than can be")
}

/// Returns what a server with a filter does not go past: MySQL an XA transaction of which nothing is left.
fn stops(group: &Group, changes: &Changes, followed: &Followed) -> Option<&'static str> {
    let is_ours = |name: &Named| followed.tables.iter().any(|table| is_about(name, table));
    let is_left_out = group.ending == Ending::Prepare && !changes.tables.keys().any(is_ours);
    (is_left_out && !followed.passes_xa)
        .then_some("it is an XA transaction of other tables, which MySQL does not leave out")
}

/// Returns what makes a table another one than in the sandbox. Rows and definitions are followed by the names of the tables, and what
/// happens to one under another name is not; numbers that are given to rows go by an order that only a key makes the same.
fn leaves(changes: &Changes, followed: &Followed) -> Option<&'static str> {
    let binds = |touched: &Touched| touched.is_any(&[Verb::Rename, Verb::Alter]);
    let named: Vec<&Named> =
        changes.tables.iter().filter(|(_, touched)| binds(touched)).map(|(name, _)| name).collect();
    let are_any = |of: &[TableName]| named.iter().any(|name| of.iter().any(|table| is_about(name, table)));
    let is_followed =
        |name: &Named| followed.tables.iter().any(|(schema, table)| *schema == name.schema && *table == name.table);
    let is_varying = |(name, touched): (&Named, &Touched)| {
        touched.is_varying && followed.tables.iter().any(|table| is_about(name, table))
    };
    if changes.tables.iter().any(is_varying) {
        return Some("it gives rows a default that may be another value each time");
    }
    // A definition names one table, or it gives a table another's name or rows.
    if named.len() > 1 && are_any(&followed.tables) && !named.iter().all(|name| is_followed(name)) {
        return Some("it renames one of the tables, or trades rows with a table that is not among them");
    }
    (are_any(&followed.keyless) && may_number(changes))
        .then_some("it may number the rows of a table without a key, whose order nobody knows")
}

/// Tells whether a statement may add a column that numbers the rows.
fn may_number(changes: &Changes) -> bool {
    let numbers = |text: &String| {
        let text = text.to_ascii_uppercase();
        text.contains("AUTO_INCREMENT") || text.contains("SERIAL") || text.chars().count() >= TEXT_CHARS_MAX
    };
    changes.is_more || changes.texts.iter().any(numbers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::mysql::binlog::Clock;

    fn transaction(changes: Changes) -> Transaction {
        let committed = "2026-05-01T03:00:00Z".parse().unwrap();
        let (clock, ending) = (Clock::Server, Ending::Commit);
        Transaction {
            group: Group { gtid: None, begin: 4, end: 9, committed, clock, ending, xid: None, server_id: 1 },
            changes,
        }
    }

    fn touching(schema: &str, table: &str, touched: Touched) -> Changes {
        let name = Named { schema: schema.to_owned(), table: table.to_owned() };
        Changes { tables: [(name, touched)].into(), ..Changes::default() }
    }

    fn followed(tables: &[&str]) -> Followed {
        let tables = tables.iter().map(|table| ("mall".to_owned(), (*table).to_owned()));
        Followed { tables: tables.collect(), keyless: Vec::new(), passes_xa: true }
    }

    fn taken(changes: Changes) -> Result<Scan, PartError> {
        let mut scan = Scan::default();
        scan.take(&transaction(changes), &followed(&["orders"]), "b.000001").map(|()| scan)
    }

    #[test]
    fn rows_and_definitions_of_the_tables_are_counted_and_others_are_not() {
        let rows = Touched { inserted: 3, deleted: 1, ..Touched::default() };
        let scan = taken(touching("mall", "orders", rows.clone())).unwrap();
        assert_eq!(scan.changes["mall.orders"], Counts { inserted: 3, updated: 0, deleted: 1 });
        assert_eq!(taken(touching("mall", "carts", rows)).unwrap(), Scan::default());
        let dropped = Touched { verbs: [Verb::Drop].into(), ..Touched::default() };
        let scan = taken(touching("mall", "", dropped)).unwrap();
        assert_eq!((scan.definitions.len(), scan.definitions[0].table.as_str()), (1, "mall.orders"));
    }

    #[test]
    fn what_leaves_rows_in_doubt_is_refused_whichever_table_it_names() {
        let statement = Touched { verbs: [Verb::Update].into(), ..Touched::default() };
        let call = Changes { has_calls: true, ..Changes::default() };
        let more = Changes { are_tables_more: true, ..Changes::default() };
        for (changes, why) in
            [(touching("mall", "carts", statement), "statement"), (call, "routine"), (more, "cannot be told")]
        {
            let refused = taken(changes).unwrap_err().to_string();
            assert!(refused.contains(why) && refused.contains("b.000001:4"), "{refused}");
        }
    }

    #[test]
    fn a_table_that_goes_by_another_name_is_refused_and_one_of_the_others_is_not() {
        let binding = |verb: Verb, names: &[&str]| {
            let touched = Touched { verbs: [verb].into(), ..Touched::default() };
            let name = |table: &&str| Named { schema: "mall".to_owned(), table: (*table).to_owned() };
            Changes { tables: names.iter().map(|table| (name(table), touched.clone())).collect(), ..Changes::default() }
        };
        for (verb, names) in [
            (Verb::Rename, &["orders", "orders_m"]),
            (Verb::Rename, &["orders_m", "orders"]),
            (Verb::Alter, &["archive", "orders"]),
            (Verb::Rename, &["orders", "Orders"]),
        ] {
            let refused = taken(binding(verb, names)).unwrap_err().to_string();
            assert!(refused.contains("it renames one of the tables"), "{names:?}: {refused}");
        }
        assert_eq!(taken(binding(Verb::Rename, &["carts", "baskets"])).unwrap(), Scan::default());
        assert_eq!(taken(binding(Verb::Alter, &["orders"])).unwrap().definitions.len(), 1);
        let family = followed(&["orders", "orders_m"]);
        let both = transaction(binding(Verb::Rename, &["orders", "orders_m"]));
        assert!(Scan::default().take(&both, &family, "b.000001").is_ok(), "both are followed");
    }

    #[test]
    fn rows_without_a_key_are_not_numbered() {
        let altered = |text: &str| {
            let touched = Touched { verbs: [Verb::Alter].into(), ..Touched::default() };
            transaction(Changes { texts: vec![text.to_owned()], ..touching("mall", "orders", touched) })
        };
        let keyed = followed(&["orders"]);
        let keyless = Followed { keyless: keyed.tables.clone(), ..keyed.clone() };
        let look = |text: &str, followed: &Followed| Scan::default().take(&altered(text), followed, "b.000001");
        let long = format!("ALTER TABLE orders COMMENT '{}', ADD id SERIAL", "x".repeat(TEXT_CHARS_MAX));
        for text in [
            "alter table orders add id int auto_increment primary key",
            "ALTER TABLE orders ADD id SERIAL",
            &long[..1024],
        ] {
            assert!(look(text, &keyless).unwrap_err().to_string().contains("without a key"), "{text}");
            assert!(look(text, &keyed).is_ok(), "{text}");
        }
        assert!(look("ALTER TABLE orders ADD note TEXT", &keyless).is_ok());
    }

    #[test]
    fn values_that_nobody_can_make_again_are_refused() {
        let altered = Touched { verbs: [Verb::Alter].into(), is_varying: true, ..Touched::default() };
        let refused = taken(touching("mall", "orders", altered.clone())).unwrap_err().to_string();
        assert!(refused.contains("another value each time"), "{refused}");
        assert!(taken(touching("mall", "carts", altered)).is_ok());
    }

    #[test]
    fn an_xa_transaction_of_others_is_passed_over_by_mariadb_alone() {
        let prepared = |table: &str| {
            let touched = Touched { inserted: 1, ..Touched::default() };
            let Transaction { group, changes } = transaction(touching("mall", table, touched));
            Transaction { group: Group { ending: Ending::Prepare, ..group }, changes }
        };
        let mariadb = followed(&["orders"]);
        let mysql = Followed { passes_xa: false, ..mariadb.clone() };
        let told = |table: &str, of: &Followed| Scan::default().take(&prepared(table), of, "b.000001");
        assert!(told("orders", &mysql).is_ok() && told("carts", &mariadb).is_ok());
        let refused = told("carts", &mysql).map_err(|error| error.to_string());
        assert!(refused.is_err_and(|told| told.contains("MySQL does not leave out")));
    }
}
