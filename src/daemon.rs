//! Follows the binlogs of all policies without pause, and brings what is new into repositories and copies each interval.
//!
//! Each source has a thread that follows it into its spool; each policy has a task that seals. What breaks one is told, and tried
//! again: a capture that gives up loses what its server forgets meanwhile.

pub(crate) mod notify;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::capture::{Capture, CaptureError, CommitsWait, Followed, Sealer, Spool, Until, follow};
use crate::catalog::Catalog;
use crate::cycle;
use crate::cycle::capture::{self, captures};
use crate::cycle::done::{CaptureDone, Captured};
use crate::daemon::notify::Notifier;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::place;
use crate::policy::{Ack, Policy};
use crate::repository::{Repository, RepositoryError};
use crate::run::Run;

/// A server that restarts is back within seconds; one that is gone is asked once a minute.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);

/// Commits that are to wait for the spool are not left without it for long.
const RETRY_ACK_MAX: Duration = Duration::from_secs(5);

/// A stream that has lasted so long has worked: the next try comes at once again.
const WORKED_AFTER: Duration = Duration::from_mins(1);

/// A copy is listed before it is written, which costs a store thousands of requests where the repository is large.
const COPY_EVERY: Duration = Duration::from_mins(5);

/// The spools of a policy that are open by now.
type Spools = Arc<Mutex<Vec<(Capture, Arc<Spool>)>>>;

/// Follows until the run is told to stop. What is in the spools then is durable, and sealed by whoever comes next.
///
/// # Errors
/// [`Failure`] where there is nothing to follow.
pub async fn run(policies: &[Policy], run: &Run) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    for policy in policies {
        let captures = captures(policy, &[])?;
        let Some(interval) = captures.iter().map(|capture| capture.plan.interval).min() else { continue };
        let spools = Spools::default();
        for capture in captures {
            let (policy, spools, run) = (policy.clone(), Arc::clone(&spools), run.clone());
            tasks.spawn(async move { follow_source(&policy, capture, &spools, &run).await });
        }
        let (policy, run) = (policy.clone(), run.clone());
        tasks.spawn(async move { seal_on(&policy, interval, &spools, &run).await });
    }
    if tasks.is_empty() {
        return Err(Failure::new(Exit::Usage, "follow binlogs: no policy captures one")
            .hinting("set `binlog.capture` of a database to true"));
    }
    let notifier = Notifier::from_environment();
    notifier.ready();
    let broken = tokio::select! {
        never = notifier.watch() => match never {},
        () = run.cancel.cancelled() => false,
        // None of them ends by itself: what follows nobody must not look alive.
        _ = tasks.join_next() => !run.cancel.is_cancelled(),
    };
    notifier.stopping();
    run.cancel.cancel();
    while tasks.join_next().await.is_some() {}
    if broken { Err(Failure::new(Exit::Failed, "follow binlogs: a thread of the daemon broke down")) } else { Ok(()) }
}

/// Opens the spool of a source as soon as that can be, and follows. What keeps one from it keeps no other from anything.
async fn follow_source(policy: &Policy, capture: Capture, spools: &Spools, run: &Run) {
    let mut wait = RETRY_MIN;
    let spool = loop {
        match open(policy, &capture, run).await {
            Ok(spool) => break Arc::new(spool),
            Err(failure) => {
                let again = human::duration(wait);
                run.events.warn(format!("{}: {}; again in {again}", capture.source, failure.message));
            }
        }
        if run.cancel.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
        wait = (wait * 2).min(retry_max(&capture));
    };
    spools.lock().unwrap_or_else(PoisonError::into_inner).push((capture.clone(), Arc::clone(&spool)));
    let run = run.clone();
    let following = tokio::task::spawn_blocking(move || follow_on(&capture, &spool, &run));
    if let Err(error) = following.await {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Opens a spool. One that is new here or was lost goes on from what the repository has; any other waits for no repository.
async fn open(policy: &Policy, capture: &Capture, run: &Run) -> Result<Spool, Failure> {
    // The spool lies in it by default, and asks for the directory above it to be there.
    cycle::make_state_dir(policy)?;
    let spool = Spool::open(capture)?;
    if spool.chain().epochs.is_empty() {
        restore_chain(policy, capture, &spool, run).await?;
    }
    Ok(spool)
}

async fn restore_chain(policy: &Policy, capture: &Capture, spool: &Spool, run: &Run) -> Result<(), Failure> {
    Ok(Opened::new(policy, run).await?.sealer.restore_chain(capture, spool, run).await?)
}

/// Follows one source, again and again.
fn follow_on(capture: &Capture, spool: &Spool, run: &Run) {
    let mut wait = RETRY_MIN;
    while !run.cancel.is_cancelled() {
        let began = std::time::Instant::now();
        let ended = follow(capture, spool, Until::Stopped, run);
        if run.cancel.is_cancelled() {
            return;
        }
        if began.elapsed() >= WORKED_AFTER {
            wait = RETRY_MIN;
        }
        let told = ended.map_or_else(|error| human::chain(&error), |_| "the server ended the stream".to_owned());
        run.events.warn(format!("{}: {told}; again in {}", capture.source, human::duration(wait)));
        let noted = spool.tell(|progress| {
            progress.commits_wait = progress.commits_wait.take().map(|_| CommitsWait::not(&told));
            progress.error = Some(told);
        });
        if let Err(error) = noted {
            run.events.warn(format!("{}: {}", capture.source, human::chain(&error)));
        }
        pause(wait, run);
        wait = (wait * 2).min(retry_max(capture));
    }
}

fn retry_max(capture: &Capture) -> Duration {
    if capture.plan.ack == Ack::Spool { RETRY_ACK_MAX } else { RETRY_MAX }
}

/// Waits on a thread that hears the signal.
fn pause(wait: Duration, run: &Run) {
    const SLICE: Duration = Duration::from_millis(100);
    let until = std::time::Instant::now() + wait;
    while std::time::Instant::now() < until && !run.cancel.is_cancelled() {
        std::thread::sleep(SLICE);
    }
}

/// Seals the spools of one policy each interval, and sends what was sealed beside that: a copy may take long, and a seal waits for
/// none.
async fn seal_on(policy: &Policy, interval: Duration, spools: &Spools, run: &Run) {
    // What was sealed before this began may not have been sent.
    let (mut opened, mut sending) = (None, Sending { is_owed: true, ..Sending::default() });
    let mut next = Instant::now();
    while run.cancel.run_until_cancelled(sleep_until(next)).await.is_some() {
        next = Instant::now() + interval;
        let open = spools.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if open.is_empty() {
            next = Instant::now() + RETRY_MIN;
            continue;
        }
        match seal_once(policy, &open, &mut opened, run).await {
            Ok(has_sealed) => sending.is_owed |= has_sealed,
            Err(_) if run.cancel.is_cancelled() => {}
            Err(failure) => {
                run.events.warn(format!("{}: {}", policy.name, failure.message));
                // What broke may be the repository as it was opened.
                opened = None;
            }
        }
        if let Some(Opened { repository, .. }) = &opened {
            sending.go_on(policy, repository, run).await;
        }
    }
    sending.end().await;
}

/// What was sealed on its way into the copies.
#[derive(Default)]
struct Sending {
    /// Something was sealed that no send has taken with it yet.
    is_owed: bool,
    began: Option<Instant>,
    task: Option<JoinHandle<bool>>,
}

impl Sending {
    /// Begins to send, where something is owed, nothing is under way and the last time is long enough ago.
    async fn go_on(&mut self, policy: &Policy, repository: &Arc<Repository>, run: &Run) {
        if self.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        self.end().await;
        if !self.is_owed || self.began.is_some_and(|began| began.elapsed() < COPY_EVERY) {
            return;
        }
        (self.is_owed, self.began) = (false, Some(Instant::now()));
        let (policy, repository, run) = (policy.clone(), Arc::clone(repository), run.renewed());
        self.task = Some(tokio::spawn(async move { send(&policy, &repository, &run).await }));
    }

    /// Waits for what is under way; what it did not bring is owed still.
    async fn end(&mut self) {
        if let Some(task) = self.task.take() {
            self.is_owed |= !task.await.unwrap_or(false);
        }
    }
}

/// Forgets what newer snapshots hold, and sends what is new to the copies. Returns whether all of it is there.
async fn send(policy: &Policy, repository: &Arc<Repository>, run: &Run) -> bool {
    let sent = async {
        // A run of the policy copies and forgets by itself.
        let Ok(_lock) = cycle::lock(policy, Duration::ZERO, run).await else { return Ok(false) };
        let catalog = Catalog::open(&policy.state_dir, &run.events)?;
        // Only the newest is worth sending: where a lock keeps what is there, what was sent too much stays for long.
        if let Err(failure) = capture::forget_superseded(policy, repository, &catalog, 1, run).await {
            run.events.warn(format!("{}: {}", policy.name, failure.message));
        }
        let mut is_whole = true;
        for copy in cycle::steps::send(policy, repository, &[], &catalog, run).await {
            if let Some(error) = copy.error().filter(|_| !run.cancel.is_cancelled()) {
                run.events.warn(error);
                is_whole = false;
            }
        }
        Ok::<_, Failure>(is_whole)
    };
    sent.await.unwrap_or_else(|failure| {
        run.events.warn(format!("{}: {}", policy.name, failure.message));
        false
    })
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

/// Seals what is new. Returns whether something was.
async fn seal_once(
    policy: &Policy,
    spools: &[(Capture, Arc<Spool>)],
    opened: &mut Option<Opened>,
    run: &Run,
) -> Result<bool, Failure> {
    let mut at_hand = match opened.take() {
        Some(at_hand) => at_hand,
        None => Opened::new(policy, run).await?,
    };
    // As a run of its own, whose id its snapshots bear.
    let run = run.renewed();
    let (mut done, mut is_sick) = (CaptureDone::default(), false);
    for (capture, spool) in spools {
        let sealed = at_hand.sealer.seal(capture, spool, Duration::ZERO, &run).await;
        if let Err(error) = &sealed {
            is_sick |= !matches!(error, CaptureError::Repository(RepositoryError::Locked { .. }));
            run.events.warn(format!("{}: {}", capture.source, human::chain(error)));
        }
        let captured = sealed.map(|sealed| Captured::Here { followed: Followed::default(), sealed });
        done.sources.push((capture.source.clone(), captured.map_err(Failure::from)));
    }
    // What broke may be the repository as it was opened.
    *opened = (!is_sick).then_some(at_hand);
    // A seal frees the spool, whose disk may be so full that nothing can be noted in the catalog.
    let noted = Catalog::open(&policy.state_dir, &run.events).map_err(Failure::from);
    if let Err(failure) = noted.and_then(|catalog| capture::record(done.sealed(), &catalog, &run)) {
        run.events.warn(format!("{}: {}", policy.name, failure.message));
    }
    Ok(done.sealed().next().is_some())
}
