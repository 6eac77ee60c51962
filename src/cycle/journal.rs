//! The record of one step in the catalog, and its stamp.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::backup::Backed;
use crate::catalog::{Catalog, REPOSITORY, RunEnd, RunSnapshot, RunStart, SnapshotRecord};
use crate::exit::{Exit, Failure};
use crate::policy::Policy;
use crate::run::Run;
use crate::schedule::Stamps;

/// The verbs that a policy schedules, in the order in which they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Backup,
    Copy,
    Verify,
    Drill,
}

impl Verb {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Copy => "copy",
            Self::Verify => "verify",
            Self::Drill => "drill",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A step that has begun. A journal that is never closed shows in the catalog as interrupted.
pub struct Journal<'a> {
    policy: &'a Policy,
    run: &'a Run,
    catalog: Catalog,
    started: DateTime<Utc>,
}

impl<'a> Journal<'a> {
    /// Writes the begin of a step into the catalog.
    ///
    /// # Errors
    /// [`Failure`] where the catalog cannot be opened or written.
    pub fn begin(policy: &'a Policy, verb: &str, run: &'a Run) -> Result<Self, Failure> {
        let catalog = Catalog::open(&policy.state_dir, &run.events)?;
        let started = run.now();
        let start = RunStart { id: run.id.clone(), policy: policy.name.clone(), verb: verb.to_owned(), started };
        catalog.begin(&start)?;
        Ok(Self { policy, run, catalog, started })
    }

    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Writes the end of a step that reads nothing and makes no snapshot.
    ///
    /// # Errors
    /// [`Failure`] where the catalog cannot be written.
    pub fn end(self, exit: Exit, error: Option<String>) -> Result<(), Failure> {
        let end = RunEnd { error, ..RunEnd::new(self.run.now(), exit.code()) };
        Ok(self.catalog.end(&self.run.id, &end)?)
    }

    /// Writes the end of a backup: what was read, stored and sent, and the snapshots it made.
    ///
    /// # Errors
    /// [`Failure`] where the catalog cannot be written.
    pub fn end_backup(self, exit: Exit, error: Option<String>, backed: &[Backed], copied: u64) -> Result<(), Failure> {
        let records: Vec<SnapshotRecord> = backed.iter().map(|one| self.record(one)).collect();
        self.catalog.record_snapshots(&records)?;
        let snapshots = backed.iter().map(|one| RunSnapshot { source: one.source.clone(), id: one.id }).collect();
        let end = RunEnd {
            error,
            bytes_read: backed.iter().map(|one| one.bytes_read).sum(),
            bytes_stored: backed.iter().map(|one| one.bytes_stored).sum(),
            bytes_copied: copied,
            snapshots,
            ..RunEnd::new(self.run.now(), exit.code())
        };
        Ok(self.catalog.end(&self.run.id, &end)?)
    }

    fn record(&self, backed: &Backed) -> SnapshotRecord {
        SnapshotRecord {
            store: REPOSITORY.to_owned(),
            id: backed.id,
            source: backed.source.clone(),
            kind: backed.kind.name().to_owned(),
            time: backed.time,
            run: Some(self.run.id.clone()),
            incomplete: !backed.incomplete.is_empty(),
        }
    }

    /// Stamps a verb: with success at the step's start, so that what came due meanwhile is still due, or with a failure.
    ///
    /// # Errors
    /// [`Failure`] where the stamps cannot be written.
    pub fn stamp(&self, verb: Verb, is_success: bool) -> Result<(), Failure> {
        let mut stamps = Stamps::load(&self.policy.state_dir)?;
        if is_success {
            stamps.succeed(verb.name(), self.started);
        } else {
            stamps.fail(verb.name(), self.run.now());
        }
        Ok(stamps.save(&self.policy.state_dir)?)
    }
}
