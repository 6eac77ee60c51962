//! The kit's directory: files written beside their places and renamed, with their sums; and the look at them later.
//!
//! A kit lies on disks that others had in their hands, and is written by root. So only names of the kit's own layout are written or
//! removed, and neither through a symbolic link nor in a directory that belongs to somebody else.

use std::collections::BTreeMap;
use std::fs;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::kit::{FORMAT, Kit, KitError, LIST, PROGRAM, RUNBOOK, SUMS, io_error};

/// Only its owner reads a kit: it holds names of machines and a sealed key.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const PROGRAM_MODE: u32 = 0o700;

/// How the name of a file begins that is being written; one that is left is of a write that broke off.
const BEGUN: &str = ".kit-";

/// What a recovery leaves in its kit; nothing here looks into it.
const STATE: &str = "state";

/// A kit that is being written.
pub(super) struct Folder {
    dir: PathBuf,
    /// The kit that was there before.
    older: Option<Kit>,
    /// The names of the policies that were there before, those of a kit without a list included.
    pub(super) older_policies: Vec<String>,
    pub(super) sums: BTreeMap<String, String>,
}

impl Folder {
    /// Makes the directory, or takes that of an older kit, also of one whose list is gone or was never written.
    ///
    /// # Errors
    /// [`KitError::NotEmpty`] where anything else is in it, [`KitError::Foreign`] where somebody else prepared it.
    pub(super) fn open(dir: &Path) -> Result<Self, KitError> {
        let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
        made.map_err(io_error("make the kit's directory", dir))?;
        // Before the look into it: from then on nobody else can change what is in there.
        refuse_foreign(dir, &fs::metadata(dir).map_err(io_error("look at", dir))?)?;
        fs::set_permissions(dir, Permissions::from_mode(DIR_MODE)).map_err(io_error("make private", dir))?;
        let found = Found::of(dir)?;
        let older = match read(dir) {
            Ok(kit) => Some(kit),
            Err(KitError::BadList { .. }) if found.others == 0 => None,
            Err(_) if found.others == 0 && !dir.join(LIST).exists() => None,
            Err(_) => return Err(KitError::NotEmpty(dir.to_owned())),
        };
        for begun in &found.begun {
            fs::remove_file(begun).map_err(io_error("remove", begun))?;
        }
        let listed = older.iter().flat_map(|kit| &kit.policies).map(|policy| policy.name.clone());
        let older_policies = if older.is_some() { listed.collect() } else { found.policies };
        Ok(Self { dir: dir.to_owned(), older, older_policies, sums: BTreeMap::new() })
    }

    /// Returns the bytes of a file of the older kit.
    pub(super) fn older_file(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.dir.join(name)).ok()
    }

    pub(super) fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), KitError> {
        self.write(name, FILE_MODE, &mut &*bytes)
    }

    pub(super) fn put_program(&mut self, name: &str, file: &Path) -> Result<(), KitError> {
        let mut source = File::open(file).map_err(io_error("read", file))?;
        self.write(name, PROGRAM_MODE, &mut source)
    }

    fn write(&mut self, name: &str, mode: u32, source: &mut dyn io::Read) -> Result<(), KitError> {
        let path = self.dir.join(name);
        let sum = write_beside(&path, mode, source).map_err(io_error("write", &path))?;
        self.sums.insert(name.to_owned(), sum);
        Ok(())
    }

    /// Writes the list and the sums, and drops what only the older kit had.
    pub(super) fn finish(mut self, kit: &Kit) -> Result<(), KitError> {
        self.put(LIST, &serde_json::to_vec_pretty(kit)?)?;
        let sums = sums_text(&self.sums);
        self.put(SUMS, sums.as_bytes())?;
        let older = self.older.take().map(|kit| kit.files).unwrap_or_default();
        for name in older.keys().filter(|name| is_ours(name) && !self.sums.contains_key(*name)) {
            let path = self.dir.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &path)(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes a file beside its place, syncs it and puts it there: a kill leaves the old one or the new one. Returns its SHA-256.
pub(super) fn write_beside(path: &Path, mode: u32, source: &mut dyn io::Read) -> io::Result<String> {
    let dir = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
    let mut file = tempfile::Builder::new().prefix(BEGUN).tempfile_in(dir)?;
    let mut hashing = Hashing { source, hash: Sha256::new() };
    io::copy(&mut hashing, &mut file)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()?;
    Ok(hex::encode(hashing.hash.finalize()))
}

/// What is in a directory that is to become a kit.
#[derive(Default)]
struct Found {
    /// Files of writes that broke off.
    begun: Vec<PathBuf>,
    policies: Vec<String>,
    /// How many things are no part of a kit.
    others: usize,
}

impl Found {
    fn of(dir: &Path) -> Result<Self, KitError> {
        let mut found = Self::default();
        found.look(dir, "")?;
        Ok(found)
    }

    /// Looks into a directory of the kit, and refuses one that leads out of it or that somebody else made.
    fn look(&mut self, dir: &Path, below: &str) -> Result<(), KitError> {
        for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
            let entry = entry.map_err(io_error("list", dir))?;
            let (path, leaf) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let name = format!("{below}{leaf}");
            let meta = fs::symlink_metadata(&path).map_err(io_error("look at", &path))?;
            if is_our_dir(&name) {
                if !meta.is_dir() {
                    return Err(KitError::Foreign { path, reason: "it is no directory".to_owned() });
                }
                refuse_foreign(&path, &meta)?;
                if name != STATE {
                    self.look(&path, &format!("{name}/"))?;
                }
            } else if leaf.starts_with(BEGUN) {
                self.begun.push(path);
            } else if is_ours(&name) {
                let policy = name.strip_prefix("policies/").and_then(|name| name.strip_suffix(".toml"));
                self.policies.extend(policy.map(str::to_owned));
            } else {
                self.others += 1;
            }
        }
        Ok(())
    }
}

fn refuse_foreign(path: &Path, meta: &fs::Metadata) -> Result<(), KitError> {
    let (owner, us) = (meta.uid(), rustix::process::geteuid().as_raw());
    if owner == 0 || owner == us {
        return Ok(());
    }
    let reason = format!("it belongs to user {owner}, neither to root nor to us (user {us})");
    Err(KitError::Foreign { path: path.to_owned(), reason })
}

/// Tells whether a directory of this name is a part of kits: the directories of their files, and one for each policy's certificates.
fn is_our_dir(name: &str) -> bool {
    match name.split('/').collect::<Vec<_>>()[..] {
        [top] => ["policies", "keys", "ca", STATE].contains(&top),
        ["ca", policy] => is_plain(policy),
        _ => false,
    }
}

/// Tells whether a file of this name is a part of kits.
fn is_ours(name: &str) -> bool {
    let ends = |leaf: &str, end: &str| is_plain(leaf) && leaf.ends_with(end);
    match name.split('/').collect::<Vec<_>>()[..] {
        [top] => [PROGRAM, RUNBOOK, LIST, SUMS].contains(&top),
        ["policies", leaf] => ends(leaf, ".toml"),
        ["keys", leaf] => ends(leaf, ".key"),
        ["ca", policy, leaf] => is_plain(policy) && ends(leaf, ".pem"),
        _ => false,
    }
}

/// Tells whether a part of a name is that and no way to elsewhere.
fn is_plain(part: &str) -> bool {
    let mut components = Path::new(part).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
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
/// [`KitError::NoKit`] where there is none, [`KitError::BadList`] where its bytes are no list.
pub(super) fn read(dir: &Path) -> Result<Kit, KitError> {
    let wrong = |reason: String| KitError::NoKit { dir: dir.to_owned(), reason };
    let json = fs::read(dir.join(LIST)).map_err(|error| wrong(format!("{LIST}: {error}")))?;
    let bad = |error: serde_json::Error| KitError::BadList { dir: dir.to_owned(), reason: error.to_string() };
    let kit: Kit = serde_json::from_slice(&json).map_err(bad)?;
    match kit.format {
        FORMAT => Ok(kit),
        format => Err(wrong(format!("it has format {format}, and this program reads {FORMAT}"))),
    }
}

/// Reads a kit's list, hashes every file, and says what is not as the list and the sums have it.
///
/// # Errors
/// As [`read`].
pub fn check(dir: &Path) -> Result<(Kit, Vec<String>), KitError> {
    let kit = read(dir)?;
    let fault = |(name, sum): (&String, &String)| {
        if !is_ours(name) {
            return Some(format!("{name}: it is no part of a kit"));
        }
        match sum_of(&dir.join(name)) {
            Ok(found) if found == *sum => None,
            Ok(_) => Some(format!("{name}: its bytes are not those that were written")),
            Err(error) => Some(format!("{name}: {error}")),
        }
    };
    let mut faults: Vec<String> = kit.files.iter().filter_map(fault).collect();
    faults.extend(fault_of_sums(dir, &kit));
    Ok((kit, faults))
}

/// The list cannot have its own sum: the sums have it, and nothing in them but what follows from the list.
fn fault_of_sums(dir: &Path, kit: &Kit) -> Option<String> {
    let agree = || {
        let mut sums = kit.files.clone();
        sums.insert(LIST.to_owned(), sum_of(&dir.join(LIST))?);
        Ok::<_, io::Error>(fs::read(dir.join(SUMS))? == sums_text(&sums).into_bytes())
    };
    match agree() {
        Ok(true) => None,
        Ok(false) => Some(format!("{LIST} and {SUMS}: the one does not have the sums of the other")),
        Err(error) => Some(format!("{SUMS}: {error}")),
    }
}

fn sums_text(sums: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = sums.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
    lines.concat()
}

/// Hashes the program that runs, as it lies on the disk.
///
/// # Errors
/// What the kernel says.
pub fn running_program() -> io::Result<String> {
    sum_of(Path::new(super::RUNNING))
}

/// Returns the SHA-256 that a kit has of its program.
#[must_use]
pub fn program_of(kit: &Kit) -> Option<&str> {
    kit.files.get(PROGRAM).map(String::as_str)
}

fn sum_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hashing = Hashing { source: &mut file, hash: Sha256::new() };
    io::copy(&mut hashing.by_ref(), &mut io::sink())?;
    Ok(hex::encode(hashing.hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::facts::{ca_file, policy_file};

    #[test]
    fn only_names_of_the_layout_are_a_part_of_kits() {
        for name in ["bkp", "RUNBOOK.md", "kit.json", "policies/a.toml", "keys/a.key", "ca/a-b/c.pem"] {
            assert!(is_ours(name), "{name}");
        }
        let foreign = [
            "x/passwd",
            "/etc/passwd",
            "../bkp",
            "policies/../a.toml",
            "keys/a.pem",
            "ca/../../a.pem",
            "ca/./a.pem",
            "ca/a.pem",
            "policies",
            "",
        ];
        for name in foreign {
            assert!(!is_ours(name), "{name}");
        }
    }

    #[test]
    fn policies_of_like_names_do_not_share_a_certificate() {
        assert_ne!(ca_file("a-b", "c"), ca_file("a", "b-c"));
        assert!(is_ours(&ca_file("a-b", "c")) && is_ours(&policy_file("a-b")));
    }
}
