//! What can be wrong with a policy, told with file, line, key and remedy.

use std::fmt;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("read the policy `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("read the policy `{}`: its mode is {mode:04o}, so others than its owner can write it", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("read the policy `{}`: it belongs to user {owner}, neither to root nor to us (user {us})", path.display())]
    Foreign { path: PathBuf, owner: u32, us: u32 },
    #[error("find the policy `{name}`: it is not in {}", listed(looked))]
    NotFound {
        name: String,
        looked: Vec<PathBuf>,
        /// A policy there whose name is nearly this.
        near: Option<String>,
    },
    #[error("{}", told(file, faults))]
    Wrong { file: PathBuf, faults: Vec<Fault> },
}

/// One thing that is wrong in a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1.
    pub line: usize,
    /// `copy[0].s3.bucket`; empty where the text is not TOML.
    pub key: String,
    pub what: String,
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "`{}` ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

impl PolicyError {
    /// Returns the next step for the operator. Several faults stand each with its remedy in the message itself.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { error, .. } if error.kind() == io::ErrorKind::NotFound => {
                Some("check the path; `policies/minimal.toml` is a start".to_owned())
            }
            Self::Read { .. } => None,
            Self::Exposed { path, .. } => {
                Some(format!("run `chmod go-w {}`: a policy names commands that bkp runs", path.display()))
            }
            Self::Foreign { path, .. } => {
                Some(format!("run `chown root {}`: a policy names commands that bkp runs", path.display()))
            }
            Self::NotFound { near: Some(near), .. } => Some(format!("did you mean `{near}`?")),
            Self::NotFound { name, looked, .. } => {
                looked.first().map(|dir| format!("write `{}/{name}.toml`, or name a file by its path", dir.display()))
            }
            Self::Wrong { faults, .. } => match faults.as_slice() {
                [fault] => Some(fault.remedy.clone()),
                _ => None,
            },
        }
    }
}

fn told(file: &std::path::Path, faults: &[Fault]) -> String {
    let file = file.display();
    match faults {
        [fault] => format!("read the policy `{file}`, {fault}"),
        faults => {
            let lines = faults.iter().map(|fault| format!("\n  {fault}; {}", fault.remedy));
            format!("read the policy `{file}`: {} faults{}", faults.len(), lines.collect::<String>())
        }
    }
}

fn listed(dirs: &[PathBuf]) -> String {
    let dirs: Vec<String> = dirs.iter().map(|dir| format!("`{}`", dir.display())).collect();
    if dirs.is_empty() { "any directory".to_owned() } else { dirs.join(" or ") }
}
