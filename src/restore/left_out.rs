//! What a policy leaves out of a dump: the binlogs change it all the same, and the target is told to pass that over.
//!
//! Rows name their table, so those of what was left out are passed over one by one. A statement is applied whole or not at all: one that
//! changes some of both cannot be followed.

use std::collections::BTreeSet;

use crate::mysql::binlog::{Changes, Ending, Group, TableName as Named, Touched, Transaction, Verb};
use crate::mysql::manifest::{Extent, Manifest, Product};
use crate::mysql::sql;
use crate::policy::{MysqlSource, Policy};
use crate::replay::{Filter, ReplayPlan};
use crate::restore::RestoreError;
use crate::restore::part::family;
use crate::run::Run;
use crate::source::mysql::SYSTEM_SCHEMAS;
use crate::target::mysql::{DumpReader, LoadError};

/// What changes rows, and lets triggers and routines change others.
const ROWS: [Verb; 3] = [Verb::Insert, Verb::Update, Verb::Delete];

/// A schema and a table in it, or all of a schema.
type Place = (String, String);

/// What the binlogs change: of what the dump has not, and of the rest.
#[derive(Debug, Default)]
struct Seen {
    passed: BTreeSet<Place>,
    kept: BTreeSet<Place>,
}

/// Refuses a dump that does not say what it lacks, as those of older versions, where the policy leaves something out.
pub(super) fn refuse_unsaid(policy: &Policy, source: &str, manifest: &Manifest) -> Result<(), RestoreError> {
    let leaves_out = |of: &MysqlSource| !of.schemas.is_empty() || !of.exclude.is_empty();
    if manifest.extent.is_everything() && policy.mysql.get(source).is_some_and(leaves_out) {
        let why = format!("the policy leaves some of `{source}` out, but the dump, which is older, does not say what");
        return Err(RestoreError::LeftOut(why));
    }
    Ok(())
}

/// Returns the filter that passes over what a dump has not and the binlogs of a plan change. `has`: the target goes on from an earlier
/// recovery, and holds these tables.
///
/// # Errors
/// [`RestoreError::LeftOut`] where what the dump has cannot be followed without the rest, or the target has more than the dump.
pub(super) async fn filter(
    dump: &dyn DumpReader,
    plan: &ReplayPlan,
    has: &BTreeSet<Place>,
    run: &Run,
) -> Result<Filter, RestoreError> {
    let manifest = dump.manifest();
    if manifest.extent.is_everything() || plan.transactions == 0 {
        return Ok(Filter::Everything);
    }
    refuse_keys(dump).await?;
    let Seen { mut passed, mut kept } = {
        let (plan, extent, run) = (plan.clone(), manifest.extent.clone(), run.clone());
        let folds = manifest.variables.get("lower_case_table_names").is_some_and(|value| value != "0");
        let scanned = tokio::task::spawn_blocking(move || scan(&plan, &extent, folds, &run));
        scanned.await.map_err(|error| RestoreError::Thread(error.to_string()))??
    };
    // Statements that no table is read from may concern them as well: of triggers, and of rights.
    let excluded = manifest.extent.exclude.iter().filter_map(|pattern| pattern.split_once('.'));
    passed
        .extend(excluded.map(|(schema, table)| (schema.to_owned(), if table == "*" { "" } else { table }.to_owned())));
    kept.extend(manifest.tables.iter().map(|entry| (entry.schema.clone(), entry.name.clone())));
    for place in &passed {
        if let Some(other) = kept.iter().find(|other| takes_in(place, other)) {
            return Err(RestoreError::LeftOut(format!(
                "the server cannot pass over {} and not {}",
                named(place),
                named(other)
            )));
        }
        if let Some(table) = has.iter().find(|table| *table == place || (place.1.is_empty() && table.0 == place.0)) {
            let why =
                format!("the target has {}, which was left out of the newer dumps: it would fall behind", named(table));
            return Err(RestoreError::LeftOut(why));
        }
        if place.0.contains(',') || place.1.contains(',') {
            return Err(RestoreError::LeftOut(format!(
                "{}, which the dump has not, has a comma in its name",
                named(place)
            )));
        }
    }
    let places: Vec<_> = passed.into_iter().collect();
    Ok(if places.is_empty() { Filter::Everything } else { Filter::AllBut(places) })
}

fn named((schema, table): &Place) -> String {
    if table.is_empty() { sql::ident(schema) } else { sql::qualified(schema, table) }
}

/// Tells whether the pattern of a place matches a table, too. The servers set it beside `schema.table` as one text, a MariaDB without
/// regard to case and accents.
fn takes_in((schema, table): &Place, (other_schema, other): &Place) -> bool {
    // Which letters count as one, depends on the server: of those with accents, any may be any.
    let is_vague = |letter: char| !letter.is_ascii() && letter < '\u{590}';
    let is_same =
        |(one, other): (char, char)| one.to_lowercase().eq(other.to_lowercase()) || is_vague(one) || is_vague(other);
    let (pattern, text) = (format!("{schema}.{table}"), format!("{other_schema}.{other}"));
    let starts = pattern.chars().count() <= text.chars().count() && pattern.chars().zip(text.chars()).all(is_same);
    starts && (table.is_empty() || pattern.chars().count() == text.chars().count())
}

/// Reads the transactions that a plan replays. `folds`: the source's names are the same in whatever case. Blocks.
fn scan(plan: &ReplayPlan, extent: &Extent, folds: bool, run: &Run) -> Result<Seen, RestoreError> {
    let mut seen = Seen::default();
    let extent = &if folds { folded(extent) } else { extent.clone() };
    plan.each("look for what the dump has not", run, |Transaction { group, changes }, file| {
        let changes = if folds { fold(changes) } else { changes };
        let taken = seen.take(&changes, extent);
        let gone_by = taken.and_then(|()| passes_xa(&group, &changes, extent, plan.feed.product));
        gone_by.map_err(|why| {
            let gtid = group.gtid.map(|gtid| format!(" ({gtid})")).unwrap_or_default();
            RestoreError::LeftOut(format!("the transaction at {file}:{}{gtid} {why}", group.begin))
        })
    })?;
    Ok(seen)
}

fn folded(Extent { schemas, exclude }: &Extent) -> Extent {
    let lower = |names: &[String]| names.iter().map(|name| name.to_lowercase()).collect();
    Extent { schemas: lower(schemas), exclude: lower(exclude) }
}

/// Writes all names small. Such a server keeps them so, and its rows' events have them so; a statement has them as somebody wrote them.
fn fold(mut changes: Changes) -> Changes {
    for (Named { schema, table }, touched) in std::mem::take(&mut changes.tables) {
        let name = Named { schema: schema.to_lowercase(), table: table.to_lowercase() };
        let all = changes.tables.entry(name).or_default();
        all.verbs.extend(touched.verbs);
        all.inserted += touched.inserted;
        all.updated += touched.updated;
        all.deleted += touched.deleted;
        all.is_least |= touched.is_least;
        all.is_varying |= touched.is_varying;
    }
    changes
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

impl Seen {
    /// Notes what a transaction changes.
    fn take(&mut self, changes: &Changes, extent: &Extent) -> Result<(), String> {
        if changes.are_tables_more {
            return Err("changes tables that cannot be told, or more than can be".to_owned());
        }
        let (left, kept): (Vec<_>, Vec<_>) = changes.tables.iter().partition(|(name, _)| is_left_out(extent, name));
        let by_statement = |(_, touched): &&(&Named, &Touched)| !touched.verbs.is_empty();
        let quoted = |name: &Named| sql::qualified(&name.schema, &name.table);
        if let (Some((left, _)), Some((kept, _))) = (left.iter().find(by_statement), kept.iter().find(by_statement)) {
            let (left, kept) = (quoted(left), quoted(kept));
            return Err(format!("changes by statement both {kept} and {left}, which was left out of the dump"));
        }
        let has_rows = |(_, touched): &&(&Named, &Touched)| ROWS.iter().any(|verb| touched.verbs.contains(verb));
        if let Some((name, _)) = left.iter().find(has_rows) {
            let why = "whose triggers may change others: binlog_format is not ROW";
            return Err(format!(
                "changes rows of {}, which was left out of the dump, by statement, {why}",
                quoted(name)
            ));
        }
        for (name, _) in left {
            let is_whole = extent.leaves_out(&name.schema, "");
            let table = if is_whole { String::new() } else { name.table.clone() };
            self.passed.insert((name.schema.clone(), table));
        }
        self.kept.extend(kept.into_iter().map(|(name, _)| (name.schema.clone(), name.table.clone())));
        Ok(())
    }
}

/// Refuses where a table of the dump points to one that it has not. The parent's rows are missing on the target, so that no row can
/// come; and rows that go or change with the parent's do so without a word in the binlogs of most servers.
async fn refuse_keys(dump: &dyn DumpReader) -> Result<(), RestoreError> {
    let Manifest { extent, tables, .. } = dump.manifest();
    for entry in tables {
        let create = dump.read(&entry.create).await.map_err(|error| Box::new(LoadError::from(error)))?;
        let create = String::from_utf8_lossy(&create);
        let parent = family::keys(&create, &entry.schema).find(|((schema, table), _)| extent.leaves_out(schema, table));
        if let Some((parent, _)) = parent {
            let child = sql::qualified(&entry.schema, &entry.name);
            let why = format!("{child} points by a foreign key to {}, which was left out of the dump", named(&parent));
            return Err(RestoreError::LeftOut(why));
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
        let mut seen = Seen::default();
        seen.take(&changes(touched), extent).map(|()| seen.passed.into_iter().collect())
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
    fn where_case_counts_for_nothing_a_name_is_known_in_any() {
        let extent = Extent { schemas: Vec::new(), exclude: vec!["mall.logs".to_owned()] };
        let typed = [("Mall", "LOGS", statement(Verb::Alter)), ("mall", "logs", rows()), ("MALL", "Orders", rows())];
        let folded = fold(changes(&typed));
        let mut seen = Seen::default();
        seen.take(&folded, &super::folded(&extent)).unwrap();
        assert_eq!(seen.passed.into_iter().collect::<Vec<_>>(), places(&[("mall", "logs")]));
        assert_eq!(seen.kept.into_iter().collect::<Vec<_>>(), places(&[("mall", "orders")]));
        let both = folded.tables.values().find(|touched| touched.deleted == 1 && touched.verbs.contains(&Verb::Alter));
        assert!(both.is_some(), "rows and statements of a table under two names are counted together: {folded:?}");
        let upper = Extent { schemas: vec!["Mall".to_owned()], exclude: vec!["MALL.Logs".to_owned()] };
        let upper = super::folded(&upper);
        assert!(upper.leaves_out("mall", "logs") && !upper.leaves_out("mall", "orders"));
    }

    #[test]
    fn rows_by_statement_are_refused_whatever_their_triggers_do() {
        let extent = Extent { schemas: Vec::new(), exclude: vec!["mall.logs".to_owned()] };
        for verb in [Verb::Insert, Verb::Update, Verb::Delete] {
            assert!(taken(&extent, &[("mall", "logs", statement(verb))]).unwrap_err().contains("triggers"), "{verb}");
            assert!(taken(&extent, &[("mall", "orders", statement(verb))]).unwrap().is_empty(), "{verb}");
        }
        assert_eq!(
            taken(&extent, &[("mall", "logs", statement(Verb::Truncate))]).unwrap(),
            places(&[("mall", "logs")])
        );
    }

    #[test]
    fn a_pattern_that_matches_what_the_dump_has_is_told() {
        let place = |schema: &str, table: &str| (schema.to_owned(), table.to_owned());
        let takes = |one: (&str, &str), other: (&str, &str)| takes_in(&place(one.0, one.1), &place(other.0, other.1));
        assert!(takes(("mall", "Logs"), ("mall", "logs")) && takes(("mall", "cafe"), ("mall", "caf\u{e9}")));
        assert!(takes(("shop", ""), ("shop.eu", "orders")) && takes(("Shop", ""), ("shop", "orders")));
        assert!(!takes(("mall", "logs"), ("mall", "logs2")) && !takes(("mall", "logs2"), ("mall", "logs")));
        assert!(!takes(("shop", ""), ("shops", "orders")) && !takes(("mall", "\u{b85c}"), ("mall", "\u{adf8}")));
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
        assert!(Seen::default().take(&unsure, &extent).is_err());
    }
}
