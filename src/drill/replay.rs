//! Binlogs in a drill: what was captured is replayed after each dump, as a recovery does.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::capture::stored;
use crate::drill::outcome::DrilledSnapshot;
use crate::drill::{DrillError, Recovered, Rehearsal, Scenario, checks};
use crate::human;
use crate::replay::{Point, ReplayError};
use crate::repository::{Repository, StoredSnapshot};
use crate::restore::RestoreError;
use crate::restore::replay::{DatabaseReplay, Rehearsed, rehearse};

impl Rehearsal<'_> {
    /// Goes on from a dump by the binlogs that were captured of its server: to their end, or to the moment before a mistake. Where
    /// they do not lead there, that is found, and the dump alone is what comes back.
    pub(super) async fn replay(
        &mut self,
        repository: &Arc<Repository>,
        snapshots: &[StoredSnapshot],
        database: &mut Recovered,
        dir: &Path,
    ) -> Result<(), DrillError> {
        let source = &database.source.clone();
        let is_captured = self.policy.mysql.get(source).is_some_and(|of| of.binlog.is_some());
        let newest = stored::newest(snapshots, &self.policy.name, source).filter(|_| is_captured);
        let Some(captured) = newest else {
            self.outcome.checks.extend(is_captured.then(|| checks::not_replayed(source, "nothing was captured", None)));
            return Ok(());
        };
        // Afterwards the rows are others than those of the dump. A recovery does not wait for this.
        let aside = Instant::now();
        self.compare_rows_of(database).await?;
        database.is_compared = true;
        self.aside += aside.elapsed();
        let began = Instant::now();
        let replay = match self.plan_replay(repository, captured, database, dir).await {
            Ok(replay) => replay,
            Err(error) => return self.find(source, "the dump alone", error),
        };
        let recovers = replay.recovers();
        let replayed = match replay.rehearse(&captured.id.to_string(), self.run).await {
            Ok(replayed) => replayed,
            Err(error) => {
                // It holds neither the dump's state nor the other: that is no recovery, and has no recovery point.
                self.is_whole = false;
                self.measure_loss();
                return self.find(source, "a part of them", error);
            }
        };
        self.phase("replay", began, |phase| {
            phase.bytes = Some(replayed.bytes);
            phase.transactions = Some(replayed.transactions);
            phase.detail = Some(source.clone());
        });
        self.outcome.snapshots.push(used(source, captured));
        self.outcome.checks.push(checks::binlogs(source, &replay.plan, recovers, began.elapsed()));
        if let Some(moment) = recovers {
            self.recovered.insert(source.clone(), moment);
            self.measure_loss();
        }
        Ok(())
    }

    async fn plan_replay(
        &self,
        repository: &Arc<Repository>,
        captured: &StoredSnapshot,
        database: &Recovered,
        dir: &Path,
    ) -> Result<DatabaseReplay, RestoreError> {
        let Recovered { source, server, dump, .. } = database;
        let point = match self.outcome.scenario {
            Scenario::Lost | Scenario::Standby => Point::Latest,
            Scenario::Mistake { at } => Point::At(at),
        };
        let rehearsed = Rehearsed { source, dump: dump.as_ref(), server, point };
        rehearse(self.policy, repository, captured, rehearsed, dir, self.run).await
    }

    /// Notes what keeps the binlogs from being replayed; what keeps the drill from going on ends it.
    fn find(&mut self, source: &str, found: &str, error: RestoreError) -> Result<(), DrillError> {
        match error {
            RestoreError::Replay(replay) if !matches!(*replay, ReplayError::Stopped(_)) => {
                self.outcome.checks.push(checks::not_replayed(source, found, Some(human::chain(&replay))));
                Ok(())
            }
            // What cannot be replayed at all says nothing of what was captured.
            RestoreError::PartialReplay(_) | RestoreError::LeftOut(_) => {
                self.outcome.checks.push(checks::cannot_replay(source, &human::chain(&error)));
                Ok(())
            }
            error => Err(error.into()),
        }
    }
}

fn used(source: &str, captured: &StoredSnapshot) -> DrilledSnapshot {
    DrilledSnapshot {
        source: source.to_owned(),
        kind: stored::KIND.to_owned(),
        id: captured.id,
        time: captured.snapshot.time,
        incomplete: false,
    }
}
