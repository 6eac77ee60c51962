//! The report of a drill: one value, rendered for a terminal, for machines, as Markdown and as one self-contained HTML file.
//!
//! [`Report::new`] is pure and draws the findings; the renderers only lay out. Names, messages and paths come from outside and
//! are escaped by each renderer. No secret can be in a report: nothing that it is made of holds one.

mod chart;
mod context;
mod evidence;
mod file;
mod finding;
mod html;
mod index;
mod markdown;
mod text;
mod words;

use serde::Serialize;

pub use context::{Context, CopyFact, Target};
pub use file::{ReportError, Written};
pub use finding::{Finding, Severity};

use crate::drill::outcome::DrillOutcome;
use crate::drill::outcome::Verdict;
use crate::id::RunId;

/// The version of the JSON form; a field may be added under the same number.
const FORMAT: u32 = 1;

/// A year of monthly drills fits one chart.
const HISTORY_MAX: usize = 12;

/// What a drill found, beside the policy it ran under and the drills before it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    format: u32,
    /// `bkp` and its version.
    program: String,
    passed: bool,
    /// The result in one word or two.
    result: String,
    pub outcome: DrillOutcome,
    /// The worst first.
    findings: Vec<Finding>,
    context: Context,
    /// Up to twelve drills, oldest first; the last is this one.
    history: Vec<PastDrill>,
}

/// One drill in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastDrill {
    pub run: RunId,
    pub started: chrono::DateTime<chrono::Utc>,
    pub policy_hash: String,
    pub rta_ms: Option<u64>,
    pub rpa_ms: Option<u64>,
    pub rto_ms: Option<u64>,
    pub rpo_ms: Option<u64>,
    pub verdict: Verdict,
    pub passed: bool,
}

impl Report {
    /// Draws up the report. The past may come in any order and may hold this drill too; later ones are left out.
    #[must_use]
    pub fn new(outcome: DrillOutcome, past: &[DrillOutcome], context: Context) -> Self {
        let history = history(&outcome, past);
        Self {
            format: FORMAT,
            program: format!("bkp {}", env!("CARGO_PKG_VERSION")),
            passed: outcome.passed(),
            result: words::result(&outcome).to_owned(),
            findings: finding::of(&outcome, &history, &context),
            history,
            context,
            outcome,
        }
    }

    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Renders the report for machines.
    ///
    /// # Errors
    /// None is known; the type of `serde_json` allows one.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }
}

fn history(outcome: &DrillOutcome, past: &[DrillOutcome]) -> Vec<PastDrill> {
    let earlier = past.iter().filter(|drill| drill.run != outcome.run && drill.started <= outcome.started);
    let mut drills: Vec<PastDrill> = earlier.chain([outcome]).map(PastDrill::of).collect();
    drills.sort_by_key(|drill| (drill.started, drill.run.clone()));
    let surplus = drills.len().saturating_sub(HISTORY_MAX);
    drills.split_off(surplus)
}

impl PastDrill {
    fn of(drill: &DrillOutcome) -> Self {
        Self {
            run: drill.run.clone(),
            started: drill.started,
            policy_hash: drill.policy_hash.clone(),
            rta_ms: drill.rta_ms,
            rpa_ms: drill.rpa_ms,
            rto_ms: drill.objectives.rto_ms,
            rpo_ms: drill.objectives.rpo_ms,
            verdict: drill.verdict,
            passed: drill.passed(),
        }
    }
}

#[cfg(test)]
mod tests;
