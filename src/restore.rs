//! The verb that brings snapshots back: a plan first, then databases, then files.
//!
//! Nothing is written before the plan is whole; the source itself is never a target unless the operator types its host's name.

pub mod choose;
pub mod files;
pub mod mysql;

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::backup::BackupError;
use crate::mysql::manifest::Manifest;
use crate::mysql::server::Server;
use crate::policy::MysqlAddress;
use crate::policy::Policy;
use crate::repository::Repository;
use crate::repository::RepositoryError;
use crate::restore::choose::Chosen;
use crate::restore::choose::Moment;
use crate::restore::mysql::RepositoryDump;
use crate::run::Run;
use crate::run::Stopped;
use crate::source::mysql::MysqlSourceError;
use crate::target::mysql::DumpReader;
use crate::target::mysql::LoadError;
use crate::target::mysql::LoadOptions;
use crate::target::mysql::LoadPlan;
use crate::target::mysql::Loaded;
use crate::target::mysql::Mismatch;
use crate::target::mysql::Selection;

/// What an operator asks of a restore.
#[derive(Debug, Clone)]
pub struct Request {
    pub moment: Moment,
    /// Empty: every source that the targets can take.
    pub sources: Vec<String>,
    pub to_mysql: Option<Server>,
    pub to_dir: Option<PathBuf>,
    /// Empty: all.
    pub tables: Vec<(String, String)>,
    /// Paths and globs relative to the source's directory; empty: all.
    pub paths: Vec<String>,
    pub overwrite: bool,
    /// The host's name as the operator typed it, where the source itself may be overwritten.
    pub in_place: Option<String>,
    pub users: bool,
    pub connections: usize,
}

/// Bytes a second, as earlier restores and drills measured them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    pub load: Option<f64>,
    pub files: Option<f64>,
}

/// What a restore will do.
pub struct Plan {
    pub moment: Moment,
    pub databases: Vec<DatabasePlan>,
    pub trees: Vec<TreePlan>,
    /// How long it should take, where an earlier one was measured.
    pub predicted: Option<Duration>,
}

pub struct DatabasePlan {
    pub chosen: Chosen,
    pub server: Server,
    pub load: LoadPlan,
    pub dump: Arc<RepositoryDump>,
}

pub struct TreePlan {
    pub chosen: Chosen,
    pub dir: PathBuf,
    pub files: files::FilesPlan,
}

/// What a restore did.
#[derive(Debug, Default)]
pub struct Restored {
    pub databases: Vec<(String, Loaded)>,
    pub trees: Vec<(String, files::Restored)>,
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("choose a snapshot of {what}: none is at or before {until}")]
    NoSnapshot { what: String, until: DateTime<Utc> },
    #[error("choose a snapshot: no id begins with `{0}`")]
    UnknownId(String),
    #[error("choose a snapshot: more than one id begins with `{0}`")]
    AmbiguousId(String),
    #[error("choose a snapshot: {0} was not made by bkp: it names no source")]
    Foreign(String),
    #[error("plan the restore: source `{0}` is a database, and no server to load it into is named")]
    NoServer(String),
    #[error("plan the restore: source `{0}` is a tree of files, and no directory to restore it into is named")]
    NoDir(String),
    #[error("plan the restore: {0} databases cannot be loaded into one server at once: {1}")]
    ManyDatabases(usize, String),
    #[error("plan the restore: the target `{0}` is the source itself")]
    InPlace(String),
    #[error("plan the restore: `{typed}` is not the name of this host, `{host}`")]
    WrongHost { typed: String, host: String },
    #[error("plan the restore: no table `{0}` is in the snapshot")]
    NoTable(String),
    #[error(transparent)]
    Manifest(#[from] Box<BackupError>),
    #[error("load the database")]
    Load(#[from] Box<LoadError>),
    #[error("read the restored rows back")]
    ReadBack(#[from] MysqlSourceError),
    #[error("restore the files")]
    Files(#[from] files::RestoreFilesError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("a thread of the restore broke down: {0}")]
    Thread(String),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl RestoreError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoSnapshot { .. } => "`bkp snapshots` lists what there is; `--from COPY` looks into a copy",
            Self::UnknownId(_) | Self::AmbiguousId(_) => "`bkp snapshots` lists the ids",
            Self::Foreign(_) => "restore it with `restic restore`",
            Self::NoServer(_) => "add `--to-mysql URL`, or name other sources with `--source`",
            Self::NoDir(_) => "add `--to-dir DIR`, or name other sources with `--source`",
            Self::ManyDatabases(..) => "name one with `--source`",
            Self::InPlace(_) => "restore beside it, or add `--in-place --confirm-host NAME` with the source's host",
            Self::WrongHost { .. } => "type the name that `hostname` prints on the machine that is to be overwritten",
            Self::NoTable(_) => "names are `schema.table`, as the server writes them",
            Self::Manifest(error) => return error.hint(),
            Self::Load(error) => return error.hint(),
            Self::ReadBack(error) => return error.hint(),
            Self::Files(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
            Self::Thread(_) | Self::Stopped(_) => return None,
        };
        Some(text.to_owned())
    }
}

/// Plans a restore: which snapshots, into what, how much, how long. Writes nothing.
///
/// # Errors
/// [`RestoreError`] where the snapshots and the targets do not fit each other.
pub async fn plan(
    policy: &Policy,
    repository: &Arc<Repository>,
    request: &Request,
    rates: Rates,
    run: &Run,
) -> Result<Plan, RestoreError> {
    let snapshots = repository.snapshots().await?;
    repository.load_index(run).await?;
    let chosen = choose::choose(&snapshots, &policy.name, &request.sources, &request.moment, run.now())?;
    let chosen = fitting(chosen, request)?;
    refuse_source_as_target(policy, request)?;
    let mut plan = Plan { moment: request.moment.clone(), databases: Vec::new(), trees: Vec::new(), predicted: None };
    let many = chosen.iter().filter(|chosen| chosen.kind == "files").count() > 1;
    for chosen in chosen {
        if let ("mysql", Some(server)) = (chosen.kind.as_str(), &request.to_mysql) {
            plan.databases.push(plan_database(repository, chosen, server, request).await?);
        } else if let Some(dir) = &request.to_dir {
            let dir = if many { dir.join(&chosen.source) } else { dir.clone() };
            plan.trees.push(plan_tree(repository, chosen, dir, request, run).await?);
        }
    }
    plan.predicted = plan.predict(rates);
    Ok(plan)
}

/// Leaves out what no target was named for; a source that was asked for by name must have one.
fn fitting(chosen: Vec<Chosen>, request: &Request) -> Result<Vec<Chosen>, RestoreError> {
    let is_named = !request.sources.is_empty() || matches!(request.moment, Moment::Snapshot(_));
    let mut fitting = Vec::new();
    for chosen in chosen {
        let is_database = chosen.kind == "mysql";
        let has_target = if is_database { request.to_mysql.is_some() } else { request.to_dir.is_some() };
        let is_nowhere = request.to_mysql.is_none() && request.to_dir.is_none();
        match (has_target, is_database) {
            (true, _) => fitting.push(chosen),
            (false, true) if is_named || is_nowhere => return Err(RestoreError::NoServer(chosen.source)),
            (false, false) if is_named || is_nowhere => return Err(RestoreError::NoDir(chosen.source)),
            (false, _) => {}
        }
    }
    let databases: Vec<_> =
        fitting.iter().filter(|chosen| chosen.kind == "mysql").map(|chosen| &*chosen.source).collect();
    if databases.len() > 1 {
        return Err(RestoreError::ManyDatabases(databases.len(), databases.join(", ")));
    }
    Ok(fitting)
}

/// Refuses to write over a source unless the operator typed its host's name.
fn refuse_source_as_target(policy: &Policy, request: &Request) -> Result<(), RestoreError> {
    let database = request.to_mysql.as_ref().and_then(|server| {
        policy.mysql.values().find(|source| same_address(&source.address, &server.address)).map(|_| server.name())
    });
    let tree = request.to_dir.as_ref().and_then(|dir| {
        policy.files.values().find(|source| overlaps(dir, &source.path)).map(|_| dir.display().to_string())
    });
    let Some(target) = database.clone().or(tree) else { return Ok(()) };
    let Some(typed) = &request.in_place else { return Err(RestoreError::InPlace(target)) };
    let host = match request.to_mysql.as_ref().map(|server| &server.address) {
        Some(MysqlAddress::Tcp { host, .. }) if database.is_some() => host.clone(),
        _ => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    if *typed == host { Ok(()) } else { Err(RestoreError::WrongHost { typed: typed.clone(), host }) }
}

/// Compares two addresses; every loopback name of one port is the same server.
fn same_address(a: &MysqlAddress, b: &MysqlAddress) -> bool {
    let local = |host: &str| matches!(host, "localhost" | "127.0.0.1" | "::1");
    match (a, b) {
        (MysqlAddress::Tcp { host: a, port: p }, MysqlAddress::Tcp { host: b, port: q }) => {
            p == q && (a == b || (local(a) && local(b)))
        }
        (a, b) => a == b,
    }
}

fn overlaps(a: &Path, b: &Path) -> bool {
    let whole = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (a, b) = (whole(a), whole(b));
    a.starts_with(&b) || b.starts_with(&a)
}

async fn plan_database(
    repository: &Arc<Repository>,
    chosen: Chosen,
    server: &Server,
    request: &Request,
) -> Result<DatabasePlan, RestoreError> {
    let dump = Arc::new(open_dump(repository, &chosen).await?);
    let manifest = dump.manifest();
    let is_there =
        |name: &&(String, String)| manifest.tables.iter().any(|t| (&t.schema, &t.name) == (&name.0, &name.1));
    if let Some((schema, table)) = request.tables.iter().find(|name| !is_there(name)) {
        return Err(RestoreError::NoTable(format!("{schema}.{table}")));
    }
    let selection = Selection {
        tables: Some(request.tables.clone()).filter(|tables| !tables.is_empty()),
        accounts: request.users && request.tables.is_empty(),
    };
    let state = crate::target::mysql::inspect(server).await.map_err(Box::new)?;
    let load = LoadPlan::new(manifest, &selection, &state, request.overwrite).map_err(Box::new)?;
    Ok(DatabasePlan { chosen, server: server.clone(), load, dump })
}

/// Opens the dump of a chosen snapshot.
pub(crate) async fn open_dump(repository: &Arc<Repository>, chosen: &Chosen) -> Result<RepositoryDump, RestoreError> {
    let manifest =
        crate::backup::mysql::manifest(repository, &chosen.stored, &chosen.source).await.map_err(Box::new)?;
    Ok(RepositoryDump::open(repository, &chosen.stored.snapshot.tree, &chosen.source, manifest).await?)
}

async fn plan_tree(
    repository: &Arc<Repository>,
    chosen: Chosen,
    dir: PathBuf,
    request: &Request,
    run: &Run,
) -> Result<TreePlan, RestoreError> {
    let options = files::Options {
        target: dir.clone(),
        selection: files::Selection::new(&request.paths).map_err(files::RestoreFilesError::from)?,
        overwrite: request.overwrite,
        threads: request.connections,
    };
    let (repository, snapshot, run) = (repository.clone(), chosen.stored.snapshot.clone(), run.clone());
    let planned = tokio::task::spawn_blocking(move || files::plan(&repository, &snapshot, options, &run));
    let files = planned.await.map_err(|error| RestoreError::Thread(error.to_string()))??;
    Ok(TreePlan { chosen, dir, files })
}

impl Plan {
    fn predict(&self, rates: Rates) -> Option<Duration> {
        let load: u64 = self.databases.iter().map(|database| database.load.bytes()).sum();
        let files: u64 = self.trees.iter().map(|tree| tree.files.bytes).sum();
        let part = |bytes: u64, rate: Option<f64>| match (bytes, rate) {
            (0, _) => Some(0.0),
            #[expect(clippy::cast_precision_loss, reason = "a prediction")]
            (bytes, Some(rate)) if rate > 0.0 => Some(bytes as f64 / rate),
            _ => None,
        };
        Some(Duration::from_secs_f64(part(load, rates.load)? + part(files, rates.files)?))
    }
}

/// Carries a plan out: the databases, then the files, which go on past what cannot be restored and list it.
///
/// # Errors
/// [`RestoreError`] at the first database that does not load whole. What was restored before stays, and the same call resumes.
pub async fn apply(
    plan: &Plan,
    repository: &Arc<Repository>,
    request: &Request,
    run: &Run,
) -> Result<Restored, RestoreError> {
    let mut restored = Restored::default();
    for database in &plan.databases {
        let options = LoadOptions { connections: request.connections, ..LoadOptions::default() };
        let dump: Arc<dyn DumpReader> = database.dump.clone();
        let loaded =
            crate::target::mysql::load(&database.load, dump, &database.server, options, run).await.map_err(Box::new)?;
        restored.databases.push((database.chosen.source.clone(), loaded));
    }
    for tree in &plan.trees {
        run.check()?;
        restored.trees.push((tree.chosen.source.clone(), restore_tree(tree, repository, run).await?));
    }
    Ok(restored)
}

async fn restore_tree(
    tree: &TreePlan,
    repository: &Arc<Repository>,
    run: &Run,
) -> Result<files::Restored, RestoreError> {
    let (plan, repository, run) = (tree.files.clone(), repository.clone(), run.clone());
    let applied = tokio::task::spawn_blocking(move || files::apply(&plan, &repository, &run));
    Ok(applied.await.map_err(|error| RestoreError::Thread(error.to_string()))??)
}

/// In what that which was restored differs from the snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proof {
    /// A line for each difference, up to some thousands a tree; `differing` counts them all.
    pub lines: Vec<String>,
    pub differing: u64,
    /// How many are of rows or of content, rather than of an owner, a mode or a time.
    pub damaged: u64,
}

/// Reads everything that a plan restored back and compares it with the snapshots.
///
/// # Errors
/// [`RestoreError`] where a target cannot be read back at all.
pub async fn compare(plan: &Plan, repository: &Arc<Repository>, run: &Run) -> Result<Proof, RestoreError> {
    let mut proof = Proof::default();
    for database in &plan.databases {
        let tables: BTreeSet<(String, String)> =
            database.load.tables.iter().map(|step| (step.table.schema.clone(), step.table.name.clone())).collect();
        let found = row_differences(&database.server, database.dump.manifest(), Some(tables), run).await?;
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
    Ok(hashed.await.map_err(|error| RestoreError::Thread(error.to_string()))??)
}

/// Connections that read restored rows back: as many as a small server's cores.
const CONNECTIONS_READ_BACK: usize = 4;
