//! The steps that a run consists of. The commands of the same names take the very same steps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backup;
use crate::catalog::{Catalog, CopyRecord, REPOSITORY, SnapshotRecord};
use crate::copy;
use crate::copy::{Copied, Ledger, LedgerError, LedgerFile, Listing, Terms};
use crate::cycle;
use crate::cycle::capture;
use crate::cycle::done::{BackupDone, CopyDone, Done, DrillDone, ProofDone, PruneDone};
use crate::cycle::freeze::freeze;
use crate::cycle::journal::{Journal, Verb};
use crate::cycle::task::Task;
use crate::drill;
use crate::drill::outcome::{Origin, Scenario};
use crate::exit::Failure;
use crate::forget::{Alone, ForgetPlan, Forgotten};
use crate::heal::{Donor, Heal, HealPlan, Ward};
use crate::human;
use crate::place;
use crate::place::{Opened, Others};
use crate::policy::{CopyPlace, Policy};
use crate::prune;
use crate::prune::plan::Limits;
use crate::report::{Context, Report};
use crate::repository::{LockMode, Repository, RepositoryError};
use crate::run::Run;
use crate::store::{FileKind, Key};
use crate::verify;
use crate::verify::Object;

/// How many drills a report's history shows.
const HISTORY_DRILLS_MAX: u32 = 24;

/// A forget beside a heal ends within the minute, a backup in its own time: the scheduled verify comes again.
const HEAL_LOCK_WAIT: Duration = Duration::from_mins(1);

/// Does what a step is asked to.
///
/// # Errors
/// [`Failure`] where the step broke before it had anything to tell.
pub async fn work(task: &Task, policy: &Policy, journal: &Journal<'_>, run: &Run) -> Result<Done, Failure> {
    match task {
        Task::Backup { options, with_copies } => {
            let done = back_up(policy, options, *with_copies, journal, run).await?;
            Ok(Done::Backup(Box::new(done)))
        }
        Task::Capture { sources } => {
            let done = capture::capture_all(policy, sources, journal.catalog(), run).await?;
            Ok(Done::Capture(Box::new(done)))
        }
        Task::Copy { copies } => copy_all(policy, copies, journal.catalog(), run).await.map(Done::Copy),
        Task::Verify { copy, options, heals: true, salvages } => {
            let others = Others::new(policy, copy.as_deref());
            let (repository, mut heal) = look(&others, copy.as_deref(), *options, run).await?;
            // What was found is known from now on, whatever stops the mending.
            journal.note_damage(task, &heal.so_far().report)?;
            let mended = mend(&mut heal, &others, copy.as_deref(), &repository, *salvages, run).await;
            let healed = heal.end();
            if mended.is_err() {
                journal.end_heal(task, &healed)?;
            }
            strike_faulty(policy, copy.as_deref(), &repository, &healed.report, run).await?;
            mended?;
            Ok(Done::Heal(Box::new(healed)))
        }
        Task::Verify { copy, options, heals: false, .. } if options.level == verify::Level::Restore => {
            let done = prove(policy, copy.as_deref(), *options, task, journal, run).await?;
            Ok(Done::Proof(Box::new(done)))
        }
        Task::Verify { copy, options, heals: false, .. } => {
            let report = verify_store(policy, copy.as_deref(), *options, run).await?;
            Ok(Done::Verify(Box::new(report)))
        }
        Task::Prune { copy, unused_percent_max } => {
            let done = free(policy, copy.as_deref(), *unused_percent_max, journal.catalog(), run).await?;
            Ok(Done::Prune(Box::new(done)))
        }
        Task::Drill { from, scenario, keep } => {
            let done = rehearse(policy, from.as_deref(), *scenario, *keep, journal.catalog(), run).await?;
            Ok(Done::Drill(Box::new(done)))
        }
    }
}

/// Backs up, copies, and forgets what no keep rule holds.
async fn back_up(
    policy: &Policy,
    options: &backup::Options,
    with_copies: bool,
    journal: &Journal<'_>,
    run: &Run,
) -> Result<BackupDone, Failure> {
    let repository = place::repository(policy, run).await?;
    let outcome = backup::backup(policy, &repository, options, run).await?;
    let recorded = journal.end_sources(&outcome);
    let copies = if with_copies { send(policy, &repository, &[], journal.catalog(), run).await } else { Vec::new() };
    // A failure that could not be written down does not make retention rest: so it rests now.
    let forgotten = match recorded {
        Ok(()) => forget(policy, &repository, REPOSITORY, journal.catalog(), run).await,
        Err(failure) => Err(failure),
    };
    Ok(BackupDone { outcome, copies, forgotten })
}

/// Says what a forget would do in a store of the policy.
///
/// # Errors
/// [`Failure`] where the snapshots or the catalog cannot be read.
pub async fn plan_forget(
    policy: &Policy,
    repository: &Repository,
    store: &str,
    catalog: &Catalog,
    run: &Run,
) -> Result<ForgetPlan, Failure> {
    let freeze = freeze(policy, store, catalog)?;
    Ok(ForgetPlan::new(&repository.snapshots().await?, policy, freeze, run.now()))
}

/// Drops the snapshots that no keep rule holds, under an exclusive lock where there are any.
///
/// # Errors
/// [`Failure`] where the repository is locked, the store refuses, or a signal came.
pub async fn forget(
    policy: &Policy,
    repository: &Repository,
    store: &str,
    catalog: &Catalog,
    run: &Run,
) -> Result<(ForgetPlan, Forgotten), Failure> {
    forget_part(policy, repository, store, catalog, |plan| plan, run).await
}

/// Drops the snapshots of binlogs that newer ones hold, and no others: a dump that has not reached a copy yet waits for its turn.
///
/// # Errors
/// Those of [`forget`].
pub async fn forget_binlogs(
    policy: &Policy,
    repository: &Repository,
    catalog: &Catalog,
    run: &Run,
) -> Result<(ForgetPlan, Forgotten), Failure> {
    forget_part(policy, repository, REPOSITORY, catalog, ForgetPlan::of_binlogs, run).await
}

async fn forget_part(
    policy: &Policy,
    repository: &Repository,
    store: &str,
    catalog: &Catalog,
    part: fn(ForgetPlan) -> ForgetPlan,
    run: &Run,
) -> Result<(ForgetPlan, Forgotten), Failure> {
    run.check()?;
    let plan = part(plan_forget(policy, repository, store, catalog, run).await?);
    if plan.forgotten().next().is_none() {
        return Ok((plan, Forgotten::default()));
    }
    let lock = Alone::take(repository, run).await?;
    // Only now does nobody else add or drop snapshots.
    let plan = part(plan_forget(policy, repository, store, catalog, run).await?);
    let snapshots: Vec<Key> = plan.forgotten().map(|it| Key::new(FileKind::Snapshot, it.id.to_string())).collect();
    strike(policy, store, repository, &snapshots)?;
    let forgotten = plan.apply(repository, &lock, run).await;
    place::unlock(lock.into_guard(), run).await;
    catalog.drop_snapshots(store, &forgotten.done)?;
    if forgotten.stopped {
        run.events.note(format!("{} snapshots were forgotten before the signal", forgotten.done.len()));
        run.check()?;
    }
    Ok((plan, forgotten))
}

/// Brings all snapshots into the copies, each by itself.
async fn copy_all(policy: &Policy, names: &[String], catalog: &Catalog, run: &Run) -> Result<Vec<CopyDone>, Failure> {
    for name in names {
        place::find_copy(policy, name)?;
    }
    let repository = place::repository(policy, run).await?;
    Ok(send(policy, &repository, names, catalog, run).await)
}

pub(crate) async fn send(
    policy: &Policy,
    repository: &Arc<Repository>,
    names: &[String],
    catalog: &Catalog,
    run: &Run,
) -> Vec<CopyDone> {
    let wanted = policy.copies.iter().filter(|copy| names.is_empty() || names.contains(&copy.name));
    let lock = match repository.lock(LockMode::Shared, Duration::ZERO, run).await {
        Ok(lock) => lock,
        Err(error) => {
            let failed = |copy: &CopyPlace| CopyDone { name: copy.name.clone(), result: Err(Failure::from(&error)) };
            return wanted.map(failed).collect();
        }
    };
    let mut copies = Vec::new();
    for copy in wanted {
        let result = send_one(policy, repository, copy, catalog, run).await;
        copies.push(CopyDone { name: copy.name.clone(), result });
    }
    place::unlock(lock, run).await;
    copies
}

async fn send_one(
    policy: &Policy,
    repository: &Arc<Repository>,
    copy: &CopyPlace,
    catalog: &Catalog,
    run: &Run,
) -> Result<Copied, Failure> {
    let store = place::copy_target(policy, copy, run).await?;
    let ledger = ledger(policy, copy, repository.id())?;
    let copied = copy::copy_under(&terms(copy, ledger.as_ref()), repository, &store, run).await?;
    if copied.is_complete() {
        record_copy(repository, copy, catalog, run).await?;
    }
    Ok(copied)
}

/// Returns the terms under which a copy is written.
#[must_use]
pub fn terms<'a>(copy: &CopyPlace, ledger: Option<&'a Ledger>) -> Terms<'a> {
    Terms {
        at_once: copy.uploads,
        retain: copy.object_lock().map(|lock| lock.retain),
        ledger,
        is_blind: copy.is_write_only(),
    }
}

/// Opens the record of what was sent to a copy, where one is kept.
fn ledger(policy: &Policy, copy: &CopyPlace, repository: &str) -> Result<Option<Ledger>, LedgerError> {
    LedgerFile::of(policy, copy).map(|file| file.open(repository)).transpose()
}

/// Strikes objects of a store off its record, if it is a copy that has one, before they are deleted.
fn strike(policy: &Policy, store: &str, repository: &Repository, keys: &[Key]) -> Result<(), Failure> {
    let copy = policy.copies.iter().find(|copy| copy.name == store);
    let Some(copy) = copy.filter(|_| !keys.is_empty()) else { return Ok(()) };
    if let Some(ledger) = ledger(policy, copy, repository.id())? {
        ledger.strike(keys)?;
    }
    Ok(())
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

/// Verifies the repository or a copy; damage is in the report.
async fn verify_store(
    policy: &Policy,
    copy: Option<&str>,
    options: verify::Options,
    run: &Run,
) -> Result<verify::Report, Failure> {
    let repository = place::repository_to_prove(policy, copy, run).await?;
    let lock = place::lock_to_read(&repository, run).await?;
    let report = verify::verify(&repository, options, run).await;
    place::unlock(lock, run).await;
    let report = report?;
    strike_faulty(policy, copy, &repository, &report, run).await?;
    Ok(report)
}

/// Verifies the structure of the repository or a copy, and restores what each source's newest snapshot holds into a sandbox, to
/// compare it.
async fn prove(
    policy: &Policy,
    copy: Option<&str>,
    options: verify::Options,
    task: &Task,
    journal: &Journal<'_>,
    run: &Run,
) -> Result<ProofDone, Failure> {
    let (began, began_at) = (Instant::now(), run.now());
    let origin = copy.map_or(Origin::Repository, |name| Origin::Copy { name: name.to_owned() });
    let repository = place::repository_to_prove(policy, copy, run).await?;
    let lock = place::lock_to_read(&repository, run).await?;
    let proved = async {
        let report = verify::verify(&repository, options, run).await?;
        // What was found is known from now on, whatever stops the restore.
        journal.note_structure(task, &report)?;
        strike_faulty(policy, copy, &repository, &report, run).await?;
        let start = drill::Start { repository: &repository, origin, scenario: Scenario::Lost, began, began_at };
        let (outcome, error) = drill::prove(policy, start, run).await;
        Ok::<_, Failure>(ProofDone { report, outcome, failure: error.map(Failure::from) })
    };
    let proved = proved.await;
    place::unlock(lock, run).await;
    let done = proved?;
    journal.note_restored(task, &done)?;
    run.check()?;
    Ok(done)
}

/// Strikes what is not in a copy as it should be off the record of what was sent: the next copy sends again what the repository
/// holds of it. A verify looks only for what the copy's own snapshots need. What newer ones will need may be gone too, a snapshot
/// itself, or an index and all that it named: so all that was sent is looked for.
async fn strike_faulty(
    policy: &Policy,
    copy: Option<&str>,
    repository: &Repository,
    report: &verify::Report,
    run: &Run,
) -> Result<(), Failure> {
    let Some(copy) = policy.copies.iter().find(|it| Some(it.name.as_str()) == copy) else { return Ok(()) };
    // Read before the listing: what a copy beside us sends meanwhile is not in it.
    let Some(ledger) = ledger(policy, copy, repository.id())? else { return Ok(()) };
    let absent = ledger.strike_absent(&Listing::of(repository.store()).await?)?;
    if absent > 0 {
        let name = &copy.name;
        run.events.warn(format!(
            "copy `{name}` lacks {absent} object(s) that were sent to it: the next copy sends again what the repository still holds"
        ));
    }
    let stored = report.findings().filter_map(|finding| match &finding.object {
        Object::Stored(key) => Some(key),
        Object::Blob(..) => None,
    });
    Ok(ledger.strike(stored)?)
}

/// Opens a store, by its own config and keys or by another's, and verifies it.
async fn look(
    others: &Others<'_>,
    copy: Option<&str>,
    options: verify::Options,
    run: &Run,
) -> Result<(Arc<Repository>, Heal), Failure> {
    let repository = place::repository_beside(others, run).await?;
    let heal = Heal::begin(copy.unwrap_or(REPOSITORY), &repository, options, run).await?;
    Ok((repository, heal))
}

/// Mends what was found. Where nothing was, no other store is asked.
async fn mend(
    heal: &mut Heal,
    others: &Others<'_>,
    copy: Option<&str>,
    repository: &Arc<Repository>,
    salvages: bool,
    run: &Run,
) -> Result<(), Failure> {
    if heal.so_far().is_sound() {
        return Ok(());
    }
    let ward = ward(others, copy, repository, run).await?;
    Ok(heal.mend(&Ward { salvages, ..ward }, run).await?)
}

/// Says what is wrong with a store, and what a heal would do about it first.
///
/// # Errors
/// [`Failure`] where the store cannot be opened, by its own config and keys or by another's.
pub async fn plan_heal(
    policy: &Policy,
    copy: Option<&str>,
    options: verify::Options,
    run: &Run,
) -> Result<(verify::Report, HealPlan), Failure> {
    let others = Others::new(policy, copy);
    let (repository, heal) = look(&others, copy, options, run).await?;
    if heal.so_far().is_sound() {
        return Ok((heal.end().report, HealPlan::default()));
    }
    let plan = heal.plan(&ward(&others, copy, &repository, run).await?, run).await?;
    Ok((heal.end().report, plan))
}

/// Opens the stores that one may be mended from, and proves that they are of the same repository.
async fn ward(
    others: &Others<'_>,
    copy: Option<&str>,
    repository: &Arc<Repository>,
    run: &Run,
) -> Result<Ward, Failure> {
    let Opened { stores, away } = others.open(run).await?;
    let (mut donors, mut away) = (Vec::new(), away.clone());
    for (copy, store) in stores {
        let name = copy.clone().unwrap_or_else(|| REPOSITORY.to_owned());
        match place::prove_same(repository, store).await {
            Ok(()) => donors.push(Donor { name, store: Arc::clone(store) }),
            Err(error) => {
                run.check()?;
                let error = human::chain(&error);
                run.events.warn(format!(
                    "{name}: {error}: it is not this repository as it should be, and nothing is taken from there"
                ));
                away.push(name);
            }
        }
    }
    Ok(Ward {
        name: copy.unwrap_or(REPOSITORY).to_owned(),
        repository: Arc::clone(repository),
        donors,
        away,
        salvages: false,
        lock_wait: HEAL_LOCK_WAIT,
    })
}

/// Returns what a prune of a store may leave as it is: in a copy, the packs that the repository itself holds.
///
/// # Errors
/// [`Failure`] where the repository cannot be listed, or is not there: what it holds would be rewritten, and sent again.
pub async fn prune_limits(policy: &Policy, copy: Option<&str>, unused_percent_max: u64) -> Result<Limits, Failure> {
    let limits = Limits { unused_percent_max, ..Limits::default() };
    if copy.is_none() {
        return Ok(limits);
    }
    let store = place::store(policy);
    if store.size(&Key::config()).await?.is_none() {
        return Err(RepositoryError::NoRepository { place: store.location() }.into());
    }
    Ok(Limits { kept: prune::packs_of(&store).await?, merges_index: false, ..limits })
}

/// Frees what no snapshot needs, under an exclusive lock that stands before the plan is made; rests while retention does.
async fn free(
    policy: &Policy,
    copy: Option<&str>,
    unused_percent_max: u64,
    catalog: &Catalog,
    run: &Run,
) -> Result<PruneDone, Failure> {
    if let Some(freeze) = freeze(policy, copy.unwrap_or(REPOSITORY), catalog)? {
        return Ok(PruneDone::Rested(freeze));
    }
    let limits = prune_limits(policy, copy, unused_percent_max).await?;
    let repository = place::repository_to_prove(policy, copy, run).await?;
    let lock = Alone::take(&repository, run).await?;
    let pruned = plan_and_apply(policy, copy, &repository, &limits, &lock, run).await;
    place::unlock(lock.into_guard(), run).await;
    pruned
}

async fn plan_and_apply(
    policy: &Policy,
    copy: Option<&str>,
    repository: &Arc<Repository>,
    limits: &Limits,
    lock: &Alone,
    run: &Run,
) -> Result<PruneDone, Failure> {
    let plan = prune::plan(repository, limits, run).await?;
    strike(policy, copy.unwrap_or(REPOSITORY), repository, &plan.objects_to_delete())?;
    let pruned = prune::apply(&plan, repository, lock, run).await?;
    Ok(PruneDone::Pruned { plan: Box::new(plan), pruned })
}

/// Rehearses a recovery and writes its report; what broke in the drill is in [`DrillDone`].
async fn rehearse(
    policy: &Policy,
    from: Option<&str>,
    scenario: Scenario,
    keep: bool,
    catalog: &Catalog,
    run: &Run,
) -> Result<DrillDone, Failure> {
    let (began, began_at) = (Instant::now(), run.now());
    let copy = from.or(policy.drill.from.as_deref());
    let origin = copy.map_or(Origin::Repository, |name| Origin::Copy { name: name.to_owned() });
    let repository = place::repository_in(policy, copy, run).await?;
    let lock = place::lock_to_read(&repository, run).await?;
    let start = drill::Start { repository: &repository, origin, scenario, began, began_at };
    let (outcome, error) = drill::drill(policy, start, keep, run).await;
    place::unlock(lock, run).await;
    // A drill that was told to stop found nothing out: it counts neither as passed nor as failed.
    run.check()?;
    let past = catalog.drills(HISTORY_DRILLS_MAX)?;
    catalog.record_drill(&outcome)?;
    let report = Report::new(outcome, &past, context(policy, catalog, run)?);
    let files = report.write(&policy.report_dir())?;
    Ok(DrillDone { report, failure: error.map(Failure::from), files })
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
