//! Whether retention rests: from what the catalog remembers of each source's newest backup, and of the verifies.

use crate::catalog::{Catalog, REPOSITORY, VerifyRecord};
use crate::exit::{Exit, Failure};
use crate::forget::Freeze;
use crate::policy::Policy;
use crate::verify::Level;

/// Returns why nothing may be forgotten in a store now.
///
/// # Errors
/// [`Failure`] where the catalog cannot be read.
pub fn freeze(policy: &Policy, store: &str, catalog: &Catalog) -> Result<Option<Freeze>, Failure> {
    for source in policy.mysql.keys().chain(policy.files.keys()) {
        let newest = catalog.newest_of_source(source)?;
        if let Some(freeze) = newest.and_then(|(_, code)| of_backup(source, code)) {
            return Ok(Some(freeze));
        }
    }
    let is_damaged = is_damaged(&catalog.verifies(store)?);
    Ok(is_damaged.then(|| Freeze::Damaged { store: store.to_owned() }))
}

/// Returns the stores in which a verify found damage that no later one has found mended.
///
/// # Errors
/// [`Failure`] where the catalog cannot be read.
pub fn damaged(policy: &Policy, catalog: &Catalog) -> Result<Vec<String>, Failure> {
    let stores = std::iter::once(REPOSITORY).chain(policy.copies.iter().map(|copy| copy.name.as_str()));
    let mut damaged = Vec::new();
    for store in stores {
        if is_damaged(&catalog.verifies(store)?) {
            damaged.push(store.to_owned());
        }
    }
    Ok(damaged)
}

/// Judges the newest backup of a source by its exit code; `None` where it never came to one.
fn of_backup(source: &str, code: Option<u8>) -> Option<Freeze> {
    const OK: u8 = Exit::Ok.code();
    const INCOMPLETE: u8 = Exit::Incomplete.code();
    const GUARD: u8 = Exit::Guard.code();
    const INTERRUPTED: u8 = Exit::Interrupted.code();
    const TERMINATED: u8 = Exit::Terminated.code();
    let source = source.to_owned();
    match code {
        Some(OK | INCOMPLETE) => None,
        Some(GUARD) => Some(Freeze::GuardTripped { source }),
        Some(INTERRUPTED | TERMINATED) | None => Some(Freeze::RunStopped { source }),
        Some(_) => Some(Freeze::RunFailed { source }),
    }
}

/// Tells whether a verify found damage that no later one has found mended.
fn is_damaged(newest_first: &[VerifyRecord]) -> bool {
    newest_first.iter().enumerate().any(|(place, verify)| {
        let mut later = newest_first[..place].iter();
        !verify.is_sound && !later.any(|later| later.is_sound && covers(later, verify))
    })
}

/// Tells whether a verify looked at all that an earlier one did. What `structure` proves, each share of `data` proves as well, and
/// `restore`; what a restore has found wrong, only a restore finds right.
fn covers(later: &VerifyRecord, earlier: &VerifyRecord) -> bool {
    match (earlier.level, later.level) {
        (Level::Structure, _) => true,
        (Level::Data, Level::Structure | Level::Restore) => false,
        (Level::Restore, later) => later == Level::Restore,
        (Level::Data, Level::Data) => later.subset.is_none() || later.subset == earlier.subset,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use chrono::{DateTime, TimeDelta};

    use super::*;
    use crate::catalog::REPOSITORY;
    use crate::id::RunId;

    /// Verifies from the oldest on: `s`, `d` or `r` for the level, a share, and whether it was sound.
    fn damaged(verifies: &[(char, Option<&str>, bool)]) -> bool {
        let record = |(hour, (level, subset, is_sound)): (i64, &(char, Option<&str>, bool))| {
            let started = DateTime::UNIX_EPOCH + TimeDelta::hours(hour);
            VerifyRecord {
                run: RunId::new(started, 1),
                started,
                store: REPOSITORY.to_owned(),
                level: match level {
                    'd' => Level::Data,
                    'r' => Level::Restore,
                    _ => Level::Structure,
                },
                subset: subset.map(|text| text.parse().unwrap()),
                is_sound: *is_sound,
            }
        };
        let mut records: Vec<_> = (0..).zip(verifies).map(record).collect();
        records.reverse();
        is_damaged(&records)
    }

    #[test]
    fn damage_counts_until_a_verify_that_looks_as_deep_is_sound() {
        assert!(!damaged(&[]));
        assert!(!damaged(&[('d', None, true)]));
        assert!(damaged(&[('d', None, false)]));
        assert!(damaged(&[('d', None, false), ('s', None, true)]), "structure does not read bytes");
        assert!(!damaged(&[('s', None, false), ('d', Some("1/7"), true)]));
        assert!(!damaged(&[('d', Some("3/7"), false), ('d', None, true)]));
        assert!(damaged(&[('d', Some("3/7"), false), ('d', Some("4/7"), true)]), "another share");
        assert!(!damaged(&[('d', Some("3/7"), false), ('d', Some("3/7"), true)]));
        assert!(damaged(&[('d', None, true), ('d', None, false)]), "only what comes later mends");
        assert!(damaged(&[('r', None, false), ('d', None, true)]), "what came back was not what was dumped");
        assert!(damaged(&[('d', None, false), ('r', None, true)]), "a restore reads what the newest snapshots need");
        assert!(
            !damaged(&[('s', None, false), ('r', None, true)]) && !damaged(&[('r', None, false), ('r', None, true)])
        );
    }

    #[test]
    fn a_backup_without_a_code_never_came_to_its_end() {
        let source = "images".to_owned();
        assert_eq!(of_backup("images", Some(0)), None);
        assert_eq!(of_backup("images", Some(3)), None);
        assert_eq!(of_backup("images", Some(15)), Some(Freeze::GuardTripped { source: source.clone() }));
        assert_eq!(of_backup("images", Some(1)), Some(Freeze::RunFailed { source: source.clone() }));
        for stopped in [Some(130), Some(143), None] {
            assert_eq!(of_backup("images", stopped), Some(Freeze::RunStopped { source: source.clone() }));
        }
    }
}
