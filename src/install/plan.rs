//! The steps that are still to be done, shown or applied.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::install::{InstallError, With};

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
    /// What the operator has to see to before the first run.
    pub notes: Vec<String>,
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
            writeln!(f, "nothing to do")?;
        }
        for step in &self.steps {
            match step {
                Step::MakeDir(path) => writeln!(f, "make directory {}", path.display())?,
                Step::Remove(path) => writeln!(f, "remove {}", path.display())?,
                Step::Run(words) => writeln!(f, "run {}", words.join(" "))?,
                Step::Write { path, text } => {
                    writeln!(f, "write {}", path.display())?;
                    text.lines().try_for_each(|line| writeln!(f, "{}", format!("    {line}").trim_end()))?;
                }
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

impl Step {
    fn apply(&self, with: With) -> Result<(), InstallError> {
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |error| InstallError::Io { path, error }
        };
        match self {
            Self::MakeDir(path) => DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path)),
            Self::Remove(path) => fs::remove_file(path).map_err(io_error(path)),
            Self::Run(words) => run(words),
            Self::Write { path, text } => {
                let dir = path.parent().filter(|dir| dir.is_dir());
                let no_dir = || InstallError::NoDirectory { with, dir: path.parent().unwrap_or(path).to_owned() };
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
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    fs::File::open(dir)?.sync_all()
}

fn run(words: &[String]) -> Result<(), InstallError> {
    let failed = |fault: String| InstallError::Command { command: words.join(" "), fault };
    let (program, arguments) = words.split_first().ok_or_else(|| failed("it is empty".to_owned()))?;
    let output = Command::new(program).args(arguments).output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{}, {}", output.status, complaint.lines().next().unwrap_or("without a word"))))
}
