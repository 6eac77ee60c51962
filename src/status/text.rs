//! One screen for a person: the verdict first, then what it rests on. No line is wider than 80 columns.

use std::fmt::Write as _;

use crate::drill::outcome::Judgement;
use crate::human;
use crate::human::Ink;
use crate::status::binlog;
use crate::status::{CopyStatus, DrillStatus, SourceStatus, Status, Verdict};

const WIDTH: usize = 80;
const NAME_WIDTH: usize = 16;
const TIME_WIDTH: usize = 22;
const AGE_WIDTH: usize = 9;

impl Status {
    /// Draws the screen; times are in the policy's zone.
    #[must_use]
    pub fn text(&self, ink: Ink) -> String {
        let screen = Screen { status: self, ink };
        let mut text = screen.head();
        text += &screen.reasons();
        text += &screen.sources();
        text += &screen.copies();
        text += &screen.drill();
        text += &screen.runs();
        text
    }
}

struct Screen<'a> {
    status: &'a Status,
    ink: Ink,
}

impl Screen<'_> {
    fn head(&self) -> String {
        let status = self.status;
        let (word, paint) = match status.verdict {
            Verdict::Ok => ("OK", self.ink.good("OK")),
            Verdict::Warning => ("WARNING", self.ink.warning("WARNING")),
            Verdict::Bad => ("BAD", self.ink.bad("BAD")),
        };
        let time = human::time(status.time, status.timezone);
        let room = WIDTH - human::width(&time) - word.len() - 4;
        let name = human::cut(&human::printable(&status.policy), room);
        let gap = WIDTH - human::width(&name) - 2 - word.len() - human::width(&time);
        let name = self.ink.bold(&name);
        format!("{name}: {paint}{}{}\n", " ".repeat(gap), self.ink.dim(&time))
    }

    fn reasons(&self) -> String {
        if self.status.reasons.is_empty() {
            return "  nothing needs attention\n".to_owned();
        }
        let mut text = String::new();
        for reason in &self.status.reasons {
            let sign = match reason.verdict {
                Verdict::Bad => self.ink.bad("✗"),
                Verdict::Warning | Verdict::Ok => self.ink.warning("!"),
            };
            let lines = human::wrap(&human::printable(&reason.text), WIDTH - 4);
            _ = writeln!(text, "  {sign} {}", lines.join("\n    "));
        }
        text
    }

    /// Writes a heading and, in the same columns as the rows below it, what they show.
    fn heading(&self, name: &str, columns: &str) -> String {
        let pad = " ".repeat(NAME_WIDTH + 9 - human::width(name));
        format!("\n{}{pad}{}\n", self.ink.bold(name), self.ink.dim(columns.trim_end()))
    }

    fn row(&self, name: &str, kind: &str, time: Option<chrono::DateTime<chrono::Utc>>, rest: &str) -> String {
        let name = human::fit(&human::printable(name), NAME_WIDTH);
        let (time, age) = match time {
            None => ("none".to_owned(), String::new()),
            Some(time) => (human::time(time, self.status.timezone), human::age(time, self.status.time)),
        };
        let time = human::fit(&time, TIME_WIDTH);
        let age = human::fit(&age, AGE_WIDTH);
        format!("  {name} {kind:<5} {time} {age} {rest}\n")
    }

    fn sources(&self) -> String {
        let rpo = self.status.objectives.rpo_ms;
        let rpo = rpo.map_or_else(|| "no RPO".to_owned(), |rpo| format!("RPO {}", human::millis(rpo)));
        let columns = format!("{:TIME_WIDTH$} {:AGE_WIDTH$} {rpo}", "last good backup", "age");
        let mut text = self.heading("Backups", &columns);
        for source in &self.status.sources {
            text += &self.source(source);
            text += &self.binlog(source);
        }
        text
    }

    fn source(&self, source: &SourceStatus) -> String {
        let good = source.last_good.as_ref();
        let stores = good.map_or_else(String::new, |good| {
            format!("in {}", human::counted(good.stores.len() as u64, "store", "stores"))
        });
        let rest = format!("{} {}", self.judgement(source.rpo), self.ink.dim(&stores));
        self.row(&source.source, &source.kind, good.map(|good| good.time), &rest)
    }

    fn binlog(&self, source: &SourceStatus) -> String {
        let Some(binlog) = &source.binlog else { return String::new() };
        let mut text = format!("    {}\n", self.ink.dim(&binlog::line(binlog)));
        if let Some(window) = &binlog.window {
            let time = |moment| human::time(moment, self.status.timezone);
            _ = writeln!(text, "    recovery window: {} to {}", time(window.from), time(window.to));
        }
        text
    }

    fn judgement(&self, judgement: Judgement) -> String {
        match judgement {
            Judgement::Met => self.ink.good("met     "),
            Judgement::Breached => self.ink.bad("BREACHED"),
            Judgement::NotMeasured => self.ink.warning("unproved"),
            Judgement::NoObjective => self.ink.dim("–       "),
        }
    }

    fn copies(&self) -> String {
        if self.status.copies.is_empty() {
            return String::new();
        }
        let columns = format!("{:TIME_WIDTH$} {:AGE_WIDTH$} behind", "newest snapshot", "age");
        let mut text = self.heading("Copies", &columns);
        for copy in &self.status.copies {
            text += &self.copy(copy);
        }
        text
    }

    fn copy(&self, copy: &CopyStatus) -> String {
        let behind = match copy.behind {
            0 => self.ink.good("nothing"),
            behind => {
                let count = human::counted(behind as u64, "snapshot", "snapshots");
                self.ink.warning(&human::cut(&count, WIDTH - 60))
            }
        };
        self.row(&copy.name, "", copy.newest, &behind)
    }

    fn drill(&self) -> String {
        let Some(drill) = &self.status.drill else {
            return format!("\n{}\n  none yet\n", self.ink.bold("Last drill"));
        };
        let columns = format!("{:TIME_WIDTH$} {:AGE_WIDTH$} checks", "started", "age");
        let mut text = self.heading("Last drill", &columns);
        let verdict = if drill.passed { "passed" } else { "NOT PASSED" };
        text += &self.row(verdict, "", Some(drill.started), &checks(drill));
        let rto = (drill.rta_ms, drill.objectives.rto_ms, drill.verdict.rto);
        let rpo = (drill.rpa_ms, drill.objectives.rpo_ms, drill.verdict.rpo);
        text += &self.actual("recovery time", "RTA", "RTO", rto);
        text += &self.actual("recovery point", "RPA", "RPO", rpo);
        if let Some(took) = drill.first_order_ms {
            _ = writeln!(text, "  {} {}", human::fit("time to first order", NAME_WIDTH + 6), human::millis(took));
        }
        text
    }

    fn actual(
        &self,
        what: &str,
        actual: &str,
        objective: &str,
        (measured, wanted, judgement): (Option<u64>, Option<u64>, Judgement),
    ) -> String {
        let what = human::fit(what, NAME_WIDTH + 6);
        let measured = measured.map_or_else(|| "not measured".to_owned(), human::millis);
        let measured = human::fit(&format!("{actual} {measured}"), TIME_WIDTH);
        let wanted = wanted.map_or_else(|| "none".to_owned(), human::millis);
        let wanted = human::fit(&format!("{objective} {wanted}"), TIME_WIDTH - 4);
        format!("  {what} {measured} {wanted} {}\n", self.judgement(judgement).trim_end())
    }

    fn runs(&self) -> String {
        let mut text = String::new();
        for run in &self.status.running {
            let age = human::age(run.started, self.status.time);
            _ = writeln!(text, "\n{} {}, begun {age}", self.ink.bold("Running"), human::cut(&run.verb, 20));
        }
        if let Some(why) = &self.status.retention_freeze {
            let frozen = self.ink.warning("frozen");
            _ = writeln!(text, "\n{} {frozen}: {}", self.ink.bold("Retention"), human::cut(why, 60));
        }
        if !self.status.next_runs.is_empty() {
            text += &self.heading("Next", &format!("{:TIME_WIDTH$} {:AGE_WIDTH$}", "due", "when"));
        }
        for next in &self.status.next_runs {
            text += self.row(&next.verb, "", Some(next.at), "").trim_end();
            text.push('\n');
        }
        text
    }
}

fn checks(drill: &DrillStatus) -> String {
    let mut text = format!("{} passed", drill.checks_passed);
    if drill.checks_failed > 0 {
        _ = write!(text, ", {} failed", drill.checks_failed);
    }
    if drill.checks_not_run > 0 {
        _ = write!(text, ", {} not run", drill.checks_not_run);
    }
    text
}
