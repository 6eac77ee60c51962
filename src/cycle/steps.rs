//! The steps that a run consists of. The commands of the same names take the very same steps.

use std::sync::Arc;
use std::time::Instant;

use crate::backup;
use crate::catalog::{Catalog, CopyRecord, SnapshotRecord};
use crate::copy;
use crate::copy::Copied;
use crate::cycle;
use crate::cycle::journal::{Journal, Verb};
use crate::drill;
use crate::drill::outcome::Origin;
use crate::exit::{Exit, Failure};
use crate::forget::{ForgetPlan, Forgotten, Freeze};
use crate::place;
use crate::policy::{CopyPlace, Policy};
use crate::report::{Context, Report, Written};
use crate::repository::{LockMode, Repository};
use crate::run::Run;
use crate::verify;

/// How many drills a report's history shows.
const HISTORY_DRILLS_MAX: u32 = 24;

/// Scheduled verifies read a share of the packs each day, and all of them in a week.
const VERIFY_DAYS: u32 = 7;

/// What a step did.
#[derive(Debug)]
pub enum Done {
    Backup(Box<BackupDone>),
    Copy(Vec<CopyDone>),
    Verify(Box<verify::Report>),
    Drill(Box<DrillDone>),
}

#[derive(Debug)]
pub struct BackupDone {
    pub outcome: backup::Outcome,
    pub copies: Vec<CopyDone>,
    pub forgotten: Result<(ForgetPlan, Forgotten), Failure>,
}

#[derive(Debug)]
pub struct CopyDone {
    pub name: String,
    pub result: Result<Copied, Failure>,
}

#[derive(Debug)]
pub struct DrillDone {
    pub report: Report,
    pub failure: Option<Failure>,
    pub files: Written,
}

impl Done {
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Backup(done) => done.exit(),
            Self::Copy(copies) => exit_of_copies(copies),
            Self::Verify(report) => exit_of_report(report),
            Self::Drill(done) => done.exit(),
        }
    }
}

impl BackupDone {
    /// A source that broke decides; then what is left out, in a snapshot or in a copy.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let failed = self.outcome.failed.iter().map(|(_, error)| Exit::from(error)).max();
        let partial = !self.outcome.is_complete();
        let copies = exit_of_copies(&self.copies);
        let forgotten = self.forgotten.as_ref().map_or(Exit::Incomplete, |(_, forgotten)| exit_of_forgotten(forgotten));
        let rest = copies.max(forgotten).max(if partial { Exit::Incomplete } else { Exit::Ok });
        failed.unwrap_or(Exit::Ok).max(rest)
    }

    fn error(&self) -> Option<String> {
        let sources =
            self.outcome.failed.iter().map(|(source, error)| format!("{source}: {}", crate::human::chain(error)));
        let copies = self.copies.iter().filter_map(CopyDone::error);
        let lines: Vec<String> = sources.chain(copies).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    fn copied(&self) -> u64 {
        self.copies.iter().filter_map(|copy| copy.result.as_ref().ok()).map(|copied| copied.bytes).sum()
    }
}

impl CopyDone {
    fn error(&self) -> Option<String> {
        match &self.result {
            Err(failure) => Some(format!("copy {}: {}", self.name, failure.message)),
            Ok(copied) if copied.is_complete() => None,
            Ok(copied) => Some(format!("copy {}: {} objects were not sent", self.name, copied.failed.len())),
        }
    }
}

impl DrillDone {
    /// A drill that broke, then a check that failed, then an objective that was missed, then what could not be proved.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match &self.failure {
            Some(failure) => failure.exit,
            None if self.report.outcome.checks_failed() => Exit::CheckFailed,
            None if self.report.outcome.breached() => Exit::Breached,
            None if self.report.outcome.unproved() => Exit::Incomplete,
            None => Exit::Ok,
        }
    }
}

/// A copy that fails leaves the run incomplete: the snapshot is kept here, and the next run catches up. Only a network policy
/// that refuses the copy's store is told as what it is.
#[must_use]
pub fn exit_of_copies(copies: &[CopyDone]) -> Exit {
    let of = |copy: &CopyDone| match &copy.result {
        Err(failure) if failure.exit == Exit::Network => Exit::Network,
        Ok(copied) if copied.is_complete() => Exit::Ok,
        Ok(_) | Err(_) => Exit::Incomplete,
    };
    copies.iter().map(of).max().unwrap_or(Exit::Ok)
}

/// Snapshots that the store would not drop are told; those that its own lock protects with a code of their own.
#[must_use]
pub fn exit_of_forgotten(forgotten: &Forgotten) -> Exit {
    let of = |(_, error): &(_, _)| Exit::from(error).max(Exit::Incomplete);
    forgotten.failed.iter().map(of).max().unwrap_or(Exit::Ok)
}

#[must_use]
pub fn exit_of_report(report: &verify::Report) -> Exit {
    if report.is_sound() { Exit::Ok } else { Exit::Damaged }
}

/// Takes one step of a policy's run.
///
/// # Errors
/// [`Failure`] where the step could not begin, or broke before it had anything to tell.
pub async fn take(verb: Verb, policy: &Policy, options: &backup::Options, run: &Run) -> Result<Done, Failure> {
    match verb {
        Verb::Backup => {
            let done = back_up(policy, options, true, run).await?;
            Ok(Done::Backup(Box::new(done)))
        }
        Verb::Copy => copy_all(policy, &[], run).await.map(Done::Copy),
        Verb::Verify => {
            let subset = verify::Subset::of_day(run.now().with_timezone(&policy.timezone).date_naive(), VERIFY_DAYS);
            let report = verify_store(policy, None, verify::Level::Data, Some(subset), run).await?;
            Ok(Done::Verify(Box::new(report)))
        }
        Verb::Drill => Ok(Done::Drill(Box::new(rehearse(policy, None, false, run).await?))),
    }
}

/// Backs up, copies, and forgets what no keep rule holds.
///
/// # Errors
/// [`Failure`] where the repository does not open or is locked.
pub async fn back_up(
    policy: &Policy,
    options: &backup::Options,
    with_copies: bool,
    run: &Run,
) -> Result<BackupDone, Failure> {
    let journal = Journal::begin(policy, Verb::Backup.name(), run)?;
    let done = try_back_up(policy, options, with_copies, journal.catalog(), run).await;
    let done = match done {
        Ok(done) => done,
        Err(failure) => {
            journal.stamp(Verb::Backup, false)?;
            journal.end(failure.exit, Some(failure.message.clone()))?;
            return Err(failure);
        }
    };
    // Incomplete sources made their snapshots: another run would say the same again, so the stamp is set. One that failed did not.
    let is_whole_policy = options.sources.is_empty();
    if is_whole_policy || !done.outcome.failed.is_empty() {
        journal.stamp(Verb::Backup, done.outcome.failed.is_empty())?;
    }
    if with_copies && !policy.copies.is_empty() {
        journal.stamp(Verb::Copy, exit_of_copies(&done.copies) == Exit::Ok)?;
    }
    journal.end_backup(done.exit(), done.error(), &done.outcome.done, done.copied())?;
    Ok(done)
}

async fn try_back_up(
    policy: &Policy,
    options: &backup::Options,
    with_copies: bool,
    catalog: &Catalog,
    run: &Run,
) -> Result<BackupDone, Failure> {
    let repository = place::repository(policy, run).await?;
    let outcome = backup::backup(policy, &repository, options, run).await?;
    run.check()?;
    let copies = if with_copies { send(policy, &repository, &[], catalog, run).await? } else { Vec::new() };
    let freeze = freeze_of(&outcome);
    let forgotten = forget(policy, &repository, freeze, Some(catalog), run).await;
    Ok(BackupDone { outcome, copies, forgotten })
}

/// Decides whether retention may drop anything after this backup.
fn freeze_of(outcome: &backup::Outcome) -> Option<Freeze> {
    let guard = outcome.failed.iter().find(|(_, error)| Exit::from(error) == Exit::Guard);
    match (guard, outcome.failed.first()) {
        (Some((source, _)), _) => Some(Freeze::GuardTripped { source: source.clone() }),
        (None, Some((source, _))) => Some(Freeze::RunFailed { source: source.clone() }),
        (None, None) => None,
    }
}

/// Drops the snapshots that no keep rule holds, under the exclusive lock.
async fn forget(
    policy: &Policy,
    repository: &Arc<Repository>,
    freeze: Option<Freeze>,
    catalog: Option<&Catalog>,
    run: &Run,
) -> Result<(ForgetPlan, Forgotten), Failure> {
    let plan = ForgetPlan::new(&repository.snapshots().await?, policy, freeze, run.now());
    if plan.forgotten().next().is_none() {
        return Ok((plan, Forgotten::default()));
    }
    let forgotten = apply_forget(repository, &plan, catalog, run).await?;
    Ok((plan, forgotten))
}

/// Carries a plan to forget out.
///
/// # Errors
/// [`Failure`] where the repository is locked or the store refuses.
pub async fn apply_forget(
    repository: &Arc<Repository>,
    plan: &ForgetPlan,
    catalog: Option<&Catalog>,
    run: &Run,
) -> Result<Forgotten, Failure> {
    let lock = repository.lock(LockMode::Exclusive, std::time::Duration::ZERO, run).await?;
    let forgotten = plan.apply(repository, &lock, run).await;
    lock.release().await?;
    if let Some(catalog) = catalog {
        catalog.drop_snapshots(crate::catalog::REPOSITORY, &forgotten.done)?;
    }
    Ok(forgotten)
}

/// Brings all snapshots into the copies, each by itself.
///
/// # Errors
/// [`Failure`] where the repository does not open.
pub async fn copy_all(policy: &Policy, names: &[String], run: &Run) -> Result<Vec<CopyDone>, Failure> {
    let journal = Journal::begin(policy, Verb::Copy.name(), run)?;
    let copies = try_copy(policy, names, journal.catalog(), run).await;
    match &copies {
        Ok(copies) => {
            let exit = exit_of_copies(copies);
            let errors: Vec<String> = copies.iter().filter_map(CopyDone::error).collect();
            journal.stamp(Verb::Copy, exit == Exit::Ok)?;
            let sent = copies.iter().filter_map(|copy| copy.result.as_ref().ok()).map(|copied| copied.bytes).sum();
            journal.end_backup(exit, (!errors.is_empty()).then(|| errors.join("; ")), &[], sent)?;
        }
        Err(failure) => journal.end(failure.exit, Some(failure.message.clone()))?,
    }
    copies
}

async fn try_copy(policy: &Policy, names: &[String], catalog: &Catalog, run: &Run) -> Result<Vec<CopyDone>, Failure> {
    let repository = place::repository(policy, run).await?;
    send(policy, &repository, names, catalog, run).await
}

async fn send(
    policy: &Policy,
    repository: &Arc<Repository>,
    names: &[String],
    catalog: &Catalog,
    run: &Run,
) -> Result<Vec<CopyDone>, Failure> {
    for name in names {
        place::find_copy(policy, name)?;
    }
    let lock = repository.lock(LockMode::Shared, std::time::Duration::ZERO, run).await?;
    let mut copies = Vec::new();
    for copy in policy.copies.iter().filter(|copy| names.is_empty() || names.contains(&copy.name)) {
        let result = send_one(policy, repository, copy, run).await;
        if result.as_ref().is_ok_and(Copied::is_complete) {
            record_copy(repository, copy, catalog, run).await?;
        }
        copies.push(CopyDone { name: copy.name.clone(), result });
    }
    lock.release().await?;
    Ok(copies)
}

async fn send_one(
    policy: &Policy,
    repository: &Arc<Repository>,
    copy: &CopyPlace,
    run: &Run,
) -> Result<Copied, Failure> {
    let store = place::copy_store(policy, copy, run).await?;
    Ok(copy::copy(repository, &store, copy.uploads, run).await?)
}

async fn record_copy(
    repository: &Arc<Repository>,
    copy: &CopyPlace,
    catalog: &Catalog,
    run: &Run,
) -> Result<(), Failure> {
    let snapshots = repository.snapshots().await?;
    // A complete copy holds all that the repository holds.
    let held: Vec<SnapshotRecord> =
        snapshots.iter().filter_map(|stored| SnapshotRecord::of(&copy.name, stored)).collect();
    catalog.record_snapshots(&held)?;
    let newest = snapshots.iter().max_by_key(|stored| stored.snapshot.time);
    let record = CopyRecord {
        name: copy.name.clone(),
        completed: Some(run.now()),
        snapshot: newest.map(|stored| stored.id),
        snapshot_time: newest.map(|stored| stored.snapshot.time),
    };
    Ok(catalog.record_copy(&record)?)
}

/// Verifies the repository or a copy.
///
/// # Errors
/// [`Failure`] where it does not open or its store cannot be reached; damage is in the report.
pub async fn verify_store(
    policy: &Policy,
    copy: Option<&str>,
    level: verify::Level,
    subset: Option<verify::Subset>,
    run: &Run,
) -> Result<verify::Report, Failure> {
    let journal = Journal::begin(policy, Verb::Verify.name(), run)?;
    let report = try_verify(policy, copy, level, subset, run).await;
    match &report {
        Ok(report) => {
            let exit = exit_of_report(report);
            // A verify that found damage has done its work; it is the report that is bad.
            journal.stamp(Verb::Verify, true)?;
            let faults = report.damaged.len() + report.missing.len();
            journal.end(exit, (faults > 0).then(|| format!("{faults} objects are damaged or missing")))?;
        }
        Err(failure) => journal.end(failure.exit, Some(failure.message.clone()))?,
    }
    report
}

async fn try_verify(
    policy: &Policy,
    copy: Option<&str>,
    level: verify::Level,
    subset: Option<verify::Subset>,
    run: &Run,
) -> Result<verify::Report, Failure> {
    let repository = place::repository_in(policy, copy, run).await?;
    let lock = match copy {
        None => Some(repository.lock(LockMode::Shared, std::time::Duration::ZERO, run).await?),
        // A copy is only ever added to; credentials that may only read are enough to verify it.
        Some(_) => None,
    };
    let report = verify::verify(&repository, verify::Options { level, subset }, run).await;
    if let Some(lock) = lock {
        lock.release().await?;
    }
    Ok(report?)
}

/// Rehearses a recovery and writes its report.
///
/// # Errors
/// [`Failure`] where the catalog or the report's directory cannot be written; what broke in the drill is in [`DrillDone`].
pub async fn rehearse(policy: &Policy, from: Option<&str>, keep: bool, run: &Run) -> Result<DrillDone, Failure> {
    let journal = Journal::begin(policy, Verb::Drill.name(), run)?;
    let (began, began_at) = (Instant::now(), run.now());
    let copy = from.or(policy.drill.from.as_deref());
    let origin = copy.map_or(Origin::Repository, |name| Origin::Copy { name: name.to_owned() });
    let repository = match place::repository_in(policy, copy, run).await {
        Ok(repository) => repository,
        Err(error) => {
            let failure = Failure::from(error);
            journal.end(failure.exit, Some(failure.message.clone()))?;
            return Err(failure);
        }
    };
    let start = drill::Start { repository: &repository, origin, began, began_at };
    let (outcome, error) = drill::drill(policy, start, keep, run).await;
    // A drill that was told to stop found nothing out: it counts neither as passed nor as failed.
    if let Err(stopped) = run.check() {
        journal.end(Exit::Interrupted, Some(stopped.to_string()))?;
        return Err(stopped.into());
    }
    let past = journal.catalog().drills(HISTORY_DRILLS_MAX)?;
    journal.catalog().record_drill(&outcome)?;
    let report = Report::new(outcome, &past, context(policy, journal.catalog(), run)?);
    let dir = policy.drill.report_dir.clone().unwrap_or_else(|| policy.state_dir.join("reports"));
    let files = report.write(&dir)?;
    let done = DrillDone { report, failure: error.map(Failure::from), files };
    // A drill that measured a breach has done its work; one that broke has not.
    journal.stamp(Verb::Drill, done.failure.is_none())?;
    journal.end(done.exit(), done.report.outcome.error.clone())?;
    Ok(done)
}

/// Takes from the policy and the catalog what a report tells beside the drill itself.
///
/// # Errors
/// [`Failure`] where the catalog cannot be read.
pub fn context(policy: &Policy, catalog: &Catalog, run: &Run) -> Result<Context, Failure> {
    let next = cycle::next_runs(policy, run.now());
    let drill = next.iter().find(|(verb, _)| *verb == Verb::Drill).map(|(_, time)| *time);
    Ok(Context::of(policy, &catalog.copies()?, drill))
}
