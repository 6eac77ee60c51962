//! The entry in cron or systemd that starts `bkp run` every minute, and under systemd the daemon where a binlog is captured: planned as a
//! value, then applied or only shown.
//!
//! Both look every minute and leave the decision to the policy: a changed schedule needs no new installation, and a minute in
//! which nothing is due costs a few milliseconds. A plan holds only what differs from what is there, so installing twice
//! changes nothing, and removing takes away exactly what installing made. Files that bkp did not write are not touched.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::policy::{CopyPlace, CopyTarget, Policy};
use crate::secret::SecretSource;

mod cron;
mod error;
mod plan;
mod systemd;
#[cfg(test)]
mod tests;

pub use crate::install::error::InstallError;
pub use crate::install::plan::{Plan, Step};

/// Who starts the runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    Cron,
    Systemd,
}

/// What is to be started, and where on the filesystem the entry goes.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    pub policy: &'a Policy,
    /// The policy's file, absolute.
    pub policy_file: PathBuf,
    /// The program, absolute.
    pub program: PathBuf,
    /// `/`, or the root of an image or of a test; then no command reaches the running system.
    pub root: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Installed,
    /// There, but not as this program and this policy would write it.
    Differs(Vec<PathBuf>),
    Absent,
}

impl With {
    fn other(self) -> Self {
        match self {
            Self::Cron => Self::Systemd,
            Self::Systemd => Self::Cron,
        }
    }
}

impl fmt::Display for With {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cron => "cron",
            Self::Systemd => "systemd",
        })
    }
}

/// Plans the entry.
///
/// # Errors
/// Where the other one starts the policy already, where a file is not ours, where a secret would not be there.
pub fn install(setup: &Setup<'_>, with: With) -> Result<Plan, InstallError> {
    let name = &setup.policy.name;
    if setup.files(with.other())?.iter().any(|(path, _)| path.exists()) {
        return Err(InstallError::Both { policy: name.clone(), with, other: with.other() });
    }
    if let (With::Cron, Some(secret)) = (with, setup.credentials().next()) {
        return Err(InstallError::Credential { policy: name.clone(), secret: secret.clone() });
    }
    let mut steps = Vec::new();
    let (ours, theirs) = setup.missing_places();
    steps.extend(ours.into_iter().map(Step::MakeDir));
    for (path, text) in setup.files(with)? {
        refuse_foreign(&path)?;
        if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            steps.push(Step::Write { path, text });
        }
    }
    if let Some(path) = setup.stale(with) {
        refuse_foreign(&path)?;
        steps.push(Step::Remove(path));
    }
    if with == With::Systemd {
        systemd::add_enabling(setup, &mut steps);
    }
    let notes = theirs.iter().filter(|_| with == With::Systemd).map(|dir| note_missing(setup.policy, dir)).collect();
    Ok(Plan { steps, notes })
}

/// Plans the entry's removal.
///
/// # Errors
/// Where a file is not ours.
pub fn remove(setup: &Setup<'_>, with: With) -> Result<Plan, InstallError> {
    let mut present = Vec::new();
    for path in setup.files(with)?.into_iter().map(|(path, _)| path).chain(setup.stale(with)) {
        refuse_foreign(&path)?;
        present.extend(path.exists().then_some(path));
    }
    let removes = present.into_iter().map(Step::Remove);
    let mut steps: Vec<Step> = removes.collect();
    if with == With::Systemd {
        systemd::add_disabling(setup, &mut steps);
    }
    Ok(Plan { steps, notes: Vec::new() })
}

/// Compares what is there with what would be installed now.
pub fn status(setup: &Setup<'_>, with: With) -> Result<State, InstallError> {
    let files = setup.files(with)?;
    if !files.iter().any(|(path, _)| path.exists()) {
        return Ok(State::Absent);
    }
    let is_other = |path: &Path, text: &str| fs::read_to_string(path).ok().as_deref() != Some(text);
    let mut other: Vec<PathBuf> =
        files.into_iter().filter(|(path, text)| is_other(path, text)).map(|(path, _)| path).collect();
    if with == With::Systemd {
        other.extend(systemd::missing_links(setup));
    }
    other.extend(setup.stale(with));
    Ok(if other.is_empty() { State::Installed } else { State::Differs(other) })
}

impl Setup<'_> {
    fn files(&self, with: With) -> Result<Vec<(PathBuf, String)>, InstallError> {
        match with {
            With::Cron => cron::files(self),
            With::Systemd => systemd::files(self),
        }
    }

    /// Returns what an earlier policy needed and this one does not.
    fn stale(&self, with: With) -> Option<PathBuf> {
        if with == With::Systemd { systemd::stale(self) } else { None }
    }

    /// Tells whether the running system is meant.
    fn is_here(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Returns the directories of the running system that a run writes and that are not there: those that are bkp's own, and
    /// those that a disk has to be mounted for or that `bkp init` makes.
    fn missing_places(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let policy = self.policy;
        // What lies in the state directory is made with it.
        let is_elsewhere = |dir: &PathBuf| !dir.starts_with(&policy.state_dir);
        let mut ours = vec![policy.state_dir.clone()];
        ours.extend(Some(policy.report_dir()).filter(is_elsewhere));
        let spools = policy.mysql.values().filter_map(|source| source.binlog.as_ref()).map(|plan| plan.spool.clone());
        // The policy's own within a directory that is there: beneath a mount that is not, none is made.
        let is_within = |dir: &PathBuf| dir.parent().is_some_and(Path::is_dir);
        let (within, nowhere): (Vec<_>, Vec<_>) = spools.filter(is_elsewhere).partition(is_within);
        ours.extend(within);
        ours.dedup();
        let copies = policy.copies.iter().filter_map(|copy| match &copy.place {
            CopyTarget::Dir(dir) => Some(dir.clone()),
            CopyTarget::S3(_) => None,
        });
        let mut theirs = vec![policy.repository.path.clone()];
        theirs.extend(policy.drill.work_dir.clone().into_iter().chain(copies).chain(nowhere));
        theirs.dedup();
        for places in [&mut ours, &mut theirs] {
            places.retain(|dir| self.is_here() && !dir.exists());
        }
        (ours, theirs)
    }

    fn under_root(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Returns the secrets that only systemd can give.
    fn credentials(&self) -> impl Iterator<Item = &SecretSource> {
        self.secrets().filter(|secret| matches!(secret, SecretSource::Credential(_)))
    }

    fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        let databases = self.policy.mysql.values().filter_map(|source| source.password.as_ref());
        let copies = self.policy.copies.iter().flat_map(CopyPlace::secrets);
        std::iter::once(&self.policy.repository.password).chain(databases).chain(copies)
    }
}

/// The unit cannot make it: all above is read-only to it.
fn note_missing(policy: &Policy, dir: &Path) -> String {
    let remedy = if *dir == policy.repository.path { "run `bkp init`" } else { "make it, or mount its disk," };
    format!("`{}` is not there: {remedy} before the first run", dir.display())
}

/// How each of our files begins.
const MARK: &str = "# Written by `bkp schedule install`";

fn refuse_foreign(path: &Path) -> Result<(), InstallError> {
    match fs::read_to_string(path) {
        Ok(text) if text.starts_with(MARK) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(InstallError::Foreign { path: path.to_owned() }),
        Err(error) => Err(InstallError::Io { path: path.to_owned(), error }),
    }
}

/// Returns a path as text, if it has nothing in it that no quoting survives.
fn plain(path: &Path, with: With) -> Result<&str, InstallError> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
    text.ok_or_else(|| InstallError::Path { with, path: path.to_owned() })
}
