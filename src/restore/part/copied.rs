//! From the sandbox into a living server, beside what is there: by a dump of the sandbox and a load, each as any other.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::manifest::Manifest;
use crate::mysql::server::Server;
use crate::mysql::sql;
use crate::policy::{MysqlSource, NonTransactional, Throttle, Tls};
use crate::restore::part::recovered::drop_loose_keys;
use crate::restore::part::{PartError, PartPlan, Recovered, is_in};
use crate::restore::{Request, RestoreError};
use crate::run::Run;
use crate::sandbox::Scratch;
use crate::source::mysql::{Snapshot, Unheld};
use crate::source::{FileSink, Sink, SinkError};
use crate::target::mysql::plan::TableName;
use crate::target::mysql::{DirDump, DumpReader, LoadOptions, LoadPlan, Loaded, Selection, TargetState};

/// What a copy brought.
#[derive(Debug)]
pub struct Copied {
    pub loaded: Loaded,
    /// In what the copy differs from the sandbox, a line each.
    pub differences: Vec<String>,
    /// Tables that could not be compared.
    pub uncompared: Vec<(String, &'static str)>,
    /// Foreign keys that the tables had, and have not where they come back under their own names.
    pub lost_keys: Vec<String>,
    /// Triggers that they had, and have not.
    pub lost_triggers: Vec<String>,
}

impl Copied {
    /// Tells whether all that was wanted is there, and equals the sandbox.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let is_equal = self.differences.is_empty() && self.uncompared.is_empty();
        let is_bound = self.lost_keys.is_empty() && self.lost_triggers.is_empty();
        self.loaded.failed.is_empty() && is_equal && is_bound
    }
}

impl PartPlan {
    /// Plans the copy by what the dump holds, so that what stands in its way is told before anything is recovered.
    ///
    /// # Errors
    /// [`PartError`] where the target cannot take it.
    pub async fn plan_copy(&self, server: &Server, request: &Request, run: &Run) -> Result<LoadPlan, PartError> {
        let failed = |error| PartError::from(RestoreError::from(Box::new(error)));
        let state = crate::target::mysql::inspect(server, &run.cancel).await.map_err(failed)?;
        if state.server_uuid.as_ref() == Some(&self.dump.manifest().server) {
            crate::restore::guard::confirm(request, server.name(), Some(server))?;
        }
        plan_load(self.dump.as_ref(), &self.tables, &state, request).await
    }

    async fn dump_sandbox(&self, server: &Server, dir: &Path, run: &Run) -> Result<(), PartError> {
        let (source, server, run) = (self.source(), server.clone(), run.clone());
        let sink = DirSink { dir: dir.to_owned() };
        let dumped = tokio::task::spawn_blocking(move || {
            Snapshot::open(&server, &source, Unheld::Refuse, &run)?.dump(&sink, None, &run)
        });
        let dumped = dumped.await.map_err(|error| RestoreError::Thread(error.to_string()))?;
        dumped?;
        Ok(())
    }

    /// Returns what of the sandbox is dumped: the tables that were asked for.
    fn source(&self) -> MysqlSource {
        let schemas: BTreeSet<String> = self.tables.iter().map(|(schema, _)| schema.clone()).collect();
        let others = self.family.iter().filter(|(schema, table)| !is_in(&self.tables, schema, table));
        MysqlSource {
            address: crate::policy::MysqlAddress::Socket(PathBuf::new()),
            user: String::new(),
            password: None,
            tls: Tls::default(),
            connections: CONNECTIONS,
            schemas: schemas.into_iter().collect(),
            exclude: others.map(|(schema, table)| format!("{schema}.{table}")).collect(),
            lock_wait: LOCK_WAIT,
            non_transactional: NonTransactional::Lock,
            throttle: Throttle::default(),
            binlog: None,
            tenant: None,
            standby_delay: std::time::Duration::ZERO,
        }
    }
}

/// Connections that read the sandbox: as many as a small machine's cores.
const CONNECTIONS: usize = 4;

/// The sandbox is ours alone: who waits for a lock there, waits for ever.
const LOCKS_MAX: &str = "SET SESSION lock_wait_timeout = 30, innodb_lock_wait_timeout = 30";

/// Nobody else is in the sandbox to hold a lock.
const LOCK_WAIT: Duration = Duration::from_secs(5);

impl Recovered {
    /// Copies the tables into a server, under the names of the request, and compares them there.
    ///
    /// # Errors
    /// [`PartError`]; what has been copied stays.
    pub async fn copy(
        &self,
        plan: &PartPlan,
        server: &Server,
        request: &Request,
        run: &Run,
    ) -> Result<Copied, PartError> {
        let failed = |error| PartError::from(RestoreError::from(Box::new(error)));
        let sandbox = self.sandbox.server();
        let mut conn = sandbox.connect().await?;
        // An XA transaction that is only prepared may hold the tables, and nobody ends it.
        conn.query_drop(LOCKS_MAX).await.map_err(PartError::at("limit the waits in the sandbox"))?;
        let dropped = drop_loose_keys(&mut conn, &plan.tables).await?;
        let lost_triggers = leave_others_out(plan, &mut conn).await?;
        conn.disconnect().await.ok();
        let parent = self.sandbox.dir().parent().map_or_else(std::env::temp_dir, Path::to_owned);
        let scratch = Scratch::for_drill(&parent).map_err(|source| PartError::Dir { dir: parent.clone(), source })?;
        plan.dump_sandbox(&sandbox, scratch.path(), run).await?;
        let opened = DirDump::open(scratch.path()).map_err(crate::target::mysql::LoadError::from).map_err(failed)?;
        let dump = Arc::new(opened);
        let state = crate::target::mysql::inspect(server, &run.cancel).await.map_err(failed)?;
        let load = plan_load(dump.as_ref(), &plan.tables, &state, request).await?;
        let options = LoadOptions {
            connections: request.connections,
            skip_binlog: request.skip_binlog,
            ..LoadOptions::default()
        };
        let reader: Arc<dyn DumpReader> = dump.clone();
        let loaded = crate::target::mysql::load(&load, reader, server, options, run).await.map_err(failed)?;
        let mut copied = compare(dump.manifest(), &load, loaded, &state, server, request, run).await?;
        // What comes back beside is bound to nothing, and said to be.
        if request.names.is_empty() {
            copied.lost_keys = self.lost_keys.iter().cloned().chain(dropped).collect();
            copied.lost_triggers = lost_triggers;
        }
        if let Err(error) = scratch.remove() {
            run.events.warn(format!("the rows of the sandbox stay in `{}`: {error}", parent.display()));
        }
        Ok(copied)
    }
}

async fn plan_load(
    dump: &dyn DumpReader,
    tables: &[TableName],
    state: &TargetState,
    request: &Request,
) -> Result<LoadPlan, PartError> {
    let failed = |error| PartError::from(RestoreError::from(Box::new(error)));
    let selection = Selection { tables: Some(tables.to_vec()), accounts: false, names: request.names.clone() };
    let mut load = LoadPlan::new(dump.manifest(), &selection, state, request.overwrite).map_err(failed)?;
    load.fit(dump, state).await.map_err(failed)?;
    Ok(load)
}

async fn compare(
    manifest: &Manifest,
    load: &LoadPlan,
    loaded: Loaded,
    state: &TargetState,
    server: &Server,
    request: &Request,
    run: &Run,
) -> Result<Copied, PartError> {
    let folds = state.lower_case_table_names == 1;
    let renamed = crate::restore::on_target(manifest, &request.names, folds)?;
    let here = |schema: &str, name: &str| {
        if folds { (schema.to_lowercase(), name.to_lowercase()) } else { (schema.to_owned(), name.to_owned()) }
    };
    let come = load.comparable().map(|step| (&step.table.schema, &step.table.name));
    let come = come.filter(|(schema, name)| !loaded.lacks(&((*schema).clone(), (*name).clone())));
    let tables: BTreeSet<TableName> = come.map(|(schema, name)| here(schema, name)).collect();
    let found =
        crate::restore::row_differences(server, renamed.as_ref().unwrap_or(manifest), Some(tables), run).await?;
    let differences = found.iter().map(ToString::to_string).collect();
    Ok(Copied { differences, uncompared: load.uncompared(), loaded, lost_keys: Vec::new(), lost_triggers: Vec::new() })
}

/// Deletes in the sandbox the rows that are not meant. The triggers go first, so that none makes other rows of it: returns which.
async fn leave_others_out(plan: &PartPlan, conn: &mut Conn) -> Result<Vec<String>, PartError> {
    let Some(tenant) = &plan.tenant else { return Ok(Vec::new()) };
    let triggers = drop_triggers(conn, &plan.tables).await?;
    let at = || PartError::at("leave the rows of others out of the sandbox");
    conn.query_drop("SET SESSION foreign_key_checks = 0").await.map_err(at())?;
    for table in &plan.tables {
        let condition = tenant.condition(table).unwrap_or_else(|| "FALSE".to_owned());
        let (schema, name) = table;
        let delete = format!("DELETE FROM {} WHERE ({condition}) IS NOT TRUE", sql::qualified(schema, name));
        conn.query_drop(delete).await.map_err(at())?;
    }
    Ok(triggers)
}

async fn drop_triggers(conn: &mut Conn, tables: &[TableName]) -> Result<Vec<String>, PartError> {
    let at = || PartError::at("drop the triggers in the sandbox");
    let asked =
        "SELECT TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS ORDER BY 1, 2";
    let found: Vec<(String, String, String)> = conn.query(asked).await.map_err(at())?;
    let mut dropped = Vec::new();
    for (schema, trigger, _) in found.iter().filter(|(schema, _, table)| is_in(tables, schema, table)) {
        conn.query_drop(format!("DROP TRIGGER {}", sql::qualified(schema, trigger))).await.map_err(at())?;
        dropped.push(format!("{schema}.{trigger}"));
    }
    Ok(dropped)
}

/// Writes a dump into a directory.
struct DirSink {
    dir: PathBuf,
}

impl Sink for DirSink {
    fn file(&self, path: &str) -> Result<Box<dyn FileSink + '_>, SinkError> {
        let place = self.dir.join(path);
        let made = place.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create_new(&place));
        let file = made.map_err(|error| SinkError { path: path.to_owned(), error: Box::new(error) })?;
        Ok(Box::new(DirFile(file)))
    }
}

struct DirFile(File);

impl Write for DirFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl FileSink for DirFile {
    /// What is thrown away within the hour need not survive a crash.
    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}
