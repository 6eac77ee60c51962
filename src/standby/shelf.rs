//! Where the captured segments are: in the spool beside whoever captures, or brought from the repository.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::capture::chain::Segment as Captured;
use crate::capture::stored::{self, Stored};
use crate::capture::{Chain, Spool};
use crate::human;
use crate::mysql::binlog::{BinlogError, MAGIC};
use crate::place;
use crate::policy::Policy;
use crate::replay::{Bounded, ReplayError, Segment, head_of};
use crate::repository::{Repository, RepositoryError};
use crate::restore;
use crate::run::Run;
use crate::standby::StandbyError;
use crate::standby::tide::whole_end;

/// What is left of a disk that the spool lies on as a rule: the capture goes first.
const SPARE_BYTES: u64 = 256 << 20;

/// So long what cannot be read beside who prunes is tried again: a pack that has gone to another place is found by then.
const BESIDE_MAX: Duration = Duration::from_mins(1);

/// Between two tries to read beside who prunes.
const BESIDE_WAIT: Duration = Duration::from_secs(10);

/// No head is longer: a GTID set of half a million intervals.
const HEAD_BYTES_MAX: u64 = 16 << 20;

/// The segments of one source.
pub(super) struct Shelf<'a> {
    policy: &'a Policy,
    source: &'a str,
    spool: PathBuf,
    /// What the spool has let go of is brought here.
    scratch: TempDir,
    /// Opened once something is wanted of it: that derives its key.
    repository: Option<Arc<Repository>>,
}

impl<'a> Shelf<'a> {
    pub(super) fn new(policy: &'a Policy, source: &'a str, run: &Run) -> Result<Self, StandbyError> {
        let plan = policy.mysql.get(source).and_then(|place| place.binlog.as_ref());
        let plan = plan.ok_or_else(|| StandbyError::NotCaptured(source.to_owned()))?;
        let scratch = restore::scratch(&policy.state_dir, run)?;
        Ok(Self { policy, source, spool: plan.spool.clone(), scratch, repository: None })
    }

    /// Reads the spool's chain, as it was last written.
    pub(super) fn spooled(&self) -> Result<Chain, StandbyError> {
        let chain = Spool::chain_at(&self.spool, self.source)?.filter(|chain| !chain.epochs.is_empty());
        let mut chain = chain.ok_or_else(|| self.no_spool())?;
        if let Some(epoch) = chain.epochs.last_mut()
            && let Some(newest) = epoch.segments.last_mut().filter(|newest| newest.before.is_none())
        {
            // The chain is written when a file begins, and its head comes behind that.
            let path = Spool::segment(&self.spool, self.source, epoch.number, &newest.file);
            newest.before = head(&newest.file, path)?;
        }
        Ok(chain)
    }

    /// Returns the chain with all that has come to the spool, or the repository's where there is no spool: its machine is lost.
    pub(super) async fn newest(&mut self, run: &Run) -> Result<Chain, StandbyError> {
        match Spool::look(&self.spool, self.source)?.filter(|chain| !chain.epochs.is_empty()) {
            Some(chain) => Ok(chain),
            None => Ok(self.stored(run).await?.1.chain),
        }
    }

    /// Returns a segment on this machine.
    pub(super) async fn segment(
        &mut self,
        epoch: u32,
        captured: &Captured,
        run: &Run,
    ) -> Result<Segment, StandbyError> {
        let path = Spool::segment(&self.spool, self.source, epoch, &captured.file);
        let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if bytes >= captured.bytes && bytes > 0 {
            return Ok(Segment { name: captured.file.clone(), path: self.held(path, &captured.file), bytes });
        }
        let path = self.scratch.path().join(&captured.file);
        match fs::metadata(&path) {
            // It was brought before, for the plan that this one follows.
            Ok(metadata) if metadata.len() >= captured.bytes => {
                Ok(Segment { name: captured.file.clone(), path, bytes: metadata.len() })
            }
            _ => self.fetch(epoch, captured, run).await,
        }
    }

    /// Tells whether a segment can be brought that grows still: where the spool is made anew, it comes there first.
    pub(super) fn is_there(&self, epoch: u32, captured: &Captured) -> bool {
        captured.is_closed || self.spooled_bytes(epoch, &captured.file) >= captured.bytes.max(1)
    }

    /// Returns how many bytes of a segment the spool has.
    pub(super) fn spooled_bytes(&self, epoch: u32, file: &str) -> u64 {
        let path = Spool::segment(&self.spool, self.source, epoch, file);
        fs::metadata(path).map_or(0, |metadata| metadata.len())
    }

    /// Removes a segment that was brought and is of no more use.
    pub(super) fn let_go(&self, segment: &Segment) {
        if segment.path.starts_with(self.scratch.path()) {
            // What stays goes with the directory.
            fs::remove_file(&segment.path).ok();
        }
    }

    /// Holds a segment of the spool by a name of our own, where that is on the same filesystem: the spool lets go of what is sealed.
    fn held(&self, path: PathBuf, file: &str) -> PathBuf {
        let beside = self.scratch.path().join(file);
        // It may be there from before, or from the repository.
        fs::remove_file(&beside).ok();
        if fs::hard_link(&path, &beside).is_ok() { beside } else { path }
    }

    async fn fetch(&mut self, epoch: u32, captured: &Captured, run: &Run) -> Result<Segment, StandbyError> {
        restore::refuse_full(self.scratch.path(), captured.bytes.saturating_add(SPARE_BYTES))?;
        let repository = self.repository(run).await?;
        let (mut wait, began) = (Duration::ZERO, Instant::now());
        loop {
            let (lock, holder) = match place::lock_to_read_within(&repository, wait, run).await {
                Err(RepositoryError::Locked { holder, .. }) => (None, Some(holder)),
                locked => (locked?, None),
            };
            let fetched = self.fetch_from(&repository, epoch, captured, run).await;
            place::unlock(lock, run).await;
            match (fetched, holder) {
                // Whoever prunes takes away only what is also elsewhere: a promotion does not wait for that, and the bytes prove
                // themselves. What has gone to another place meanwhile, a new look at the index finds.
                (Err(error), Some(holder)) if !run.cancel.is_cancelled() && began.elapsed() < BESIDE_MAX => {
                    let (source, file, text) = (self.source, &captured.file, human::chain(&error));
                    run.events.warn(format!(
                        "{source}: `{file}` is read beside {holder}, who works alone on the repository: {text}; again"
                    ));
                    wait = BESIDE_WAIT;
                }
                (Ok(segment), Some(holder)) => {
                    let (source, file) = (self.source, &captured.file);
                    run.events.note(format!(
                        "{source}: `{file}` was read beside {holder}, who works alone on the repository"
                    ));
                    return Ok(segment);
                }
                (fetched, _) => return fetched,
            }
        }
    }

    async fn fetch_from(
        &mut self,
        repository: &Repository,
        epoch: u32,
        captured: &Captured,
        run: &Run,
    ) -> Result<Segment, StandbyError> {
        let path = self.scratch.path().join(&captured.file);
        let (_, stored) = self.stored(run).await?;
        let held = stored.chain.segment(epoch, &captured.file);
        let held = held.filter(|held| held.bytes >= captured.bytes).ok_or_else(|| self.no_spool())?;
        stored.fetch(repository, epoch, held, &path, run).await?;
        Ok(Segment { name: captured.file.clone(), path, bytes: held.bytes })
    }

    async fn repository(&mut self, run: &Run) -> Result<Arc<Repository>, StandbyError> {
        if let Some(repository) = &self.repository {
            return Ok(Arc::clone(repository));
        }
        let repository = place::repository(self.policy, run).await?;
        self.repository = Some(Arc::clone(&repository));
        Ok(repository)
    }

    async fn stored(&mut self, run: &Run) -> Result<(Arc<Repository>, Stored), StandbyError> {
        let repository = self.repository(run).await?;
        let snapshots = repository.snapshots().await?;
        repository.load_index(run).await?;
        let newest = stored::newest(&snapshots, &self.policy.name, self.source).ok_or_else(|| self.no_spool())?;
        let stored = stored::open(&repository, newest).await?;
        Ok((repository, stored))
    }

    fn no_spool(&self) -> StandbyError {
        StandbyError::NoSpool { source_name: self.source.to_owned(), dir: self.spool.join(self.source) }
    }
}

/// Returns where the last whole event of a segment ends; one begins at `from`, and all before it is known to be whole. What a crash has
/// left behind it is no event, whatever it seems. Blocks.
pub(super) fn whole_behind(segment: &Segment, from: u64) -> Result<u64, StandbyError> {
    let damaged = |error| StandbyError::Segment { name: segment.name.clone(), error };
    let mut reader = Bounded::open(segment).map_err(ReplayError::from)?;
    loop {
        let is_known = match reader.next(segment.bytes) {
            Ok(None) | Err(BinlogError::Damaged { .. } | BinlogError::Malformed { .. }) => break,
            Ok(Some(event)) => event.offset < from,
            Err(error) => return Err(damaged(error)),
        };
        match if is_known { reader.leap_to(from) } else { reader.finish() } {
            Err(BinlogError::Damaged { .. } | BinlogError::Malformed { .. }) => break,
            done => done.map_err(damaged)?,
        }
    }
    Ok(reader.offset())
}

/// Returns what the head of a segment lists; `None` where it is not there yet.
fn head(name: &str, path: PathBuf) -> Result<Option<String>, StandbyError> {
    let damaged = |error| StandbyError::Segment { name: name.to_owned(), error };
    let failed = |error| StandbyError::Io { act: "read", path: path.clone(), error };
    let file = fs::File::open(&path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let whole = whole_end(&file, MAGIC.len() as u64, bytes.min(HEAD_BYTES_MAX)).map_err(failed)?;
    if whole == MAGIC.len() as u64 {
        return Ok(None);
    }
    let mut reader = Bounded::open(&Segment { name: name.to_owned(), path, bytes }).map_err(ReplayError::from)?;
    while let Some(event) = reader.next(whole).map_err(damaged)? {
        if let Some(before) = head_of(&event).map_err(|malformed| damaged(malformed.at(event.offset)))? {
            return Ok(Some(before.to_string()));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_segment_is_held_when_the_spool_lets_go_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut policy = Policy::parse(include_str!("../../policies/full.toml"), Path::new("full.toml")).unwrap();
        policy.state_dir = dir.path().to_owned();
        let scratch = tempfile::tempdir_in(dir.path()).unwrap();
        let spool = dir.path().to_owned();
        let shelf = Shelf { policy: &policy, source: "db1", spool, scratch, repository: None };
        let path = dir.path().join("b.000001");
        fs::write(&path, "events").unwrap();
        let held = shelf.held(path.clone(), "b.000001");
        fs::remove_file(&path).unwrap();
        assert_eq!(fs::read(&held).unwrap(), b"events");
        // It came again.
        fs::write(&path, "events and more").unwrap();
        assert_eq!(fs::read(shelf.held(path, "b.000001")).unwrap(), b"events and more");
        shelf.let_go(&Segment { name: "b.000001".to_owned(), path: held.clone(), bytes: 6 });
        assert!(!held.exists());
    }
}
