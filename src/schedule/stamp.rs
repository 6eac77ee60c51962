//! The stamps: when each verb last succeeded, in `<state_dir>/stamps.json`.
//!
//! A plain file, because `bkp run` reads it every minute and opens nothing else while nothing is due. It is written only
//! after a run: a success is stamped when everything else is on disk. Whoever writes it reads it first, under a lock of its
//! own ([`Stamps::update`]).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::schedule::due::is_sane;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamps {
    /// When this machine first ran the policy; times before it are not missed.
    pub first_seen: Option<DateTime<Utc>>,
    /// By verb: `backup`, `copy`, `verify`, `prune`, `drill`.
    #[serde(default)]
    pub verbs: BTreeMap<String, Stamp>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// When the last run that succeeded started.
    pub success: Option<DateTime<Utc>>,
    /// The runs that failed since.
    pub failure: Option<Failure>,
    /// How many runs have succeeded: whose turn it is, where each run does a share of the work.
    #[serde(default)]
    pub done: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When the last of them ended.
    pub at: DateTime<Utc>,
    /// How many in a row.
    pub count: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum StampError {
    #[error("read the stamps `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("read the stamps `{}`: the file is damaged", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        error: serde_json::Error,
    },
    #[error("write the stamps `{}`", path.display())]
    Write {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

impl StampError {
    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { path, .. } => Some(format!("remove `{}`: then what is due runs once", path.display())),
            Self::Read { .. } | Self::Write { .. } => Some("check the space and the rights in state_dir".to_owned()),
        }
    }
}

impl Stamps {
    /// Reads the stamps; none before the first run.
    pub fn load(state_dir: &Path) -> Result<Self, StampError> {
        let path = path_in(state_dir);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| StampError::Damaged { path, error }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(StampError::Read { path, error }),
        }
    }

    /// Reads the stamps, changes them and writes them, one process at a time.
    pub fn update(state_dir: &Path, change: impl FnOnce(&mut Self)) -> Result<(), StampError> {
        let path = path_in(state_dir);
        let write_error = |error| StampError::Write { path: path.clone(), error };
        let lock = File::options().write(true).create(true).truncate(false).open(state_dir.join("stamps.lock"));
        let lock = lock.map_err(write_error)?;
        lock.lock().map_err(write_error)?;
        let mut stamps = Self::load(state_dir)?;
        change(&mut stamps);
        stamps.write(state_dir, &path).map_err(write_error)
    }

    #[must_use]
    pub fn of(&self, verb: &str) -> Stamp {
        self.verbs.get(verb).copied().unwrap_or_default()
    }

    /// Notes a success of a run that started at `started`.
    pub fn succeed(&mut self, verb: &str, started: DateTime<Utc>) {
        let done = self.of(verb).done.wrapping_add(1);
        let stamp = Stamp { success: Some(started), failure: None, done };
        self.verbs.insert(verb.to_owned(), stamp);
    }

    /// Notes a failure.
    pub fn fail(&mut self, verb: &str, ended: DateTime<Utc>) {
        let stamp = self.verbs.entry(verb.to_owned()).or_default();
        let count = stamp.failure.map_or(0, |failure| failure.count).saturating_add(1);
        stamp.failure = Some(Failure { at: ended, count });
    }

    /// Writes the stamps beside their place and renames them there.
    fn write(&self, state_dir: &Path, path: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(state_dir)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(state_dir)?.sync_all()
    }
}

impl Failure {
    /// Returns until when the verb rests; `None` where it may be tried now. A failure from a wrong clock, which would make it
    /// rest for years, counts as none.
    #[must_use]
    pub fn rests_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let retry_at = self.retry_at();
        (is_sane(self.at, now) && retry_at > now).then_some(retry_at)
    }

    /// Like [`Failure::rests_until`], for what must not rest longer than so long.
    #[must_use]
    pub fn rests_until_within(&self, longest: TimeDelta, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let retry_at = self.rests_until(now)?.min(self.at + longest);
        (retry_at > now).then_some(retry_at)
    }

    /// Returns when to try again: soon at first, for a failure often passes, then every hour, so that a database in trouble is
    /// not asked each minute.
    fn retry_at(self) -> DateTime<Utc> {
        let minutes = match self.count {
            0 | 1 => 1,
            2 => 5,
            3 => 15,
            4 => 30,
            _ => 60,
        };
        self.at + TimeDelta::minutes(minutes)
    }
}

fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join("stamps.json")
}
