//! The step that captures binlogs: what is new comes into the spool, from there into the repository, and on into the copies.

use std::sync::Arc;
use std::time::Duration;

use crate::capture::{Capture, CaptureError, Followed, Sealed, Sealer, Spool, Until, follow};
use crate::catalog::{Catalog, REPOSITORY, SnapshotRecord};
use crate::cycle::done::{CaptureDone, Captured};
use crate::cycle::steps;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::place;
use crate::policy::Policy;
use crate::repository::Repository;
use crate::run::Run;

/// A forget takes the repository for itself for a moment, so it does not come with each run.
const SUPERSEDED_MAX: usize = 16;

/// What a run takes into the spool before it seals, past the end of the file at hand: a first capture may be of a week.
const SPOOL_BYTES_MAX: u64 = 256 << 20;

/// Captures what is new of the named sources, or of all whose binlog the policy wants.
///
/// # Errors
/// [`Failure`] where the repository cannot be opened, or a source has no capture. What happens to one source afterwards is in the
/// [`CaptureDone`].
pub(super) async fn capture_all(
    policy: &Policy,
    sources: &[String],
    catalog: &Catalog,
    run: &Run,
) -> Result<CaptureDone, Failure> {
    let captures = captures(policy, sources)?;
    let repository = place::repository(policy, run).await?;
    let mut done = CaptureDone::default();
    for capture in captures {
        run.check()?;
        let result = capture_one(&capture, &repository, catalog, run).await;
        done.sources.push((capture.source, result));
    }
    if done.sealed().next().is_some() {
        done.copies = steps::send(policy, &repository, &[], catalog, run).await;
        forget_superseded(policy, &repository, catalog, SUPERSEDED_MAX, run).await?;
    }
    Ok(done)
}

/// Returns the captures of a policy: of the named sources, or of all.
///
/// # Errors
/// [`Failure`] where a named source has none, or a password cannot be read.
pub(crate) fn captures(policy: &Policy, sources: &[String]) -> Result<Vec<Capture>, Failure> {
    for source in sources {
        if policy.mysql.get(source).is_none_or(|place| place.binlog.is_none()) {
            return Err(Failure::new(
                Exit::Usage,
                format!("capture the binlog of `{source}`: the policy does not want it"),
            )
            .hinting("set `binlog.capture` of the source to true"));
        }
    }
    let wanted = policy.mysql.keys().filter(|name| sources.is_empty() || sources.contains(name));
    let mut captures = Vec::new();
    for name in wanted {
        captures.extend(Capture::of(policy, name)?);
    }
    Ok(captures)
}

/// Captures one source, and seals as often as the spool would else grow past its bound.
async fn capture_one(
    capture: &Capture,
    repository: &Arc<Repository>,
    catalog: &Catalog,
    run: &Run,
) -> Result<Captured, Failure> {
    let spool = match Spool::open(capture) {
        Err(CaptureError::Held(_)) => return Ok(Captured::Elsewhere),
        opened => Arc::new(opened?),
    };
    let mut sealer = Sealer::new(repository);
    sealer.restore_chain(capture, &spool, run).await?;
    let (mut all, mut last) = (Followed::default(), None::<Sealed>);
    loop {
        let followed = followed(capture, &spool, run).await;
        // What has come is sealed, whatever kept the rest from coming.
        let sealed = sealer.seal(capture, &spool, Duration::ZERO, run).await?;
        record(sealed.iter(), catalog, run)?;
        last = sealed.or(last);
        match (followed, last.clone()) {
            (Ok(next), _) if next.has_more => all = all.and(next),
            (Ok(next), sealed) => return Ok(Captured::Here { followed: all.and(next), sealed }),
            (Err(error), Some(sealed)) => return Ok(Captured::Broken { failure: error.into(), sealed }),
            (Err(error), None) => return Err(error.into()),
        }
    }
}

async fn followed(capture: &Capture, spool: &Arc<Spool>, run: &Run) -> Result<Followed, CaptureError> {
    let following = {
        let (capture, spool, run) = (capture.clone(), Arc::clone(spool), run.clone());
        tokio::task::spawn_blocking(move || follow(&capture, &spool, Until::Now { bytes_max: SPOOL_BYTES_MAX }, &run))
    };
    let followed = following.await.map_err(|error| CaptureError::Thread(error.to_string()))?;
    if let Err(error) = &followed {
        spool.tell(|progress| progress.error = Some(human::chain(error)))?;
    }
    followed
}

/// Lets the catalog know of new snapshots.
pub(crate) fn record<'s>(
    sealed: impl Iterator<Item = &'s Sealed>,
    catalog: &Catalog,
    run: &Run,
) -> Result<(), Failure> {
    let of = |sealed: &Sealed| SnapshotRecord {
        store: REPOSITORY.to_owned(),
        id: sealed.id,
        source: sealed.source.clone(),
        kind: "binlog".to_owned(),
        time: sealed.time,
        run: Some(run.id.clone()),
        incomplete: false,
    };
    let records: Vec<_> = sealed.map(of).collect();
    if records.is_empty() { Ok(()) } else { Ok(catalog.record_snapshots(&records)?) }
}

/// Forgets the binlogs' snapshots that newer ones hold, once there are so many. Whoever works with the repository goes first.
pub(crate) async fn forget_superseded(
    policy: &Policy,
    repository: &Arc<Repository>,
    catalog: &Catalog,
    at_least: usize,
    run: &Run,
) -> Result<(), Failure> {
    let plan = steps::plan_forget(policy, repository, REPOSITORY, catalog, run).await?.of_binlogs();
    if plan.forgotten().count() < at_least {
        return Ok(());
    }
    match steps::forget_binlogs(policy, repository, catalog, run).await {
        Err(failure) if failure.exit == Exit::Locked => Ok(()),
        forgotten => forgotten.map(drop),
    }
}
