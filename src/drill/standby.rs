//! The other way to recover, in a drill: a standby follows the capture in a server of its own, and is promoted.

use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::drill::outcome::{DrilledStandby, Origin};
use crate::drill::{DrillError, Rehearsal, checks};
use crate::human;
use crate::policy::Policy;
use crate::replay::Point;
use crate::restore::RestoreError;
use crate::run::{Run, Stopped};
use crate::sandbox::{Sandbox, SandboxPlan};
use crate::standby::{Standby, StandbyError, Status};

/// Connections that load, and threads that apply: as many as `bkp standby start` takes.
const CONNECTIONS: usize = 4;

/// How often the standby is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// A standby that has not moved for so long will not come to where the capture is.
const STILL_MAX: Duration = Duration::from_mins(5);

impl Rehearsal<'_> {
    /// Makes a standby of a database, lets it follow until it holds what was captured as it began to, and promotes it. What keeps it
    /// from that is found; the drill goes on.
    pub(super) async fn promote_standby(
        &mut self,
        source: &str,
        plan: &SandboxPlan,
        dir: &Path,
    ) -> Result<(), DrillError> {
        self.run.check()?;
        let copy = match &self.outcome.from {
            Origin::Repository => None,
            Origin::Copy { name } => Some(name.clone()),
        };
        let began = Instant::now();
        let sandbox = match Sandbox::start(plan, self.run).await {
            Ok(sandbox) => sandbox,
            Err(error) => {
                self.run.check()?;
                self.outcome.checks.push(checks::no_standby(source, &human::chain(&error)));
                return Ok(());
            }
        };
        // What it keeps beside the spool goes with the drill.
        let policy = Policy { state_dir: dir.join("standby"), ..self.policy.clone() };
        let standby = Standby {
            policy: &policy,
            source,
            server: sandbox.server(),
            delay: Duration::ZERO,
            connections: CONNECTIONS,
            listen: None,
            skip_binlog: true,
        };
        let promoted = Box::pin(make_and_promote(&standby, copy.as_deref(), began, self.run)).await;
        sandbox.stop()?;
        match promoted {
            Err(StandbyError::Stopped(stopped)) => return Err(stopped.into()),
            // This machine does not capture, or the source does not let itself be followed.
            Err(
                error @ (StandbyError::NotCaptured(_)
                | StandbyError::NoGtids(_)
                | StandbyError::NoSpool { .. }
                | StandbyError::Restore(RestoreError::PartialReplay(_) | RestoreError::LeftOut(_))),
            ) => {
                self.outcome.checks.push(checks::no_standby(source, &human::chain(&error)));
            }
            Err(error) => self.outcome.checks.push(checks::standby_failed(source, human::chain(&error))),
            Ok(promoted) => {
                self.outcome.checks.push(checks::standby(&promoted, began.elapsed()));
                self.outcome.standbys.push(promoted);
            }
        }
        Ok(())
    }
}

async fn make_and_promote(
    standby: &Standby<'_>,
    copy: Option<&str>,
    began: Instant,
    run: &Run,
) -> Result<DrilledStandby, StandbyError> {
    let captured = standby.captured_until()?;
    let mut stream = std::pin::pin!(standby.start(copy, &|| (), run));
    tokio::select! {
        // Nobody promotes it but this.
        ended = &mut stream => return Err(ended.map_or_else(|error| error, |_| Stopped.into())),
        level = until_level(standby, captured, run) => level?,
    }
    let ready = began.elapsed();
    let (began, moment) = (Instant::now(), run.now());
    // It is taken away from who serves it, as in earnest.
    let promoted = standby.promote(&Point::Latest, false, began, run).await?;
    let rpa = promoted.as_of.map(|as_of| (moment - as_of).num_milliseconds().max(0));
    Ok(DrilledStandby {
        source: standby.source.to_owned(),
        ready_ms: crate::backup::millis(ready),
        downtime_ms: crate::backup::millis(promoted.downtime),
        rpa_ms: rpa.and_then(|rpa| rpa.try_into().ok()),
    })
}

/// Waits until a standby holds all that was captured by a moment.
async fn until_level(standby: &Standby<'_>, captured: DateTime<Utc>, run: &Run) -> Result<(), StandbyError> {
    let mut last: Option<(Status, Instant)> = None;
    loop {
        match standby.status(run).await {
            Ok(status) if status.is_streaming && status.as_of.is_some_and(|as_of| as_of >= captured) => return Ok(()),
            Ok(status) => {
                let has_moved = last.as_ref().is_none_or(|(before, _)| before.executed != status.executed);
                match &last {
                    Some((_, since)) if !has_moved && since.elapsed() > STILL_MAX => {
                        let source_name = standby.source.to_owned();
                        return Err(StandbyError::Still { source_name, longest: STILL_MAX });
                    }
                    Some(_) if !has_moved => {}
                    _ => last = Some((status, Instant::now())),
                }
            }
            // It is being restored.
            Err(StandbyError::NoStandby) => {}
            Err(error) => return Err(error),
        }
        if run.cancel.run_until_cancelled(tokio::time::sleep(ASK_EVERY)).await.is_none() {
            return Err(Stopped.into());
        }
    }
}
