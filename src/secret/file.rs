//! Secrets in files: read only where others cannot, made where none is.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use zeroize::Zeroizing;

use crate::secret::error::SecretError;
use crate::secret::{SECRET_BUFFER, SECRET_BYTES_MAX};

/// Returns the bytes of a file that belongs to root or to us and that nobody else can read.
pub(super) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let mut file = open(path).map_err(|error| read_error(path, error))?;
    let meta = file.metadata().map_err(|error| read_error(path, error))?;
    if !meta.is_file() {
        return Err(SecretError::NotAFile { path: path.into() });
    }
    let us = rustix::process::geteuid().as_raw();
    judge(path, meta.uid(), meta.mode() & 0o7777, us)?;
    read_all(&mut file).map_err(|error| read_error(path, error))
}

/// Refuses a file that is another's, or that others can read, write or enter.
pub(super) fn judge(path: &Path, owner: u32, mode: u32, us: u32) -> Result<(), SecretError> {
    let path = path.to_owned();
    if owner != 0 && owner != us {
        return Err(SecretError::Foreign { path, owner, us });
    }
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed { path, mode });
    }
    Ok(())
}

/// Returns the bytes of a systemd credential. Who may read it is systemd's affair: its directory is private to the unit.
pub(super) fn read_credential(name: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let fault = |fault| SecretError::Credential { name: name.to_owned(), fault };
    let mut parts = Path::new(name).components();
    let is_plain = matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none();
    if !is_plain {
        return Err(fault("the name must be one file name, without a slash"));
    }
    let dir = std::env::var_os("CREDENTIALS_DIRECTORY")
        .map(PathBuf::from)
        .ok_or_else(|| fault("CREDENTIALS_DIRECTORY is not set"))?;
    let path = dir.join(name);
    let mut file = File::open(&path).map_err(|error| read_error(&path, error))?;
    read_all(&mut file).map_err(|error| read_error(&path, error))
}

/// Writes a new key beside its place and links it there only if nothing is: a kill leaves no half key, and no key is lost.
pub(super) fn create_key(path: &Path) -> Result<(), SecretError> {
    let create_error = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => SecretError::Exists { path: path.into() },
        _ => SecretError::Create { path: path.into(), error },
    };
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(create_error)?;
    let key = new_key().map_err(create_error)?;
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(create_error)?;
    file.write_all(key.as_bytes()).map_err(create_error)?;
    file.as_file().sync_all().map_err(create_error)?;
    file.persist_noclobber(path).map_err(|error| create_error(error.error))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(create_error)
}

fn new_key() -> io::Result<Zeroizing<String>> {
    let mut bits = Zeroizing::new([0; 32]);
    getrandom::fill(bits.as_mut_slice()).map_err(io::Error::other)?;
    // Text that grows leaves its former self behind.
    let mut key = Zeroizing::new(String::with_capacity(2 * bits.len() + 1));
    key.push_str(&Zeroizing::new(hex::encode(*bits)));
    key.push('\n');
    Ok(key)
}

fn open(path: &Path) -> io::Result<File> {
    // Without NONBLOCK the open of a FIFO would wait for a writer.
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn read_all(file: &mut File) -> io::Result<Zeroizing<Vec<u8>>> {
    // A buffer that grows leaves its former self behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BUFFER));
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("larger than {SECRET_BYTES_MAX} bytes, which no password is"),
        ));
    }
    Ok(bytes)
}

fn read_error(path: &Path, error: io::Error) -> SecretError {
    SecretError::Read { source_name: format!("file `{}`", path.display()), error }
}
