//! What keeps an entry from being restored, and whether anything else still can be.

use std::path::Path;

use crate::repository::RepositoryError;
use crate::restore::files::RestoreFilesError;
use crate::restore::files::content::ContentError;
use crate::restore::files::walk::Walk;
use crate::target::files::TargetFilesError;
use crate::target::files::is_full;

/// Why an entry is not there.
pub(super) enum Fault {
    /// It alone: noted, and the restore goes on.
    Entry { reason: String, is_damage: bool },
    /// Nothing more can be done.
    Fatal(RestoreFilesError),
}

impl Fault {
    pub(super) fn entry(reason: impl Into<String>) -> Self {
        Self::Entry { reason: reason.into(), is_damage: false }
    }

    pub(super) fn damage(reason: impl Into<String>) -> Self {
        Self::Entry { reason: reason.into(), is_damage: true }
    }

    /// Says of a directory that its whole content is concerned.
    pub(super) fn of_all_below(self) -> Self {
        match self {
            Self::Entry { reason, is_damage } => {
                Self::Entry { reason: format!("it and all below it: {reason}"), is_damage }
            }
            fatal @ Self::Fatal(_) => fatal,
        }
    }
}

impl Walk<'_> {
    /// Judges what went wrong with an entry.
    pub(super) fn fault(&self, path: &Path, error: ContentError) -> Fault {
        match error {
            ContentError::Stopped(stopped) | ContentError::Repository(RepositoryError::Stopped(stopped)) => {
                Fault::Fatal(stopped.into())
            }
            ContentError::Repository(error) if error.is_damage() => Fault::damage(error.to_string()),
            ContentError::Repository(error) => Fault::Fatal(error.into()),
            ContentError::File(error) if is_full(&error) => {
                let path = self.target.path().join(path);
                let act = "write";
                Fault::Fatal(TargetFilesError::Io { act, path, error }.into())
            }
            ContentError::File(error) => Fault::entry(error.to_string()),
        }
    }
}
