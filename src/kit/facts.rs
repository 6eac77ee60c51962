//! What a kit tells of one policy: taken from the policy, the repository and the catalog.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::catalog::Catalog;
use crate::drill::outcome::{DrillOutcome, rate};
use crate::kit::KitError;
use crate::policy::{Access, Check, CopyTarget, MysqlAddress, Policy, S3Place};
use crate::repository::{Repository, StoredSnapshot};
use crate::restore::choose;
use crate::run::Run;

/// Drills that a prediction looks back on.
const DRILLS_LOOKED_AT: u32 = 8;

pub(super) fn policy_file(policy: &str) -> String {
    format!("policies/{policy}.toml")
}

pub(super) fn key_file(policy: &str) -> String {
    format!("keys/{policy}.key")
}

pub(super) fn ca_file(policy: &str, copy: &str) -> String {
    format!("ca/{policy}/{copy}.pem")
}

/// All that the runbook tells of one policy.
pub(super) struct Facts {
    pub(super) policy: Policy,
    pub(super) repository: String,
    pub(super) key: String,
    /// The copy that stands for the lost repository.
    pub(super) from: String,
    pub(super) copies: Vec<CopyFacts>,
    pub(super) sources: Vec<SourceFacts>,
    /// The newest drill.
    pub(super) drill: Option<DrillOutcome>,
}

pub(super) struct CopyFacts {
    pub(super) name: String,
    pub(super) place: CopyTarget,
    pub(super) key: KeyThere,
    /// When it last held all that the repository held.
    pub(super) completed: Option<DateTime<Utc>>,
}

/// Whether the kit's key is among the keys of a copy, so that `restic` opens it with the passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyThere {
    Yes,
    No,
    /// The credentials of this machine may not look; the next copy brings it there.
    Unknown,
}

pub(super) struct SourceFacts {
    pub(super) name: String,
    pub(super) is_database: bool,
    /// Where it was: the server or the directory.
    pub(super) place: String,
    pub(super) newest: Option<Newest>,
}

/// The newest snapshot of a source when the kit was made.
pub(super) struct Newest {
    pub(super) id: String,
    pub(super) time: DateTime<Utc>,
    pub(super) bytes: Option<u64>,
    pub(super) is_incomplete: bool,
    /// How long its restore takes, by what a drill measured.
    pub(super) predicted: Option<Duration>,
}

impl Facts {
    /// # Errors
    /// Where the repository or the catalog cannot be read, or the policy has no copy.
    pub(super) async fn gather(policy: &Policy, repository: &Repository, run: &Run) -> Result<Self, KitError> {
        let from = stand_in(policy).ok_or_else(|| KitError::NoCopy(policy.name.clone()))?;
        let (mut drills, mut copies) = (Vec::new(), Vec::new());
        if Catalog::is_in(&policy.state_dir) {
            let catalog = Catalog::open(&policy.state_dir, &run.events)?;
            drills = catalog.drills(DRILLS_LOOKED_AT)?;
            copies = catalog.copies()?;
        }
        let completed =
            |name: &str| copies.iter().find(|record| record.name == name).and_then(|record| record.completed);
        let copy = |copy: &crate::policy::CopyPlace| CopyFacts {
            name: copy.name.clone(),
            place: copy.place.clone(),
            key: KeyThere::No,
            completed: completed(&copy.name),
        };
        Ok(Self {
            policy: policy.clone(),
            repository: repository.id().to_owned(),
            key: String::new(),
            from,
            copies: policy.copies.iter().map(copy).collect(),
            sources: sources(policy, &repository.snapshots().await?, &drills, run),
            drill: drills.into_iter().next(),
        })
    }

    pub(super) fn has_database(&self) -> bool {
        self.sources.iter().any(|source| source.is_database)
    }

    /// Returns the copy that stands for the repository.
    pub(super) fn stand_in(&self) -> Option<&CopyFacts> {
        self.copies.iter().find(|copy| copy.name == self.from)
    }
}

/// Chooses the copy that is there when this site is not: the first in an object store, else the first.
fn stand_in(policy: &Policy) -> Option<String> {
    let far = policy.copies.iter().find(|copy| matches!(copy.place, CopyTarget::S3(_)));
    far.or(policy.copies.first()).map(|copy| copy.name.clone())
}

fn sources(policy: &Policy, snapshots: &[StoredSnapshot], drills: &[DrillOutcome], run: &Run) -> Vec<SourceFacts> {
    let newest = choose::newest(snapshots, &policy.name, &policy.sources(), None, run.now());
    let newest_of = |name: &str, phase: &str| {
        let chosen = newest.chosen.iter().find(|chosen| chosen.source == name)?;
        let bytes = chosen.stored.snapshot.summary.as_ref().map(|summary| summary.total_bytes_processed);
        Some(Newest {
            id: chosen.id().short(),
            time: chosen.stored.snapshot.time,
            bytes,
            is_incomplete: chosen.is_incomplete,
            predicted: predicted(bytes, rate(drills, phase)),
        })
    };
    let databases = policy.mysql.iter().map(|(name, source)| SourceFacts {
        name: name.clone(),
        is_database: true,
        place: match &source.address {
            MysqlAddress::Socket(path) => path.display().to_string(),
            MysqlAddress::Tcp { host, port } => format!("{host}:{port}"),
        },
        newest: newest_of(name, "load"),
    });
    let trees = policy.files.iter().map(|(name, source)| SourceFacts {
        name: name.clone(),
        is_database: false,
        place: source.path.display().to_string(),
        newest: newest_of(name, "files"),
    });
    databases.chain(trees).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a prediction")]
fn predicted(bytes: Option<u64>, rate: Option<f64>) -> Option<Duration> {
    Duration::try_from_secs_f64(bytes? as f64 / rate?).ok()
}

/// Returns the id of the key that is to be typed, where it is known: the one that may read.
pub(super) fn access_key(s3: &S3Place) -> Option<&str> {
    match &s3.reader {
        Some(reader) => Some(&reader.access_key_id),
        None if s3.access == Access::WriteOnly => None,
        None => s3.access_key_id.as_deref(),
    }
}

/// Says which key opens an object store, and where its secret was read from on the lost machine.
pub(super) fn credentials(s3: &S3Place) -> String {
    if let Some(reader) = &s3.reader {
        return format!("access key `{}`, whose secret was in {}", reader.access_key_id, reader.secret_access_key);
    }
    if s3.access == Access::WriteOnly {
        return "a key that may read and list it; the lost machine's could only write".to_owned();
    }
    match (&s3.access_key_id, &s3.secret_access_key) {
        (Some(id), Some(secret)) => format!("access key `{id}`, whose secret was in {secret}"),
        _ => "the credentials that the environment, the profile or the role of the lost machine had".to_owned(),
    }
}

/// Says what a check of the policy wants of its statement.
pub(super) fn wanted(check: &Check) -> (&str, String) {
    match check {
        Check::Sql { sql, min, max, equals, .. } => {
            let bounds = [
                min.map(|min| format!("at least {min}")),
                max.map(|max| format!("at most {max}")),
                equals.as_ref().map(|text| format!("`{text}`")),
            ];
            (sql, bounds.into_iter().flatten().collect::<Vec<_>>().join(", "))
        }
        Check::FilesIn { source, sql, missing_max, .. } => {
            (sql, format!("paths of which at most {missing_max} are missing below the restored `{source}`"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    fn told(more: &str) -> String {
        let text = format!(
            "version = 1\nname = \"mall\"\n[repository]\npath = \"/backup/mall\"\npassword_file = \"/etc/key\"\n\
             [files.images]\npath = \"/images\"\n[retention]\nlast = 3\n\
             [[copy]]\nname = \"offsite\"\ns3 = {{ bucket = \"dr\", region = \"r\", access_key_id = \"WRITE\", \
             secret_access_key_command = \"pass w\"{more} }}\n"
        );
        let policy = Policy::parse(&text, Path::new("mall.toml")).unwrap();
        credentials(policy.copies[0].s3().unwrap())
    }

    #[test]
    fn a_runbook_names_the_key_that_can_read() {
        assert!(told("").starts_with("access key `WRITE`"));
        let blind = ", access = \"write-only\"";
        assert_eq!(told(blind), "a key that may read and list it; the lost machine's could only write");
        let reader = ", reader = { access_key_id = \"READ\", secret_access_key_command = \"pass r\" }";
        assert!(told(&format!("{blind}{reader}")).starts_with("access key `READ`"));
    }
}
