//! A warm standby: a server that was restored from the repository and goes on following the capture, until it is promoted.
//!
//! [`Standby::start`] restores a dump and serves what the capture has from there on, as it comes; a delay keeps a mistake back for as
//! long as an operator needs to see it. The standby itself knows how far it is, so that whoever serves it may be killed and start
//! again. [`Standby::promote`] goes on to a recovery point, proves that it is there, and opens the server to everybody's writes.

mod arrivals;
mod error;
mod planned;
mod progress;
mod promote;
mod reached;
mod shelf;
mod status;
mod stream;
mod tide;
mod way;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::capture::Spool;
use crate::mysql::manifest::{Manifest, Product};
use crate::mysql::server::Server;
use crate::place;
use crate::policy::Policy;
use crate::replay::{Point, Record, ReplayPlan, Standby as Mark, Target, Way};
use crate::repository::Repository;
use crate::restore::RestoreError;
use crate::restore::choose::{self, Moment};
use crate::restore::replay::ReplayRequest;
use crate::restore::{self, Rates, Request};
use crate::run::Run;
use crate::target::mysql::plan::Names;

pub use error::StandbyError;
pub use progress::Progress;
pub use promote::{Promoted, Promotion};
pub use status::Status;

/// A standby of one source.
#[derive(Debug, Clone)]
pub struct Standby<'a> {
    pub policy: &'a Policy,
    pub source: &'a str,
    pub server: Server,
    /// How old a transaction must be before it goes there.
    pub delay: Duration,
    /// Connections that load, and threads that apply.
    pub connections: usize,
    /// Where to serve; `None`: at this machine's address on the way to the standby.
    pub listen: Option<SocketAddr>,
    /// Keep the load and the record out of the standby's own binlog.
    pub skip_binlog: bool,
}

/// How a stream ended that nothing broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The run was told to stop; the standby stays where it is.
    Stopped,
    /// Somebody has promoted it.
    Promoted,
}

impl Standby<'_> {
    /// Restores the server, unless that is done, and serves it until the run is told to stop or somebody promotes it. `ready` is
    /// called as the stream stands, each time that it does.
    ///
    /// # Errors
    /// [`StandbyError`]; the standby stays where it is, and the same call goes on.
    pub async fn start(&self, from: Option<&str>, ready: &(dyn Fn() + Sync), run: &Run) -> Result<Ended, StandbyError> {
        let window = self.capture()?.window;
        if self.delay >= window {
            let source_name = self.source.to_owned();
            return Err(StandbyError::LongDelay { source_name, delay: self.delay, window });
        }
        let target = self.target().await?;
        let record = target.record().await?;
        if record.as_ref().is_none_or(|record| record.standby.is_none()) {
            let repository = place::repository_in(self.policy, from, run).await?;
            let lock = place::lock_to_read(&repository, run).await?;
            let restored = self.restore(&target, record.as_ref(), &repository, run).await;
            place::unlock(lock, run).await;
            restored?;
        }
        stream::follow(self, &target, ready, run).await
    }

    /// Loads a dump, and makes the server a standby that goes on from there.
    async fn restore(
        &self,
        target: &Target,
        record: Option<&Record>,
        repository: &Arc<Repository>,
        run: &Run,
    ) -> Result<(), StandbyError> {
        let snapshots = repository.snapshots().await?;
        repository.load_index(run).await?;
        let moment = match record {
            Some(begun) => Moment::Snapshot(begun.snapshot.clone()),
            // A newer one would bring what is to be kept back.
            None => Moment::At(run.now() - TimeDelta::from_std(self.delay).unwrap_or_default()),
        };
        let sources = [self.source.to_owned()];
        let chosen = choose::choose(&snapshots, &self.policy.name, &sources, &moment, run.now())?;
        let [chosen] = chosen.as_slice() else { return Err(StandbyError::NotCaptured(self.source.to_owned())) };
        let manifest = crate::backup::mysql::manifest(repository, &chosen.stored, self.source).await;
        let manifest = manifest.map_err(|error| RestoreError::from(Box::new(error)))?;
        if manifest.product != target.product {
            let (found, wanted) = (target.product, manifest.product);
            return Err(StandbyError::OtherProduct { found, wanted, source_name: self.source.to_owned() });
        }
        if !manifest.extent.is_everything() {
            let why = format!("a standby follows all of `{}`, and the policy leaves some of it out", self.source);
            return Err(RestoreError::LeftOut(why).into());
        }
        let epoch = self.epoch(&manifest)?;
        let request = self.request(&manifest, Moment::Snapshot(chosen.id().to_string()))?;
        let mut plan = restore::plan(self.policy, repository, &request, Rates::default(), run).await?;
        plan.databases
            .iter_mut()
            .filter_map(|database| database.replay.as_mut())
            .for_each(|replay| replay.is_streamed = true);
        let replay = plan.databases.first().and_then(|database| database.replay.as_ref());
        let replay = replay.ok_or_else(|| StandbyError::NotCaptured(self.source.to_owned()))?;
        // No transaction of it is replayed here that would tell.
        let dumped = ReplayPlan { has_gtids: true, ..replay.plan.clone() };
        target.check(&dumped, record, false).await?;
        let restored = restore::apply(&plan, repository, &request, run).await?;
        let failed = restored.databases.iter().flat_map(|(_, loaded)| &loaded.failed);
        let failed = failed.map(|failed| failed.error.to_string()).collect();
        let missing = missing(failed, target.record().await?.as_ref());
        if !missing.is_empty() {
            return Err(StandbyError::NotWhole(missing.join("; ")));
        }
        Ok(target.make_standby(&dumped, self.source, epoch).await?)
    }

    /// Returns the epoch of the capture that goes on from a dump.
    fn epoch(&self, manifest: &Manifest) -> Result<u32, StandbyError> {
        let dir = &self.capture()?.spool;
        let no_spool = || StandbyError::NoSpool { source_name: self.source.to_owned(), dir: dir.join(self.source) };
        let chain = Spool::look(dir, self.source)?.ok_or_else(no_spool)?;
        if manifest.product == Product::MySql && manifest.gtid.as_deref().unwrap_or_default().is_empty() {
            return Err(StandbyError::NoGtids(self.source.to_owned()));
        }
        let epoch = restore::epoch_of(&chain, manifest).ok_or_else(|| StandbyError::NoWay {
            source_name: self.source.to_owned(),
            executed: manifest.gtid.clone().unwrap_or_default(),
        })?;
        if chain.epochs.iter().any(|later| later.number > epoch.number && !later.segments.is_empty()) {
            return Err(StandbyError::Ended(self.source.to_owned()));
        }
        Ok(epoch.number)
    }

    /// Asks for the dump alone: what comes behind it is the stream's.
    fn request(&self, manifest: &Manifest, moment: Moment) -> Result<Request, StandbyError> {
        let place = manifest.position.clone().ok_or_else(|| StandbyError::NoGtids(self.source.to_owned()))?;
        let point = Point::Position(place);
        let (way, listen) = (Some(Way::Replica), self.listen);
        let replay = ReplayRequest { point, binlogs: None, up_to_gap: false, further: false, way, listen };
        Ok(Request {
            moment,
            replay: Some(replay),
            sources: vec![self.source.to_owned()],
            to_mysql: Some(self.server.clone()),
            to_dir: None,
            tables: Vec::new(),
            names: Names::default(),
            first: self.policy.restore.first.clone(),
            paths: Vec::new(),
            overwrite: false,
            in_place: None,
            users: true,
            skip_binlog: self.skip_binlog,
            connections: self.connections,
        })
    }

    /// Returns up to when all is captured that the source had committed.
    ///
    /// # Errors
    /// [`StandbyError::NoSpool`] where nothing was captured here.
    pub fn captured_until(&self) -> Result<DateTime<Utc>, StandbyError> {
        let dir = &self.capture()?.spool;
        let until = Spool::chain_at(dir, self.source)?.and_then(|chain| chain.as_of);
        until.ok_or_else(|| StandbyError::NoSpool { source_name: self.source.to_owned(), dir: dir.join(self.source) })
    }

    fn capture(&self) -> Result<&crate::policy::CapturePlan, StandbyError> {
        let plan = self.policy.mysql.get(self.source).and_then(|place| place.binlog.as_ref());
        plan.ok_or_else(|| StandbyError::NotCaptured(self.source.to_owned()))
    }

    /// Returns the server as one that replays.
    async fn target(&self) -> Result<Target, StandbyError> {
        Ok(self.target_of(Target::product_of(&self.server).await?))
    }

    fn target_of(&self, product: Product) -> Target {
        Target {
            server: self.server.clone(),
            product,
            threads: self.connections,
            listen: self.listen,
            skip_binlog: self.skip_binlog,
        }
    }

    /// Refuses a server that is no standby of the source.
    fn own<'r>(&self, record: Option<&'r Record>) -> Result<&'r Mark, StandbyError> {
        let mark = record.and_then(|record| record.standby.as_ref()).ok_or(StandbyError::NoStandby)?;
        if mark.source == self.source {
            return Ok(mark);
        }
        Err(StandbyError::OtherSource { found: mark.source.clone(), wanted: self.source.to_owned() })
    }
}

/// Returns what of a dump is missing: what this start could not load, or the one that has loaded it.
fn missing(failed: Vec<String>, record: Option<&Record>) -> Vec<String> {
    if failed.is_empty() { record.map(|record| record.lacking.clone()).unwrap_or_default() } else { failed }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_second_start_does_not_take_a_dump_for_whole_of_which_a_view_is_missing() {
        let place = json!({ "file": "b.000001", "offset": 4 });
        let mut record = json!({
            "snapshot": "aa11", "begin": place, "end": place, "is_loaded": true, "has_begun": false, "started": 0, "settings": [],
        });
        let whole: Record = serde_json::from_value(record.clone()).unwrap();
        assert!(missing(Vec::new(), Some(&whole)).is_empty());
        record["lacking"] = json!(["create view `mall`.`sales`"]);
        let lacking: Record = serde_json::from_value(record).unwrap();
        assert_eq!(missing(Vec::new(), Some(&lacking)), ["create view `mall`.`sales`"]);
        assert_eq!(missing(vec!["create user".to_owned()], Some(&lacking)), ["create user"]);
    }
}
