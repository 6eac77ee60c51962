//! How far a standby has come: for `bkp standby status`, beside whoever serves it, and for a new start.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::mysql::gtid::Executed;
use crate::replay::Standby as Mark;
use crate::standby::arrivals::Arrivals;
use crate::standby::reached::Reached;
use crate::standby::way::is_as_far_as;
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
    /// All before it is applied.
    pub(super) reached: Option<Reached>,
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
        Executed::parse(executed.product(), &self.executed).is_ok_and(|told| is_as_far_as(executed, &told))
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

    /// Removes what was told of this server as a standby that it is no more: all but `mark`. Another machine may have promoted it.
    pub(super) fn remove_former(standby: &Standby<'_>, mark: Option<&Mark>) {
        let Ok(entries) = fs::read_dir(dir(standby)) else { return };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let is_current = mark.is_some_and(|mark| path == self::path(standby, mark));
            if !is_current && is_of_source(&path, standby.source) && target_of(&path) == Some(standby.server.name()) {
                // What stays tells of a standby that is none any more, and its target says so.
                fs::remove_file(&path).ok();
            }
        }
    }
}

fn dir(standby: &Standby<'_>) -> PathBuf {
    standby.policy.state_dir.join("standby")
}

fn is_of_source(path: &Path, source: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
    let number = name.and_then(|name| name.strip_prefix(source)?.strip_prefix('-'));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

fn target_of(path: &Path) -> Option<String> {
    let told: Progress = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(told.target)
}

/// A source may have several standbys, and one that is made anew is another.
fn path(standby: &Standby<'_>, mark: &Mark) -> PathBuf {
    dir(standby).join(format!("{}-{}.json", standby.source, mark.server_id))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::mysql::manifest::Product;
    use crate::mysql::server::Server;
    use crate::policy::{MysqlAddress, Network, Policy, Tls, TlsMode};

    fn standby<'a>(policy: &'a Policy, host: &str) -> Standby<'a> {
        let server = Server {
            address: MysqlAddress::Tcp { host: host.to_owned(), port: 3306 },
            user: "bkp".to_owned(),
            password: None,
            tls: Tls { mode: TlsMode::Off, ca_file: None },
            network: Network::default(),
        };
        let delay = Duration::ZERO;
        Standby { policy, source: "db1", server, delay, connections: 4, listen: None, skip_binlog: false }
    }

    fn mark(server_id: u32) -> Mark {
        Mark { source: "db1".to_owned(), epoch: 1, server_id, is_promoting: false }
    }

    #[test]
    fn each_standby_of_a_source_has_its_own_and_one_that_is_made_anew_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut policy = Policy::parse(include_str!("../../policies/full.toml"), Path::new("full.toml")).unwrap();
        policy.state_dir = dir.path().to_owned();
        let (near, far) = (standby(&policy, "10.0.30.21"), standby(&policy, "10.0.30.22"));
        let told = |standby: &Standby<'_>, executed: &str| Progress {
            target: standby.server.name(),
            epoch: 1,
            executed: executed.to_owned(),
            ..Progress::default()
        };
        told(&near, "0-1-7").write(&near, &mark(1)).unwrap();
        told(&far, "0-1-9").write(&far, &mark(2)).unwrap();
        let read = |standby, mark| Progress::read(standby, &mark).unwrap().map(|told| told.executed);
        assert_eq!(read(&near, mark(1)), Some("0-1-7".to_owned()));
        assert_eq!(read(&far, mark(2)), Some("0-1-9".to_owned()));
        assert_eq!((read(&near, mark(3)), read(&far, mark(1))), (None, None), "made anew, and a copy of the other");
        assert_eq!(read(&near, Mark { epoch: 2, ..mark(1) }), None);
        Progress::remove_former(&near, None);
        assert_eq!((read(&near, mark(1)), read(&far, mark(2)).is_some()), (None, true));
    }

    #[test]
    fn what_was_told_of_a_former_standby_goes_and_that_of_others_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut policy = Policy::parse(include_str!("../../policies/full.toml"), Path::new("full.toml")).unwrap();
        policy.state_dir = dir.path().to_owned();
        let (near, far) = (standby(&policy, "10.0.30.21"), standby(&policy, "10.0.30.22"));
        let other = Standby { source: "db1-2", ..near.clone() };
        let told = |standby: &Standby<'_>| Progress { target: standby.server.name(), epoch: 1, ..Progress::default() };
        for (standby, number) in [(&near, 1), (&near, 2), (&far, 3), (&other, 4)] {
            told(standby).write(standby, &mark(number)).unwrap();
        }
        let left = || {
            let names = fs::read_dir(dir.path().join("standby")).unwrap();
            let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        Progress::remove_former(&near, Some(&mark(2)));
        assert_eq!(left(), ["db1-2-4.json", "db1-2.json", "db1-3.json"]);
        Progress::remove_former(&near, None);
        assert_eq!(left(), ["db1-2-4.json", "db1-3.json"]);
    }

    #[test]
    fn it_is_of_no_server_that_was_put_back() {
        let told = Progress { executed: "0-1-7,3-1-2".to_owned(), ..Progress::default() };
        let is_of = |executed: &str| told.is_of(&Executed::parse(Product::MariaDb, executed).unwrap());
        assert!(is_of("0-1-7,3-1-2") && is_of("0-1-8,3-1-2"));
        assert!(!is_of("0-1-6,3-1-2") && !is_of("0-1-7"));
    }
}
