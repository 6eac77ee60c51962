//! The verb that brings snapshots back: a plan first, then databases, then files.
//!
//! Nothing is written before the plan is whole; the source itself is never a target unless the operator types its host's name.

mod binlogs;
pub mod choose;
mod error;
pub mod files;
mod guard;
mod left_out;
pub mod mysql;
pub mod part;
mod proof;
pub mod replay;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::mysql::manifest::{Manifest, TableEntry};
use crate::mysql::server::Server;
use crate::policy::Policy;
use crate::replay::Replayed;
use crate::repository::Repository;
use crate::repository::StoredSnapshot;
use crate::restore::binlogs::Binlogs;
pub(crate) use crate::restore::binlogs::{epoch_of, refuse_full, scratch};
use crate::restore::choose::Chosen;
use crate::restore::choose::Moment;
pub use crate::restore::error::RestoreError;
use crate::restore::guard::{confirm, refuse_source_as_target};
use crate::restore::mysql::RepositoryDump;
pub use crate::restore::proof::{Proof, check_foreign_keys, compare, row_differences};
use crate::restore::replay::DatabaseReplay;
use crate::restore::replay::Found;
use crate::restore::replay::ReplayRequest;
use crate::run::Run;
use crate::target::mysql::DumpReader;
use crate::target::mysql::LoadOptions;
use crate::target::mysql::LoadPlan;
use crate::target::mysql::Loaded;
use crate::target::mysql::Selection;
use crate::target::mysql::TargetState;
use crate::target::mysql::plan::{Names, TableName, TableStep};

/// What an operator asks of a restore.
#[derive(Debug, Clone)]
pub struct Request {
    pub moment: Moment,
    /// How far databases go on from their dumps; `None`: the dump is the recovery point.
    pub replay: Option<ReplayRequest>,
    /// Empty: every source that the targets can take.
    pub sources: Vec<String>,
    pub to_mysql: Option<Server>,
    pub to_dir: Option<PathBuf>,
    /// Empty: all.
    pub tables: Vec<(String, String)>,
    /// What comes under another name.
    pub names: Names,
    /// `schema.table` and `schema.*`: the tables that come before all others.
    pub first: Vec<String>,
    /// Paths and globs relative to the source's directory; empty: all.
    pub paths: Vec<String>,
    pub overwrite: bool,
    /// The hosts' names as the operator typed them, where a source itself may be overwritten.
    pub in_place: Option<Vec<String>>,
    pub users: bool,
    /// Keep what is loaded out of the target's binlog.
    pub skip_binlog: bool,
    pub connections: usize,
}

/// Bytes a second, as earlier restores and drills measured them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    pub load: Option<f64>,
    pub files: Option<f64>,
    pub replay: Option<f64>,
}

/// What a restore will do.
pub struct Plan {
    pub moment: Moment,
    pub databases: Vec<DatabasePlan>,
    pub trees: Vec<TreePlan>,
    /// How long it should take, where an earlier one was measured.
    pub predicted: Option<Duration>,
    /// When the tables that come before all others should be there, likewise.
    pub predicted_first: Option<Duration>,
}

pub struct DatabasePlan {
    pub chosen: Chosen,
    pub server: Server,
    pub load: LoadPlan,
    pub dump: Arc<RepositoryDump>,
    /// What comes after the dump.
    pub replay: Option<DatabaseReplay>,
    /// The dump's manifest in the names of the target, where these are others.
    renamed: Option<Manifest>,
    /// The target writes names in small letters.
    folds: bool,
}

impl DatabasePlan {
    fn manifest(&self) -> &Manifest {
        self.renamed.as_ref().unwrap_or_else(|| self.dump.manifest())
    }

    /// Returns the name of a table of the plan as the target lists it.
    fn listed(&self, step: &TableStep) -> TableName {
        let TableEntry { schema, name, .. } = &step.table;
        if self.folds { (schema.to_lowercase(), name.to_lowercase()) } else { (schema.clone(), name.clone()) }
    }
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
    /// In the order of the databases; `None` where none was planned, or tables were missing for it.
    pub replayed: Vec<Option<Replayed>>,
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
    let wanted = wanted(policy, request)?;
    let chosen = choose::choose(&snapshots, &policy.name, &wanted, &request.moment, run.now())?;
    for other in choose::others(&snapshots, &policy.name, &policy.sources()) {
        run.events.detail(format!("{other} is no source of the policy any more; `--source {other}` restores it"));
    }
    refuse_misfits(&chosen, request)?;
    refuse_source_as_target(policy, request, run).await?;
    let mut plan = Plan::empty(request.moment.clone());
    let many = chosen.iter().filter(|chosen| chosen.kind == "files").count() > 1;
    for chosen in chosen {
        if let ("mysql", Some(server)) = (chosen.kind.as_str(), &request.to_mysql) {
            let binlogs = Binlogs::of(policy, repository, &snapshots, &chosen.source, request).await?;
            let chosen = to_replay_after(repository, &snapshots, chosen, binlogs.as_ref(), request).await?;
            let begun = |id: &str| snapshots.iter().find(|stored| stored.id.to_string() == id);
            let database = plan_database(repository, chosen, begun, server, binlogs, request, run).await?;
            if database.replay.is_some() {
                left_out::refuse_unsaid(policy, &database.chosen.source, database.dump.manifest())?;
            }
            plan.databases.push(database);
        } else if let Some(dir) = &request.to_dir {
            let dir = if many { dir.join(&chosen.source) } else { dir.clone() };
            plan.trees.push(plan_tree(repository, chosen, dir, request, run).await?);
        }
    }
    plan.predicted = plan.predict(rates);
    plan.predicted_first = plan.predict_first(rates);
    Ok(plan)
}

/// Chooses the dump that a replay goes on from, where one is wanted.
async fn to_replay_after(
    repository: &Arc<Repository>,
    snapshots: &[StoredSnapshot],
    newest: Chosen,
    binlogs: Option<&Binlogs>,
    request: &Request,
) -> Result<Chosen, RestoreError> {
    match &request.replay {
        Some(asked) if binlogs.is_some() => {
            replay::refuse_parts(request)?;
            let executed = replay::executed(repository, &newest, request, asked).await?;
            replay::choose(repository, snapshots, newest, &asked.point, executed.as_ref()).await
        }
        Some(asked) if !asked.is_time() => Err(RestoreError::NoBinlogs(asked.point.to_string())),
        _ => Ok(newest),
    }
}

/// Returns the sources that are to come back: those that were named, or all of the policy that the named targets can take.
fn wanted(policy: &Policy, request: &Request) -> Result<Vec<String>, RestoreError> {
    if !request.sources.is_empty() || matches!(request.moment, Moment::Snapshot(_)) {
        return Ok(request.sources.clone());
    }
    // Without any target the first source says which one is missing.
    let is_nowhere = request.to_mysql.is_none() && request.to_dir.is_none();
    let databases = policy.mysql.keys().filter(|_| is_nowhere || request.to_mysql.is_some());
    let trees = policy.files.keys().filter(|_| is_nowhere || request.to_dir.is_some());
    let wanted: Vec<String> = databases.chain(trees).cloned().collect();
    if wanted.is_empty() { Err(RestoreError::Nothing(policy.name.clone())) } else { Ok(wanted) }
}

/// Refuses what no target was named for, and more databases than the one server can take.
fn refuse_misfits(chosen: &[Chosen], request: &Request) -> Result<(), RestoreError> {
    let (databases, trees): (Vec<&Chosen>, Vec<&Chosen>) = chosen.iter().partition(|chosen| chosen.kind == "mysql");
    let timeless = request.replay.as_ref().filter(|replay| !replay.is_time());
    if let (Some(replay), [tree, ..]) = (timeless, trees.as_slice()) {
        let (source_name, point) = (tree.source.clone(), replay.point.to_string());
        return Err(RestoreError::NoTime { source_name, point });
    }
    match (databases.as_slice(), trees.as_slice()) {
        ([first, ..], _) if request.to_mysql.is_none() => Err(RestoreError::NoServer(first.source.clone())),
        (_, [first, ..]) if request.to_dir.is_none() => Err(RestoreError::NoDir(first.source.clone())),
        ([_, _, ..], _) => {
            let names: Vec<&str> = databases.iter().map(|chosen| chosen.source.as_str()).collect();
            Err(RestoreError::ManyDatabases(names.len(), names.join(", ")))
        }
        _ => Ok(()),
    }
}

async fn plan_database<'a>(
    repository: &Arc<Repository>,
    chosen: Chosen,
    by_id: impl Fn(&str) -> Option<&'a StoredSnapshot>,
    server: &Server,
    binlogs: Option<Binlogs>,
    request: &Request,
    run: &Run,
) -> Result<DatabasePlan, RestoreError> {
    let state = crate::target::mysql::inspect(server, &run.cancel).await.map_err(Box::new)?;
    let found = Found::look(server, &state, request).await?;
    replay::leads_on(found.record.as_ref(), request.replay.as_ref(), binlogs.is_some())?;
    let state = found.state(&state);
    let begun = state.progress.as_ref().and_then(|progress| by_id(progress.snapshot.as_deref()?));
    let begun = begun.filter(|stored| request.moment == Moment::Latest && stored.id != chosen.id());
    let begun = found.record.as_ref().map_or(begun, |record| by_id(&record.snapshot));
    let begun = begun.map(|stored| (stored, found.record.is_some()));
    let mut plan = begun_or_chosen(repository, chosen, begun, &state, server, request, run).await?;
    replay::same_dump(found.record.as_ref(), &plan.chosen.id().to_string())?;
    if let (Some(asked), Some(binlogs)) = (&request.replay, binlogs) {
        let fetched = binlogs.fetch(repository, plan.dump.manifest(), asked, run).await?;
        let replay = DatabaseReplay::plan(plan.dump.as_ref(), &found, asked, fetched, run).await?;
        plan.replay = Some(replay);
    }
    if found.is_loaded {
        replay::nothing_to_load(&mut plan.load);
    }
    if plan.replay.is_some() && !request.users {
        plan.load.notes.push(
            "what the binlogs say of users comes all the same, and stops the replay where it changes one that is left out"
                .to_owned(),
        );
    }
    Ok(plan)
}

/// Plans to go on with the snapshot that was begun, or else with the one that was chosen: unless binlogs are being replayed after the
/// former.
async fn begun_or_chosen(
    repository: &Arc<Repository>,
    chosen: Chosen,
    begun: Option<(&StoredSnapshot, bool)>,
    state: &TargetState,
    server: &Server,
    request: &Request,
    run: &Run,
) -> Result<DatabasePlan, RestoreError> {
    if let Some((older, is_replayed)) =
        begun.and_then(|(stored, is_replayed)| Some((chosen.instead(stored)?, is_replayed)))
    {
        let (id, time) = (older.id().short(), older.stored.snapshot.time);
        match plan_load(repository, older, state, server, request).await {
            Ok(plan) if plan.load.resumes || request.replay.is_some() => {
                if plan.chosen.id() != chosen.id() {
                    run.events.note(format!(
                        "the target holds the beginning of a restore of snapshot {id} of {time}: that one goes on, and not the newer {}",
                        chosen.id().short()
                    ));
                }
                return Ok(plan);
            }
            Err(error) if is_replayed => return Err(error),
            // Another selection is no continuation: then the target's refusal says what to do.
            Ok(_) | Err(_) => {}
        }
    }
    plan_load(repository, chosen, state, server, request).await
}

async fn plan_load(
    repository: &Arc<Repository>,
    chosen: Chosen,
    state: &TargetState,
    server: &Server,
    request: &Request,
) -> Result<DatabasePlan, RestoreError> {
    let dump = Arc::new(open_dump(repository, &chosen).await?);
    let manifest = dump.manifest();
    if state.server_uuid.as_ref() == Some(&manifest.server) {
        confirm(request, server.name(), Some(server))?;
    }
    let is_there =
        |name: &&(String, String)| manifest.tables.iter().any(|t| (&t.schema, &t.name) == (&name.0, &name.1));
    if let Some((schema, table)) = request.tables.iter().find(|name| !is_there(name)) {
        return Err(RestoreError::NoTable(format!("{schema}.{table}")));
    }
    let selection = Selection {
        tables: Some(request.tables.clone()).filter(|tables| !tables.is_empty()),
        accounts: request.users && request.tables.is_empty() && request.names.is_empty(),
        names: request.names.clone(),
    };
    let mut load = LoadPlan::new(manifest, &selection, state, request.overwrite).map_err(Box::new)?;
    load.snapshot = Some(chosen.id().to_string());
    load.bring_first(&request.first, manifest, &request.names);
    load.fit(dump.as_ref(), state).await.map_err(Box::new)?;
    if request.skip_binlog && !state.session.may_skip_binlog() {
        load.notes
            .push("the account may not keep the load out of the target's binlog: it will be written there".to_owned());
    }
    let folds = state.lower_case_table_names == 1;
    let renamed = on_target(manifest, &request.names, folds)?;
    Ok(DatabasePlan { chosen, server: server.clone(), load, dump, replay: None, renamed, folds })
}

/// Returns a manifest in the names of a target, where these are others.
fn on_target(manifest: &Manifest, names: &Names, folds: bool) -> Result<Option<Manifest>, RestoreError> {
    let mut renamed = (folds || !names.is_empty()).then(|| names.apply(manifest)).transpose().map_err(Box::new)?;
    if let Some(manifest) = renamed.as_mut().filter(|_| folds) {
        for table in &mut manifest.tables {
            (table.schema, table.name) = (table.schema.to_lowercase(), table.name.to_lowercase());
        }
    }
    Ok(renamed)
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
    fn empty(moment: Moment) -> Self {
        Self { moment, databases: Vec::new(), trees: Vec::new(), predicted: None, predicted_first: None }
    }

    /// Databases come before files, and of them these tables before the others.
    fn predict_first(&self, rates: Rates) -> Option<Duration> {
        let first: u64 = self.databases.iter().map(|database| database.load.first_bytes()).sum();
        let has_first = self.databases.iter().any(|database| !database.load.first().is_empty());
        let is_whole = self.databases.iter().all(|database| database.load.first_refused().next().is_none());
        seconds(first, rates.load).filter(|_| has_first && is_whole).map(Duration::from_secs_f64)
    }

    fn predict(&self, rates: Rates) -> Option<Duration> {
        let load: u64 = self.databases.iter().map(|database| database.load.bytes()).sum();
        let files: u64 = self.trees.iter().map(|tree| tree.files.bytes).sum();
        let replays = self.databases.iter().filter_map(|database| database.replay.as_ref());
        let replay: u64 = replays.map(|replay| replay.plan.bytes).sum();
        let (load, files) = (seconds(load, rates.load)?, seconds(files, rates.files)?);
        Some(Duration::from_secs_f64(load + files + seconds(replay, rates.replay)?))
    }
}

/// Returns how long so many bytes take; `None` where no rate is known.
fn seconds(bytes: u64, rate: Option<f64>) -> Option<f64> {
    match (bytes, rate) {
        (0, _) => Some(0.0),
        #[expect(clippy::cast_precision_loss, reason = "a prediction")]
        (bytes, Some(rate)) if rate > 0.0 => Some(bytes as f64 / rate),
        _ => None,
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
        let loaded = load_database(database, request, run).await?;
        restored.databases.push((database.chosen.source.clone(), loaded));
    }
    for tree in &plan.trees {
        run.check()?;
        restored.trees.push((tree.chosen.source.clone(), restore_tree(tree, repository, run).await?));
    }
    Ok(restored)
}

async fn load_database(database: &DatabasePlan, request: &Request, run: &Run) -> Result<Loaded, RestoreError> {
    if let Some(replay) = &database.replay {
        replay.prepare(&database.chosen.id().to_string(), run).await?;
        if replay.is_loaded {
            return Ok(Loaded::default());
        }
    }
    let (connections, skip_binlog) = (request.connections, request.skip_binlog);
    let options = LoadOptions { connections, skip_binlog, ..LoadOptions::default() };
    let dump: Arc<dyn DumpReader> = database.dump.clone();
    let loaded =
        crate::target::mysql::load(&database.load, dump, &database.server, options, run).await.map_err(Box::new)?;
    if let Some(replay) = &database.replay {
        replay.note_loaded(&loaded).await?;
    }
    Ok(loaded)
}

/// Replays the binlogs after the dumps that were loaded, once those need not be looked at any more.
///
/// # Errors
/// [`RestoreError::Replay`]. What was applied stays, and the same restore goes on from there.
pub async fn replay(plan: &Plan, restored: &mut Restored, run: &Run) -> Result<(), RestoreError> {
    for (database, (_, loaded)) in plan.databases.iter().zip(&restored.databases) {
        let replayed = match &database.replay {
            Some(replay) => replay.apply(loaded, run).await?,
            None => None,
        };
        restored.replayed.push(replayed);
    }
    Ok(())
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
