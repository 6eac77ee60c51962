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
    let mut all = newest_first.iter().enumerate();
    all.any(|(place, verify)| !verify.is_sound && !is_mended(verify, &newest_first[..place]))
}

/// Tells whether sound verifies looked since at all that one looked at. What `structure` proves, each share of `data` proves as well.
/// A restore sees the newest snapshots alone, and those of an earlier one may be older by now: it takes every byte beside it.
fn is_mended(earlier: &VerifyRecord, later: &[VerifyRecord]) -> bool {
    let sound = || later.iter().filter(|later| later.is_sound);
    let is_read_whole = || sound().any(|later| later.level == Level::Data && later.subset.is_none());
    match earlier.level {
        Level::Structure => sound().any(|later| later.level != Level::Restore),
        Level::Data => {
            is_read_whole() || sound().any(|later| later.level == Level::Data && later.subset == earlier.subset)
        }
        Level::Restore => is_read_whole() && sound().any(|later| later.level == Level::Restore),
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
    }

    #[test]
    fn damage_that_a_restore_found_counts_until_every_byte_was_read_and_a_restore_is_sound() {
        let (restored, read, share) = (('r', None, true), ('d', None, true), ('d', Some("1/7"), true));
        let damage = ('r', None, false);
        assert!(damaged(&[damage, restored]), "the newest snapshot is another by now");
        assert!(damaged(&[damage, restored, share]), "a share is not every byte");
        assert!(damaged(&[read, damage, restored]), "only what comes later mends");
        assert!(!damaged(&[damage, read, restored]) && !damaged(&[damage, restored, read]));
        assert!(damaged(&[('s', None, false), restored]), "the structure that a restore finds sound is told by itself");
        assert!(!damaged(&[('s', None, true), restored]));
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
