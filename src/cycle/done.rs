//! What the steps of a run did, and with which exit code.

use crate::backup;
use crate::capture::{Followed, Sealed};
use crate::copy::Copied;
use crate::drill::checks;
use crate::drill::outcome::{CheckResult, CheckState, ChecksVerdict, DrillOutcome};
use crate::exit::{Exit, Failure};
use crate::forget::{ForgetPlan, Forgotten, Freeze};
use crate::heal::Healed;
use crate::human;
use crate::prune::Pruned;
use crate::prune::plan::PrunePlan;
use crate::report::{Report, Written};
use crate::verify;

/// What a step did.
#[derive(Debug)]
pub enum Done {
    Backup(Box<BackupDone>),
    Capture(Box<CaptureDone>),
    Copy(Vec<CopyDone>),
    Verify(Box<verify::Report>),
    Heal(Box<Healed>),
    Proof(Box<ProofDone>),
    Prune(Box<PruneDone>),
    Drill(Box<DrillDone>),
}

#[derive(Debug)]
pub struct BackupDone {
    pub outcome: backup::Outcome,
    pub copies: Vec<CopyDone>,
    pub forgotten: Result<(ForgetPlan, Forgotten), Failure>,
}

/// What became of the binlogs that a policy captures.
#[derive(Debug, Default)]
pub struct CaptureDone {
    pub sources: Vec<(String, Result<Captured, Failure>)>,
    pub copies: Vec<CopyDone>,
}

/// What became of one source's binlog.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Captured {
    /// A daemon or another run captures it.
    Elsewhere,
    Here {
        followed: Followed,
        /// `None` where nothing was new.
        sealed: Option<Sealed>,
    },
    /// Something kept the rest from coming; what came before is in the repository.
    Broken { failure: Failure, sealed: Sealed },
}

#[derive(Debug)]
pub struct CopyDone {
    pub name: String,
    pub result: Result<Copied, Failure>,
}

#[derive(Debug)]
pub enum PruneDone {
    /// Retention rests, and with it what would make its losses final.
    Rested(Freeze),
    Pruned {
        plan: Box<PrunePlan>,
        pruned: Pruned,
    },
}

#[derive(Debug)]
pub struct DrillDone {
    pub report: Report,
    pub failure: Option<Failure>,
    pub files: Written,
}

/// What a verify at the level `restore` found.
#[derive(Debug)]
pub struct ProofDone {
    /// Of the level `structure`.
    pub report: verify::Report,
    /// What was restored, and how it compared.
    pub outcome: DrillOutcome,
    /// What kept it from coming to an end.
    pub failure: Option<Failure>,
}

impl Done {
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Backup(done) => done.exit(),
            Self::Capture(done) => done.exit(),
            Self::Copy(copies) => exit_of_copies(copies),
            Self::Verify(report) => exit_of_report(report),
            Self::Heal(healed) if healed.is_protected() => Exit::Protected,
            Self::Heal(healed) if healed.is_locked() => Exit::Locked,
            Self::Heal(healed) => exit_of_report(&healed.report),
            Self::Proof(done) => done.exit(),
            Self::Prune(done) => done.exit(),
            Self::Drill(done) => done.exit(),
        }
    }

    /// Says why the step is not simply "ok".
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let lines = match self {
            Self::Backup(done) => done.errors(),
            Self::Capture(done) => done.errors(),
            Self::Copy(copies) => copies.iter().filter_map(CopyDone::error).collect(),
            Self::Verify(report) => faults(report).into_iter().collect(),
            Self::Heal(healed) => {
                let unseen = healed.unseen.iter().map(|why| format!("what was mended was not looked at again: {why}"));
                faults(&healed.report).into_iter().chain(unseen).collect()
            }
            Self::Proof(done) => done.errors(),
            Self::Prune(done) => done.error().into_iter().collect(),
            Self::Drill(done) => done.report.outcome.error.iter().cloned().collect(),
        };
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Returns the bytes that copies got.
    #[must_use]
    pub fn bytes_copied(&self) -> u64 {
        let copies = match self {
            Self::Backup(done) => &done.copies,
            Self::Capture(done) => &done.copies,
            Self::Copy(copies) => copies,
            Self::Verify(_) | Self::Heal(_) | Self::Proof(_) | Self::Prune(_) | Self::Drill(_) => return 0,
        };
        copies.iter().filter_map(|copy| copy.result.as_ref().ok()).map(|copied| copied.bytes).sum()
    }
}

impl BackupDone {
    /// A source that broke decides; then what is left out, in a snapshot or in a copy.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let failed = self.outcome.failed.iter().map(|(_, error)| Exit::from(error)).max();
        let partial = !self.outcome.is_complete();
        let copies = exit_of_copies(&self.copies);
        let forgotten = self.forgotten.as_ref().map_or(Exit::Incomplete, |(_, forgotten)| exit_of_forgotten(forgotten));
        let rest = copies.max(forgotten).max(if partial { Exit::Incomplete } else { Exit::Ok });
        failed.unwrap_or(Exit::Ok).max(rest)
    }

    fn errors(&self) -> Vec<String> {
        let failed = self.outcome.failed.iter().map(|(source, error)| format!("{source}: {}", human::chain(error)));
        let incomplete = self.outcome.done.iter().filter_map(|backed| {
            let first = backed.incomplete.first()?;
            let count = human::counted(backed.incomplete.len() as u64, "entry is", "entries are");
            Some(format!("{}: {count} left out or changed while read, the first is {first}", backed.source))
        });
        let copies = self.copies.iter().filter_map(CopyDone::error);
        let forgotten = match &self.forgotten {
            Err(failure) => Some(format!("forget: {}", failure.message)),
            Ok((_, forgotten)) => forgotten.failed.first().map(|(id, error)| {
                let count = human::counted(forgotten.failed.len() as u64, "snapshot was", "snapshots were");
                format!("forget: {count} not dropped, the first is {}: {error}", id.short())
            }),
        };
        failed.chain(incomplete).chain(copies).chain(forgotten).collect()
    }
}

impl CaptureDone {
    /// Tells whether all that was to be captured is in the repository.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.failures().next().is_none()
    }

    fn failures(&self) -> impl Iterator<Item = (&str, &Failure)> {
        self.sources.iter().filter_map(|(source, result)| match result {
            Err(failure) | Ok(Captured::Broken { failure, .. }) => Some((source.as_str(), failure)),
            Ok(Captured::Here { .. } | Captured::Elsewhere) => None,
        })
    }

    /// Returns how much of it is new in the repository.
    #[must_use]
    pub fn bytes_stored(&self) -> u64 {
        self.sealed().map(|sealed| sealed.bytes_stored).sum()
    }

    pub fn sealed(&self) -> impl Iterator<Item = &Sealed> {
        self.sources.iter().filter_map(|(_, result)| match result {
            Ok(Captured::Here { sealed, .. }) => sealed.as_ref(),
            Ok(Captured::Broken { sealed, .. }) => Some(sealed),
            Ok(Captured::Elsewhere) | Err(_) => None,
        })
    }

    fn exit(&self) -> Exit {
        let failed = self.failures().map(|(_, failure)| failure.exit);
        failed.max().unwrap_or(Exit::Ok).max(exit_of_copies(&self.copies))
    }

    fn errors(&self) -> Vec<String> {
        let failed = self.failures().map(|(source, failure)| format!("{source}: {}", failure.message));
        failed.chain(self.copies.iter().filter_map(CopyDone::error)).collect()
    }
}

impl CopyDone {
    /// Says what keeps the copy from holding all.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        match &self.result {
            Err(failure) => Some(format!("copy {}: {}", self.name, failure.message)),
            Ok(copied) if copied.is_complete() => None,
            Ok(copied) if copied.is_unlocked() => {
                Some(format!("copy {}: the server does not lock what it is asked to; nothing more was sent", self.name))
            }
            Ok(copied) => Some(format!("copy {}: {} objects were not sent", self.name, copied.failed.len())),
        }
    }
}

impl PruneDone {
    /// What the store would not delete is told; what its own lock protects with a code of its own.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let Self::Pruned { plan, pruned } = self else { return Exit::Ok };
        let of = |(_, error): &(_, _)| Exit::from(error).max(Exit::Incomplete);
        let protected = if plan.protected.is_empty() { Exit::Ok } else { Exit::Protected };
        pruned.failed.iter().map(of).max().unwrap_or(Exit::Ok).max(protected)
    }

    fn error(&self) -> Option<String> {
        let Self::Pruned { pruned, .. } = self else { return None };
        let (key, error) = pruned.failed.first()?;
        let count = human::counted(pruned.failed.len() as u64, "object was", "objects were");
        Some(format!("{count} not deleted, the first is {key}: {error}"))
    }
}

impl DrillDone {
    /// A drill that broke, then a check that failed, then an objective that was missed, then what could not be proved.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match &self.failure {
            Some(failure) => failure.exit,
            None if self.report.outcome.checks_failed() => Exit::CheckFailed,
            None if self.report.outcome.breached() => Exit::Breached,
            None if self.report.outcome.unproved() => Exit::Incomplete,
            None => Exit::Ok,
        }
    }
}

impl ProofDone {
    /// Tells whether bytes are not as they were stored.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        !self.report.is_sound() || self.came_back() == Some(false)
    }

    /// Tells whether what the snapshots hold came back as it was stored; `None` where that could not be found out. What is not in
    /// them, or was not of one moment when they were made, says nothing of what is stored.
    #[must_use]
    pub fn came_back(&self) -> Option<bool> {
        let is_compared = |check: &CheckResult| matches!(check.kind.as_str(), checks::ROWS | checks::CONTENT);
        let broke_on_damage = self.failure.as_ref().is_some_and(|failure| failure.exit == Exit::Damaged);
        if broke_on_damage || self.outcome.checks_in(CheckState::Fail).any(is_compared) {
            return Some(false);
        }
        let mut of_what_came = self.outcome.checks.iter().filter(|check| check.kind != checks::SNAPSHOT);
        let is_whole = self.failure.is_none()
            && self.outcome.checks_in(CheckState::Pass).any(is_compared)
            && of_what_came.all(|check| check.result == CheckState::Pass);
        is_whole.then_some(true)
    }

    /// Tells whether all that the policy names came back as it was; `None` where that could not be found out.
    #[must_use]
    pub fn is_sound(&self) -> Option<bool> {
        let is_whole = self.failure.is_none() && self.outcome.verdict.checks == ChecksVerdict::Passed;
        if self.is_damaged() { Some(false) } else { is_whole.then_some(true) }
    }

    fn exit(&self) -> Exit {
        match &self.failure {
            _ if self.is_damaged() => Exit::Damaged,
            Some(failure) => failure.exit,
            None if self.outcome.checks_failed() => Exit::CheckFailed,
            None if self.is_sound().is_none() => Exit::Incomplete,
            None => Exit::Ok,
        }
    }

    fn errors(&self) -> Vec<String> {
        let failed = self.outcome.checks_in(CheckState::Fail).map(|check| format!("{}: failed", check.name));
        faults(&self.report).into_iter().chain(failed).chain(self.outcome.error.clone()).collect()
    }
}

fn faults(report: &verify::Report) -> Option<String> {
    let count = report.findings().count();
    (count > 0).then(|| format!("{count} objects are damaged or missing"))
}

/// A server that ignores the lock that it was asked for breaks the policy's promise, and no later run mends that. Else a copy that fails leaves the run incomplete: the snapshot is kept here, and the next run catches up. Only a network policy
/// that refuses the copy's store is told as what it is.
#[must_use]
pub fn exit_of_copies(copies: &[CopyDone]) -> Exit {
    let of = |copy: &CopyDone| match &copy.result {
        Err(failure) if failure.exit == Exit::Network => Exit::Network,
        Ok(copied) if copied.is_unlocked() => Exit::Failed,
        Ok(copied) if copied.is_complete() => Exit::Ok,
        Ok(_) | Err(_) => Exit::Incomplete,
    };
    copies.iter().map(of).max().unwrap_or(Exit::Ok)
}

/// Snapshots that the store would not drop are told; those that its own lock protects with a code of their own.
#[must_use]
pub fn exit_of_forgotten(forgotten: &Forgotten) -> Exit {
    let of = |(_, error): &(_, _)| Exit::from(error).max(Exit::Incomplete);
    forgotten.failed.iter().map(of).max().unwrap_or(Exit::Ok)
}

#[must_use]
pub fn exit_of_report(report: &verify::Report) -> Exit {
    if report.is_sound() { Exit::Ok } else { Exit::Damaged }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::drill::outcome::{ObjectivesMs, Origin, Place, Scenario, Verdict};
    use crate::id::RunId;
    use crate::store::{FileKind, Key};
    use crate::verify::{Checked, Finding, Level, Object};

    const PASS: CheckState = CheckState::Pass;
    const FAIL: CheckState = CheckState::Fail;
    const NOT_RUN: CheckState = CheckState::NotRun;

    fn outcome(checks: &[(&str, CheckState)]) -> DrillOutcome {
        let check = |(kind, result): &(&str, CheckState)| CheckResult {
            name: format!("db1: {kind}"),
            kind: (*kind).to_owned(),
            result: *result,
            found: None,
            wanted: None,
            detail: None,
            duration_ms: 1,
        };
        let checks: Vec<CheckResult> = checks.iter().map(check).collect();
        DrillOutcome {
            run: RunId::new(DateTime::UNIX_EPOCH, 1),
            policy: "mall".to_owned(),
            policy_hash: "abcd".to_owned(),
            started: DateTime::UNIX_EPOCH,
            ended: DateTime::UNIX_EPOCH,
            place: Place { host: "backup1".to_owned(), sandboxes: Vec::new(), cores: 8, memory_bytes: 1 << 30 },
            from: Origin::Repository,
            scenario: Scenario::Lost,
            snapshots: Vec::new(),
            phases: Vec::new(),
            rta_ms: None,
            rpa_ms: None,
            first_order: None,
            standbys: Vec::new(),
            objectives: ObjectivesMs::default(),
            verdict: Verdict::judge(ObjectivesMs::default(), None, None, &checks),
            checks,
            error: None,
        }
    }

    fn report(damaged: Vec<Finding>) -> verify::Report {
        let (checked, missing, orphans) = (Checked::default(), Vec::new(), Vec::new());
        verify::Report { level: Level::Restore, subset: None, checked, damaged, missing, orphans }
    }

    fn proof(checks: &[(&str, CheckState)], failed: Option<Exit>) -> ProofDone {
        let failure = failed.map(|exit| Failure::new(exit, "broke off"));
        ProofDone { report: report(Vec::new()), outcome: outcome(checks), failure }
    }

    #[test]
    fn a_restore_that_breaks_on_damage_is_damage_and_one_that_breaks_on_another_thing_says_nothing() {
        let broken = |exit| proof(&[("objects", PASS)], Some(exit));
        let found = |exit| (broken(exit).came_back(), broken(exit).exit());
        assert_eq!(found(Exit::Damaged), (Some(false), Exit::Damaged));
        assert_eq!(found(Exit::Failed), (None, Exit::Failed));
        assert_eq!(found(Exit::Interrupted), (None, Exit::Interrupted));
        let late = proof(&[("content", FAIL)], Some(Exit::Interrupted));
        assert_eq!((late.came_back(), late.exit()), (Some(false), Exit::Damaged), "found before the signal");
    }

    #[test]
    fn what_is_not_in_a_snapshot_is_told_and_keeps_nothing_at_rest() {
        let whole = [("objects", PASS), ("rows", PASS), ("content", PASS)];
        let with = |check| proof(&[&whole[..], &[check]].concat(), None);
        let found = |done: ProofDone| (done.came_back(), done.is_sound(), done.exit());
        assert_eq!(found(proof(&whole, None)), (Some(true), Some(true), Exit::Ok));
        assert_eq!(found(with(("snapshot", NOT_RUN))), (Some(true), None, Exit::Incomplete));
        assert_eq!(found(with(("snapshot", FAIL))), (Some(true), None, Exit::CheckFailed));
        assert_eq!(found(with(("rows", NOT_RUN))), (None, None, Exit::Incomplete));
        assert_eq!(found(with(("objects", FAIL))), (None, None, Exit::CheckFailed));
        assert_eq!(found(with(("rows", FAIL))), (Some(false), Some(false), Exit::Damaged));
        assert_eq!(found(proof(&[("snapshot", PASS)], None)).0, None, "nothing was compared");
    }

    #[test]
    fn damage_in_the_structure_is_not_the_restores() {
        let key = Key::new(FileKind::Index, "00".repeat(32));
        let what = "it does not hash to its name".to_owned();
        let object = Object::Stored(key);
        let spare = Finding { object, what, costs: Vec::new(), costs_more: 0, is_superfluous: true };
        let done = ProofDone { report: report(vec![spare]), ..proof(&[("rows", PASS)], None) };
        assert_eq!((done.came_back(), done.is_sound(), done.exit()), (Some(true), Some(false), Exit::Damaged));
    }
}
