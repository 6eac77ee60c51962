//! The kit's directory: files written beside their places and renamed, with their sums; and the look at them later.

use std::collections::BTreeMap;
use std::fs;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::kit::{FORMAT, Kit, KitError, LIST, SUMS, io_error};

/// Only its owner reads a kit: it holds names of machines and a sealed key.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const PROGRAM_MODE: u32 = 0o700;

/// A kit that is being written.
pub(super) struct Folder {
    dir: PathBuf,
    /// The kit that was there before.
    pub(super) older: Option<Kit>,
    pub(super) sums: BTreeMap<String, String>,
}

impl Folder {
    /// Makes the directory, or takes that of an older kit.
    ///
    /// # Errors
    /// [`KitError::NotEmpty`] where anything else is in it.
    pub(super) fn open(dir: &Path) -> Result<Self, KitError> {
        let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
        made.map_err(io_error("make the kit's directory", dir))?;
        let mut entries = fs::read_dir(dir).map_err(io_error("list", dir))?;
        let older = match entries.next() {
            None => None,
            Some(_) => Some(read(dir).map_err(|_| KitError::NotEmpty(dir.to_owned()))?),
        };
        fs::set_permissions(dir, Permissions::from_mode(DIR_MODE)).map_err(io_error("make private", dir))?;
        Ok(Self { dir: dir.to_owned(), older, sums: BTreeMap::new() })
    }

    /// Returns the bytes of a file of the older kit.
    pub(super) fn older_file(&self, name: &str) -> Option<Vec<u8>> {
        self.older.as_ref().and_then(|_| fs::read(self.dir.join(name)).ok())
    }

    pub(super) fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), KitError> {
        self.write(name, FILE_MODE, &mut &*bytes)
    }

    pub(super) fn put_program(&mut self, name: &str, file: &Path) -> Result<(), KitError> {
        let mut source = File::open(file).map_err(io_error("read", file))?;
        self.write(name, PROGRAM_MODE, &mut source)
    }

    /// Writes a file beside its place, syncs it and puts it there: a kill leaves the old one or the new one.
    fn write(&mut self, name: &str, mode: u32, source: &mut dyn io::Read) -> Result<(), KitError> {
        let path = self.dir.join(name);
        let dir = path.parent().unwrap_or(&self.dir);
        let mut put = || {
            DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            let mut hashing = Hashing { source, hash: Sha256::new() };
            io::copy(&mut hashing, &mut file)?;
            file.as_file().set_permissions(Permissions::from_mode(mode))?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            File::open(dir)?.sync_all()?;
            Ok(hex::encode(hashing.hash.finalize()))
        };
        let sum = put().map_err(io_error("write", &path))?;
        self.sums.insert(name.to_owned(), sum);
        Ok(())
    }

    /// Writes the list and the sums, and drops what only the older kit had.
    pub(super) fn finish(mut self, kit: &Kit) -> Result<(), KitError> {
        self.put(LIST, &serde_json::to_vec_pretty(kit)?)?;
        let lines: Vec<String> = self.sums.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
        self.put(SUMS, lines.concat().as_bytes())?;
        let older = self.older.take().map(|kit| kit.files).unwrap_or_default();
        for name in older.keys().filter(|name| is_plain(name) && !self.sums.contains_key(*name)) {
            let path = self.dir.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &path)(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Hashes what passes.
struct Hashing<'a> {
    source: &'a mut dyn io::Read,
    hash: Sha256,
}

impl io::Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Reads the list of a kit.
///
/// # Errors
/// [`KitError::NoKit`].
pub(super) fn read(dir: &Path) -> Result<Kit, KitError> {
    let wrong = |reason: String| KitError::NoKit { dir: dir.to_owned(), reason };
    let json = fs::read(dir.join(LIST)).map_err(|error| wrong(format!("{LIST}: {error}")))?;
    let kit: Kit = serde_json::from_slice(&json).map_err(|error| wrong(format!("{LIST}: {error}")))?;
    match kit.format {
        FORMAT => Ok(kit),
        format => Err(wrong(format!("it has format {format}, and this program reads {FORMAT}"))),
    }
}

/// Reads a kit's list, hashes every file, and says what is not as the list has it.
///
/// # Errors
/// [`KitError::NoKit`] where there is none.
pub fn check(dir: &Path) -> Result<(Kit, Vec<String>), KitError> {
    let kit = read(dir)?;
    let fault = |(name, sum): (&String, &String)| {
        if !is_plain(name) {
            return Some(format!("{name}: leads out of the kit"));
        }
        match sum_of(&dir.join(name)) {
            Ok(found) if found == *sum => None,
            Ok(_) => Some(format!("{name}: its bytes are not those that were written")),
            Err(error) => Some(format!("{name}: {error}")),
        }
    };
    let faults = kit.files.iter().filter_map(fault).collect();
    Ok((kit, faults))
}

fn sum_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hashing = Hashing { source: &mut file, hash: Sha256::new() };
    io::copy(&mut hashing.by_ref(), &mut io::sink())?;
    Ok(hex::encode(hashing.hash.finalize()))
}

/// Tells whether a name stays within the kit.
fn is_plain(name: &str) -> bool {
    Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)))
}
