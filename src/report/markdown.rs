//! The report as Markdown, for tickets and wikis.

use std::fmt::Write as _;

use crate::human;
use crate::report::{PastDrill, Report, Severity, words};

impl Report {
    /// Renders the report as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut page = Page(String::new());
        self.md_head(&mut page);
        self.md_findings(&mut page);
        self.md_phases(&mut page);
        self.md_checks(&mut page);
        self.md_snapshots(&mut page);
        self.md_history(&mut page);
        self.md_evidence(&mut page);
        page.0
    }

    fn md_head(&self, page: &mut Page) {
        let outcome = &self.outcome;
        let time = human::exact_time(outcome.started, self.context.timezone);
        page.line(&format!("# Recovery drill: {}", escape(&outcome.policy)));
        page.line(&format!("**{}** · {time} · run `{}`", self.result, code(outcome.run.as_str())));
        page.line(&format!("{}. {}", escape(&words::headline(outcome)), escape(&words::summary(outcome))));
        let verdict = outcome.verdict;
        page.table(
            &["", "actual", "objective", "verdict"],
            vec![
                objective_row(
                    "Recovery time (RTA, RTO)",
                    outcome.rta_ms,
                    outcome.objectives.rto_ms,
                    words::judgement(verdict.rto),
                ),
                objective_row(
                    "Recovery point (RPA, RPO)",
                    outcome.rpa_ms,
                    outcome.objectives.rpo_ms,
                    words::judgement(verdict.rpo),
                ),
                vec![
                    "Checks".to_owned(),
                    words::checks(outcome),
                    "all".to_owned(),
                    words::checks_verdict(verdict.checks).to_owned(),
                ],
            ],
        );
    }

    fn md_findings(&self, page: &mut Page) {
        page.line("## Findings");
        if self.findings.is_empty() {
            page.line("Nothing to act on.");
            return;
        }
        for finding in &self.findings {
            let word = match finding.severity {
                Severity::Bad => "**Bad.** ",
                Severity::Warning => "**Warning.** ",
                Severity::Note => "",
            };
            let text = escape(&words::sentence(&finding.text));
            _ = writeln!(page.0, "- {word}{text}");
        }
        page.0.push('\n');
    }

    fn md_phases(&self, page: &mut Page) {
        page.line("## Phases");
        let rows = self.outcome.phases.iter().map(|phase| {
            vec![
                phase.name.clone(),
                human::millis(phase.start_ms),
                human::millis(phase.duration_ms),
                words::figures(phase).join("; "),
                phase.detail.clone().unwrap_or_default(),
            ]
        });
        page.table(&["phase", "start", "took", "moved", "detail"], rows.collect());
    }

    fn md_checks(&self, page: &mut Page) {
        page.line("## Checks");
        let rows = self.outcome.checks.iter().map(|check| {
            vec![
                check.name.clone(),
                check.kind.clone(),
                words::check_state(check.result).to_owned(),
                check.found.clone().unwrap_or_default(),
                check.wanted.clone().unwrap_or_default(),
                check.detail.clone().unwrap_or_default(),
                human::millis(check.duration_ms),
            ]
        });
        page.table(&["check", "kind", "result", "found", "wanted", "detail", "took"], rows.collect());
    }

    fn md_snapshots(&self, page: &mut Page) {
        page.line("## Restored snapshots");
        let zone = self.context.timezone;
        let rows = self.outcome.snapshots.iter().map(|snapshot| {
            let state = if snapshot.incomplete { "incomplete" } else { "complete" };
            vec![
                snapshot.source.clone(),
                snapshot.kind.clone(),
                snapshot.id.short(),
                human::exact_time(snapshot.time, zone),
                state.to_owned(),
            ]
        });
        page.table(&["source", "kind", "snapshot", "true of", "state"], rows.collect());
    }

    fn md_history(&self, page: &mut Page) {
        page.line("## Drills so far");
        let row = |drill: &PastDrill| {
            vec![
                human::time(drill.started, self.context.timezone),
                words::span(drill.rta_ms),
                words::span(drill.rto_ms),
                words::span(drill.rpa_ms),
                words::span(drill.rpo_ms),
                if drill.passed { "passed" } else { "not passed" }.to_owned(),
            ]
        };
        page.table(&["started", "RTA", "RTO", "RPA", "RPO", "result"], self.history.iter().map(row).collect());
    }

    fn md_evidence(&self, page: &mut Page) {
        page.line("## Evidence");
        let rows = self.evidence().into_iter();
        let rows = rows.map(|row| vec![row.name.to_owned(), row.facts.join("; "), row.clause.to_owned()]);
        page.table(&["", "", "ISMS-P"], rows.collect());
        page.line(&format!("Policy hash `{}`. Written by {}.", code(&self.outcome.policy_hash), self.program));
    }
}

fn objective_row(name: &str, actual: Option<u64>, objective: Option<u64>, verdict: &str) -> Vec<String> {
    vec![name.to_owned(), words::span(actual), words::span(objective), verdict.to_owned()]
}

struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        _ = writeln!(self.0, "{text}\n");
    }

    /// Writes a table, its cells escaped.
    fn table(&mut self, heads: &[&str], rows: Vec<Vec<String>>) {
        if rows.is_empty() {
            self.line("None.");
            return;
        }
        _ = writeln!(self.0, "| {} |", heads.join(" | "));
        _ = writeln!(self.0, "|{}", " --- |".repeat(heads.len()));
        for row in rows {
            let cells: Vec<String> = row.iter().map(|cell| escape(cell)).collect();
            _ = writeln!(self.0, "| {} |", cells.join(" | "));
        }
        self.0.push('\n');
    }
}

/// Takes from a text whatever Markdown or HTML would act on.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\r' | '\t' => safe.push(' '),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' | '!' => {
                safe.push('\\');
                safe.push(letter);
            }
            letter if letter.is_control() => safe.push('\u{fffd}'),
            letter => safe.push(letter),
        }
    }
    safe
}

/// Keeps of an id what an id may hold.
fn code(text: &str) -> String {
    let is_safe = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '-';
    text.chars().filter(is_safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_act_as_markup() {
        assert_eq!(escape("a|b\n<img src=x>"), "a\\|b &lt;img src=x&gt;");
        assert_eq!(escape("[x](javascript:1) `y`"), "\\[x\\](javascript:1) \\`y\\`");
    }
}
