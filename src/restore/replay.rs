//! The part of a restore that comes after the dump: binlogs, up to a recovery point.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tempfile::TempDir;

use crate::mysql::gtid::{Executed, Gtid};
use crate::mysql::manifest::{Manifest, Product};
use crate::mysql::server::Server;
use crate::policy::Policy;
use crate::replay::segments::is_before;
use crate::replay::{Point, Record, ReplayError, ReplayPlan, Replayed, Start, Target, Way};
use crate::repository::{Repository, StoredSnapshot};
use crate::restore::binlogs::{Binlogs, Fetched};
use crate::restore::choose::Chosen;
use crate::restore::left_out;
use crate::restore::{Request, RestoreError};
use crate::run::Run;
use crate::target::mysql::{DumpReader, LoadPlan, Loaded, TargetState};

/// How far an operator wants to go past the dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRequest {
    pub point: Point,
    /// Where the binlogs are; `None`: in the repository, where they were captured.
    pub binlogs: Option<PathBuf>,
    /// Go as near to the point as the binlogs lead.
    pub up_to_gap: bool,
    /// The target holds an earlier recovery, from which it goes on without a load.
    pub further: bool,
    /// In which way they come to the target; `None`: as a replica, or where the account may not, in a session.
    pub way: Option<Way>,
    /// Where to serve them to the target.
    pub listen: Option<SocketAddr>,
}

impl ReplayRequest {
    /// Tells whether snapshots alone come near to the point: it is a time, or the newest there is.
    pub(super) fn is_time(&self) -> bool {
        matches!(self.point, Point::Latest | Point::At(_))
    }
}

/// The replay of one database.
pub struct DatabaseReplay {
    pub target: Target,
    pub plan: ReplayPlan,
    pub point: Point,
    /// An earlier run has loaded the dump; it may have applied a part of the binlogs, too.
    pub is_loaded: bool,
    /// Where the target will come for the binlogs.
    pub serves_at: Option<SocketAddr>,
    /// A stream follows, also where no transaction is planned.
    pub is_streamed: bool,
    /// The target goes on from an earlier recovery that was over.
    further: bool,
    /// The target held nothing when this was planned.
    was_empty: bool,
    /// All that the source had committed by then is in the binlogs, as far as who captured them knows.
    as_of: Option<DateTime<Utc>>,
    /// Holds the binlogs for as long as they are served.
    _scratch: Option<Arc<TempDir>>,
}

/// What stands on a target before it is planned for.
pub(super) struct Found {
    target: Target,
    pub(super) record: Option<Record>,
    pub(super) is_loaded: bool,
    /// Whatever it holds once the load is over comes from the dump.
    is_empty: bool,
    /// What an earlier recovery has brought, where it is to go on from there.
    has: BTreeSet<(String, String)>,
}

impl Found {
    /// Looks for a replay that was begun on the target.
    pub(super) async fn look(server: &Server, state: &TargetState, request: &Request) -> Result<Self, RestoreError> {
        let target = target(server, state.product, request);
        let record = target.record().await.map_err(Box::new)?;
        let further = request.replay.as_ref().is_some_and(|replay| replay.further);
        let holds_whole = state.progress.is_none() && !state.holdings.is_empty();
        let is_loaded = is_loaded(record.as_ref(), further, holds_whole);
        let held = state.holdings.iter().filter(|_| further);
        let has = held.map(|(schema, name, _)| (schema.clone(), name.clone())).collect();
        // Of a load that is under way, the first rows are in.
        let is_empty = state.holdings.is_empty() || (state.progress.is_some() && !request.overwrite);
        match (&record, &request.replay) {
            (Some(Record { standby: Some(standby), .. }), _) => Err(RestoreError::Standby(standby.source.clone())),
            (Some(record), None) => Err(RestoreError::InReplay(record.snapshot.clone())),
            _ => Ok(Self { target, record, is_loaded, is_empty, has }),
        }
    }

    /// Returns the target's state as the load of the dump has to see it.
    pub(super) fn state(&self, state: &TargetState) -> TargetState {
        let mut state = state.clone();
        if self.is_loaded {
            state.holdings.clear();
            state.schemas.clear();
        }
        state
    }
}

/// Refuses to go on where nothing leads on.
pub(super) fn leads_on(
    record: Option<&Record>,
    asked: Option<&ReplayRequest>,
    has_binlogs: bool,
) -> Result<(), RestoreError> {
    match (record, asked) {
        _ if has_binlogs => Ok(()),
        (Some(record), _) => Err(RestoreError::InReplay(record.snapshot.clone())),
        (None, Some(asked)) if asked.further => Err(RestoreError::NoBinlogs(asked.point.to_string())),
        (None, _) => Ok(()),
    }
}

/// Refuses another dump than the one that was begun with.
pub(super) fn same_dump(record: Option<&Record>, snapshot: &str) -> Result<(), RestoreError> {
    match record {
        Some(record) if record.snapshot != snapshot => Err(RestoreError::InReplay(record.snapshot.clone())),
        _ => Ok(()),
    }
}

/// Tells whether the target holds the dump whole: it is noted, or no load is under way on a target that was empty and is not.
fn is_loaded(record: Option<&Record>, further: bool, holds_whole: bool) -> bool {
    record.map_or(further, |record| record.is_loaded || (record.was_empty && holds_whole))
}

fn target(server: &Server, product: Product, request: &Request) -> Target {
    let listen = request.replay.as_ref().and_then(|replay| replay.listen);
    let (threads, skip_binlog) = (request.connections, request.skip_binlog);
    Target { server: server.clone(), product, threads, listen, skip_binlog }
}

/// Leaves of a plan what an earlier run has not done: nothing.
pub(super) fn nothing_to_load(load: &mut LoadPlan) {
    load.resumes = true;
    load.schemas.clear();
    load.tables.clear();
    load.objects.clear();
    load.omitted.clear();
    load.refused.clear();
    load.changes.clear();
    load.notes = vec!["the dump is loaded already: the replay goes on".to_owned()];
}

/// Refuses a selection: the binlogs hold every table, and under its own name.
pub(super) fn refuse_parts(request: &Request) -> Result<(), RestoreError> {
    if !request.tables.is_empty() || !request.names.is_empty() {
        return Err(RestoreError::PartialReplay(
            "`--tables`, `--as` and `--rename-schema` choose among them".to_owned(),
        ));
    }
    Ok(())
}

/// Plans what a rehearsal replays after a dump that it has loaded into a server of its own: what `captured`, a snapshot of
/// binlogs, leads to. They are fetched into `dir`.
///
/// # Errors
/// [`RestoreError`] where the binlogs do not lead on from the dump to the point, or the server cannot follow.
pub async fn rehearse(
    policy: &Policy,
    repository: &Repository,
    captured: &StoredSnapshot,
    rehearsed: Rehearsed<'_>,
    dir: &Path,
    run: &Run,
) -> Result<DatabaseReplay, RestoreError> {
    let Rehearsed { source, dump, server, point } = rehearsed;
    let manifest = dump.manifest();
    left_out::refuse_unsaid(policy, source, manifest)?;
    // Its server is its own: nothing is missing there.
    let way = Some(Way::Replica);
    let asked = ReplayRequest { point, binlogs: None, up_to_gap: false, further: false, way, listen: None };
    let binlogs = Binlogs::captured(repository, captured, dir).await?;
    let fetched = binlogs.fetch(repository, manifest, &asked, run).await?;
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).max(THREADS_MIN);
    let target =
        Target { server: server.clone(), product: manifest.product, threads, listen: None, skip_binlog: false };
    let found = Found { target, record: None, is_loaded: true, is_empty: false, has: BTreeSet::new() };
    DatabaseReplay::plan(dump, &found, &asked, fetched, run).await
}

/// A dump that a rehearsal has loaded, and how far it is to go on.
pub struct Rehearsed<'a> {
    pub source: &'a str,
    pub dump: &'a dyn DumpReader,
    pub server: &'a Server,
    pub point: Point,
}

/// A replay waits for its disk, too.
const THREADS_MIN: usize = 4;

/// Returns what the target has executed, where it is to go on from that.
pub(super) async fn executed(
    repository: &Arc<Repository>,
    newest: &Chosen,
    request: &Request,
    asked: &ReplayRequest,
) -> Result<Option<Executed>, RestoreError> {
    let Some(server) = request.to_mysql.as_ref().filter(|_| asked.further) else { return Ok(None) };
    let manifest = crate::backup::mysql::manifest(repository, &newest.stored, &newest.source);
    let product = manifest.await.map_err(Box::new)?.product;
    Ok(Some(target(server, product, request).executed().await.map_err(Box::new)?))
}

/// Chooses the newest dump of the same source that the point does not lie before, nor what the target has executed already.
pub(super) async fn choose(
    repository: &Arc<Repository>,
    snapshots: &[StoredSnapshot],
    newest: Chosen,
    point: &Point,
    executed: Option<&Executed>,
) -> Result<Chosen, RestoreError> {
    let mut candidates: Vec<Chosen> = snapshots.iter().filter_map(|stored| newest.instead(stored)).collect();
    candidates.retain(|one| one.kind == newest.kind && one.stored.snapshot.time <= newest.stored.snapshot.time);
    candidates.retain(|one| one.stored.snapshot.tag("policy") == newest.stored.snapshot.tag("policy"));
    candidates.sort_by_key(|one| std::cmp::Reverse(one.stored.snapshot.time));
    for candidate in candidates {
        let manifest = crate::backup::mysql::manifest(repository, &candidate.stored, &candidate.source);
        let manifest = manifest.await.map_err(Box::new)?;
        let is_on_the_way = match executed {
            Some(executed) => dumped(&manifest)?.is_subset(executed),
            None => true,
        };
        if is_on_the_way && is_at_or_before(&manifest, point)? {
            return Ok(candidate);
        }
    }
    let sources = vec![newest.source];
    Err(RestoreError::NoDumpBefore { sources, point: point.to_string() })
}

/// Tells whether a dump was taken at a point or before it.
fn is_at_or_before(manifest: &Manifest, point: &Point) -> Result<bool, RestoreError> {
    match point {
        Point::Latest => Ok(true),
        Point::At(time) => Ok(manifest.taken_at <= *time),
        Point::Gtid(gtid) | Point::Before(gtid) => Ok(!holds(manifest, gtid)?),
        Point::Position(place) => Ok(manifest.position.as_ref().is_some_and(|dumped| {
            let is_same = dumped.file == place.file && dumped.offset <= place.offset;
            is_same || is_before(&dumped.file, &place.file) == Some(true)
        })),
    }
}

fn dumped(manifest: &Manifest) -> Result<Executed, RestoreError> {
    let text = manifest.gtid.as_deref().unwrap_or_default();
    Ok(Executed::parse(manifest.product, text).map_err(|error| Box::new(ReplayError::from(error)))?)
}

fn holds(manifest: &Manifest, gtid: &Gtid) -> Result<bool, RestoreError> {
    let executed = dumped(manifest)?;
    Ok(match (&executed, gtid) {
        // The last number of the domain alone tells, whichever server wrote it.
        (Executed::MariaDb(state), Gtid::MariaDb(gtid)) => {
            state.position().get(gtid.domain).is_some_and(|last| gtid.sequence <= last.sequence)
        }
        _ => executed.contains(gtid),
    })
}

impl DatabaseReplay {
    /// Plans the replay after a dump. Writes nothing.
    pub(super) async fn plan(
        dump: &dyn DumpReader,
        found: &Found,
        asked: &ReplayRequest,
        binlogs: Fetched,
        run: &Run,
    ) -> Result<Self, RestoreError> {
        let manifest = dump.manifest();
        if manifest.product != found.target.product {
            return Err(RestoreError::PartialReplay(
                "binlogs are replayed on a server of their own product alone".to_owned(),
            ));
        }
        let start = Start::of(manifest).map_err(Box::new)?;
        let (point, falls_short, of_thread) = (asked.point.clone(), asked.up_to_gap, run.clone());
        let Fetched { run: segments, scratch } = binlogs;
        let as_of = segments.as_of;
        let planned =
            tokio::task::spawn_blocking(move || ReplayPlan::new(&start, &segments, &point, falls_short, &of_thread));
        let mut plan = planned.await.map_err(|error| RestoreError::Thread(error.to_string()))?.map_err(Box::new)?;
        plan.filter = left_out::filter(dump, &plan, &found.has, run).await?;
        let target = found.target.clone();
        let further = asked.further && found.record.is_none();
        target.settle(&mut plan, asked.way, found.record.as_ref(), further, run).await.map_err(Box::new)?;
        let (point, is_loaded, was_empty) = (asked.point.clone(), found.is_loaded, found.is_empty);
        let serves_at = match plan.way {
            Way::Replica => Some(target.serves_at().await.map_err(Box::new)?),
            Way::Session => None,
        };
        let is_streamed = plan.transactions > 0 && plan.way == Way::Replica;
        Ok(Self {
            target,
            plan,
            point,
            is_loaded,
            serves_at,
            is_streamed,
            further,
            was_empty,
            as_of,
            _scratch: scratch,
        })
    }

    /// Returns the moment whose state comes back: all that the source had committed by then. `None` where that is not known, as of
    /// binlogs that end at a gap.
    #[must_use]
    pub fn recovers(&self) -> Option<DateTime<Utc>> {
        match self.point {
            _ if self.plan.falls_short => None,
            Point::At(time) => Some(time),
            Point::Latest => self.as_of,
            Point::Gtid(_) | Point::Before(_) | Point::Position(_) => None,
        }
    }

    /// Makes the target fit before the dump is loaded, and tries whether it finds its way to us: the load takes hours.
    pub(super) async fn prepare(&self, snapshot: &str, run: &Run) -> Result<(), RestoreError> {
        let prepared = self.target.prepare(&self.plan, snapshot, self.was_empty, self.further).await;
        let is_new = prepared.map_err(Box::new)?;
        if self.is_streamed && !self.is_loaded && !self.further {
            self.target.try_way(&self.plan, is_new, run).await.map_err(Box::new)?;
        }
        Ok(())
    }

    /// Notes on the target that the dump is loaded. Where a table is missing, it is not.
    pub(super) async fn note_loaded(&self, loaded: &Loaded) -> Result<(), RestoreError> {
        if !is_whole(loaded) {
            return Ok(());
        }
        let lacking = loaded.failed.iter().map(|failed| failed.error.to_string()).collect();
        Ok(self.target.note_loaded(lacking).await.map_err(Box::new)?)
    }

    /// Replays on the server of a rehearsal, which holds the dump.
    ///
    /// # Errors
    /// [`RestoreError::Replay`] where the server does not apply all of it.
    pub async fn rehearse(&self, snapshot: &str, run: &Run) -> Result<Replayed, RestoreError> {
        self.prepare(snapshot, run).await?;
        self.target.note_loaded(Vec::new()).await.map_err(Box::new)?;
        Ok(self.target.replay(&self.plan, run).await.map_err(Box::new)?)
    }

    /// Replays; `None` where tables of the dump are missing, on which the binlogs build.
    pub(super) async fn apply(&self, loaded: &Loaded, run: &Run) -> Result<Option<Replayed>, RestoreError> {
        if !is_whole(loaded) {
            return Ok(None);
        }
        Ok(Some(self.target.replay(&self.plan, run).await.map_err(Box::new)?))
    }
}

fn is_whole(loaded: &Loaded) -> bool {
    loaded.failed.iter().all(|failed| failed.table.is_none())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(was_empty: bool) -> Record {
        let place = json!({ "file": "b.000001", "offset": 4 });
        let record = json!({
            "snapshot": "aa11", "begin": place, "end": place, "is_loaded": false, "has_begun": false, "started": 0,
            "settings": [], "was_empty": was_empty,
        });
        serde_json::from_value(record).unwrap()
    }

    fn asked(further: bool) -> ReplayRequest {
        ReplayRequest { point: Point::Latest, binlogs: None, up_to_gap: false, further, way: None, listen: None }
    }

    #[test]
    fn a_replay_that_was_begun_does_not_end_without_binlogs() {
        let begun = record(true);
        let refused = leads_on(Some(&begun), Some(&asked(false)), false);
        assert!(matches!(refused, Err(RestoreError::InReplay(_))), "{refused:?}");
        let refused = leads_on(None, Some(&asked(true)), false);
        assert!(matches!(refused, Err(RestoreError::NoBinlogs(_))), "{refused:?}");
        assert!(leads_on(Some(&begun), Some(&asked(false)), true).is_ok());
        assert!(leads_on(None, Some(&asked(false)), false).is_ok(), "a time is met by a snapshot, too");
    }

    #[test]
    fn a_replay_goes_on_after_its_own_dump_alone() {
        let begun = record(true);
        assert!(same_dump(Some(&begun), "aa11").is_ok());
        assert!(same_dump(None, "bb22").is_ok());
        let refused = same_dump(Some(&begun), "bb22");
        assert!(matches!(refused, Err(RestoreError::InReplay(_))), "{refused:?}");
    }

    #[test]
    fn rows_from_before_are_not_taken_for_the_dump() {
        assert!(is_loaded(Some(&record(true)), false, true));
        assert!(!is_loaded(Some(&record(true)), false, false));
        assert!(!is_loaded(Some(&record(false)), false, true));
        assert!(is_loaded(None, true, true) && !is_loaded(None, false, true));
    }
}
