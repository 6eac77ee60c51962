//! The record of one step in the catalog.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::backup::{Backed, Outcome};
use crate::catalog::{Catalog, HealRecord, REPOSITORY, RunEnd, RunStart, SnapshotRecord, SourceEnd, VerifyRecord};
use crate::cycle::done::{Done, ProofDone};
use crate::cycle::task::Task;
use crate::exit::{Exit, Failure};
use crate::heal::Healed;
use crate::policy::Policy;
use crate::run::Run;
use crate::verify;
use crate::verify::Level;

/// The verbs that a policy schedules, in the order in which they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Backup,
    Capture,
    Copy,
    Verify,
    Prune,
    Drill,
}

impl Verb {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Capture => "capture",
            Self::Copy => "copy",
            Self::Verify => "verify",
            Self::Prune => "prune",
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
    run: &'a Run,
    catalog: Catalog,
    started: DateTime<Utc>,
}

impl<'a> Journal<'a> {
    /// Writes the begin of a step into the catalog, with the sources that it is to back up.
    ///
    /// # Errors
    /// [`Failure`] where the catalog cannot be opened or written.
    pub fn begin(policy: &Policy, verb: &str, sources: Vec<String>, run: &'a Run) -> Result<Self, Failure> {
        let catalog = Catalog::open(&policy.state_dir, &run.events)?;
        let started = run.now();
        let (id, policy, verb) = (run.id.clone(), policy.name.clone(), verb.to_owned());
        catalog.begin(&RunStart { id, policy, verb, started, sources })?;
        Ok(Self { run, catalog, started })
    }

    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Writes what a backup came to, source by source: at once, so that a kill in the midst of copying does not lose it.
    ///
    /// # Errors
    /// [`Failure`] where the catalog cannot be written.
    pub fn end_sources(&self, outcome: &Outcome) -> Result<(), Failure> {
        let done = outcome.done.iter().map(|backed| SourceEnd {
            source: backed.source.clone(),
            exit_code: if backed.incomplete.is_empty() { Exit::Ok } else { Exit::Incomplete }.code(),
            snapshot: Some(self.record(backed)),
        });
        let failed = outcome.failed.iter().map(|(source, error)| SourceEnd {
            source: source.clone(),
            exit_code: Exit::from(error).code(),
            snapshot: None,
        });
        Ok(self.catalog.end_sources(&self.run.id, &done.chain(failed).collect::<Vec<_>>())?)
    }

    /// Writes the end of a step.
    ///
    /// # Errors
    /// [`Failure`] where the catalog cannot be written.
    pub fn close(self, task: &Task, result: &Result<Done, Failure>) -> Result<(), Failure> {
        let done = match result {
            Ok(done) => done,
            Err(failure) => return self.end(failure.exit, Some(failure.message.clone())),
        };
        match done {
            Done::Verify(report) => self.end_verify(task, report.is_harmless())?,
            Done::Heal(healed) => self.end_heal(task, healed)?,
            Done::Backup(_) | Done::Capture(_) | Done::Copy(_) | Done::Proof(_) | Done::Prune(_) | Done::Drill(_) => {}
        }
        let backed: &[Backed] = if let Done::Backup(done) = done { &done.outcome.done } else { &[] };
        let end = RunEnd {
            error: done.error(),
            bytes_read: backed.iter().map(|one| one.bytes_read).sum(),
            bytes_stored: match done {
                Done::Capture(done) => done.bytes_stored(),
                _ => backed.iter().map(|one| one.bytes_stored).sum(),
            },
            bytes_copied: done.bytes_copied(),
            ..RunEnd::new(self.run.now(), done.exit().code())
        };
        Ok(self.catalog.end(&self.run.id, &end)?)
    }

    /// Writes damage that a verify found before anything is done about it.
    ///
    /// # Errors
    /// [`Failure`] where the catalog cannot be written.
    pub fn note_damage(&self, task: &Task, report: &verify::Report) -> Result<(), Failure> {
        if report.is_sound() { Ok(()) } else { self.end_verify(task, report.is_harmless()) }
    }

    /// Writes what the structure came to before a restore that takes hours: a signal in them does not cost it.
    ///
    /// # Errors
    /// [`Failure`] where the catalog cannot be written.
    pub fn note_structure(&self, task: &Task, report: &verify::Report) -> Result<(), Failure> {
        self.end_level(task, Level::Structure, report.is_harmless())
    }

    /// Writes whether what was restored is as it was stored, where that was found out.
    ///
    /// # Errors
    /// [`Failure`] where the catalog cannot be written.
    pub fn note_restored(&self, task: &Task, done: &ProofDone) -> Result<(), Failure> {
        done.came_back().map_or(Ok(()), |is_sound| self.end_level(task, Level::Restore, is_sound))
    }

    /// Writes what a verify looked at. Retention rests while something that a snapshot needs is damaged: what is worth nothing, and
    /// cannot be deleted before its time, must not keep it at rest.
    fn end_verify(&self, task: &Task, is_harmless: bool) -> Result<(), Failure> {
        let Task::Verify { options, .. } = task else { return Ok(()) };
        self.end_level(task, options.level, is_harmless)
    }

    fn end_level(&self, task: &Task, level: Level, is_sound: bool) -> Result<(), Failure> {
        let Task::Verify { copy, options, .. } = task else { return Ok(()) };
        Ok(self.catalog.record_verify(&VerifyRecord {
            run: self.run.id.clone(),
            started: self.started,
            store: copy.as_deref().unwrap_or(REPOSITORY).to_owned(),
            level,
            subset: options.subset,
            is_sound,
        })?)
    }

    /// Writes what is damaged now, and the trace of what was mended.
    ///
    /// # Errors
    /// [`Failure`] where the catalog cannot be written.
    pub fn end_heal(&self, task: &Task, healed: &Healed) -> Result<(), Failure> {
        self.end_verify(task, healed.is_harmless())?;
        if healed.found == 0 {
            return Ok(());
        }
        Ok(self.catalog.record_heal(&HealRecord {
            run: self.run.id.clone(),
            started: self.started,
            store: healed.store.clone(),
            mended: healed.mended.iter().map(ToString::to_string).collect(),
            bytes: healed.bytes(),
            left: healed.report.findings().map(|finding| finding.object.to_string()).collect(),
        })?)
    }

    /// Writes the end of a step that backed up nothing.
    ///
    /// # Errors
    /// [`Failure`] where the catalog cannot be written.
    pub fn end(self, exit: Exit, error: Option<String>) -> Result<(), Failure> {
        let end = RunEnd { error, ..RunEnd::new(self.run.now(), exit.code()) };
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
}
