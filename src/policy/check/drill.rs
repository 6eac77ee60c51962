//! The drill: its checks, its reports, its sandbox.

use crate::policy::check::fields::Checker;
use crate::policy::raw::{RawCheck, RawDrill, RawScalar};
use crate::policy::{Check, DrillPlan};

impl Checker<'_> {
    pub(super) fn drill(&mut self, raw: RawDrill) -> DrillPlan {
        let checks = raw.checks.into_iter().enumerate();
        let checks = checks.filter_map(|(rank, raw)| self.drill_check(&format!("drill.checks[{rank}]"), raw)).collect();
        let sandbox = raw.sandbox;
        let mut path = |key: &str, text: Option<String>| self.optional_path(&format!("drill.{key}"), text.as_deref());
        DrillPlan {
            checks,
            report_dir: path("report_dir", raw.report_dir),
            work_dir: path("sandbox.work_dir", sandbox.work_dir),
            mariadbd: path("sandbox.mariadbd", sandbox.mariadbd),
            mysqld: path("sandbox.mysqld", sandbox.mysqld),
            from: raw.from,
        }
    }

    fn drill_check(&mut self, key: &str, raw: RawCheck) -> Option<Check> {
        self.not_empty(&format!("{key}.sql"), &raw.sql);
        let name = raw.name.clone().unwrap_or_else(|| shortened(&raw.sql));
        let has_value = raw.min.is_some() || raw.max.is_some() || raw.equals.is_some();
        match raw.files_in {
            Some(_) if has_value => {
                self.fault(key, "asks for a value and for files", "split it into two checks");
                None
            }
            Some(source) => Some(Check::FilesIn {
                name,
                mysql: raw.mysql,
                source,
                sql: raw.sql,
                missing_max: self.number(&format!("{key}.missing_max"), raw.missing_max, 0, 0..=i64::from(u32::MAX)),
            }),
            None => {
                self.value_check(key, &raw, has_value);
                let equals = raw.equals.map(text_of);
                Some(Check::Sql { name, mysql: raw.mysql, sql: raw.sql, min: raw.min, max: raw.max, equals })
            }
        }
    }

    fn value_check(&mut self, key: &str, raw: &RawCheck, has_value: bool) {
        if !has_value {
            let remedy = "add min, max or equals, or files_in for a statement that returns paths";
            self.fault(key, "can never fail: it names no wanted answer", remedy);
        }
        if raw.missing_max.is_some() {
            self.fault(&format!("{key}.missing_max"), "goes with files_in", "remove it, or add `files_in`");
        }
        let is_number = |bound: Option<f64>| bound.is_none_or(f64::is_finite);
        let is_upside_down = raw.min.zip(raw.max).is_some_and(|(min, max)| min > max);
        if is_upside_down || !is_number(raw.min) || !is_number(raw.max) {
            self.fault(key, "can never hold: no number lies from its min to its max", "correct min and max");
        }
    }
}

fn text_of(value: RawScalar) -> String {
    match value {
        RawScalar::Integer(value) => value.to_string(),
        RawScalar::Number(value) => value.to_string(),
        RawScalar::Text(value) => value,
    }
}

/// Returns the statement on one line, cut where a table of checks would break.
fn shortened(sql: &str) -> String {
    const CHARS_MAX: usize = 60;
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
