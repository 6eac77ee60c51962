//! Passwords and keys: where they are read from, and a type that does not print them.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// A secret text. It prints as `***` and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Shows the secret to the code that must send or derive from it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a secret is read from, when it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The first line of a file that only its owner can read.
    File(PathBuf),
    /// The first line that a command prints (`sh -c`).
    Command(String),
    /// A systemd credential of this name (`$CREDENTIALS_DIRECTORY/<name>`).
    Credential(String),
}
