//! How a policy stands: one verdict with its reasons, from what is known at one moment.
//!
//! [`Status::new`] is pure. The catalog and the schedule are read before it, and `cli` prints after it. The JSON form is
//! published: a field keeps its name and meaning.

mod binlog;
mod facts;
mod reasons;
mod text;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::capture::{Chain, CommitsWait, Progress};
use crate::catalog::CopyRecord;
use crate::catalog::HealRecord;
use crate::catalog::Outcome;
use crate::catalog::RunRecord;
use crate::catalog::SnapshotRecord;
use crate::drill::outcome::DrillOutcome;
use crate::drill::outcome::Judgement;
use crate::drill::outcome::ObjectivesMs;
use crate::drill::outcome::Verdict as DrillVerdict;
use crate::forget::Freeze;
use crate::id::RunId;
use crate::id::SnapshotId;
use crate::policy::Policy;

/// The version of the JSON form; a field may be added under the same number.
const FORMAT: u32 = 1;

/// What the catalog calls a run that set a snapshot beside its living source (`verify --against-source`).
pub const COMPARE: &str = "compare";

/// All that a status is drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub policy: &'a Policy,
    /// The snapshots of all stores.
    pub snapshots: &'a [SnapshotRecord],
    /// The newest run of each verb, and those that have not ended.
    pub runs: &'a [RunRecord],
    /// The newest drills, newest first.
    pub drills: &'a [DrillOutcome],
    pub copies: &'a [CopyRecord],
    /// Why retention rests.
    pub freeze: Option<&'a Freeze>,
    /// Stores in which a verify found damage that no later one has found mended.
    pub damaged: &'a [String],
    /// What verifies mended, newest first.
    pub heals: &'a [HealRecord],
    pub next_runs: &'a [NextRun],
    /// The binlogs that are captured.
    pub binlogs: &'a [Binlog],
    pub now: DateTime<Utc>,
}

/// What is known here of a binlog that is captured.
#[derive(Debug, Clone, Default)]
pub struct Binlog {
    pub source: String,
    pub progress: Progress,
    /// `None` where nothing was captured yet.
    pub chain: Option<Chain>,
}

/// When a verb is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NextRun {
    pub verb: String,
    pub at: DateTime<Utc>,
    /// The moment that passed without a run.
    pub missed: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Data is safe today; someone should look before it is not.
    Warning,
    /// An objective is missed, or a recovery would fail or lose more than it may.
    Bad,
}

/// One sentence of the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub verdict: Verdict,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    pub format: u32,
    pub policy: String,
    pub policy_hash: String,
    pub timezone: Tz,
    pub time: DateTime<Utc>,
    pub verdict: Verdict,
    /// The worst first; empty when all is well.
    pub reasons: Vec<Reason>,
    pub objectives: ObjectivesMs,
    pub sources: Vec<SourceStatus>,
    pub copies: Vec<CopyStatus>,
    pub drill: Option<DrillStatus>,
    /// Why no snapshot may be forgotten now.
    pub retention_freeze: Option<String>,
    pub last_backup: Option<RunStatus>,
    pub last_verify: Option<RunStatus>,
    /// The last that set a snapshot beside its living source.
    pub last_compare: Option<RunStatus>,
    pub running: Vec<RunStatus>,
    pub next_runs: Vec<NextRun>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceStatus {
    pub source: String,
    /// `mysql` or `files`.
    pub kind: String,
    /// The newest complete snapshot, in whatever store it lies.
    pub last_good: Option<SnapshotStatus>,
    /// A newer one that a partial run made.
    pub newer_incomplete: Option<SnapshotStatus>,
    /// The age of the last good one beside the RPO.
    pub rpo: Judgement,
    pub overdue: bool,
    /// The capture of its binlog, where the policy wants one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binlog: Option<BinlogStatus>,
    /// Snapshots in the repository.
    pub snapshots: usize,
}

/// How far the capture of a binlog has come. A lag is how long ago something held all that the server had committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BinlogStatus {
    pub spool: Option<DateTime<Utc>>,
    pub spool_lag_ms: Option<u64>,
    pub repository: Option<DateTime<Utc>>,
    pub repository_lag_ms: Option<u64>,
    pub copies: Vec<BinlogCopy>,
    /// The moments that can be recovered: from the first to the last there is no gap.
    pub window: Option<BinlogWindow>,
    /// Stretches that no segment holds.
    pub gaps: usize,
    /// Whether the server's commits wait for the spool, where the policy wants that.
    pub commits_wait: Option<CommitsWait>,
    /// What keeps the capture from going on.
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BinlogCopy {
    pub name: String,
    pub time: Option<DateTime<Utc>>,
    pub lag_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BinlogWindow {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotStatus {
    pub id: SnapshotId,
    pub time: DateTime<Utc>,
    pub age_ms: u64,
    pub stores: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyStatus {
    pub name: String,
    /// When it last held all that the repository held.
    pub completed: Option<DateTime<Utc>>,
    /// The moment of the newest snapshot it holds.
    pub newest: Option<DateTime<Utc>>,
    /// Snapshots of the repository that are newer than what it holds.
    pub behind: usize,
    /// How long the oldest of those has waited; zero when none waits.
    pub lag_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrillStatus {
    pub run: RunId,
    pub started: DateTime<Utc>,
    pub age_ms: u64,
    pub passed: bool,
    pub rta_ms: Option<u64>,
    pub rpa_ms: Option<u64>,
    /// Time to first order, where the policy wants tables first and the drill measured it.
    pub first_order_ms: Option<u64>,
    pub objectives: ObjectivesMs,
    pub verdict: DrillVerdict,
    pub checks_passed: usize,
    pub checks_failed: usize,
    pub checks_not_run: usize,
    /// The policy has changed since: what the drill proved needs verifying.
    pub policy_changed: bool,
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunStatus {
    pub run: RunId,
    pub verb: String,
    pub started: DateTime<Utc>,
    pub outcome: Outcome,
    pub exit_code: Option<u8>,
    pub error: Option<String>,
}

impl Status {
    #[must_use]
    pub fn new(inputs: &Inputs<'_>) -> Self {
        let mut status = Self {
            format: FORMAT,
            policy: inputs.policy.name.clone(),
            policy_hash: inputs.policy.hash.clone(),
            timezone: inputs.policy.timezone,
            time: inputs.now,
            verdict: Verdict::Ok,
            reasons: Vec::new(),
            objectives: inputs.policy.objectives.into(),
            sources: facts::sources(inputs),
            copies: facts::copies(inputs),
            drill: facts::drill(inputs),
            retention_freeze: inputs.freeze.map(ToString::to_string),
            last_backup: facts::last_run(inputs, &facts::BACKUP_VERBS),
            last_verify: facts::last_run(inputs, &["verify"]),
            last_compare: facts::last_run(inputs, &[COMPARE]),
            running: facts::running(inputs),
            next_runs: inputs.next_runs.to_vec(),
        };
        status.reasons = reasons::of(&status, inputs);
        status.verdict = status.reasons.iter().map(|reason| reason.verdict).max().unwrap_or(Verdict::Ok);
        status
    }
}

#[cfg(test)]
mod tests;
