//! Which snapshots a restore takes: the newest of each source at or before a moment.

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

    fn new(stored: &StoredSnapshot, until: DateTime<Utc>) -> Option<Self> {
        let snapshot = &stored.snapshot;
        Some(Self {
            source: snapshot.tag("source")?.to_owned(),
            kind: snapshot.tag("kind")?.to_owned(),
            stored: stored.clone(),
            lost: (until - snapshot.time).max(TimeDelta::zero()),
            is_incomplete: snapshot.tag("incomplete").is_some(),
        })
    }
}

/// Chooses one snapshot for each wanted source of a policy. `sources` empty means every source that has one.
///
/// # Errors
/// [`RestoreError`] where no snapshot fits, one of the wanted sources has none, or an id is unknown or ambiguous.
pub fn choose(
    snapshots: &[StoredSnapshot],
    policy: &str,
    sources: &[String],
    moment: &Moment,
    now: DateTime<Utc>,
) -> Result<Vec<Chosen>, RestoreError> {
    if let Moment::Snapshot(prefix) = moment {
        return by_id(snapshots, prefix, now).map(|chosen| vec![chosen]);
    }
    let until = if let Moment::At(time) = moment { *time } else { now };
    let of_policy = |stored: &&StoredSnapshot| stored.snapshot.tag("policy") == Some(policy);
    let wanted = |chosen: &Chosen| sources.is_empty() || sources.contains(&chosen.source);
    let mut chosen: Vec<Chosen> = Vec::new();
    for stored in snapshots.iter().filter(of_policy).filter(|stored| stored.snapshot.time <= until) {
        let Some(candidate) = Chosen::new(stored, until).filter(wanted) else { continue };
        match chosen.iter_mut().find(|other| other.source == candidate.source) {
            Some(other) if other.stored.snapshot.time > candidate.stored.snapshot.time => {}
            Some(other) => *other = candidate,
            None => chosen.push(candidate),
        }
    }
    if let Some(absent) = sources.iter().find(|name| !chosen.iter().any(|chosen| chosen.source == **name)) {
        return Err(RestoreError::NoSnapshot { what: format!("source `{absent}`"), until });
    }
    if chosen.is_empty() {
        return Err(RestoreError::NoSnapshot { what: format!("policy `{policy}`"), until });
    }
    chosen.sort_by(|a, b| b.kind.cmp(&a.kind).then_with(|| a.source.cmp(&b.source)));
    Ok(chosen)
}

fn by_id(snapshots: &[StoredSnapshot], prefix: &str, now: DateTime<Utc>) -> Result<Chosen, RestoreError> {
    let mut found = snapshots.iter().filter(|stored| stored.id.to_string().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(stored), None) => {
            let refusal = || RestoreError::Foreign(stored.id.short());
            Chosen::new(stored, now).ok_or_else(refusal)
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

    #[test]
    fn each_source_gives_its_newest_snapshot_at_or_before_the_moment() -> Result<(), RestoreError> {
        let chosen = choose(&nights(), "mall", &[], &Moment::At(at(8)), at(12))?;
        let times: Vec<_> = chosen.iter().map(|chosen| (chosen.source.as_str(), chosen.stored.snapshot.time)).collect();
        assert_eq!(times, [("db1", at(8)), ("images", at(3))]);
        assert_eq!(chosen.iter().map(|chosen| chosen.lost.num_hours()).collect::<Vec<_>>(), [0, 5]);
        Ok(())
    }

    #[test]
    fn a_moment_before_the_first_snapshot_is_refused() {
        let refused = choose(&nights(), "mall", &[], &Moment::At(at(1)), at(12));
        assert!(matches!(refused, Err(RestoreError::NoSnapshot { .. })));
    }

    #[test]
    fn another_policys_snapshots_are_not_taken() {
        assert!(matches!(
            choose(&nights(), "mail", &[], &Moment::Latest, at(12)),
            Err(RestoreError::NoSnapshot { .. })
        ));
    }

    #[test]
    fn the_beginning_of_an_id_must_name_one_snapshot() {
        let nights = nights();
        let id = nights[2].id.to_string();
        let chosen = choose(&nights, "mall", &[], &Moment::Snapshot(id[..12].to_owned()), at(12));
        assert_eq!(chosen.map(|all| all[0].id()).ok(), Some(nights[2].id));
        assert!(matches!(
            choose(&nights, "mall", &[], &Moment::Snapshot(String::new()), at(12)),
            Err(RestoreError::AmbiguousId(_))
        ));
    }
}
