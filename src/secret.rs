//! Passwords and keys: where they are read from, and a type that does not print them.

use std::fmt;
use std::path::PathBuf;

use zeroize::{ZeroizeOnDrop, Zeroizing};

mod command;
mod error;
mod file;
#[cfg(test)]
mod tests;

pub use crate::secret::error::SecretError;

/// A secret text. It prints as `***` and is wiped when dropped.
///
/// So are the buffers that it passes on its way here. What others' code copies it into is not: the options of a database connection,
/// the signer of S3 requests, the kernel's pipes and terminals, a command's own memory. [`keep_out_of_dumps`] stands before those.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl ZeroizeOnDrop for Secret {}

/// Keeps this process out of core dumps, and its memory out of the reach of other processes of the same user: what is in it now
/// cannot all be wiped in time. Programs that it starts are as they always are: the kernel sets the mark anew with each.
pub fn keep_out_of_dumps() {
    // Linux refuses this to nobody; a kernel that did would be no reason to leave a backup undone.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

impl Secret {
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Takes what somebody typed: one line, as [`SecretSource`] demands it of a file.
    ///
    /// # Errors
    /// [`SecretError::NotALine`].
    pub fn typed(line: &[u8]) -> Result<Self, SecretError> {
        line_in(line, "what was typed")
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
///
/// A secret is one line. What surrounds it would be read in one way by us and in another by `restic --password-file`
/// (which trims blanks), so a second line or a blank at either end is refused; one newline at the end is dropped.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The line in a file that only its owner can read.
    File(PathBuf),
    /// The line that a command prints (`sh -c`).
    Command(String),
    /// A systemd credential of this name (`$CREDENTIALS_DIRECTORY/<name>`).
    Credential(String),
    /// It is known already: somebody typed it, or it was sealed beside what it opens.
    Given(Secret),
}

/// A password is short; a larger answer comes from the wrong file or command.
const SECRET_BYTES_MAX: u64 = 4096;

/// Room for the longest answer and the byte that shows that it is too long: a buffer of this size never grows.
const SECRET_BUFFER: usize = 4096 + 64;

impl SecretSource {
    /// Reads the secret. Blocks: on a file, or for up to a minute on a command.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let bytes = match self {
            Self::File(path) => file::read_private(path)?,
            Self::Command(command) => command::output_of(command)?,
            Self::Credential(name) => file::read_credential(name)?,
            Self::Given(secret) => Zeroizing::new(secret.reveal().as_bytes().to_vec()),
        };
        line_in(&bytes, &self.to_string())
    }

    /// Makes a key file: 256 random bits as 64 hex digits, readable by its owner alone.
    ///
    /// A missing directory is made with mode 0700. An existing file is never touched.
    ///
    /// # Errors
    /// [`SecretError::Exists`] where the file is there already.
    pub fn create_key_file(path: &std::path::Path) -> Result<(), SecretError> {
        file::create_key(path)
    }
}

/// Reads the one line that a secret is.
fn line_in(bytes: &[u8], source_name: &str) -> Result<Secret, SecretError> {
    let fault = |fault| SecretError::NotALine { source_name: source_name.to_owned(), fault };
    let mut text = std::str::from_utf8(bytes)
        .map(|text| Zeroizing::new(text.to_owned()))
        .map_err(|_| fault("is not UTF-8 text"))?;
    if text.ends_with('\n') {
        text.pop();
    }
    if text.ends_with('\r') {
        text.pop();
    }
    match text.as_str() {
        "" => Err(fault("is empty")),
        line if line.contains(['\n', '\r']) => Err(fault("has more than one line")),
        line if line.contains('\0') => Err(fault("has a zero byte")),
        line if line.trim() != line => Err(fault("begins or ends with a blank")),
        _ => Ok(Secret(text)),
    }
}

/// Names the source in messages. Of a command only the program is shown: its arguments may be secret.
impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file `{}`", path.display()),
            Self::Command(command) => {
                write!(f, "command `{}`", command::program_of(command))
            }
            Self::Credential(name) => write!(f, "credential `{name}`"),
            Self::Given(_) => f.write_str("what was typed"),
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretSource({self})")
    }
}
