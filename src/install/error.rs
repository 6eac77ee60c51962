//! Why an entry cannot be installed or removed.

use std::io;
use std::path::PathBuf;

use crate::install::With;
use crate::secret::SecretSource;

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("install the schedule of `{policy}` with {with}: {other} starts it already")]
    Both { policy: String, with: With, other: With },
    #[error("change `{}`: bkp did not write it", path.display())]
    Foreign { path: PathBuf },
    #[error("install the schedule of `{policy}` with cron: its secret in {secret} exists only under systemd")]
    Credential { policy: String, secret: SecretSource },
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
            Self::Both { policy, other, .. } => {
                Some(format!("run `bkp schedule remove {policy} --with {other}` first"))
            }
            Self::Foreign { path } => {
                Some(format!("look at `{}`, and move it away if it is not needed", path.display()))
            }
            Self::Credential { .. } => Some("install with `--with systemd`, or use a password_file".to_owned()),
            Self::Path { .. } => {
                Some("use paths without quotes, newlines and other signs that a shell reads".to_owned())
            }
            Self::NoDirectory { with: With::Cron, .. } => {
                Some("install cron (`apt-get install cron`), or use `--with systemd`".to_owned())
            }
            Self::NoDirectory { with: With::Systemd, .. } => {
                Some("this machine does not run systemd; use `--with cron`".to_owned())
            }
            Self::Io { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                Some("run it as root".to_owned())
            }
            Self::Io { .. } => None,
            Self::Command { .. } => {
                Some("is systemd running here, and are you root? otherwise use `--with cron`".to_owned())
            }
        }
    }
}
