//! The recovery kit: all that a person needs on the day on which the backup server is gone too, but for the passphrase, the
//! credentials of the copy, and the copy.
//!
//! ```text
//! bkp               the program
//! RUNBOOK.md        what to do, step by step, with real names, sizes and times
//! policies/NAME.toml
//! keys/NAME.key     a key file of the repository's, sealed under the kit's passphrase
//! ca/NAME/COPY.pem  who signs the certificate of the copy's server
//! kit.json          what is in it and what it is of
//! SHA256SUMS
//! ```
//!
//! The key file is a key file as any: `bkp` opens a copy with it whatever keys are there. It is put into the repository and the copies
//! too, so that `restic` opens them with the passphrase; a kit that is exported apart has the only one. Credentials of object stores
//! are left out: restic could not read them sealed, they change more often than kits are made, and a stolen kit is worth less.

pub mod elf;
mod export;
mod facts;
mod folder;
mod recover;
mod runbook;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use crate::kit::export::{Exported, Options, export};
pub use crate::kit::folder::{check, program_of, running_program};
pub use crate::kit::recover::policy_of;

use crate::catalog::CatalogError;
use crate::kit::elf::Binary;
use crate::place::PlaceError;
use crate::policy::PolicyError;
use crate::repository::RepositoryError;
use crate::secret::Secret;

/// The name of the list that makes a directory a kit.
const LIST: &str = "kit.json";
const SUMS: &str = "SHA256SUMS";
const PROGRAM: &str = "bkp";
const RUNBOOK: &str = "RUNBOOK.md";

/// The very file that runs, also where another was installed over it.
const RUNNING: &str = "/proc/self/exe";

/// The version of the list's form.
const FORMAT: u32 = 1;

/// What is in a kit. The JSON form is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kit {
    pub format: u32,
    /// What made it: `bkp 0.1.0`.
    pub program: String,
    pub created: DateTime<Utc>,
    /// The machine that it was made on.
    pub host: String,
    pub binary: Binary,
    /// Where the program in it is not the one that made it: what it said its version is; empty where it cannot run here.
    pub given: Option<String>,
    pub policies: Vec<KitPolicy>,
    /// SHA-256 of each file but this one and the sums.
    pub files: BTreeMap<String, String>,
}

/// One policy of a kit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KitPolicy {
    pub name: String,
    /// SHA-256 of the policy's text.
    pub hash: String,
    pub repository: String,
    /// The id of its key file.
    pub key: String,
    /// The copy that stands for the lost repository.
    pub from: String,
    /// Each copy, and where it is.
    pub copies: BTreeMap<String, String>,
}

/// What a policy's state directory remembers of the newest kit, for `bkp doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub created: DateTime<Utc>,
    pub program: String,
    pub policy_hash: String,
    pub dir: PathBuf,
}

const STAMP: &str = "kit.json";

impl Stamp {
    /// Reads what is remembered; `None` where no kit was exported from here.
    #[must_use]
    pub fn read(state_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(state_dir.join(STAMP)).ok()?).ok()
    }
}

/// Returns the name and version of this program.
#[must_use]
pub fn program() -> String {
    concat!("bkp ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// Refuses a passphrase that a thief of the kit would guess: four random words have twenty letters.
///
/// # Errors
/// [`KitError::Weak`].
pub fn judge(passphrase: &Secret) -> Result<(), KitError> {
    const LETTERS_MIN: usize = 16;
    const DISTINCT_MIN: usize = 8;
    let letters = passphrase.reveal().chars();
    if letters.clone().count() < LETTERS_MIN {
        return Err(KitError::Weak("it has fewer than 16 letters"));
    }
    let distinct: std::collections::BTreeSet<char> = letters.collect();
    if distinct.len() < DISTINCT_MIN { Err(KitError::Weak("it has fewer than 8 different letters")) } else { Ok(()) }
}

/// What to do about a kit that is damaged.
pub const DAMAGE_HINT: &str = "export it again: `bkp kit export DIR`; if that is too late, `sha256sum -c SHA256SUMS` says which of its files are whole";

#[derive(Debug, thiserror::Error)]
pub enum KitError {
    #[error("{act} `{}`: {source}", path.display())]
    Io { act: &'static str, path: PathBuf, source: io::Error },
    #[error("write the kit into `{}`: it is neither empty nor a kit", .0.display())]
    NotEmpty(PathBuf),
    #[error("open the kit `{}`: {reason}", dir.display())]
    NoKit { dir: PathBuf, reason: String },
    #[error("open the kit: no policy `{name}` is in it, only {}", crate::human::quoted(known))]
    NoPolicy { name: String, known: Vec<String> },
    #[error("write the kit into `{}`: the one there has {} as well", dir.display(), crate::human::quoted(names))]
    Fewer { dir: PathBuf, names: Vec<String> },
    #[error("open the kit `{}`: the bytes of kit.json are no list: {reason}", dir.display())]
    BadList { dir: PathBuf, reason: String },
    #[error("write the kit: `{}` is not safe to write through: {reason}", path.display())]
    Foreign { path: PathBuf, reason: String },
    #[error("export policy `{0}`: it names no copy, and a kit without one brings nothing back")]
    NoCopy(String),
    #[error("take the passphrase: {0}")]
    Weak(&'static str),
    #[error("take the program `{}`: {reason}", path.display())]
    Binary { path: PathBuf, reason: String },
    #[error("print the kit's list: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl KitError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotEmpty(_) => "name a new directory, or the one of an older kit",
            Self::NoKit { .. } => "name the directory that holds kit.json; `bkp kit export DIR` makes one",
            Self::NoPolicy { .. } => "name one of these",
            Self::Fewer { .. } => "name these policies too, or a new directory: nobody shall miss them on the day",
            Self::NoCopy(_) => "add a [[copy]] table to the policy, and run `bkp copy`",
            Self::Weak(_) => {
                "take four or more random words; it must be found when all else is lost: keep it apart from the kit"
            }
            Self::Binary { .. } => "name a Linux program with `--binary FILE`",
            Self::BadList { .. } => DAMAGE_HINT,
            Self::Foreign { .. } => "name a new directory, or give this one to root once all in it is looked through",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "check the rights of that path, or run as its owner"
            }
            Self::Io { .. } | Self::Json(_) => return None,
            Self::Policy(error) => return error.hint(),
            Self::Place(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
            Self::Catalog(error) => return error.hint(),
        };
        Some(text.to_owned())
    }
}

fn io_error(act: &'static str, path: &Path) -> impl Fn(io::Error) -> KitError {
    move |source| KitError::Io { act, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_that_is_short_or_one_letter_is_refused() {
        let judged = |text: &str| judge(&Secret::new(text.to_owned())).is_ok();
        assert!(judged("correct horse battery staple"));
        assert!(judged("말 배터리 스테이플 옳은 것이다"));
        assert!(!judged("correct horse"));
        assert!(!judged("aaaaaaaaaaaaaaaaaaaaaaaa"));
    }
}
