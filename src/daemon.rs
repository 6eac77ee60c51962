//! Follows the binlogs of all policies without pause, and brings what is new into repositories and copies each interval.
//!
//! Each source has a thread that follows it into its spool; each policy has a task that seals. What breaks one is told, and tried
//! again: a capture that gives up loses what its server forgets meanwhile.

mod notify;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::capture::{Capture, Sealer, Spool, Until, follow};
use crate::catalog::Catalog;
use crate::cycle;
use crate::cycle::capture::{self, captures};
use crate::cycle::done::{CaptureDone, Captured};
use crate::daemon::notify::Notifier;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::place;
use crate::policy::Policy;
use crate::repository::Repository;
use crate::run::Run;

/// A server that restarts is back within seconds; one that is gone is asked once a minute.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);

/// A stream that has lasted so long has worked: the next try comes at once again.
const WORKED_AFTER: Duration = Duration::from_mins(1);

/// A copy is listed before it is written, which costs a store thousands of requests where the repository is large.
const COPY_EVERY: Duration = Duration::from_mins(5);

/// Follows until the run is told to stop. What is in the spools then is durable, and sealed by whoever comes next.
///
/// # Errors
/// [`Failure`] where there is nothing to follow, another capture has a spool, or a repository cannot be opened.
pub async fn run(policies: &[Policy], run: &Run) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    for policy in policies {
        let spools = open(policy, run).await?;
        if spools.is_empty() {
            continue;
        }
        for (capture, spool) in &spools {
            let (capture, spool, run) = (capture.clone(), Arc::clone(spool), run.clone());
            tasks.spawn_blocking(move || follow_on(&capture, &spool, &run));
        }
        let (policy, run) = (policy.clone(), run.clone());
        tasks.spawn(async move { seal_on(&policy, &spools, &run).await });
    }
    if tasks.is_empty() {
        return Err(Failure::new(Exit::Usage, "follow binlogs: no policy captures one")
            .hinting("set `binlog.capture` of a database to true"));
    }
    let notifier = Notifier::from_environment();
    notifier.ready();
    tokio::select! {
        () = notifier.watch() => {}
        () = run.cancel.cancelled() => {}
    }
    notifier.stopping();
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Opens the spools of a policy; what is new here or was lost goes on from what the repository has.
async fn open(policy: &Policy, run: &Run) -> Result<Vec<(Capture, Arc<Spool>)>, Failure> {
    let mut spools = Vec::new();
    for capture in captures(policy, &[])? {
        let spool = Spool::open(&capture)?;
        if spool.chain().epochs.is_empty() {
            Opened::new(policy, run).await?.sealer.restore_chain(&capture, &spool, run).await?;
        }
        spools.push((capture, Arc::new(spool)));
    }
    Ok(spools)
}

/// Follows one source, again and again.
fn follow_on(capture: &Capture, spool: &Spool, run: &Run) {
    let mut wait = RETRY_MIN;
    while !run.cancel.is_cancelled() {
        let began = std::time::Instant::now();
        let Err(error) = follow(capture, spool, Until::Stopped, run) else { return };
        if began.elapsed() >= WORKED_AFTER {
            wait = RETRY_MIN;
        }
        let told = human::chain(&error);
        run.events.warn(format!("{}: {told}; again in {}", capture.source, human::duration(wait)));
        if let Err(error) = spool.tell(|progress| progress.error = Some(told)) {
            run.events.warn(format!("{}: {}", capture.source, human::chain(&error)));
        }
        pause(wait, run);
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Waits on a thread that hears the signal.
fn pause(wait: Duration, run: &Run) {
    const SLICE: Duration = Duration::from_millis(100);
    let until = std::time::Instant::now() + wait;
    while std::time::Instant::now() < until && !run.cancel.is_cancelled() {
        std::thread::sleep(SLICE);
    }
}

/// Seals the spools of one policy each interval.
async fn seal_on(policy: &Policy, spools: &[(Capture, Arc<Spool>)], run: &Run) {
    let interval = spools.iter().map(|(capture, _)| capture.plan.interval).min().unwrap_or(COPY_EVERY);
    let (mut copied, mut opened): (Option<Instant>, Option<Opened>) = (None, None);
    let mut next = Instant::now();
    while run.cancel.run_until_cancelled(sleep_until(next)).await.is_some() {
        next = Instant::now() + interval;
        let is_copy_due = copied.is_none_or(|copied| copied.elapsed() >= COPY_EVERY);
        match seal_once(policy, spools, &mut opened, is_copy_due, run).await {
            Ok(has_copied) if has_copied => copied = Some(Instant::now()),
            Ok(_) => {}
            Err(_) if run.cancel.is_cancelled() => {}
            Err(failure) => {
                run.events.warn(format!("{}: {}", policy.name, failure.message));
                // What broke may be the repository as it was opened.
                opened = None;
            }
        }
    }
}

/// A policy's repository, which stays open: to derive its key takes longer than to seal.
struct Opened {
    repository: Arc<Repository>,
    sealer: Sealer,
}

impl Opened {
    async fn new(policy: &Policy, run: &Run) -> Result<Self, Failure> {
        let repository = place::repository(policy, run).await?;
        Ok(Self { sealer: Sealer::new(&repository), repository })
    }
}

/// Seals what is new, and brings it into the copies where that is due. Returns whether it did.
async fn seal_once(
    policy: &Policy,
    spools: &[(Capture, Arc<Spool>)],
    opened: &mut Option<Opened>,
    is_copy_due: bool,
    run: &Run,
) -> Result<bool, Failure> {
    let Opened { repository, sealer } = match opened {
        Some(opened) => opened,
        none => none.insert(Opened::new(policy, run).await?),
    };
    // As a run of its own, whose id its snapshots bear.
    let run = run.renewed();
    let catalog = Catalog::open(&policy.state_dir, &run.events)?;
    let mut done = CaptureDone::default();
    for (capture, spool) in spools {
        let sealed = sealer.seal(capture, spool, Duration::ZERO, &run).await;
        let captured = sealed.map(|sealed| Captured::Here { followed: Default::default(), sealed });
        done.sources.push((capture.source.clone(), captured.map_err(Failure::from)));
    }
    capture::record(&done, &catalog, &run)?;
    let failed = done.sources.iter().find_map(|(source, result)| Some((source, result.as_ref().err()?)));
    if let Some((source, failure)) = failed {
        run.events.warn(format!("{source}: {}", failure.message));
    }
    if done.sealed().next().is_none() || !is_copy_due {
        return Ok(false);
    }
    // A run of the policy copies and forgets by itself.
    let Ok(_lock) = cycle::lock(policy, Duration::ZERO, &run).await else { return Ok(false) };
    for copy in cycle::steps::send(policy, repository, &[], &catalog, &run).await {
        if let Err(failure) = copy.result {
            run.events.warn(format!("copy {}: {}", copy.name, failure.message));
        }
    }
    capture::forget_superseded(policy, repository, &catalog, &run).await?;
    Ok(true)
}
