//! Where the captured segments are: in the spool beside whoever captures, or brought from the repository.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use crate::capture::chain::Segment as Captured;
use crate::capture::stored::{self, Stored};
use crate::capture::{Chain, Spool};
use crate::place;
use crate::policy::Policy;
use crate::replay::Segment;
use crate::repository::Repository;
use crate::restore;
use crate::run::Run;
use crate::standby::StandbyError;

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
        chain.ok_or_else(|| self.no_spool())
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
        let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if bytes >= captured.bytes && bytes > 0 {
            return Ok(Segment { name: captured.file.clone(), path, bytes });
        }
        let path = self.scratch.path().join(&captured.file);
        match std::fs::metadata(&path) {
            // It was brought before, for the plan that this one follows.
            Ok(metadata) if metadata.len() >= captured.bytes => {
                Ok(Segment { name: captured.file.clone(), path, bytes: metadata.len() })
            }
            _ => self.fetch(epoch, captured, run).await,
        }
    }

    /// Returns how many bytes of a segment the spool has.
    pub(super) fn spooled_bytes(&self, epoch: u32, file: &str) -> u64 {
        let path = Spool::segment(&self.spool, self.source, epoch, file);
        std::fs::metadata(path).map_or(0, |metadata| metadata.len())
    }

    /// Removes a segment that was brought and is of no more use.
    pub(super) fn let_go(&self, segment: &Segment) {
        if segment.path.starts_with(self.scratch.path()) {
            // What stays goes with the directory.
            std::fs::remove_file(&segment.path).ok();
        }
    }

    async fn fetch(&mut self, epoch: u32, captured: &Captured, run: &Run) -> Result<Segment, StandbyError> {
        restore::refuse_full(self.scratch.path(), captured.bytes)?;
        let repository = self.repository(run).await?;
        let lock = place::lock_to_read(&repository, run).await?;
        let path = self.scratch.path().join(&captured.file);
        let fetched = async {
            let (_, stored) = self.stored(run).await?;
            let held = stored.chain.segment(epoch, &captured.file);
            let held = held.filter(|held| held.bytes >= captured.bytes).ok_or_else(|| self.no_spool())?;
            stored.fetch(&repository, epoch, held, &path, run).await?;
            Ok(Segment { name: captured.file.clone(), path: path.clone(), bytes: held.bytes })
        };
        let fetched = fetched.await;
        place::unlock(lock, run).await;
        fetched
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
