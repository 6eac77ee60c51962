//! How far a standby has come: for `bkp standby status`, beside whoever serves it, and for a new start.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::standby::StandbyError;
use crate::standby::arrivals::Arrivals;

/// What is known of a standby on the machine that serves it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    pub target: String,
    pub epoch: u32,
    pub delay: Duration,
    /// All that the source had committed by then is applied.
    pub as_of: Option<DateTime<Utc>>,
    /// What is applied, in the words of the product.
    pub executed: String,
    /// What keeps the stream from going on.
    pub error: Option<String>,
    pub(super) arrivals: Arrivals,
}

impl Progress {
    /// Reads what is known; `None` where nothing is, or a crash tore it.
    pub(super) fn read(state_dir: &Path, source: &str) -> Result<Option<Self>, StandbyError> {
        let path = path(state_dir, source);
        match fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StandbyError::Io { act: "read", path, error }),
        }
    }

    /// Writes it beside its place, and renames. A crash may take it: then a delay begins anew.
    pub(super) fn write(&self, state_dir: &Path, source: &str) -> Result<(), StandbyError> {
        let path = path(state_dir, source);
        let written = || {
            fs::create_dir_all(path.parent().unwrap_or(state_dir))?;
            let beside = path.with_extension("new");
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            fs::rename(&beside, &path)
        };
        written().map_err(|error| StandbyError::Io { act: "write", path: path.clone(), error })
    }

    pub(super) fn remove(state_dir: &Path, source: &str) {
        // What stays tells of a standby that is none any more, and its target says so.
        fs::remove_file(path(state_dir, source)).ok();
    }
}

fn path(state_dir: &Path, source: &str) -> PathBuf {
    state_dir.join("standby").join(format!("{source}.json"))
}
