//! Which snapshots a restore takes: the newest of each source at or before a moment.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use crate::id::SnapshotId;
use crate::repository::StoredSnapshot;
use crate::restore::RestoreError;

/// What the operator asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    Latest,
    At(DateTime<Utc>),
    /// A snapshot's id or the beginning of one.
    Snapshot(String),
}

/// A snapshot that a restore takes, and what that choice means.
#[derive(Debug, Clone)]
pub struct Chosen {
    pub source: String,
    pub kind: String,
    pub stored: StoredSnapshot,
    /// From the snapshot's time to the moment asked for: what was written between is not in it.
    pub lost: TimeDelta,
    pub is_incomplete: bool,
    /// Its tables may be of different moments.
    pub is_inconsistent: bool,
}

impl Chosen {
    #[must_use]
    pub fn id(&self) -> SnapshotId {
        self.stored.id
    }

    /// Chooses an older snapshot of the same source in its stead.
    #[must_use]
    pub fn instead(&self, stored: &StoredSnapshot) -> Option<Self> {
        Self::new(stored, self.stored.snapshot.time + self.lost).filter(|older| older.source == self.source)
    }

    /// Returns none for what no restore can begin with: another's snapshot, or a binlog.
    fn new(stored: &StoredSnapshot, until: DateTime<Utc>) -> Option<Self> {
        let snapshot = &stored.snapshot;
        if snapshot.is_binlog() {
            return None;
        }
        Some(Self {
            source: snapshot.tag("source")?.to_owned(),
            kind: snapshot.tag("kind")?.to_owned(),
            stored: stored.clone(),
            lost: (until - snapshot.time).max(TimeDelta::zero()),
            is_incomplete: snapshot.tag("incomplete").is_some(),
            is_inconsistent: snapshot.tag("inconsistent").is_some(),
        })
    }
}

/// The newest snapshots of some sources, and the sources that have none.
#[derive(Debug, Default)]
pub struct Newest {
    pub chosen: Vec<Chosen>,
    pub absent: Vec<String>,
}

/// Chooses one snapshot for each of the sources of a policy.
///
/// # Errors
/// [`RestoreError`] where one of the sources has no snapshot that fits, or an id is unknown, ambiguous or another source's.
pub fn choose(
    snapshots: &[StoredSnapshot],
    policy: &str,
    sources: &[String],
    moment: &Moment,
    now: DateTime<Utc>,
) -> Result<Vec<Chosen>, RestoreError> {
    let until = match moment {
        Moment::Snapshot(prefix) => return by_id(snapshots, prefix, sources, now).map(|chosen| vec![chosen]),
        Moment::At(time) => Some(*time),
        Moment::Latest => None,
    };
    let Newest { chosen, absent } = newest(snapshots, policy, sources, until, now);
    if absent.is_empty() { Ok(chosen) } else { Err(RestoreError::NoSnapshot { sources: absent, until }) }
}

/// Finds the newest snapshot of each source of a policy at or before a moment; `None`: the newest there is, whatever the clock
/// says that stamped it. Databases come first.
#[must_use]
pub fn newest(
    snapshots: &[StoredSnapshot],
    policy: &str,
    sources: &[String],
    until: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Newest {
    let fits = |stored: &&StoredSnapshot| {
        let snapshot = &stored.snapshot;
        snapshot.tag("policy") == Some(policy) && until.is_none_or(|until| snapshot.time <= until)
    };
    let fitting: Vec<Chosen> =
        snapshots.iter().filter(fits).filter_map(|stored| Chosen::new(stored, until.unwrap_or(now))).collect();
    let mut newest = Newest::default();
    for source in BTreeSet::from_iter(sources) {
        let of_it = fitting.iter().filter(|chosen| chosen.source == *source);
        match of_it.max_by_key(|chosen| chosen.stored.snapshot.time) {
            Some(chosen) => newest.chosen.push(chosen.clone()),
            None => newest.absent.push(source.clone()),
        }
    }
    newest.chosen.sort_by(|a, b| b.kind.cmp(&a.kind).then_with(|| a.source.cmp(&b.source)));
    newest
}

/// Returns the sources of a policy that have snapshots and are none of these: the policy named them once.
#[must_use]
pub fn others(snapshots: &[StoredSnapshot], policy: &str, sources: &[String]) -> Vec<String> {
    let of_policy = snapshots.iter().filter(|stored| stored.snapshot.tag("policy") == Some(policy));
    let found: BTreeSet<&str> = of_policy.filter_map(|stored| stored.snapshot.tag("source")).collect();
    found.into_iter().filter(|name| !sources.iter().any(|source| source == name)).map(str::to_owned).collect()
}

fn by_id(
    snapshots: &[StoredSnapshot],
    prefix: &str,
    sources: &[String],
    now: DateTime<Utc>,
) -> Result<Chosen, RestoreError> {
    let mut found = snapshots.iter().filter(|stored| stored.id.to_string().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(stored), None) => {
            let id = stored.id.short();
            if stored.snapshot.is_binlog() {
                return Err(RestoreError::Binlog(id));
            }
            let chosen = Chosen::new(stored, now).ok_or_else(|| RestoreError::Foreign(id.clone()))?;
            if sources.is_empty() || sources.contains(&chosen.source) {
                return Ok(chosen);
            }
            Err(RestoreError::OtherSource { id, source_name: chosen.source })
        }
        (None, _) => Err(RestoreError::UnknownId(prefix.to_owned())),
        (Some(_), Some(_)) => Err(RestoreError::AmbiguousId(prefix.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BlobId;
    use crate::repository::snapshot::Snapshot;

    fn at(hour: u32) -> DateTime<Utc> {
        format!("2026-05-01T{hour:02}:00:00Z").parse().unwrap_or_default()
    }

    fn stored(source: &str, kind: &str, hour: u32) -> StoredSnapshot {
        let tags = ["policy=mall".to_string(), format!("source={source}"), format!("kind={kind}")];
        let snapshot = Snapshot {
            time: at(hour),
            tree: BlobId::of(b""),
            parent: None,
            paths: Vec::new(),
            hostname: String::new(),
            username: String::new(),
            tags: tags.to_vec(),
            program_version: None,
            summary: None,
        };
        StoredSnapshot { id: SnapshotId::of(format!("{source}{hour}").as_bytes()), snapshot }
    }

    fn nights() -> Vec<StoredSnapshot> {
        vec![
            stored("db1", "mysql", 2),
            stored("images", "files", 3),
            stored("db1", "mysql", 8),
            stored("images", "files", 9),
        ]
    }

    fn both() -> Vec<String> {
        vec!["db1".to_owned(), "images".to_owned()]
    }

    #[test]
    fn each_source_gives_its_newest_snapshot_at_or_before_the_moment() -> Result<(), RestoreError> {
        let chosen = choose(&nights(), "mall", &both(), &Moment::At(at(8)), at(12))?;
        let times: Vec<_> = chosen.iter().map(|chosen| (chosen.source.as_str(), chosen.stored.snapshot.time)).collect();
        assert_eq!(times, [("db1", at(8)), ("images", at(3))]);
        assert_eq!(chosen.iter().map(|chosen| chosen.lost.num_hours()).collect::<Vec<_>>(), [0, 5]);
        Ok(())
    }

    #[test]
    fn the_latest_is_the_newest_even_where_the_databases_clock_is_ahead() -> Result<(), RestoreError> {
        let chosen = choose(&nights(), "mall", &both(), &Moment::Latest, at(7))?;
        let times: Vec<_> = chosen.iter().map(|chosen| chosen.stored.snapshot.time).collect();
        assert_eq!(times, [at(8), at(9)]);
        assert!(chosen.iter().all(|chosen| chosen.lost.is_zero()));
        Ok(())
    }

    #[test]
    fn a_source_without_a_snapshot_is_named_and_never_left_out() {
        let absent = |moment: &Moment, sources: &[&str]| {
            let sources: Vec<String> = sources.iter().map(|&name| name.to_owned()).collect();
            match choose(&nights(), "mall", &sources, moment, at(12)) {
                Err(RestoreError::NoSnapshot { sources, .. }) => sources,
                _ => Vec::new(),
            }
        };
        assert_eq!(absent(&Moment::At(at(1)), &["db1", "images"]), ["db1", "images"]);
        assert_eq!(absent(&Moment::At(at(2)), &["db1", "images"]), ["images"]);
        assert_eq!(absent(&Moment::Latest, &["db1", "videos"]), ["videos"]);
    }

    #[test]
    fn a_binlog_is_no_newer_snapshot_of_its_database() -> Result<(), RestoreError> {
        let mut nights = nights();
        nights.push(stored("db1", "binlog", 10));
        let chosen = choose(&nights, "mall", &["db1".to_owned()], &Moment::Latest, at(12))?;
        assert_eq!((chosen[0].kind.as_str(), chosen[0].stored.snapshot.time), ("mysql", at(8)));
        let by_id = Moment::Snapshot(nights[4].id.to_string());
        assert!(matches!(choose(&nights, "mall", &[], &by_id, at(12)), Err(RestoreError::Binlog(_))));
        Ok(())
    }

    #[test]
    fn another_policys_snapshots_are_not_taken() {
        let refused = choose(&nights(), "mail", &both(), &Moment::Latest, at(12));
        assert!(matches!(refused, Err(RestoreError::NoSnapshot { .. })));
    }

    #[test]
    fn a_source_that_the_policy_named_once_is_told_apart_and_taken_only_by_name() -> Result<(), RestoreError> {
        let mut nights = nights();
        nights.push(stored("old-db", "mysql", 1));
        assert_eq!(others(&nights, "mall", &both()), ["old-db"]);
        let chosen = choose(&nights, "mall", &["old-db".to_owned()], &Moment::Latest, at(12))?;
        assert_eq!(chosen[0].source, "old-db");
        assert_eq!(choose(&nights, "mall", &both(), &Moment::Latest, at(12))?.len(), 2);
        Ok(())
    }

    #[test]
    fn the_beginning_of_an_id_must_name_one_snapshot_of_a_wanted_source() {
        let nights = nights();
        let id = nights[2].id.to_string();
        let moment = Moment::Snapshot(id[..12].to_owned());
        let chosen = |sources: &[String]| choose(&nights, "mall", sources, &moment, at(12));
        assert_eq!(chosen(&[]).map(|all| all[0].id()).ok(), Some(nights[2].id));
        assert_eq!(chosen(&["db1".to_owned()]).map(|all| all[0].id()).ok(), Some(nights[2].id));
        assert!(matches!(chosen(&["images".to_owned()]), Err(RestoreError::OtherSource { .. })));
        assert!(matches!(
            choose(&nights, "mall", &[], &Moment::Snapshot(String::new()), at(12)),
            Err(RestoreError::AmbiguousId(_))
        ));
    }
}
