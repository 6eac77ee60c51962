//! What a drill found: plain values that the catalog keeps and reports print, with the verdicts drawn from them.
//!
//! The JSON form is published: a field keeps its name and meaning, and a reader ignores fields it does not know.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::id::RunId;
use crate::id::SnapshotId;
use crate::mysql::manifest::Product;
use crate::policy::Objectives;

/// The outcome of one drill, from the failure it assumes to the last check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillOutcome {
    pub run: RunId,
    pub policy: String,
    /// SHA-256 of the policy's text: a drill is true of this policy only.
    pub policy_hash: String,
    pub started: DateTime<Utc>,
    pub ended: DateTime<Utc>,
    pub place: Place,
    pub from: Origin,
    /// What is assumed to have happened.
    #[serde(default)]
    pub scenario: Scenario,
    pub snapshots: Vec<DrilledSnapshot>,
    pub phases: Vec<Phase>,
    pub checks: Vec<CheckResult>,
    /// Recovery time actual: from the start to the first user-visible check that passed.
    pub rta_ms: Option<u64>,
    /// Recovery point actual: from the newest recovered moment of the source that lost most to the assumed failure.
    pub rpa_ms: Option<u64>,
    /// What the policy wants back before all else; `None` where it wants nothing first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_order: Option<FirstOrder>,
    /// What the other way to recover took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standbys: Vec<DrilledStandby>,
    pub objectives: ObjectivesMs,
    pub verdict: Verdict,
    /// Why the drill came to no end, as `bkp` prints it.
    pub error: Option<String>,
}

/// The tables without which nothing can be sold, and when they were back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstOrder {
    pub tables: Vec<String>,
    /// Time to first order: from the drill's start until all of them could be read, with their indexes; `None` where one did not
    /// come.
    pub ms: Option<u64>,
}

/// A standby that followed the capture and was promoted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrilledStandby {
    pub source: String,
    /// From the start of its server until it held all that was captured.
    pub ready_ms: u64,
    /// From the begin of its promotion until everybody could write to it.
    pub downtime_ms: u64,
    /// From the newest moment of which it held everything to the promotion; `None`: nobody knows.
    pub rpa_ms: Option<u64>,
}

/// Where the drill ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub host: String,
    pub sandboxes: Vec<SandboxServer>,
    pub cores: u32,
    pub memory_bytes: u64,
}

/// A server that was started for the drill and thrown away after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxServer {
    pub source: String,
    pub product: Product,
    pub version: String,
}

/// What a drill assumes to have happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Scenario {
    /// The sources are lost at the drill's start: all that was captured until then is to come back.
    #[default]
    Lost,
    /// As `Lost`; and each database whose binlog is captured is recovered by a standby, too, that is promoted.
    Standby,
    /// A mistake was made: what there was just before it is to come back.
    Mistake { at: DateTime<Utc> },
}

/// Which store the bytes came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "store", rename_all = "kebab-case")]
pub enum Origin {
    Repository,
    Copy { name: String },
}

/// One snapshot that was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrilledSnapshot {
    pub source: String,
    /// `mysql`, `binlog` or `files`.
    pub kind: String,
    pub id: SnapshotId,
    pub time: DateTime<Utc>,
    /// The run that made it was partial.
    pub incomplete: bool,
}

/// A stretch of the drill on the monotonic clock. Phases may overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// `fetch`, `sandbox`, `load`, `replay`, `files`, `checks`, …
    pub name: String,
    /// Milliseconds after the drill's start.
    pub start_ms: u64,
    pub duration_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transactions: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Phase {
    #[must_use]
    pub fn end_ms(&self) -> u64 {
        self.start_ms.saturating_add(self.duration_ms)
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    pub name: String,
    /// `rows` (chunk hashes against the manifest), `files` (the tree against the snapshot), `sql`, `files_in`, …
    pub kind: String,
    pub result: CheckState,
    pub found: Option<String>,
    pub wanted: Option<String>,
    pub detail: Option<String>,
    pub duration_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckState {
    Pass,
    Fail,
    /// It could not run: never a pass.
    NotRun,
}

/// The objectives as they stood when the drill ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectivesMs {
    pub rpo_ms: Option<u64>,
    pub rto_ms: Option<u64>,
}

impl From<Objectives> for ObjectivesMs {
    fn from(objectives: Objectives) -> Self {
        let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self { rpo_ms: objectives.rpo.map(millis), rto_ms: objectives.rto.map(millis) }
    }
}

/// Actual beside objective, and the checks as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub rto: Judgement,
    pub rpo: Judgement,
    pub checks: ChecksVerdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    Met,
    Breached,
    /// There is an objective, and the drill did not come far enough to measure.
    NotMeasured,
    NoObjective,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChecksVerdict {
    /// Every check ran and passed, and there was at least one.
    Passed,
    Failed,
    /// None failed, but one or more did not run, or there was none.
    NotRun,
}

impl Verdict {
    /// Judges measured values: an actual equal to its objective meets it.
    #[must_use]
    #[expect(clippy::similar_names, reason = "RTA and RPA are the words of the trade")]
    pub fn judge(objectives: ObjectivesMs, rta_ms: Option<u64>, rpa_ms: Option<u64>, checks: &[CheckResult]) -> Self {
        Self {
            rto: Judgement::of(rta_ms, objectives.rto_ms),
            rpo: Judgement::of(rpa_ms, objectives.rpo_ms),
            checks: ChecksVerdict::of(checks),
        }
    }
}

impl Judgement {
    fn of(actual_ms: Option<u64>, objective_ms: Option<u64>) -> Self {
        match (actual_ms, objective_ms) {
            (_, None) => Self::NoObjective,
            (None, Some(_)) => Self::NotMeasured,
            (Some(actual), Some(objective)) if actual <= objective => Self::Met,
            (Some(_), Some(_)) => Self::Breached,
        }
    }
}

impl ChecksVerdict {
    fn of(checks: &[CheckResult]) -> Self {
        let any = |state| checks.iter().any(|check| check.result == state);
        if any(CheckState::Fail) {
            Self::Failed
        } else if checks.is_empty() || any(CheckState::NotRun) {
            Self::NotRun
        } else {
            Self::Passed
        }
    }
}

impl DrillOutcome {
    /// Tells whether recovery was measured to miss an objective.
    #[must_use]
    pub fn breached(&self) -> bool {
        self.verdict.rto == Judgement::Breached || self.verdict.rpo == Judgement::Breached
    }

    /// Tells whether a check ran and failed.
    #[must_use]
    pub fn checks_failed(&self) -> bool {
        self.verdict.checks == ChecksVerdict::Failed
    }

    /// Tells whether something that should have been measured or checked was not.
    #[must_use]
    pub fn unproved(&self) -> bool {
        self.error.is_some()
            || self.verdict.checks == ChecksVerdict::NotRun
            || self.verdict.rto == Judgement::NotMeasured
            || self.verdict.rpo == Judgement::NotMeasured
    }

    /// Tells whether the drill proved all that it was to prove.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.breached() && !self.checks_failed() && !self.unproved()
    }

    /// Returns the checks in a state, in their order.
    pub fn checks_in(&self, state: CheckState) -> impl Iterator<Item = &CheckResult> {
        self.checks.iter().filter(move |check| check.result == state)
    }
}

/// Returns the bytes a second of a phase, as the newest of some drills that measured it did, newest first.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a prediction")]
pub fn rate(drills: &[DrillOutcome], phase: &str) -> Option<f64> {
    let is_it = |found: &&Phase| found.name == phase && found.duration_ms > 0;
    let phase = drills.iter().flat_map(|drill| &drill.phases).find(is_it)?;
    Some(phase.bytes? as f64 / (phase.duration_ms as f64 / 1_000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(result: CheckState) -> CheckResult {
        CheckResult {
            name: "orders".to_owned(),
            kind: "sql".to_owned(),
            result,
            found: None,
            wanted: None,
            detail: None,
            duration_ms: 1,
        }
    }

    fn objectives() -> ObjectivesMs {
        ObjectivesMs { rpo_ms: Some(300_000), rto_ms: Some(7_200_000) }
    }

    #[test]
    fn a_check_that_did_not_run_is_never_a_pass() {
        use CheckState::{Fail, NotRun, Pass};
        let table: [(&[CheckState], ChecksVerdict); 6] = [
            (&[], ChecksVerdict::NotRun),
            (&[Pass], ChecksVerdict::Passed),
            (&[Pass, NotRun], ChecksVerdict::NotRun),
            (&[NotRun], ChecksVerdict::NotRun),
            (&[NotRun, Fail], ChecksVerdict::Failed),
            (&[Pass, Fail], ChecksVerdict::Failed),
        ];
        for (states, verdict) in table {
            let checks: Vec<CheckResult> = states.iter().copied().map(check).collect();
            assert_eq!(ChecksVerdict::of(&checks), verdict, "{states:?}");
        }
    }

    #[test]
    fn an_actual_is_judged_only_beside_an_objective() {
        let checks = [check(CheckState::Pass)];
        let verdict = Verdict::judge(objectives(), Some(7_200_000), Some(300_001), &checks);
        assert_eq!(verdict.rto, Judgement::Met);
        assert_eq!(verdict.rpo, Judgement::Breached);

        let verdict = Verdict::judge(objectives(), None, None, &checks);
        assert_eq!(verdict.rto, Judgement::NotMeasured);

        let verdict = Verdict::judge(ObjectivesMs::default(), Some(1), None, &checks);
        assert_eq!(verdict.rto, Judgement::NoObjective);
        assert_eq!(verdict.rpo, Judgement::NoObjective);
    }

    #[test]
    fn the_published_names_stay() {
        let text = serde_json::to_string(&Verdict::judge(objectives(), None, Some(1), &[])).unwrap_or_default();
        assert_eq!(text, r#"{"rto":"not-measured","rpo":"met","checks":"not-run"}"#);
        let copy = Origin::Copy { name: "offsite".to_owned() };
        let text = serde_json::to_string(&copy).unwrap_or_default();
        assert_eq!(text, r#"{"store":"copy","name":"offsite"}"#);
    }
}
