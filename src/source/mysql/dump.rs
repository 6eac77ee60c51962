//! Writes a dump: definitions, then rows on all connections at once, then the manifest.

use std::io::{self, Write};

use tokio_util::sync::CancellationToken;

use crate::event::Unit;
use crate::mysql::manifest::{Chunk, Extent, FORMAT, Manifest, ObjectEntry, SchemaEntry, TableEntry};
use crate::mysql::sql::{ident, qualified};
use crate::mysql::wire::Wire;
use crate::run::Run;
use crate::source::Sink;
use crate::source::mysql::Snapshot;
use crate::source::mysql::accounts::AccountReader;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::inventory::{Exclude, HOLLOW, New, SYSTEM_SCHEMAS, TRANSACTIONAL, Table};
use crate::source::mysql::layout;
use crate::source::mysql::objects::{Object, ObjectReader};
use crate::source::mysql::script::{TableScript, write_readme, write_restore, write_script};
use crate::source::mysql::session::{Capabilities, TextRow, in_list, rows, run_sql};
use crate::source::mysql::throttle::Passage;
use crate::source::mysql::work::Work;

/// What a dump holds beside rows.
struct Definitions {
    schemas: Vec<SchemaEntry>,
    /// `CREATE TABLE`, in the order of the inventory.
    tables: Vec<String>,
    objects: Vec<Object>,
}

impl Snapshot {
    /// Writes the dump into a sink; `manifest.json` comes last. Blocks.
    ///
    /// Bounds of the previous dump are used again where they fit, so that unchanged ranges make identical files.
    ///
    /// # Errors
    /// Whatever breaks; then what the sink has got so far is no dump.
    pub fn dump(
        mut self,
        sink: &dyn Sink,
        previous: Option<&Manifest>,
        run: &Run,
    ) -> Result<Manifest, MysqlSourceError> {
        let dumped = self.dump_all(sink, previous, run);
        // A lost lock stops the readers: it is the reason, and their stopping is not.
        let dumped = self.keeper.lost().map_or(dumped, Err);
        if dumped.is_err() {
            self.kill_readers();
        }
        dumped
    }

    fn dump_all(
        &mut self,
        sink: &dyn Sink,
        previous: Option<&Manifest>,
        run: &Run,
    ) -> Result<Manifest, MysqlSourceError> {
        let definitions = self.read_definitions(run)?;
        self.free_writers_of_others(run)?;
        let chunks = self.read_rows(sink, previous, run)?;
        self.holds.check()?;
        if !self.holds.has_definitions() {
            self.refuse_changes(New::Fine)?;
        }
        let manifest = self.take_manifest(&definitions, chunks);
        write_definitions(sink, &manifest, &definitions)?;
        self.write_scripts(sink, &manifest, &definitions)?;
        write_json(sink, layout::MANIFEST, &manifest)?;
        Ok(manifest)
    }

    /// Gives MariaDB's lock on definitions up where it costs more than it brings: as long as it is held, whoever writes to a
    /// table without transactions waits, in every schema. Tables that change from here on are noticed at the end.
    pub(super) fn free_writers_of_others(&mut self, run: &Run) -> Result<(), MysqlSourceError> {
        if !self.capabilities.is_mariadb() || !self.holds.has_definitions() {
            return Ok(());
        }
        if has_unprotected(&mut self.control)? {
            run.events.detail("the server has tables without transactions: definitions are not held still any longer");
            self.holds.free_definitions(&self.capabilities)?;
        }
        Ok(())
    }

    fn read_definitions(&mut self, run: &Run) -> Result<Definitions, MysqlSourceError> {
        let mut definitions = Definitions { schemas: Vec::new(), tables: Vec::new(), objects: Vec::new() };
        for schema in &self.inventory.schemas {
            let statement = format!("SHOW CREATE DATABASE IF NOT EXISTS {}", ident(&schema.name));
            let found = rows(&mut self.control, &format!("read the definition of `{}`", schema.name), &statement)?;
            definitions.schemas.push(SchemaEntry { name: schema.name.clone(), create: shown(&found, &schema.name)? });
        }
        for table in &self.inventory.tables {
            let statement = format!("SHOW CREATE TABLE {}", qualified(&table.schema, &table.name));
            let found = rows(&mut self.control, &format!("read the definition of `{}`", table.title()), &statement)?;
            definitions.tables.push(shown(&found, &table.title())?);
        }
        definitions.objects = self.read_objects(run)?;
        Ok(definitions)
    }

    fn read_objects(&mut self, run: &Run) -> Result<Vec<Object>, MysqlSourceError> {
        let mut reader = ObjectReader {
            wire: &mut self.control,
            inventory: &self.inventory,
            capabilities: &self.capabilities,
            exclude: Exclude(&self.source.exclude),
        };
        let mut objects = reader.read()?;
        if self.grants.sees_accounts() {
            let mut reader = AccountReader {
                wire: &mut self.control,
                inventory: &self.inventory,
                objects: &objects,
                capabilities: &self.capabilities,
                events: &run.events,
            };
            reader.warn_of_losses()?;
            let accounts = reader.read()?;
            objects.extend(accounts);
            // Stable: events are enabled when all else is there.
            objects.sort_by_key(|object| object.is_last);
        }
        Ok(objects)
    }

    /// Reads all rows, and returns the chunks of each table.
    fn read_rows(
        &mut self,
        sink: &dyn Sink,
        previous: Option<&Manifest>,
        run: &Run,
    ) -> Result<Vec<Vec<Chunk>>, MysqlSourceError> {
        let cancel = self.cancel.child_token();
        self.readers.iter_mut().for_each(|reader| reader.set_cancel(cancel.clone()));
        let tables = &self.inventory.tables;
        let estimate = tables.iter().map(|table| table.bytes_estimate).sum();
        let progress = run.events.task("dump rows", Unit::Bytes, estimate);
        let passage = Passage { throttle: &self.throttle, cancel: &cancel };
        let work = Work::new(tables, self.readers.len(), self.chunk_bytes, sink, &progress, &self.holds, passage);
        let own: Vec<u32> = self.readers.iter().chain([&self.control]).map(Wire::id).collect();
        let (control, readers, own, progress) = (&mut self.control, &mut self.readers, &own, &*progress);
        let read = passage.watching(control, own, progress, || {
            work.run(readers, previous);
            work.finish()
        });
        if self.cancel.is_cancelled() {
            return Err(MysqlSourceError::Stopped);
        }
        progress.set_total(progress.done());
        read
    }

    /// Makes the manifest; the tables of the inventory are in it from now on, and not twice in memory.
    fn take_manifest(&mut self, definitions: &Definitions, chunks: Vec<Vec<Chunk>>) -> Manifest {
        let tables = std::mem::take(&mut self.inventory.tables).into_iter().zip(chunks);
        Manifest {
            format: FORMAT,
            product: self.capabilities.product,
            version: self.capabilities.version.clone(),
            server: self.capabilities.server(),
            taken_at: self.moment.taken_at,
            consistency: self.moment.consistency,
            position: self.moment.position.clone(),
            gtid: self.moment.gtid.clone(),
            gtid_slave_pos: self.moment.gtid_slave_pos.clone(),
            write_stall_ms: self.moment.write_stall_ms,
            variables: self.capabilities.for_manifest(),
            extent: Extent { schemas: self.source.schemas.clone(), exclude: self.source.exclude.clone() },
            schemas: definitions.schemas.clone(),
            tables: tables.map(|(table, chunks)| table_entry(table, chunks)).collect(),
            objects: definitions.objects.iter().map(object_entry).collect(),
        }
    }

    fn write_scripts(
        &self,
        sink: &dyn Sink,
        manifest: &Manifest,
        definitions: &Definitions,
    ) -> Result<(), MysqlSourceError> {
        let tables = manifest.tables.iter().zip(&definitions.tables);
        let tables: Vec<_> = tables.map(|(entry, create)| TableScript { entry, create }).collect();
        write_file(sink, layout::SCRIPT, |out| {
            write_restore(out, manifest, &tables, &definitions.objects, &self.capabilities)
        })?;
        write_file(sink, layout::README, |out| write_readme(out, manifest))
    }

    /// Ends what still runs on the server: a statement does not notice that its reader has gone until it sends.
    pub(super) fn kill_readers(&mut self) {
        let busy: Vec<String> =
            self.readers.iter().filter(|reader| reader.is_busy()).map(|reader| reader.id().to_string()).collect();
        if !busy.is_empty() {
            // The dump has failed already; what cannot be killed ends by itself when it sends.
            let _ends_by_itself = self.kill(&busy);
        }
    }

    /// Kills sessions that are ours: after a restart, or behind an address of several servers, the number may be another's.
    fn kill(&self, ids: &[String]) -> Result<(), MysqlSourceError> {
        let act = "end what the dump still reads";
        let mut wire = self.server.open_wire(&CancellationToken::new())?;
        if !Capabilities::probe(&mut wire)?.is_of_same_server(&self.capabilities) {
            return Ok(());
        }
        let statement = format!(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE ID IN ({}) AND USER = SUBSTRING_INDEX(USER(), '@', 1) \
             AND INFO LIKE 'SELECT `%` FROM `%'",
            ids.join(", ")
        );
        for row in rows(&mut wire, act, &statement)? {
            run_sql(&mut wire, act, &format!("KILL {}", row.text(0)))?;
        }
        Ok(())
    }
}

/// Returns the second column of what SHOW CREATE answers.
fn shown(found: &[TextRow], name: &str) -> Result<String, MysqlSourceError> {
    let create = found.first().and_then(|row| row.option(1)).map(str::to_owned);
    create.ok_or_else(|| MysqlSourceError::no_definition(name))
}

/// Tells whether any schema of the server's users has a table without transactions.
fn has_unprotected(control: &mut Wire) -> Result<bool, MysqlSourceError> {
    let statement = format!(
        "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT {} AND UPPER(ENGINE) NOT {} LIMIT 1",
        in_list(SYSTEM_SCHEMAS),
        in_list(TRANSACTIONAL.into_iter().chain(HOLLOW))
    );
    Ok(!rows(control, "look for tables without transactions", &statement)?.is_empty())
}

fn table_entry(table: Table, chunks: Vec<Chunk>) -> TableEntry {
    TableEntry {
        create: layout::definition(&table.schema, &table.name),
        schema: table.schema,
        name: table.name,
        engine: table.engine,
        history_lost: table.history_lost,
        columns: table.columns,
        key: table.key.map(|key| key.columns).unwrap_or_default(),
        rows: chunks.iter().map(|chunk| chunk.rows).sum(),
        bytes: chunks.iter().map(|chunk| chunk.bytes).sum(),
        chunks,
    }
}

fn object_entry(object: &Object) -> ObjectEntry {
    let path = object.path();
    ObjectEntry {
        kind: object.kind,
        schema: object.schema.clone(),
        table: object.table.clone(),
        name: object.name.clone(),
        statements: format!("{path}.json"),
        script: format!("{path}.sql"),
    }
}

fn write_definitions(sink: &dyn Sink, manifest: &Manifest, definitions: &Definitions) -> Result<(), MysqlSourceError> {
    for (entry, create) in manifest.tables.iter().zip(&definitions.tables) {
        write_file(sink, &entry.create, |out| writeln!(out, "{create}"))?;
    }
    for (entry, object) in manifest.objects.iter().zip(&definitions.objects) {
        write_json(sink, &entry.statements, &object.statements)?;
        write_file(sink, &entry.script, |out| write_script(out, &object.statements))?;
    }
    Ok(())
}

fn write_json(sink: &dyn Sink, path: &str, value: &impl serde::Serialize) -> Result<(), MysqlSourceError> {
    write_file(sink, path, |out| serde_json::to_writer_pretty(out, value).map_err(io::Error::from))
}

fn write_file(
    sink: &dyn Sink,
    path: &str,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), MysqlSourceError> {
    let mut file = io::BufWriter::new(sink.file(path)?);
    let failed = |error| MysqlSourceError::Write { path: path.to_owned(), error };
    write(&mut file).map_err(failed)?;
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    Ok(file.finish()?)
}
