//! The entry in cron or systemd that starts `bkp run` every minute: planned as a value, then applied or only shown.
//!
//! Both look every minute and leave the decision to the policy: a changed schedule needs no new installation, and a minute in
//! which nothing is due costs a few milliseconds. A plan holds only what differs from what is there, so installing twice
//! changes nothing, and removing takes away exactly what installing made. Files that bkp did not write are not touched.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::policy::Policy;
use crate::secret::SecretSource;

mod cron;
mod systemd;
#[cfg(test)]
mod tests;

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
pub enum Step {
    /// A directory for its owner alone; it stays when the entry is removed.
    MakeDir(PathBuf),
    Write {
        path: PathBuf,
        text: String,
    },
    Remove(PathBuf),
    Run(Vec<String>),
}

/// What is still to be done, in order; empty where all is as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Installed,
    /// There, but not as this program and this policy would write it.
    Differs(Vec<PathBuf>),
    Absent,
}

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("install the schedule of `{policy}` with {with}: {other} starts it already")]
    Both {
        policy: String,
        with: With,
        other: With,
    },
    #[error("change `{}`: bkp did not write it", path.display())]
    Foreign { path: PathBuf },
    #[error(
        "install the schedule of `{policy}` with cron: its secret in {secret} exists only under systemd"
    )]
    Credential {
        policy: String,
        secret: SecretSource,
    },
    #[error("install the schedule with {with}: the path {path:?} cannot be written there")]
    Path { with: With, path: PathBuf },
    #[error("install the schedule with {with}: there is no directory `{}`", dir.display())]
    NoDirectory { with: With, dir: PathBuf },
    #[error("write or remove `{}`", path.display())]
    Io {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("run `{command}`: {fault}")]
    Command { command: String, fault: String },
}

impl InstallError {
    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Both { policy, other, .. } => Some(format!(
                "run `bkp schedule remove {policy} --with {other}` first"
            )),
            Self::Foreign { path } => Some(format!(
                "look at `{}`, and move it away if it is not needed",
                path.display()
            )),
            Self::Credential { .. } => {
                Some("install with `--with systemd`, or use a password_file".to_owned())
            }
            Self::Path { .. } => Some(
                "use paths without quotes, newlines and other signs that a shell reads".to_owned(),
            ),
            Self::NoDirectory {
                with: With::Cron, ..
            } => Some("install cron (`apt-get install cron`), or use `--with systemd`".to_owned()),
            Self::NoDirectory {
                with: With::Systemd,
                ..
            } => Some("this machine does not run systemd; use `--with cron`".to_owned()),
            Self::Io { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                Some("run it as root".to_owned())
            }
            Self::Io { .. } => None,
            Self::Command { .. } => Some(
                "is systemd running here, and are you root? otherwise use `--with cron`".to_owned(),
            ),
        }
    }
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
    if setup
        .files(with.other())?
        .iter()
        .any(|(path, _)| path.exists())
    {
        return Err(InstallError::Both {
            policy: name.clone(),
            with,
            other: with.other(),
        });
    }
    if let (With::Cron, Some(secret)) = (with, setup.credentials().next()) {
        return Err(InstallError::Credential {
            policy: name.clone(),
            secret: secret.clone(),
        });
    }
    let mut steps = Vec::new();
    let state_dir = &setup.policy.state_dir;
    if !state_dir.exists() && setup.is_here() {
        steps.push(Step::MakeDir(state_dir.clone()));
    }
    for (path, text) in setup.files(with)? {
        refuse_foreign(&path)?;
        if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            steps.push(Step::Write { path, text });
        }
    }
    if with == With::Systemd {
        systemd::add_enabling(setup, &mut steps);
    }
    Ok(Plan { steps })
}

/// Plans the entry's removal.
///
/// # Errors
/// Where a file is not ours.
pub fn remove(setup: &Setup<'_>, with: With) -> Result<Plan, InstallError> {
    let mut present = Vec::new();
    for (path, _) in setup.files(with)? {
        refuse_foreign(&path)?;
        present.extend(path.exists().then_some(path));
    }
    let removes = present.into_iter().map(Step::Remove);
    let mut steps: Vec<Step> = removes.collect();
    if with == With::Systemd {
        systemd::add_disabling(setup, &mut steps);
    }
    Ok(Plan { steps })
}

/// Compares what is there with what would be installed now.
pub fn status(setup: &Setup<'_>, with: With) -> Result<State, InstallError> {
    let files = setup.files(with)?;
    if !files.iter().any(|(path, _)| path.exists()) {
        return Ok(State::Absent);
    }
    let is_other = |path: &Path, text: &str| fs::read_to_string(path).ok().as_deref() != Some(text);
    let mut other: Vec<PathBuf> = files
        .into_iter()
        .filter(|(path, text)| is_other(path, text))
        .map(|(path, _)| path)
        .collect();
    if with == With::Systemd {
        other.extend(systemd::missing_link(setup));
    }
    Ok(if other.is_empty() {
        State::Installed
    } else {
        State::Differs(other)
    })
}

impl Setup<'_> {
    fn files(&self, with: With) -> Result<Vec<(PathBuf, String)>, InstallError> {
        match with {
            With::Cron => cron::files(self),
            With::Systemd => systemd::files(self),
        }
    }

    /// Tells whether the running system is meant.
    fn is_here(&self) -> bool {
        self.root == Path::new("/")
    }

    fn under_root(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Returns the secrets that only systemd can give.
    fn credentials(&self) -> impl Iterator<Item = &SecretSource> {
        self.secrets()
            .filter(|secret| matches!(secret, SecretSource::Credential(_)))
    }

    fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        let databases = self
            .policy
            .mysql
            .values()
            .filter_map(|source| source.password.as_ref());
        let copies = self.policy.copies.iter().filter_map(|copy| copy.secret());
        std::iter::once(&self.policy.repository.password)
            .chain(databases)
            .chain(copies)
    }
}

impl Plan {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Does the steps in order and stops at the first that fails; doing it again goes on from there.
    pub fn apply(&self, with: With) -> Result<(), InstallError> {
        self.steps.iter().try_for_each(|step| step.apply(with))
    }
}

/// Shows what `--dry-run` shows: each step, and each file's text below its path.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "nothing to do");
        }
        for step in &self.steps {
            match step {
                Step::MakeDir(path) => writeln!(f, "make directory {}", path.display())?,
                Step::Remove(path) => writeln!(f, "remove {}", path.display())?,
                Step::Run(words) => writeln!(f, "run {}", words.join(" "))?,
                Step::Write { path, text } => {
                    writeln!(f, "write {}", path.display())?;
                    text.lines()
                        .try_for_each(|line| writeln!(f, "{}", format!("    {line}").trim_end()))?;
                }
            }
        }
        Ok(())
    }
}

impl Step {
    fn apply(&self, with: With) -> Result<(), InstallError> {
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |error| InstallError::Io { path, error }
        };
        match self {
            Self::MakeDir(path) => DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(io_error(path)),
            Self::Remove(path) => fs::remove_file(path).map_err(io_error(path)),
            Self::Run(words) => run(words),
            Self::Write { path, text } => {
                let dir = path.parent().filter(|dir| dir.is_dir());
                let no_dir = || InstallError::NoDirectory {
                    with,
                    dir: path.parent().unwrap_or(path).to_owned(),
                };
                write(dir.ok_or_else(no_dir)?, path, text).map_err(io_error(path))
            }
        }
    }
}

/// Writes beside the place and renames: neither cron nor systemd ever reads half a file.
fn write(dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    // cron ignores files with a dot in their name, so it does not run the temporary one.
    let mut file = tempfile::Builder::new().prefix(".bkp-").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    fs::File::open(dir)?.sync_all()
}

fn run(words: &[String]) -> Result<(), InstallError> {
    let failed = |fault: String| InstallError::Command {
        command: words.join(" "),
        fault,
    };
    let (program, arguments) = words
        .split_first()
        .ok_or_else(|| failed("it is empty".to_owned()))?;
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!(
        "{}, {}",
        output.status,
        complaint.lines().next().unwrap_or("without a word")
    )))
}

/// How each of our files begins.
const MARK: &str = "# Written by `bkp schedule install`";

fn refuse_foreign(path: &Path) -> Result<(), InstallError> {
    match fs::read_to_string(path) {
        Ok(text) if text.starts_with(MARK) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(InstallError::Foreign {
            path: path.to_owned(),
        }),
        Err(error) => Err(InstallError::Io {
            path: path.to_owned(),
            error,
        }),
    }
}

/// Returns a path as text, if it has nothing in it that no quoting survives.
fn plain(path: &Path, with: With) -> Result<&str, InstallError> {
    let text = path
        .to_str()
        .filter(|text| !text.chars().any(char::is_control));
    text.ok_or_else(|| InstallError::Path {
        with,
        path: path.to_owned(),
    })
}
