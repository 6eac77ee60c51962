//! What a policy leaves out of a dump: the binlogs change it all the same, and the target is told to pass that over.
//!
//! Rows name their table, so those of what was left out are passed over one by one. A statement is applied whole or not at all: one that
//! changes some of both cannot be followed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;

use crate::event::Unit;
use crate::mysql::binlog::{Changes, Ending, Group, TableName as Named, Touched, Transaction, Transactions, Verb};
use crate::mysql::manifest::{Extent, Manifest, Product};
use crate::mysql::sql;
use crate::policy::{MysqlSource, Policy};
use crate::replay::{Filter, ReplayError, ReplayPlan};
use crate::restore::RestoreError;
use crate::restore::part::family;
use crate::run::Run;
use crate::source::mysql::SYSTEM_SCHEMAS;
use crate::target::mysql::{DumpReader, LoadError};

/// Read ahead of a file.
const BUFFER_BYTES: usize = 256 * 1024;

/// What the binlogs change of what the dump has not: a schema and a table in it, or all of a schema. Whether rows that were there
/// are changed, is told of each.
type Passed = BTreeMap<(String, String), bool>;

/// Refuses a dump that does not say what it lacks, as those of older versions, where the policy leaves something out.
pub(super) fn refuse_unsaid(policy: &Policy, source: &str, manifest: &Manifest) -> Result<(), RestoreError> {
    let leaves_out = |of: &MysqlSource| !of.schemas.is_empty() || !of.exclude.is_empty();
    if manifest.extent.is_everything() && policy.mysql.get(source).is_some_and(leaves_out) {
        let why = format!("the policy leaves some of `{source}` out, but the dump, which is older, does not say what");
        return Err(RestoreError::LeftOut(why));
    }
    Ok(())
}

/// Returns the filter that passes over what a dump has not and the binlogs of a plan change.
///
/// # Errors
/// [`RestoreError::LeftOut`] where what the dump has cannot be followed without the rest.
pub(super) async fn filter(dump: &dyn DumpReader, plan: &ReplayPlan, run: &Run) -> Result<Filter, RestoreError> {
    let manifest = dump.manifest();
    if manifest.extent.is_everything() {
        return Ok(Filter::Everything);
    }
    let passed = {
        let (plan, extent, run) = (plan.clone(), manifest.extent.clone(), run.clone());
        let scanned = tokio::task::spawn_blocking(move || scan(&plan, &extent, &run));
        scanned.await.map_err(|error| RestoreError::Thread(error.to_string()))??
    };
    refuse_acting(dump, &passed).await?;
    if let Some((schema, table)) = passed.keys().find(|(schema, table)| schema.contains(',') || table.contains(',')) {
        let name = sql::qualified(schema, table);
        return Err(RestoreError::LeftOut(format!("the name of {name}, which the dump has not, holds a comma")));
    }
    let places: Vec<_> = passed.into_keys().collect();
    Ok(if places.is_empty() { Filter::Everything } else { Filter::AllBut(places) })
}

/// Reads the transactions that a plan replays. Blocks.
fn scan(plan: &ReplayPlan, extent: &Extent, run: &Run) -> Result<Passed, RestoreError> {
    let mut passed = Passed::new();
    let task = run.events.task("look for what the dump has not", Unit::Bytes, plan.bytes);
    let segments = &plan.feed.segments;
    for (nth, segment) in segments.iter().enumerate() {
        let damaged = |error| Box::new(ReplayError::Binlog { name: segment.name.clone(), error: Box::new(error) });
        let file = File::open(&segment.path);
        let file = file.map_err(|error| Box::new(ReplayError::Open { name: segment.name.clone(), error }))?;
        let from = if nth == 0 { plan.feed.begin } else { 0 };
        let until = if nth + 1 == segments.len() { plan.feed.end } else { u64::MAX };
        for transaction in Transactions::new(BufReader::with_capacity(BUFFER_BYTES, file)).map_err(damaged)? {
            run.check()?;
            let Transaction { group, changes } = transaction.map_err(damaged)?;
            if group.begin >= until {
                break;
            }
            if group.begin >= from {
                let taken = take(&mut passed, &changes, extent);
                let gone_by = taken.and_then(|()| passes_xa(&group, &changes, extent, plan.feed.product));
                gone_by.map_err(|why| {
                    let gtid = group.gtid.map(|gtid| format!(" ({gtid})")).unwrap_or_default();
                    let place = format!("{}:{}", segment.name, group.begin);
                    RestoreError::LeftOut(format!("the transaction at {place}{gtid} {why}"))
                })?;
            }
        }
        task.add(segment.bytes);
    }
    Ok(passed)
}

/// Refuses an XA transaction of which nothing is left: a MySQL stops at the end of it.
fn passes_xa(group: &Group, changes: &Changes, extent: &Extent, product: Product) -> Result<(), String> {
    let is_prepared = group.ending == Ending::Prepare && product == Product::MySql;
    if is_prepared && !changes.tables.is_empty() && changes.tables.keys().all(|name| is_left_out(extent, name)) {
        return Err(
            "is an XA transaction of what was left out of the dump alone, which MySQL does not pass over".to_owned()
        );
    }
    Ok(())
}

fn is_left_out(extent: &Extent, name: &Named) -> bool {
    let is_own = SYSTEM_SCHEMAS.iter().any(|own| name.schema.eq_ignore_ascii_case(own));
    !is_own && extent.leaves_out(&name.schema, &name.table)
}

/// Notes what a transaction changes of what was left out.
fn take(passed: &mut Passed, changes: &Changes, extent: &Extent) -> Result<(), String> {
    if changes.are_tables_more {
        return Err("changes tables that cannot be told, or more than can be".to_owned());
    }
    let is_left_out = |name: &Named| is_left_out(extent, name);
    let by_statement = || changes.tables.iter().filter(|(_, touched)| !touched.verbs.is_empty()).map(|(name, _)| name);
    let mixed = (by_statement().find(|name| is_left_out(name)), by_statement().find(|name| !is_left_out(name)));
    if let (Some(left), Some(kept)) = mixed {
        let [left, kept] = [left, kept].map(|name| sql::qualified(&name.schema, &name.table));
        return Err(format!("changes by statement both {kept} and {left}, which was left out of the dump"));
    }
    for (name, touched) in changes.tables.iter().filter(|(name, _)| is_left_out(name)) {
        let is_whole = extent.leaves_out(&name.schema, "");
        let table = if is_whole { String::new() } else { name.table.clone() };
        *passed.entry((name.schema.clone(), table)).or_default() |= may_cascade(touched);
    }
    Ok(())
}

/// Tells whether rows that point to a table may have changed with it.
fn may_cascade(touched: &Touched) -> bool {
    touched.is_any(&[Verb::Update, Verb::Delete])
}

/// Refuses where rows of the dump change by foreign keys alone when those change that it has not: on most servers the binlog says
/// nothing of it.
async fn refuse_acting(dump: &dyn DumpReader, passed: &Passed) -> Result<(), RestoreError> {
    if !passed.values().any(|may_cascade| *may_cascade) {
        return Ok(());
    }
    let changes = |(schema, table): &(String, String)| {
        let is_changed = |table: &str| passed.get(&(schema.clone(), table.to_owned())).is_some_and(|changed| *changed);
        is_changed(table) || is_changed("")
    };
    for entry in &dump.manifest().tables {
        let create = dump.read(&entry.create).await.map_err(|error| Box::new(LoadError::from(error)))?;
        let parents = family::parents(&String::from_utf8_lossy(&create), &entry.schema);
        if let Some((schema, table)) = parents.iter().find(|parent| changes(parent)) {
            return Err(RestoreError::LeftOut(format!(
                "rows of `{}.{}` go or change with those of `{schema}.{table}`, which the dump has not, by a foreign key",
                entry.schema, entry.name
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::mysql::binlog::Clock;

    fn changes(touched: &[(&str, &str, Touched)]) -> Changes {
        let name = |schema: &str, table: &str| Named { schema: schema.to_owned(), table: table.to_owned() };
        let tables = touched.iter().map(|(schema, table, touched)| (name(schema, table), touched.clone()));
        Changes { tables: tables.collect(), ..Changes::default() }
    }

    fn rows() -> Touched {
        Touched { deleted: 1, ..Touched::default() }
    }

    fn statement(verb: Verb) -> Touched {
        Touched { verbs: [verb].into(), ..Touched::default() }
    }

    fn taken(extent: &Extent, touched: &[(&str, &str, Touched)]) -> Result<Vec<(String, String)>, String> {
        let mut passed = Passed::new();
        take(&mut passed, &changes(touched), extent).map(|()| passed.into_keys().collect())
    }

    fn places(places: &[(&str, &str)]) -> Vec<(String, String)> {
        places.iter().map(|(schema, table)| ((*schema).to_owned(), (*table).to_owned())).collect()
    }

    #[test]
    fn what_was_left_out_is_passed_over_table_by_table_or_schema_by_schema() {
        let extent = Extent { schemas: vec!["mall".to_owned()], exclude: vec!["mall.logs".to_owned()] };
        let all = [
            ("mall", "orders", rows()),
            ("mall", "logs", rows()),
            ("blog", "posts", rows()),
            ("blog", "tags", rows()),
            ("mysql", "time_zone", rows()),
        ];
        assert_eq!(taken(&extent, &all).unwrap(), places(&[("blog", ""), ("mall", "logs")]));
        assert_eq!(taken(&extent, &[("blog", "", statement(Verb::Create))]).unwrap(), places(&[("blog", "")]));
        assert_eq!(taken(&extent, &[("mall", "", statement(Verb::Drop))]).unwrap(), places(&[]));
        let tmp = Extent { schemas: Vec::new(), exclude: vec!["tmp.*".to_owned()] };
        assert_eq!(taken(&tmp, &[("tmp", "a", rows()), ("blog", "posts", rows())]).unwrap(), places(&[("tmp", "")]));
    }

    #[test]
    fn an_xa_transaction_of_nothing_else_is_refused_on_mysql() {
        let extent = Extent { schemas: Vec::new(), exclude: vec!["mall.logs".to_owned()] };
        let committed = "2026-05-01T03:00:00Z".parse().unwrap();
        let group = |ending| Group {
            gtid: None,
            begin: 4,
            end: 9,
            committed,
            clock: Clock::Server,
            ending,
            xid: None,
            server_id: 1,
        };
        let logs = changes(&[("mall", "logs", rows())]);
        let both = changes(&[("mall", "logs", rows()), ("mall", "orders", rows())]);
        let told = |ending, changes: &Changes, product| passes_xa(&group(ending), changes, &extent, product).is_err();
        assert!(told(Ending::Prepare, &logs, Product::MySql));
        assert!(!told(Ending::Prepare, &both, Product::MySql) && !told(Ending::Commit, &logs, Product::MySql));
        assert!(!told(Ending::Prepare, &logs, Product::MariaDb));
    }

    #[test]
    fn a_statement_over_some_of_both_is_refused_and_rows_of_both_are_not() {
        let extent = Extent { schemas: Vec::new(), exclude: vec!["mall.logs".to_owned()] };
        for verb in [Verb::Rename, Verb::Drop, Verb::Alter, Verb::Update] {
            let told = taken(&extent, &[("mall", "logs", statement(verb)), ("mall", "orders", statement(verb))]);
            assert!(told.unwrap_err().contains("both `mall`.`orders` and `mall`.`logs`"), "{verb}");
        }
        let both = [("mall", "logs", statement(Verb::Alter)), ("mall", "orders", rows())];
        assert_eq!(taken(&extent, &both).unwrap(), places(&[("mall", "logs")]));
        let unsure = Changes { are_tables_more: true, ..Changes::default() };
        assert!(take(&mut Passed::new(), &unsure, &extent).is_err());
    }
}
