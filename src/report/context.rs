//! What a reader of the report must know of the policy: what is backed up, how often, where to and for how long.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::catalog::CopyRecord;
use crate::policy::{CopyTarget, Keep, MysqlAddress, Policy, S3Place};
use crate::schedule::Cron;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Context {
    pub timezone: Tz,
    pub targets: Vec<Target>,
    /// Cron text in the policy's time zone.
    pub backup_cycle: Option<String>,
    pub verify_cycle: Option<String>,
    pub drill_cycle: Option<String>,
    /// The keep rules in words.
    pub retention: String,
    pub repository: String,
    pub copies: Vec<CopyFact>,
    pub next_drill: Option<DateTime<Utc>>,
}

/// One thing that is backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    pub source: String,
    /// `mysql` or `files`.
    pub kind: String,
    /// Host and port, socket, or directory.
    pub place: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyFact {
    pub name: String,
    pub place: String,
    /// When it last held all that the repository held.
    pub completed: Option<DateTime<Utc>>,
}

impl Context {
    /// Takes from a policy what a report may show. Secrets, and where they are kept, stay out.
    #[must_use]
    pub fn of(policy: &Policy, copies: &[CopyRecord], next_drill: Option<DateTime<Utc>>) -> Self {
        Self {
            timezone: policy.timezone,
            targets: targets(policy),
            backup_cycle: cycle(policy.schedule.backup.as_ref()),
            verify_cycle: cycle(policy.schedule.verify.as_ref()),
            drill_cycle: cycle(policy.schedule.drill.as_ref()),
            retention: retention(&policy.retention),
            repository: policy.repository.path.display().to_string(),
            copies: copy_facts(policy, copies),
            next_drill,
        }
    }
}

fn targets(policy: &Policy) -> Vec<Target> {
    let mysql = policy.mysql.iter().map(|(name, source)| Target {
        source: name.clone(),
        kind: "mysql".to_owned(),
        place: address(&source.address),
    });
    let files = policy.files.iter().map(|(name, source)| Target {
        source: name.clone(),
        kind: "files".to_owned(),
        place: source.path.display().to_string(),
    });
    mysql.chain(files).collect()
}

fn address(address: &MysqlAddress) -> String {
    match address {
        MysqlAddress::Socket(path) => path.display().to_string(),
        MysqlAddress::Tcp { host, port } => format!("{host}:{port}"),
    }
}

fn cycle(cron: Option<&Cron>) -> Option<String> {
    cron.map(|cron| cron.as_str().to_owned())
}

fn retention(keep: &Keep) -> String {
    let rules = [
        (keep.last, "newest"),
        (keep.daily, "daily"),
        (keep.weekly, "weekly"),
        (keep.monthly, "monthly"),
        (keep.yearly, "yearly"),
    ];
    let rules: Vec<String> =
        rules.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    if rules.is_empty() { "every snapshot is kept".to_owned() } else { rules.join(", ") }
}

fn copy_facts(policy: &Policy, records: &[CopyRecord]) -> Vec<CopyFact> {
    let fact = |name: &str, target: &CopyTarget| CopyFact {
        name: name.to_owned(),
        place: copy_place(target),
        completed: records.iter().find(|record| record.name == name).and_then(|record| record.completed),
    };
    let places = policy.copies.iter();
    places.map(|copy| fact(&copy.name, &copy.place)).collect()
}

fn copy_place(target: &CopyTarget) -> String {
    match target {
        CopyTarget::S3(s3) => s3_place(s3),
        CopyTarget::Dir(path) => path.display().to_string(),
    }
}

fn s3_place(s3: &S3Place) -> String {
    let prefix = if s3.prefix.is_empty() { String::new() } else { format!("/{}", s3.prefix) };
    let at = s3.endpoint.as_ref().unwrap_or(&s3.region);
    format!("s3://{}{prefix} ({at})", s3.bucket)
}
