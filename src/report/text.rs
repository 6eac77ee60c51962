//! The report on a terminal, no wider than 80 columns.

use std::fmt::Write as _;

use crate::drill::outcome::{CheckResult, CheckState, Judgement, Phase};
use crate::human;
use crate::human::Ink;
use crate::report::{Report, Severity, words};

const WIDTH: usize = 80;
const NAME_WIDTH: usize = 14;
const BAR_WIDTH: usize = 20;

impl Report {
    /// Renders the report for a terminal; times are in the policy's zone.
    #[must_use]
    pub fn text(&self, ink: Ink) -> String {
        let screen = Screen { report: self, ink };
        [screen.head(), screen.phases(), screen.checks(), screen.findings()].concat()
    }
}

struct Screen<'a> {
    report: &'a Report,
    ink: Ink,
}

impl Screen<'_> {
    fn head(&self) -> String {
        let outcome = &self.report.outcome;
        let result = self.report.result.to_uppercase();
        let time = human::time(outcome.started, self.report.context.timezone);
        let room = WIDTH - human::width(&time) - result.len() - 12;
        let title = format!("Drill of {}", human::cut(&human::printable(&outcome.policy), room));
        let gap = WIDTH - human::width(&title) - 2 - result.len() - human::width(&time);
        let result = if self.report.passed { self.ink.good(&result) } else { self.ink.bad(&result) };
        let title = self.ink.bold(&title);
        let mut text = format!("{title}: {result}{}{}\n", " ".repeat(gap), self.ink.dim(&time));
        let verdict = outcome.verdict;
        text += &self.actual("recovery time", ["RTA", "RTO"], [outcome.rta_ms, outcome.objectives.rto_ms], verdict.rto);
        text +=
            &self.actual("recovery point", ["RPA", "RPO"], [outcome.rpa_ms, outcome.objectives.rpo_ms], verdict.rpo);
        _ = writeln!(text, "  {} {}", human::fit("checks", NAME_WIDTH + 4), words::checks(outcome));
        if let Some(scenario) = words::scenario(outcome) {
            _ = writeln!(text, "  {scenario}");
        }
        if let Some(first) = words::first_order(outcome) {
            _ = writeln!(text, "  {}", human::wrap(&human::printable(&first), WIDTH - 4).join("\n    "));
        }
        for standby in words::standbys(outcome) {
            _ = writeln!(text, "  {}", human::wrap(&human::printable(&standby), WIDTH - 4).join("\n    "));
        }
        text
    }

    fn actual(
        &self,
        what: &str,
        [actual, objective]: [&str; 2],
        spans: [Option<u64>; 2],
        judgement: Judgement,
    ) -> String {
        let what = human::fit(what, NAME_WIDTH + 4);
        let [measured, wanted] = spans.map(words::span);
        let measured = human::fit(&format!("{actual} {measured}"), 20);
        let wanted = human::fit(&format!("{objective} {wanted}"), 20);
        let word = words::judgement(judgement);
        let word = match judgement {
            Judgement::Met => self.ink.good(word),
            Judgement::Breached => self.ink.bad(&word.to_uppercase()),
            Judgement::NotMeasured => self.ink.warning(&word.to_uppercase()),
            Judgement::NoObjective => self.ink.dim(word),
        };
        format!("  {what} {measured} {wanted} {word}\n")
    }

    fn phases(&self) -> String {
        let phases = &self.report.outcome.phases;
        let whole = phases.iter().map(Phase::end_ms).max().unwrap_or(0).max(1);
        let mut text = format!("\n{}\n", self.ink.bold("Phases"));
        for phase in phases {
            let name = human::fit(&human::printable(&phase.name), NAME_WIDTH);
            let took = format!("{:>12}", human::millis(phase.duration_ms));
            let figures = words::figures(phase).into_iter().next().unwrap_or_default();
            let figures = human::cut(&figures, WIDTH - NAME_WIDTH - BAR_WIDTH - 20);
            let line = format!("  {name} {} {took}  {}", bar(phase, whole), self.ink.dim(&figures));
            _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    fn checks(&self) -> String {
        let mut text = format!("\n{}\n", self.ink.bold("Checks"));
        if self.report.outcome.checks.is_empty() {
            text += "  none\n";
        }
        for check in &self.report.outcome.checks {
            text += &self.check(check);
        }
        text
    }

    fn check(&self, check: &CheckResult) -> String {
        let state = match check.result {
            CheckState::Pass => self.ink.good("✓ pass   "),
            CheckState::Fail => self.ink.bad("✗ FAIL   "),
            CheckState::NotRun => self.ink.warning("– NOT RUN"),
        };
        let name = human::cut(&human::printable(&check.name), WIDTH - 12 - 14);
        let took = self.ink.dim(&human::millis(check.duration_ms));
        format!("  {state} {name}  {took}\n")
    }

    fn findings(&self) -> String {
        let mut text = format!("\n{}\n", self.ink.bold("Findings"));
        if self.report.findings.is_empty() {
            text += "  nothing to act on\n";
        }
        for finding in &self.report.findings {
            let sign = match finding.severity {
                Severity::Bad => self.ink.bad("✗"),
                Severity::Warning => self.ink.warning("!"),
                Severity::Note => self.ink.dim("·"),
            };
            let lines = human::wrap(&human::printable(&finding.text), WIDTH - 4);
            _ = writeln!(text, "  {sign} {}", lines.join("\n    "));
        }
        text
    }
}

/// Draws when a phase ran, as blocks in a line that stands for the whole drill.
fn bar(phase: &Phase, whole: u64) -> String {
    let cell = |moment: u64| {
        let cell = u128::from(moment) * BAR_WIDTH as u128 / u128::from(whole);
        usize::try_from(cell).unwrap_or(BAR_WIDTH).min(BAR_WIDTH)
    };
    let from = cell(phase.start_ms).min(BAR_WIDTH - 1);
    let to = cell(phase.end_ms()).max(from + 1);
    let drawn = ["·".repeat(from), "█".repeat(to - from), "·".repeat(BAR_WIDTH - to)];
    drawn.concat()
}
