//! Reads back what was restored, and sets it beside the snapshots.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::mysql::manifest::{Manifest, TableEntry};
use crate::mysql::server::Server;
use crate::mysql::sql;
use crate::repository::Repository;
use crate::restore::{DatabasePlan, Plan, RestoreError, Restored, files};
use crate::run::Run;
use crate::source::mysql::MysqlSourceError;
use crate::target::mysql::plan::{TableName, TableStep};
use crate::target::mysql::{KeyCheck, Loaded, Mismatch};

/// Connections that read restored rows back: as many as a small server's cores.
const CONNECTIONS_READ_BACK: usize = 4;

/// In what that which was restored differs from the snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proof {
    /// A line for each difference, up to some thousands a tree; `differing` counts them all.
    pub lines: Vec<String>,
    pub differing: u64,
    /// How many are of rows or of content, rather than of an owner, a mode or a time.
    pub damaged: u64,
    /// Tables that were not compared, each with the reason.
    pub uncompared: Vec<(String, &'static str)>,
}

impl Proof {
    /// Tells whether all that was to be restored was compared and found equal.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.differing == 0 && self.uncompared.is_empty()
    }
}

/// Reads everything that was restored back and compares it with the snapshots. What is known not to have come is not compared.
///
/// # Errors
/// [`RestoreError`] where a target cannot be read back at all.
pub async fn compare(
    plan: &Plan,
    restored: &Restored,
    repository: &Arc<Repository>,
    run: &Run,
) -> Result<Proof, RestoreError> {
    let mut proof = Proof::default();
    for (database, (_, loaded)) in plan.databases.iter().zip(&restored.databases) {
        let (tables, uncompared) = comparable(database, loaded);
        proof.uncompared.extend(uncompared);
        let found = row_differences(&database.server, database.manifest(), Some(tables), run).await?;
        proof.lines.extend(found.iter().map(ToString::to_string));
        proof.differing += found.len() as u64;
        proof.damaged += found.len() as u64;
    }
    for tree in &plan.trees {
        let (place, dir, options) = (tree.files.place.clone(), tree.dir.clone(), tree.files.options.clone());
        let (repository, run) = (repository.clone(), run.clone());
        let compared = tokio::task::spawn_blocking(move || {
            files::compare(&repository, &place, &options.selection, &dir, options.threads, &run)
        });
        let mut compared = compared.await.map_err(|error| RestoreError::Thread(error.to_string()))??;
        if tree.files.options.overwrite {
            compared.leave_out_extra();
        }
        let line = |difference: &files::Difference| format!("{}: {difference}", tree.chosen.source);
        proof.lines.extend(compared.differences.iter().map(line));
        proof.differing += compared.differing;
        proof.damaged += compared.damaged;
    }
    Ok(proof)
}

/// Returns the tables whose rows can be set beside the snapshot, and the others with the reason.
fn comparable(database: &DatabasePlan, loaded: &Loaded) -> (BTreeSet<TableName>, Vec<(String, &'static str)>) {
    let (mut tables, mut others) = (BTreeSet::new(), Vec::new());
    if database.replay.as_ref().is_some_and(|replay| replay.is_loaded) {
        others.push(("the dump".to_owned(), "an earlier run has loaded it, and a replay may have changed it since"));
    }
    for step in database.load.comparable() {
        let TableEntry { schema, name, .. } = &step.table;
        if loaded.lacks(&(schema.clone(), name.clone())) {
            others.push((sql::qualified(schema, name), "it did not come whole"));
        } else {
            tables.insert(database.listed(step));
        }
    }
    others.extend(database.load.uncompared());
    (tables, others)
}

/// Looks for restored rows whose foreign keys point to no row: the snapshot held them so, or what they point to was not restored.
/// Tables that did not come whole are not looked at.
///
/// # Errors
/// [`RestoreError::Load`] where the target cannot be asked.
pub async fn check_foreign_keys(plan: &Plan, restored: &Restored, run: &Run) -> Result<KeyCheck, RestoreError> {
    let mut check = KeyCheck::default();
    for (database, (_, loaded)) in plan.databases.iter().zip(&restored.databases) {
        let is_whole = |step: &&TableStep| !loaded.lacks(&(step.table.schema.clone(), step.table.name.clone()));
        let tables = database.load.tables.iter().filter(is_whole).map(|step| database.listed(step)).collect();
        let of_it = crate::target::mysql::check_foreign_keys(&database.server, &tables, run).await.map_err(Box::new)?;
        check.keys += of_it.keys;
        check.orphans.extend(of_it.orphans);
    }
    Ok(check)
}

/// Reads restored rows back through the dump's own encoder and compares each chunk's hash with the manifest. `tables` of `None`
/// means all.
///
/// # Errors
/// [`RestoreError::ReadBack`] where the server cannot be read.
pub async fn row_differences(
    server: &Server,
    manifest: &Manifest,
    tables: Option<BTreeSet<(String, String)>>,
    run: &Run,
) -> Result<Vec<Mismatch>, RestoreError> {
    let (server, of, run) = (server.clone(), manifest.clone(), run.clone());
    let hashed = tokio::task::spawn_blocking(move || {
        let hashes = crate::source::mysql::hash_chunks(&server, &of, tables.as_ref(), CONNECTIONS_READ_BACK, &run);
        hashes.map(|hashes| crate::target::mysql::compare(&of, tables.as_ref(), &hashes))
    });
    let compared = hashed.await.map_err(|error| RestoreError::Thread(error.to_string()))?;
    compared.map_err(|error| match error {
        MysqlSourceError::TableChanged { table } => RestoreError::Altered(table),
        error => RestoreError::ReadBack(error),
    })
}
