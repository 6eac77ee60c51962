//! How far a standby has come: for `bkp standby status`, beside whoever serves it, and for a new start.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::mysql::gtid::Executed;
use crate::replay::Standby as Mark;
use crate::standby::arrivals::Arrivals;
use crate::standby::way::holds;
use crate::standby::{Standby, StandbyError};

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
    /// When whoever serves it wrote this.
    pub told_at: Option<DateTime<Utc>>,
    /// What keeps the stream from going on.
    pub error: Option<String>,
    pub(super) arrivals: Arrivals,
}

impl Progress {
    /// Reads what is known of a standby; `None` where nothing is, a crash tore it, or it is of another.
    pub(super) fn read(standby: &Standby<'_>, mark: &Mark) -> Result<Option<Self>, StandbyError> {
        let path = path(standby, mark);
        let told: Option<Self> = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StandbyError::Io { act: "read", path, error }),
        };
        Ok(told.filter(|told| told.target == standby.server.name() && told.epoch == mark.epoch))
    }

    /// Tells whether it is of a server that has executed this: one that was put back from an older disk has less.
    pub(super) fn is_of(&self, executed: &Executed) -> bool {
        Executed::parse(executed.product(), &self.executed).is_ok_and(|told| holds(executed, &told))
    }

    /// Writes it beside its place, and renames. A crash may take it: then a delay begins anew.
    pub(super) fn write(&self, standby: &Standby<'_>, mark: &Mark) -> Result<(), StandbyError> {
        let path = path(standby, mark);
        let written = || {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            let beside = path.with_extension("new");
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            fs::rename(&beside, &path)
        };
        written().map_err(|error| StandbyError::Io { act: "write", path: path.clone(), error })
    }

    pub(super) fn remove(standby: &Standby<'_>, mark: &Mark) {
        // What stays tells of a standby that is none any more, and its target says so.
        fs::remove_file(path(standby, mark)).ok();
    }
}

/// A source may have several standbys, and one that is made anew is another.
fn path(standby: &Standby<'_>, mark: &Mark) -> PathBuf {
    standby.policy.state_dir.join("standby").join(format!("{}-{}.json", standby.source, mark.server_id))
}
