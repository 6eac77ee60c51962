//! What must be true of an image tree before its snapshot may stand for it.
//!
//! An empty mount point looks like a tree in which every image was deleted. A guard that trips means no snapshot and no
//! forget.

use std::path::PathBuf;

use crate::policy::FilesGuard;

/// How much a tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub files: u64,
    pub bytes: u64,
}

/// Why a tree was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Guard {
    #[error("`{path}` is not mounted: it is a directory of the mount `{point}` ({fs_type})")]
    NotMounted { path: PathBuf, point: PathBuf, fs_type: String },
    #[error("`{path}` is mounted as {found}, the policy wants {wanted}")]
    WrongType { path: PathBuf, wanted: String, found: String },
    #[error("the sentinel `{path}` is not there")]
    NoSentinel { path: PathBuf },
    #[error("the sentinel `{path}` cannot be looked at: {reason}")]
    UnseenSentinel { path: PathBuf, reason: String },
    #[error("{files} files are fewer than the {min} that the policy wants at least")]
    TooFew { files: u64, min: u64 },
    #[error("files fell from {before} to {now}, by more than {}", percent(*.limit))]
    FilesDropped { before: u64, now: u64, limit: f64 },
    #[error("bytes fell from {before} to {now}, by more than {}", percent(*.limit))]
    BytesDropped { before: u64, now: u64, limit: f64 },
}

impl Guard {
    /// Returns the next step.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotMounted { .. } => "mount it, or set `require_mount = false`",
            Self::WrongType { .. } => "mount what the policy names, or correct `fs_type`",
            Self::NoSentinel { .. } => "check that the right tree is mounted, then `touch` the sentinel",
            Self::UnseenSentinel { .. } => "the mount is there and does not answer: check the file server",
            Self::TooFew { .. } => "check that the tree is whole, or lower `guard.files_min`",
            Self::FilesDropped { .. } => "if the files were meant to go, raise `guard.files_drop` for one run",
            Self::BytesDropped { .. } => "if the bytes were meant to go, raise `guard.bytes_drop` for one run",
        };
        Some(text.to_owned())
    }
}

/// Judges a tree that was read against the policy and what the last snapshot held.
///
/// # Errors
/// The first [`Guard`] that trips.
pub fn judge(guard: &FilesGuard, now: Totals, before: Option<Totals>) -> Result<(), Guard> {
    if now.files < guard.files_min {
        return Err(Guard::TooFew { files: now.files, min: guard.files_min });
    }
    let Some(before) = before else { return Ok(()) };
    if let Some(limit) = guard.files_drop.filter(|limit| fell(before.files, now.files, *limit)) {
        return Err(Guard::FilesDropped { before: before.files, now: now.files, limit });
    }
    if let Some(limit) = guard.bytes_drop.filter(|limit| fell(before.bytes, now.bytes, *limit)) {
        return Err(Guard::BytesDropped { before: before.bytes, now: now.bytes, limit });
    }
    Ok(())
}

/// Tells whether a count fell by more than a share of itself.
#[expect(clippy::cast_precision_loss, reason = "a share of files needs no more than 53 bits")]
fn fell(before: u64, now: u64, limit: f64) -> bool {
    before.saturating_sub(now) as f64 > before as f64 * limit
}

fn percent(share: f64) -> String {
    format!("{:.3}", share * 100.0).trim_end_matches('0').trim_end_matches('.').to_owned() + " %"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop_of(share: f64) -> FilesGuard {
        FilesGuard { files_drop: Some(share), bytes_drop: Some(share), ..FilesGuard::default() }
    }

    fn holds(files: u64, bytes: u64) -> Totals {
        Totals { files, bytes }
    }

    #[test]
    fn a_tree_may_lose_as_much_as_the_policy_says_and_no_more() {
        let before = Some(holds(1_000, 5_000));
        assert_eq!(judge(&drop_of(0.2), holds(800, 4_000), before), Ok(()));
        assert_eq!(
            judge(&drop_of(0.2), holds(799, 5_000), before),
            Err(Guard::FilesDropped { before: 1_000, now: 799, limit: 0.2 })
        );
        assert!(matches!(judge(&drop_of(0.2), holds(1_000, 3_999), before), Err(Guard::BytesDropped { .. })));
    }

    #[test]
    fn a_first_snapshot_needs_only_the_minimum() {
        let guard = FilesGuard { files_min: 10, ..drop_of(0.0) };
        assert_eq!(judge(&guard, holds(10, 0), None), Ok(()));
        assert_eq!(judge(&guard, holds(9, 0), None), Err(Guard::TooFew { files: 9, min: 10 }));
    }

    #[test]
    fn growth_and_an_empty_past_trip_nothing() {
        assert_eq!(judge(&drop_of(0.0), holds(2, 2), Some(holds(1, 1))), Ok(()));
        assert_eq!(judge(&drop_of(0.5), holds(0, 0), Some(holds(0, 0))), Ok(()));
    }

    #[test]
    fn the_share_is_told_as_percent() {
        let tripped = Guard::FilesDropped { before: 9, now: 1, limit: 0.125 };
        assert_eq!(tripped.to_string(), "files fell from 9 to 1, by more than 12.5 %");
    }
}
