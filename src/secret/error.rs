//! What can go wrong while a secret is read or made.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("read the secret in {source_name}")]
    Read {
        source_name: String,
        #[source]
        error: io::Error,
    },
    #[error("read the secret in file `{}`: it is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("read the secret in file `{}`: its mode is {mode:04o}, so others than its owner can read it", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("read the secret in file `{}`: it belongs to user {owner}, neither to root nor to us (user {us})", path.display())]
    Foreign { path: PathBuf, owner: u32, us: u32 },
    #[error("read the secret in {source_name}: it {fault}")]
    NotALine { source_name: String, fault: &'static str },
    #[error("read the secret that {source_name} prints: {fault}")]
    Command { source_name: String, fault: String },
    #[error("read the credential `{name}`: {fault}")]
    Credential { name: String, fault: &'static str },
    #[error("make the key file `{}`: it is there already", path.display())]
    Exists { path: PathBuf },
    #[error("make the key file `{}`", path.display())]
    Create {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

impl SecretError {
    /// Tells whether the file that should hold the secret is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }

    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } if self.is_missing() => Some(
                "check the path in the policy, and that the file was not left behind on another machine".to_owned(),
            ),
            Self::Exposed { path, .. } => {
                Some(format!("run `chmod 600 {0}`, and change the secret if others may have read it", path.display()))
            }
            Self::Foreign { path, .. } => {
                Some(format!("run `chown root {0}`, or run bkp as the owner", path.display()))
            }
            Self::NotALine { .. } => {
                Some("a secret is one line of text; `printf '%s\\n' … > FILE` writes one".to_owned())
            }
            Self::Command { .. } => Some("run the command by hand as the same user, without a terminal".to_owned()),
            Self::Credential { .. } => Some(
                "credentials exist only in a systemd unit with LoadCredential= or SetCredential=; \
                 by hand use a password_file"
                    .to_owned(),
            ),
            Self::Exists { .. } => Some(
                "keep it: a repository made with it opens with no other; choose another path for a new key".to_owned(),
            ),
            Self::Read { .. } | Self::NotAFile { .. } | Self::Create { .. } => None,
        }
    }
}
