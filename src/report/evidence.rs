//! What an auditor asks for, and the clause that asks (ISMS-P, Korea's certification of information security and privacy).

use crate::human;
use crate::report::{Report, Severity, words};

/// One answer.
pub(super) struct Evidence {
    pub(super) name: &'static str,
    pub(super) clause: &'static str,
    pub(super) facts: Vec<String>,
}

/// The clauses, with their names as the standard has them.
pub(super) const CLAUSES: [(&str, &str, &str); 3] = [
    ("2.9.3", "Backup and recovery management", "백업 및 복구관리"),
    ("2.12.1", "Safeguards against disasters", "재해·재난 대비 안전조치"),
    ("2.12.2", "Disaster recovery tests and improvement", "재해 복구 시험 및 개선"),
];

impl Report {
    pub(super) fn evidence(&self) -> Vec<Evidence> {
        let rows = [
            ("Targets", "2.9.3", self.targets()),
            ("Cycle", "2.9.3", self.cycle()),
            ("Kept at", "2.9.3", vec![self.context.repository.clone()]),
            ("Off-site copies", "2.9.3", self.copies()),
            ("Retention", "2.9.3", vec![self.context.retention.clone()]),
            ("Objectives", "2.12.1", self.objectives()),
            ("Place of the test", "2.12.2", self.place()),
            ("Result", "2.12.2", self.results()),
            ("Findings", "2.12.2", vec![self.finding_count()]),
            ("Next test", "2.12.2", vec![self.next_test()]),
        ];
        rows.map(|(name, clause, facts)| Evidence { name, clause, facts }).into()
    }

    fn targets(&self) -> Vec<String> {
        let targets = self.context.targets.iter();
        targets.map(|target| format!("{} ({}): {}", target.source, target.kind, target.place)).collect()
    }

    fn cycle(&self) -> Vec<String> {
        let context = &self.context;
        let cycles =
            [("backup", &context.backup_cycle), ("verify", &context.verify_cycle), ("drill", &context.drill_cycle)];
        let cycle = |(verb, cron): (&str, &Option<String>)| match cron {
            Some(cron) => format!("{verb}: {cron} ({})", context.timezone),
            None => format!("{verb}: not scheduled by the policy"),
        };
        cycles.map(cycle).into()
    }

    fn copies(&self) -> Vec<String> {
        if self.context.copies.is_empty() {
            return vec!["none".to_owned()];
        }
        let copy = |copy: &crate::report::CopyFact| {
            let completed = copy.completed.map_or_else(
                || "not known to be complete".to_owned(),
                |time| format!("complete at {}", human::time(time, self.context.timezone)),
            );
            format!("{}: {}, {completed}", copy.name, copy.place)
        };
        self.context.copies.iter().map(copy).collect()
    }

    fn objectives(&self) -> Vec<String> {
        let objectives = self.outcome.objectives;
        let text =
            |name, span: Option<u64>| format!("{name}: {}", span.map_or_else(|| "not set".to_owned(), human::millis));
        vec![text("recovery time (RTO)", objectives.rto_ms), text("recovery point (RPO)", objectives.rpo_ms)]
    }

    fn place(&self) -> Vec<String> {
        let outcome = &self.outcome;
        let machine = words::machine(&outcome.place);
        let servers = outcome.place.sandboxes.iter();
        let servers = servers.map(|server| format!("sandbox: {}", words::server(server)));
        let from = format!("restored from {}", words::origin(&outcome.from));
        [machine].into_iter().chain(servers).chain([from]).chain(words::scenario(outcome)).collect()
    }

    fn results(&self) -> Vec<String> {
        let outcome = &self.outcome;
        let time =
            format!("recovery time (RTA): {}, {}", words::span(outcome.rta_ms), words::judgement(outcome.verdict.rto));
        let point =
            format!("recovery point (RPA): {}, {}", words::span(outcome.rpa_ms), words::judgement(outcome.verdict.rpo));
        let first = words::first_order(outcome);
        let checks = format!("checks: {}", words::checks(outcome));
        let standbys = words::standbys(outcome);
        [self.result.clone(), time, point].into_iter().chain(first).chain(standbys).chain([checks]).collect()
    }

    fn finding_count(&self) -> String {
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        let (bad, warnings) = (count(Severity::Bad), count(Severity::Warning));
        match bad + warnings {
            0 => "none to act on".to_owned(),
            all => format!("{all} to act on ({bad} bad, {warnings} to look at)"),
        }
    }

    fn next_test(&self) -> String {
        let next = self.context.next_drill;
        next.map_or_else(|| "not scheduled".to_owned(), |time| human::time(time, self.context.timezone))
    }
}
