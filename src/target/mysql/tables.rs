//! Schemas and tables, before there are rows.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::sql;
use crate::target::mysql::dialect;
use crate::target::mysql::dump::{DumpReadError, DumpReader};
use crate::target::mysql::fault;
use crate::target::mysql::foreign;
use crate::target::mysql::index;
use crate::target::mysql::index::{Columns, Foreign, Index, Split};
use crate::target::mysql::plan::{LoadPlan, SchemaStep, Stage, TableName, TableStep};
use crate::target::mysql::progress;
use crate::target::mysql::progress::Step;
use crate::target::mysql::{Failed, Load, LoadError};

/// The tables of a plan, made or refused.
#[derive(Debug, Default)]
pub(super) struct Created {
    /// The indexes to build after the rows, for each table of the plan.
    pub(super) late: Vec<Vec<Index>>,
    /// The foreign keys to add after all rows, likewise.
    pub(super) foreign: Vec<Vec<Foreign>>,
    /// Tables that could not be made, by their places in the plan.
    pub(super) failed: BTreeMap<usize, LoadError>,
}

/// Drops what the operator agreed to lose.
pub(super) async fn drop_replaced(conn: &mut Conn, plan: &LoadPlan) -> Result<(), LoadError> {
    for drop in &plan.drops {
        let name = sql::qualified(&drop.schema, &drop.name);
        let keyword = drop.holding.keyword();
        conn.query_drop(format!("DROP {keyword} IF EXISTS {name}"))
            .await
            .map_err(LoadError::at(format!("drop {} {name}", keyword.to_lowercase())))?;
    }
    Ok(())
}

/// Creates the schemas. Without one that the target refuses its tables cannot come, and the others can.
pub(super) async fn create_schemas(conn: &mut Conn, plan: &LoadPlan) -> Result<Vec<Failed>, LoadError> {
    let mut failed = Vec::new();
    for schema in &plan.schemas {
        let Some(statement) = schema_statement(schema) else { continue };
        let what = format!("schema {}", sql::ident(&schema.name));
        let made = conn.query_drop(statement).await;
        match made.map_err(LoadError::at(format!("create {what}"))) {
            Err(error) if error.is_of_one_table() => failed.push(Failed { what, table: None, error }),
            made => made?,
        }
    }
    Ok(failed)
}

/// A schema that is there, but empty, is given the dump's character set and collation; one in use keeps its own.
fn schema_statement(schema: &SchemaStep) -> Option<String> {
    let SchemaStep { name, create, exists, is_used } = schema;
    if !exists {
        return Some(create.clone());
    }
    let (_, defaults) = create.split_once(&sql::ident(name))?;
    let is_plain = defaults.trim().is_empty();
    (!is_plain && !is_used).then(|| format!("ALTER DATABASE {}{defaults}", sql::ident(name)))
}

/// Creates the tables that are not there yet. One that the target refuses does not keep the others from coming.
pub(super) async fn create(conn: &mut Conn, load: &Load) -> Result<Created, LoadError> {
    let texts = texts(load).await?;
    let may_put_off = |step: &TableStep| {
        // A table that an interrupted load has made may lack its indexes, whatever it was told then.
        let may_lack = step.table.bytes >= load.options.defer_index_bytes_min || step.stage == Stage::Created;
        may_lack && step.is_transactional
    };
    // Of one that is there already, the index that a key needs has stayed.
    let is_new = |step: &&TableStep| matches!(step.stage, Stage::Untouched | Stage::Begun);
    let fresh = load.plan.tables.iter().filter(|step| may_put_off(step)).filter(is_new);
    let fresh: Vec<TableName> = fresh.map(|step| (step.table.schema.clone(), step.table.name.clone())).collect();
    let mut referenced = referenced(&load.plan, &texts);
    for (table, columns) in foreign::referenced(conn, &fresh).await? {
        referenced.entry(table).or_default().insert(columns);
    }
    let mut created = Created::default();
    for (index, (step, text)) in load.plan.tables.iter().zip(texts).enumerate() {
        let name = format!("{}.{}", step.table.schema, step.table.name);
        let none = BTreeSet::new();
        let Split { create, deferred, foreign } = if may_put_off(step) {
            index::split(&text, referenced.get(&name).unwrap_or(&none))
        } else {
            index::whole(&text)
        };
        if matches!(step.stage, Stage::Untouched | Stage::Begun) {
            match create_one(conn, step, &create).await {
                Err(error) if error.is_of_one_table() => drop(created.failed.insert(index, error)),
                made => made?,
            }
        }
        created.late.push(deferred);
        created.foreign.push(foreign);
    }
    Ok(created)
}

async fn texts(load: &Load) -> Result<Vec<String>, LoadError> {
    let steps = &load.plan.tables;
    let as_dumped = steps.iter().filter(|step| step.definition.is_none()).map(|step| step.table.create.clone());
    let mut as_dumped = definitions(load.dump.as_ref(), as_dumped.collect()).await?.into_iter();
    let text = |step: &TableStep| step.definition.clone().or_else(|| as_dumped.next()).unwrap_or_default();
    let texts: Vec<String> = steps.iter().map(text).collect();
    Ok(steps.iter().zip(texts).map(|(step, text)| statement(step, &text)).collect())
}

/// Definitions that are read at once: each is a small file, and a store far away takes its time for any.
pub(super) const DEFINITIONS_IN_FLIGHT_MAX: usize = 16;

/// Reads `CREATE TABLE` statements.
pub(super) async fn definitions(dump: &dyn DumpReader, paths: Vec<String>) -> Result<Vec<String>, LoadError> {
    let read = stream::iter(paths).map(|path| definition(dump, path));
    read.buffered(DEFINITIONS_IN_FLIGHT_MAX).try_collect().await
}

async fn definition(dump: &dyn DumpReader, path: String) -> Result<String, LoadError> {
    let mut text = String::from_utf8(dump.read(&path).await?)
        .map_err(|source| DumpReadError::Malformed { path, source: source.into() })?;
    text.truncate(text.trim_end().trim_end_matches(';').len());
    Ok(text)
}

/// Returns the statement of the dump as the plan wants the table.
fn statement(step: &TableStep, text: &str) -> String {
    if step.is_beside {
        dialect::without_sequences(&index::unbound(&index::renamed(text, &step.table.name)))
    } else if step.is_moved {
        dialect::without_sequences(&index::within_schema(text))
    } else {
        text.to_owned()
    }
}

/// Returns, by table, the columns that foreign keys of the whole plan point to.
fn referenced(plan: &LoadPlan, texts: &[String]) -> BTreeMap<String, BTreeSet<Columns>> {
    let mut referenced: BTreeMap<String, BTreeSet<Columns>> = BTreeMap::new();
    for (step, text) in plan.tables.iter().zip(texts) {
        for (table, columns) in index::references(text, &step.table.schema) {
            referenced.entry(table).or_default().insert(columns);
        }
    }
    referenced
}

async fn create_one(conn: &mut Conn, step: &TableStep, create: &str) -> Result<(), LoadError> {
    let (schema, name) = (step.table.schema.as_str(), step.table.name.as_str());
    let qualified = sql::qualified(schema, name);
    let at = || LoadError::at(format!("create table {qualified}"));
    if step.stage == Stage::Begun {
        // Made by a try that broke off before it could say so, or without transactions and half full.
        conn.query_drop(format!("DROP TABLE IF EXISTS {qualified}")).await.map_err(at())?;
        let chunks: Vec<Step<'_>> = step.table.chunks.iter().map(|chunk| Step::Chunk(&chunk.path)).collect();
        progress::forget(conn, &chunks).await?;
    }
    progress::note(conn, Step::Begun { schema, name }).await?;
    conn.query_drop(format!("USE {}", sql::ident(schema))).await.map_err(at())?;
    let made = conn.query_drop(create).await;
    if step.stage == Stage::Untouched && made.as_ref().is_err_and(fault::is_taken) {
        // Somebody has made it since the plan looked: it is not ours, and another try must not drop it. After an interruption it may
        // be the old session that has made it late.
        progress::forget(conn, &[Step::Begun { schema, name }]).await?;
    }
    made.map_err(at())?;
    progress::note(conn, Step::Created { schema, name }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_schema_takes_the_defaults_of_the_dump_and_a_used_one_keeps_its_own() {
        let create = "CREATE DATABASE `a``b` /*!40100 DEFAULT CHARACTER SET latin1 */";
        let step = |exists, is_used| SchemaStep { name: "a`b".to_owned(), create: create.to_owned(), exists, is_used };
        assert_eq!(schema_statement(&step(false, false)).as_deref(), Some(create));
        assert_eq!(
            schema_statement(&step(true, false)).as_deref(),
            Some("ALTER DATABASE `a``b` /*!40100 DEFAULT CHARACTER SET latin1 */")
        );
        assert_eq!(schema_statement(&step(true, true)), None);
    }
}
