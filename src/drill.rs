//! The verb that rehearses a recovery: restore into a sandbox, check, measure, tear down.
//!
//! The recovery time actual (RTA) runs from the drill's start to the moment when all is restored and the first check that a user
//! would notice is green. The recovery point actual (RPA) is the time from the newest recovered state of the source that loses most to
//! the assumed failure: the drill's start, as if the source had been lost then, or the moment of a mistake.

pub mod checks;
pub mod outcome;
mod proof;
mod replay;
mod standby;

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::drill::outcome::CheckState;
use crate::drill::outcome::DrillOutcome;
use crate::drill::outcome::DrilledSnapshot;
use crate::drill::outcome::FirstOrder;
use crate::drill::outcome::Origin;
use crate::drill::outcome::Phase;
use crate::drill::outcome::Place;
use crate::drill::outcome::SandboxServer;
use crate::drill::outcome::Scenario;
use crate::drill::outcome::Verdict;
use crate::human;
use crate::mysql::manifest::{Manifest, Product};
use crate::mysql::server::Server;
use crate::policy;
use crate::policy::Policy;
use crate::repository::Repository;
use crate::repository::RepositoryError;
use crate::repository::StoredSnapshot;
use crate::restore::RestoreError;
use crate::restore::choose;
use crate::restore::choose::Chosen;
use crate::restore::choose::Newest;
use crate::restore::files;
use crate::run::Run;
use crate::run::Stopped;
use crate::sandbox;
use crate::sandbox::Sandbox;
use crate::sandbox::SandboxError;
use crate::sandbox::SandboxPlan;
use crate::sandbox::Scratch;
use crate::target::mysql::DumpReader;
use crate::target::mysql::LoadError;
use crate::target::mysql::LoadOptions;
use crate::target::mysql::LoadPlan;
use crate::target::mysql::Selection;
use crate::target::mysql::plan::Names;

#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    #[error("make the drill's directory `{dir}`: {reason}")]
    WorkDir { dir: PathBuf, reason: String },
    #[error("start the sandbox")]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error("load into the sandbox")]
    Load(#[from] Box<LoadError>),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("a thread of the drill broke down: {0}")]
    Thread(String),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl DrillError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::WorkDir { .. } => {
                Some("set `drill.sandbox.work_dir` to a directory with room for the restored data".to_owned())
            }
            Self::Sandbox(error) => error.hint(),
            Self::Restore(error) => error.hint(),
            Self::Load(error) => error.hint(),
            Self::Repository(error) => error.hint(),
            Self::Thread(_) | Self::Stopped(_) => None,
        }
    }
}

/// What a drill restores from.
pub struct Start<'a> {
    pub repository: &'a Arc<Repository>,
    pub origin: Origin,
    pub scenario: Scenario,
    /// The moment at which opening it began: a recovery starts there.
    pub began: Instant,
    pub began_at: DateTime<Utc>,
}

/// What a restore into a sandbox is to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// That the service would come back in time: the policy's checks and objectives.
    Recovery,
    /// That what was stored comes back as it was: every file is compared as well, and nothing else is checked.
    Proof,
}

/// Restores the newest snapshots of a policy into a sandbox, replays the binlogs that were captured since, runs the policy's checks
/// and measures. After a mistake it is the newest before that, and the binlogs up to it.
///
/// The outcome is returned whatever happened; a drill that broke carries its error and the phases until then.
pub async fn drill(policy: &Policy, from: Start<'_>, keep: bool, run: &Run) -> (DrillOutcome, Option<DrillError>) {
    rehearse(policy, from, Scope::Recovery, keep, run).await
}

/// Restores the newest snapshots of a policy into a sandbox and compares every row and file with them, as [`drill`] does but
/// without the policy's checks.
pub async fn prove(policy: &Policy, from: Start<'_>, run: &Run) -> (DrillOutcome, Option<DrillError>) {
    rehearse(policy, from, Scope::Proof, false, run).await
}

async fn rehearse(
    policy: &Policy,
    from: Start<'_>,
    scope: Scope,
    keep: bool,
    run: &Run,
) -> (DrillOutcome, Option<DrillError>) {
    let mut rehearsal = Rehearsal::new(policy, &from, scope, run);
    let result = match rehearsal.work_dir() {
        Ok(dir) => {
            let result = rehearsal.go(&from, dir.path()).await;
            put_away(dir, keep, run);
            result
        }
        Err(error) => Err(error),
    };
    let error = result.err();
    rehearsal.outcome.error = error.as_ref().map(|error| human::chain(error));
    rehearsal.outcome.ended = run.now();
    let outcome = &rehearsal.outcome;
    rehearsal.outcome.verdict = Verdict::judge(outcome.objectives, outcome.rta_ms, outcome.rpa_ms, &outcome.checks);
    (rehearsal.outcome, error)
}

/// Removes the restored files, or leaves them for a look.
fn put_away(dir: Scratch, keep: bool, run: &Run) {
    let path = dir.path().to_owned();
    if keep {
        match dir.keep() {
            Ok(kept) => run.events.note(format!("the restored files stay in {}", kept.display())),
            Err(error) => run.events.warn(format!("keep the restored files: {error}")),
        }
    } else if let Err(error) = dir.remove() {
        let path = path.display();
        run.events.warn(format!("the restored files stay in {path}, in plaintext: remove them: {error}"));
    }
}

struct Rehearsal<'a> {
    policy: &'a Policy,
    scope: Scope,
    run: &'a Run,
    began: Instant,
    /// Every source of the policy has a snapshot: only then can recovery end.
    is_whole: bool,
    /// What of each source comes back: its state at that moment.
    recovered: BTreeMap<String, DateTime<Utc>>,
    /// What the drill has spent on proofs for which no recovery would wait.
    aside: Duration,
    outcome: DrillOutcome,
}

/// A database that came back, and what it is compared with.
struct Recovered {
    source: String,
    server: Server,
    dump: Arc<dyn DumpReader>,
    load: LoadPlan,
    /// The rows were compared already.
    is_compared: bool,
    // Stops and removes the server when dropped.
    sandbox: Sandbox,
}

/// A tree that came back, and the plan that it came by.
struct RecoveredTree {
    source: String,
    plan: files::FilesPlan,
}

impl<'a> Rehearsal<'a> {
    fn new(policy: &'a Policy, from: &Start<'_>, scope: Scope, run: &'a Run) -> Self {
        let objectives = policy.objectives.into();
        let outcome = DrillOutcome {
            run: run.id.clone(),
            policy: policy.name.clone(),
            policy_hash: policy.hash.clone(),
            started: from.began_at,
            ended: from.began_at,
            place: here(),
            from: from.origin.clone(),
            scenario: from.scenario,
            snapshots: Vec::new(),
            phases: Vec::new(),
            checks: Vec::new(),
            rta_ms: None,
            rpa_ms: None,
            first_order: None,
            standbys: Vec::new(),
            objectives,
            verdict: Verdict::judge(objectives, None, None, &[]),
            error: None,
        };
        let (recovered, aside) = (BTreeMap::new(), Duration::ZERO);
        Self { policy, scope, run, began: from.began, is_whole: false, recovered, aside, outcome }
    }

    fn work_dir(&self) -> Result<Scratch, DrillError> {
        let parent = self.policy.drill.work_dir.clone().unwrap_or_else(std::env::temp_dir);
        sandbox::sweep(&parent, &self.run.events);
        let refusal = |error: std::io::Error| DrillError::WorkDir { dir: parent.clone(), reason: error.to_string() };
        Scratch::for_drill(&parent).map_err(refusal)
    }

    /// The story: fetch, then each database and its binlogs, then each tree, then the checks.
    async fn go(&mut self, from: &Start<'_>, dir: &Path) -> Result<(), DrillError> {
        let snapshots = from.repository.snapshots().await?;
        let chosen = self.fetch(from.repository, &snapshots).await?;
        let mut databases = Vec::new();
        for chosen in chosen.iter().filter(|chosen| chosen.kind == "mysql") {
            self.run.check()?;
            let mut database = self.recover_database(from.repository, chosen).await?;
            if self.scope == Scope::Recovery {
                self.replay(from.repository, &snapshots, &mut database, dir).await?;
            }
            databases.push(database);
        }
        self.warn_of_unknown(&databases);
        let mut trees = Vec::new();
        for chosen in chosen.iter().filter(|chosen| chosen.kind == "files") {
            self.run.check()?;
            trees.push(self.recover_tree(from.repository, chosen, dir).await?);
        }
        match self.scope {
            Scope::Recovery => self.check(&databases, dir).await,
            Scope::Proof => self.compare_trees(from.repository, trees).await?,
        }
        self.compare_rows(&databases).await?;
        let mut servers = Vec::new();
        for database in databases {
            servers.push((database.source, self.sandbox_plan(database.dump.manifest())));
            database.sandbox.stop()?;
        }
        if self.outcome.scenario == Scenario::Standby {
            for (source, plan) in servers {
                Box::pin(self.promote_standby(&source, &plan, dir)).await?;
            }
        }
        Ok(())
    }

    async fn fetch(
        &mut self,
        repository: &Arc<Repository>,
        snapshots: &[StoredSnapshot],
    ) -> Result<Vec<Chosen>, DrillError> {
        repository.load_index(self.run).await?;
        let (policy, sources) = (&self.policy.name, self.policy.sources());
        let until = match self.outcome.scenario {
            Scenario::Lost | Scenario::Standby => None,
            Scenario::Mistake { at } => Some(at),
        };
        let Newest { chosen, absent } = choose::newest(snapshots, policy, &sources, until, self.outcome.started);
        if chosen.is_empty() {
            return Err(RestoreError::NoSnapshot { sources: absent, until }.into());
        }
        for other in choose::others(snapshots, policy, &sources) {
            self.run.events.note(format!("{other} is no source of the policy any more, and is not rehearsed"));
        }
        self.outcome.snapshots = chosen.iter().map(used).collect();
        self.outcome.checks.extend(absent.iter().map(|source| checks::absent(source)));
        let incomplete = chosen.iter().filter(|chosen| chosen.is_incomplete);
        self.outcome.checks.extend(incomplete.map(|chosen| checks::incomplete(&chosen.source)));
        let inconsistent = chosen.iter().filter(|chosen| chosen.is_inconsistent);
        self.outcome.checks.extend(inconsistent.map(|chosen| checks::inconsistent(&chosen.source)));
        self.is_whole = absent.is_empty();
        self.recovered = chosen.iter().map(|chosen| (chosen.source.clone(), chosen.stored.snapshot.time)).collect();
        self.measure_loss();
        let found = format!("{} snapshots of {}", chosen.len(), snapshots.len());
        self.phase("fetch", self.began, |phase| phase.detail = Some(found));
        Ok(chosen)
    }

    /// Measures what is lost, as far as is known by now. A source that does not come back at all has no recovery point.
    fn measure_loss(&mut self) {
        let failed = match self.outcome.scenario {
            Scenario::Lost | Scenario::Standby => self.outcome.started,
            Scenario::Mistake { at } => at,
        };
        let oldest = self.recovered.values().min().filter(|_| self.is_whole);
        let lost = oldest.map(|oldest| failed - *oldest);
        self.outcome.rpa_ms = lost.and_then(|lost| u64::try_from(lost.num_milliseconds().max(0)).ok());
    }

    async fn recover_database(
        &mut self,
        repository: &Arc<Repository>,
        chosen: &Chosen,
    ) -> Result<Recovered, DrillError> {
        let dump: Arc<dyn DumpReader> = Arc::new(crate::restore::open_dump(repository, chosen).await?);
        let manifest = dump.manifest();
        let began = Instant::now();
        let plan = self.sandbox_plan(manifest);
        let sandbox = Sandbox::start(&plan, self.run).await?;
        let server = SandboxServer {
            source: chosen.source.clone(),
            product: manifest.product,
            version: sandbox.version().to_owned(),
        };
        self.outcome.place.sandboxes.push(server);
        self.phase("sandbox", began, |phase| phase.detail = Some(format!("{}: {}", chosen.source, sandbox.version())));
        let began = Instant::now();
        let server = sandbox.server();
        let state = crate::target::mysql::inspect(&server, &self.run.cancel).await.map_err(Box::new)?;
        let mut load = LoadPlan::new(manifest, &Selection::everything(), &state, false).map_err(Box::new)?;
        load.bring_first(&self.policy.restore.first, manifest, &Names::default());
        load.fit(dump.as_ref(), &state).await.map_err(Box::new)?;
        for change in &load.changes {
            self.run.events.note(format!("{}: {}: {}", chosen.source, change.of.join(", "), change.what));
        }
        let until = self.began.elapsed();
        let loaded = crate::target::mysql::load(&load, Arc::clone(&dump), &server, LoadOptions::default(), self.run)
            .await
            .map_err(Box::new)?;
        self.phase("load", began, |phase| {
            phase.bytes = Some(manifest.bytes());
            phase.rows = Some(loaded.rows);
            phase.detail = Some(chosen.source.clone());
        });
        self.note_first(&load, loaded.first_took.map(|took| (until + took).saturating_sub(self.aside)));
        self.outcome.checks.push(checks::objects(&chosen.source, &loaded));
        Ok(Recovered { source: chosen.source.clone(), server, dump, load, is_compared: false, sandbox })
    }

    fn sandbox_plan(&self, manifest: &Manifest) -> SandboxPlan {
        SandboxPlan {
            program: match manifest.product {
                Product::MariaDb => self.policy.drill.mariadbd.clone(),
                Product::MySql => self.policy.drill.mysqld.clone(),
            },
            dir: self.policy.drill.work_dir.clone(),
            ..SandboxPlan::for_dump(manifest)
        }
    }

    /// Notes when the tables that come before all others could be read: the last of several databases that hold some ends it.
    fn note_first(&mut self, load: &LoadPlan, at: Option<Duration>) {
        let come = load.first().into_iter().map(|step| (&step.table.schema, &step.table.name));
        let refused = load.first_refused().map(|refused| (&refused.schema, &refused.table));
        let tables: Vec<String> = come.chain(refused).map(|(schema, table)| format!("{schema}.{table}")).collect();
        if tables.is_empty() {
            return;
        }
        let first = self.outcome.first_order.get_or_insert(FirstOrder { tables: Vec::new(), ms: Some(0) });
        first.tables.extend(tables);
        first.ms = first.ms.zip(at.map(crate::backup::millis)).map(|(one, other)| one.max(other));
    }

    /// Says which names of `restore.first` no dump holds, before they are missed.
    fn warn_of_unknown(&self, databases: &[Recovered]) {
        let tables = || databases.iter().flat_map(|database| &database.dump.manifest().tables);
        for pattern in &self.policy.restore.first {
            if !tables().any(|table| policy::names_table(pattern, &table.schema, &table.name)) {
                self.run.events.warn(format!("`restore.first` names `{pattern}`, and no dump holds such a table"));
            }
        }
    }

    async fn recover_tree(
        &mut self,
        repository: &Arc<Repository>,
        chosen: &Chosen,
        dir: &Path,
    ) -> Result<RecoveredTree, DrillError> {
        let began = Instant::now();
        let (repository, snapshot, run) = (repository.clone(), chosen.stored.snapshot.clone(), self.run.clone());
        let options = files::Options {
            target: dir.join(&chosen.source),
            selection: files::Selection::default(),
            overwrite: false,
            threads: RESTORE_THREADS,
        };
        let restored = tokio::task::spawn_blocking(move || {
            let plan = files::plan(&repository, &snapshot, options, &run)?;
            files::apply(&plan, &repository, &run).map(|restored| (plan, restored))
        });
        let (plan, restored) =
            restored.await.map_err(|error| DrillError::Thread(error.to_string()))?.map_err(RestoreError::from)?;
        self.phase("files", began, |phase| {
            phase.bytes = Some(restored.bytes);
            phase.files = Some(restored.files);
            phase.detail = Some(chosen.source.clone());
        });
        self.outcome.checks.push(checks::tree(&chosen.source, &restored, began.elapsed()));
        Ok(RecoveredTree { source: chosen.source.clone(), plan })
    }

    /// Runs the policy's own checks; the first that is green marks the recovery time.
    async fn check(&mut self, databases: &[Recovered], dir: &Path) {
        let began = Instant::now();
        let restored = self.began.elapsed().saturating_sub(self.aside);
        let servers: Vec<(&str, &Server)> = databases.iter().map(|one| (&*one.source, &one.server)).collect();
        let mut first_green = None;
        for check in &self.policy.drill.checks {
            let result = checks::run(check, &servers, dir, self.run).await;
            if result.result == CheckState::Pass && first_green.is_none() {
                first_green = Some(self.began.elapsed().saturating_sub(self.aside));
            }
            self.outcome.checks.push(result);
        }
        // A policy without checks of its own: the recovery is over when all is restored, and every tree and load came back whole.
        let is_whole = self.policy.drill.checks.is_empty() && self.outcome.checks_in(CheckState::Fail).next().is_none();
        let green = first_green.or_else(|| is_whole.then_some(restored)).filter(|_| self.is_whole);
        self.outcome.rta_ms = green.map(crate::backup::millis);
        self.phase("checks", began, |_| {});
    }

    /// Reads every restored row back and compares it with the manifest. After the measured recovery: users do not wait for it.
    async fn compare_rows(&mut self, databases: &[Recovered]) -> Result<(), DrillError> {
        for database in databases.iter().filter(|database| !database.is_compared) {
            self.compare_rows_of(database).await?;
        }
        Ok(())
    }

    async fn compare_rows_of(&mut self, database: &Recovered) -> Result<(), DrillError> {
        self.run.check()?;
        let began = Instant::now();
        let Recovered { source, server, dump, load, .. } = database;
        let manifest = dump.manifest();
        let result = checks::rows(source, server, manifest, load, self.run).await;
        self.outcome.checks.push(result);
        self.phase("compare", began, |phase| {
            phase.rows = Some(manifest.rows());
            phase.detail = Some(source.clone());
        });
        Ok(())
    }

    fn phase(&mut self, name: &str, began: Instant, fill: impl FnOnce(&mut Phase)) {
        let start = began.saturating_duration_since(self.began);
        let mut phase = Phase {
            name: name.to_owned(),
            start_ms: crate::backup::millis(start),
            duration_ms: crate::backup::millis(began.elapsed()),
            ..Phase::default()
        };
        fill(&mut phase);
        self.outcome.phases.push(phase);
    }
}

/// Threads that write files: enough to hide a disk's latency, few enough for a small machine.
const RESTORE_THREADS: usize = 8;

fn used(chosen: &Chosen) -> DrilledSnapshot {
    DrilledSnapshot {
        source: chosen.source.clone(),
        kind: chosen.kind.clone(),
        id: chosen.id(),
        time: chosen.stored.snapshot.time,
        incomplete: chosen.is_incomplete,
    }
}

/// Describes this machine for the report: measured times are true of it alone.
fn here() -> Place {
    Place {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        sandboxes: Vec::new(),
        cores: std::thread::available_parallelism().map_or(0, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        memory_bytes: crate::sandbox::memory_bytes(),
    }
}
