//! The sandbox: loaded with some tables of a dump, and followed up to the point.

use std::path::Path;
use std::sync::Arc;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::server::Server;
use crate::mysql::sql;
use crate::replay::{Replayed, Target};
use crate::restore::RestoreError;
use crate::restore::part::changes::{self, About, Header};
use crate::restore::part::{PartError, PartPlan, is_in, names_not_in};
use crate::run::Run;
use crate::sandbox::Sandbox;
use crate::source::mysql::changes::{Wanted, check};
use crate::target::mysql::plan::{Names, TableName};
use crate::target::mysql::{DumpReader, LoadOptions, LoadPlan, Selection};

/// Threads that apply in the sandbox: as many as a small machine's cores.
const THREADS: usize = 4;

/// A sandbox that holds the tables as they were at the point. It goes when its value does.
pub struct Recovered {
    pub sandbox: Sandbox,
    pub replayed: Replayed,
    /// The foreign keys that the sandbox has not, for want of the tables that they point to: `schema.table.key`.
    pub lost_keys: Vec<String>,
}

impl PartPlan {
    /// Starts a sandbox, loads the tables and follows the binlogs up to the point.
    ///
    /// # Errors
    /// [`PartError`]; the living server has not been touched.
    pub async fn recover(&self, run: &Run) -> Result<Recovered, PartError> {
        let sandbox = Sandbox::start(&self.sandbox, run).await?;
        let server = sandbox.server();
        self.load(&server, run).await?;
        let mut conn = server.connect().await?;
        self.make_schemas(&mut conn).await?;
        let lost_keys = drop_loose_keys(&mut conn, &self.family).await?;
        let replayed = self.follow(&server, run).await?;
        self.refuse_new_keys(&mut conn).await?;
        self.refuse_missing(&mut conn).await?;
        self.refuse_other_columns(&mut conn).await?;
        conn.disconnect().await.ok();
        Ok(Recovered { sandbox, replayed, lost_keys })
    }

    async fn load(&self, server: &Server, run: &Run) -> Result<(), PartError> {
        let failed = |error| PartError::from(RestoreError::from(Box::new(error)));
        let state = crate::target::mysql::inspect(server, &run.cancel).await.map_err(failed)?;
        let selection = Selection { tables: Some(self.family.clone()), accounts: false, names: Names::default() };
        let mut load = LoadPlan::new(self.dump.manifest(), &selection, &state, false).map_err(failed)?;
        load.fit(self.dump.as_ref(), &state).await.map_err(failed)?;
        let dump: Arc<dyn DumpReader> = self.dump.clone();
        let options = LoadOptions { connections: THREADS, ..LoadOptions::default() };
        let loaded = crate::target::mysql::load(&load, dump, server, options, run).await.map_err(failed)?;
        match loaded.failed.into_iter().find(|failed| failed.table.is_some()) {
            Some(lacking) => Err(failed(lacking.error)),
            None => Ok(()),
        }
    }

    /// Makes the other schemas of the dump, empty: statements that drop one, or make a routine in it, are not filtered.
    async fn make_schemas(&self, conn: &mut Conn) -> Result<(), PartError> {
        for schema in &self.dump.manifest().schemas {
            let make = format!("CREATE DATABASE IF NOT EXISTS {}", sql::ident(&schema.name));
            conn.query_drop(make).await.map_err(PartError::at("make the other schemas in the sandbox"))?;
        }
        Ok(())
    }

    async fn follow(&self, server: &Server, run: &Run) -> Result<Replayed, PartError> {
        let failed = |error| PartError::from(RestoreError::from(Box::new(error)));
        let product = self.dump.manifest().product;
        let target = Target { server: server.clone(), product, threads: THREADS, listen: None, skip_binlog: false };
        target.check(&self.replay, None, false).await.map_err(failed)?;
        let snapshot = self.chosen.id().to_string();
        target.prepare(&self.replay, &snapshot, true, false).await.map_err(failed)?;
        target.note_loaded(Vec::new()).await.map_err(failed)?;
        target.replay(&self.replay, run).await.map_err(|error| PartError::Follow(RestoreError::from(Box::new(error))))
    }

    /// Refuses a foreign key that came on the way and acts for a parent that was not followed.
    async fn refuse_new_keys(&self, conn: &mut Conn) -> Result<(), PartError> {
        let loose = loose_keys(conn, &self.family).await?;
        match loose.into_iter().find(|key| key.acts) {
            Some(key) => Err(PartError::NewKey { table: format!("{}.{}", key.schema, key.table), key: key.name }),
            None => Ok(()),
        }
    }

    async fn refuse_missing(&self, conn: &mut Conn) -> Result<(), PartError> {
        let asked = "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE'";
        let there: Vec<TableName> = conn.query(asked).await.map_err(PartError::at("list the sandbox's tables"))?;
        let tables = names_not_in(&self.tables, &there);
        if tables.is_empty() { Ok(()) } else { Err(PartError::NotThere { tables }) }
    }

    /// Refuses columns that tell whose a row is no more, or not in these words.
    async fn refuse_other_columns(&self, conn: &mut Conn) -> Result<(), PartError> {
        let Some(tenant) = &self.tenant else { return Ok(()) };
        let asked = "SELECT TABLE_SCHEMA, TABLE_NAME, LOWER(COLUMN_NAME), COLUMN_TYPE FROM information_schema.COLUMNS";
        let found: Vec<(String, String, String, String)> =
            conn.query(asked).await.map_err(PartError::at("list the sandbox's columns"))?;
        let types = found.into_iter().map(|(schema, table, column, kind)| ((schema, table, column), kind));
        tenant.check_now(&types.collect())
    }
}

impl PartPlan {
    /// Refuses tables of the living server that no change set can be made for, before anything is recovered.
    ///
    /// # Errors
    /// [`PartError`] names the table and what is in the way.
    pub async fn check_live(&self, live: &Server, run: &Run) -> Result<(), PartError> {
        let (live, tables, run) = (live.clone(), self.tables.clone(), run.clone());
        let looked = tokio::task::spawn_blocking(move || check(&live, &tables, &run)).await;
        Ok(looked.map_err(|error| RestoreError::Thread(error.to_string()))??)
    }
}

impl Recovered {
    /// Sets the tables beside the living ones and writes what would have to change, as a change set. Neither server is changed.
    ///
    /// # Errors
    /// [`PartError`] where they cannot be compared, or the file not be written.
    pub async fn changes(
        &self,
        plan: &PartPlan,
        about: About,
        live: &Server,
        path: &Path,
        run: &Run,
    ) -> Result<Header, PartError> {
        let wanted = |table: &TableName| Wanted {
            schema: table.0.clone(),
            name: table.1.clone(),
            condition: plan.tenant.as_ref().map(|tenant| tenant.condition(table).unwrap_or_else(|| "FALSE".to_owned())),
        };
        let wanted: Vec<Wanted> = plan.tables.iter().map(wanted).collect();
        let (sandbox, live, path, run) = (self.sandbox.server(), live.clone(), path.to_owned(), run.clone());
        let made =
            tokio::task::spawn_blocking(move || changes::make(&sandbox, &live, &wanted, about, &path, &run)).await;
        Ok(made.map_err(|error| RestoreError::Thread(error.to_string()))??)
    }
}

/// A foreign key that points out of some tables.
struct LooseKey {
    schema: String,
    table: String,
    name: String,
    acts: bool,
}

/// Drops the foreign keys that point out of these tables: without their parents they forbid every row. Returns which.
pub(super) async fn drop_loose_keys(conn: &mut Conn, tables: &[TableName]) -> Result<Vec<String>, PartError> {
    let mut lost = Vec::new();
    for key in loose_keys(conn, tables).await? {
        let drop = format!(
            "ALTER TABLE {} DROP FOREIGN KEY {}",
            sql::qualified(&key.schema, &key.table),
            sql::ident(&key.name)
        );
        conn.query_drop(drop).await.map_err(PartError::at("drop a foreign key in the sandbox"))?;
        lost.push(format!("{}.{}.{}", key.schema, key.table, key.name));
    }
    Ok(lost)
}

async fn loose_keys(conn: &mut Conn, tables: &[TableName]) -> Result<Vec<LooseKey>, PartError> {
    let asked = "SELECT k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.REFERENCED_TABLE_SCHEMA, k.REFERENCED_TABLE_NAME, \
        CONCAT(r.DELETE_RULE, ' ', r.UPDATE_RULE) FROM information_schema.KEY_COLUMN_USAGE k \
        JOIN information_schema.REFERENTIAL_CONSTRAINTS r ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA \
        AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND r.TABLE_NAME = k.TABLE_NAME \
        WHERE k.REFERENCED_TABLE_NAME IS NOT NULL AND k.ORDINAL_POSITION = 1 ORDER BY 1, 2, 3";
    let found: Vec<(String, String, String, String, String, String)> =
        conn.query(asked).await.map_err(PartError::at("list the sandbox's foreign keys"))?;
    let loose = found.into_iter().filter(|(.., schema, parent, _)| !is_in(tables, schema, parent));
    let key = |(schema, table, name, _, _, rules): (String, String, String, String, String, String)| LooseKey {
        acts: rules.contains("CASCADE") || rules.contains("SET "),
        schema,
        table,
        name,
    };
    Ok(loose.map(key).collect())
}
