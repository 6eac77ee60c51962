//! Directories that are thrown away: ours alone, locked as long as we live, swept up when we do not.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::event::Events;
use crate::sandbox::SandboxError;

/// What the names begin with of all directories that are swept up.
const SANDBOX: &str = "bkp-sandbox-";
const DRILL: &str = "bkp-drill-";
/// What the name begins with of one that stays.
const KEPT: &str = "bkp-kept-";
/// Locked while its owner lives; it holds the owner's process id once it is.
const OWNER: &str = ".owner";
pub(super) const PID_FILE: &str = "server.pid";
pub(super) const ERROR_LOG: &str = "error.log";

/// The kernel takes 107 bytes, some clients fewer.
const SOCKET_BYTES_MAX: usize = 100;

/// A directory whose owner has not said so for this long was never going to.
const UNOWNED_MAX: Duration = Duration::from_mins(10);

/// So much of the end of a log goes into an error.
const LOG_LINES: usize = 12;

/// A directory that goes when its value does, and is swept up if we are killed.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    /// Somebody else has it by now, or it is gone.
    is_let_go: bool,
    /// Held for its lock.
    _owner: File,
}

impl Scratch {
    /// Makes one for what a drill restores.
    pub fn for_drill(parent: &Path) -> io::Result<Self> {
        Self::make(parent, DRILL)
    }

    fn make(parent: &Path, prefix: &str) -> io::Result<Self> {
        // The server inside has no password, and restored files may be nobody else's business.
        let own_only = fs::Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix(prefix).permissions(own_only).tempdir_in(parent)?;
        let owner = own(dir.path())?;
        Ok(Self { dir: dir.keep(), is_let_go: false, _owner: owner })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Leaves the directory for a look, under a name that no sweep takes, and returns it.
    pub fn keep(mut self) -> io::Result<PathBuf> {
        self.is_let_go = true;
        let path = &self.dir;
        let name = path.file_name().unwrap_or_default().to_string_lossy().replacen(DRILL, KEPT, 1);
        let kept = path.with_file_name(name);
        fs::rename(path, &kept)?;
        fs::remove_file(kept.join(OWNER))?;
        Ok(kept)
    }

    /// Removes the directory, and says why it stays if it does.
    pub fn remove(mut self) -> io::Result<()> {
        self.is_let_go = true;
        remove_all(&self.dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_let_go {
            // Whatever brought us here is told; the next sweep tells what stays.
            remove_all(&self.dir).ok();
        }
    }
}

#[derive(Debug)]
pub(super) struct Dir(Scratch);

impl Dir {
    pub(super) fn make(parent: &Path) -> Result<Self, SandboxError> {
        let at = || SandboxError::dir(parent);
        // The server runs in another working directory.
        let parent = fs::canonicalize(parent).map_err(at())?;
        let made = Self(Scratch::make(&parent, SANDBOX).map_err(at())?);
        fs::create_dir(made.path().join("tmp")).map_err(at())?;
        if made.socket().as_os_str().len() > SOCKET_BYTES_MAX {
            return Err(SandboxError::PathTooLong { dir: parent, max: SOCKET_BYTES_MAX });
        }
        Ok(made)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.path().join("s.sock")
    }

    /// Returns what the server's logs say last: their errors, or where there are none, everything.
    pub(super) fn logs(&self) -> String {
        let texts = ["initialise.log", ERROR_LOG].map(|name| fs::read(self.path().join(name)).unwrap_or_default());
        let text = texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let (errors, others): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains("[ERROR]"));
        let lines = if errors.is_empty() { others } else { errors };
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    pub(super) fn remove(self) -> Result<(), SandboxError> {
        let path = self.path().to_owned();
        self.0.remove().map_err(SandboxError::dir(&path))
    }
}

fn own(dir: &Path) -> io::Result<File> {
    let mut owner = File::create(dir.join(OWNER))?;
    owner.lock()?;
    write!(owner, "{}", std::process::id())?;
    Ok(owner)
}

/// Removes the sandboxes and drills in a directory whose owners are gone, with their servers, and tells of each.
///
/// What cannot be looked at is left alone: it may be another user's.
pub fn sweep(parent: &Path, events: &Events) {
    for (left, removed) in remove_stale(parent) {
        let dir = left.display();
        match removed {
            Ok(()) => events.note(format!("removed {dir}, which a run that was killed had left behind")),
            Err(error) => {
                events.warn(format!("{dir} holds restored data in plaintext, and cannot be removed: {error}"));
            }
        }
    }
}

fn remove_stale(parent: &Path) -> Vec<(PathBuf, io::Result<()>)> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let is_ours = |name: &[u8]| [SANDBOX, DRILL].iter().any(|prefix| name.starts_with(prefix.as_bytes()));
    let named = entries.filter(|entry| is_ours(entry.file_name().as_encoded_bytes()));
    let stale = named.map(|entry| entry.path()).filter(|dir| is_stale(dir).unwrap_or(false));
    let removed = stale.map(|dir| {
        let removed = remove_left(&dir);
        (dir, removed)
    });
    removed.collect()
}

fn is_stale(dir: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(dir)?;
    if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Ok(false);
    }
    let owner = match File::open(dir.join(OWNER)) {
        Ok(owner) => owner,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return is_old(&metadata),
        Err(error) => return Err(error),
    };
    if owner.try_lock().is_err() {
        return Ok(false);
    }
    // An empty file: its owner is just about to lock it, or died at that.
    Ok(owner.metadata()?.len() > 0 || is_old(&metadata)?)
}

fn is_old(metadata: &fs::Metadata) -> io::Result<bool> {
    Ok(metadata.modified()?.elapsed().is_ok_and(|age| age > UNOWNED_MAX))
}

fn remove_left(dir: &Path) -> io::Result<()> {
    if let Some(pid) = server_of(dir) {
        kill_process(pid, Signal::KILL)?;
    }
    remove_all(dir)
}

/// Removes a directory with all that a restore put into it.
fn remove_all(dir: &Path) -> io::Result<()> {
    // A server that is just dying may still make a file while its directory goes.
    let removed = fs::remove_dir_all(dir).or_else(|_| {
        make_writable(dir);
        fs::remove_dir_all(dir)
    });
    // Another sweep may have been quicker.
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Lets the owner remove what is in the directories below one: a restore gives them their modes back, and only root may remove from
/// one that is read-only. Links are not followed. What cannot be changed shows when it cannot be removed.
fn make_writable(dir: &Path) {
    const OWNERS: u32 = 0o700;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let mode = fs::symlink_metadata(&dir).map_or(OWNERS, |metadata| metadata.mode());
        if mode & OWNERS != OWNERS {
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode & 0o7777 | OWNERS)).ok();
        }
        let below = fs::read_dir(&dir).into_iter().flatten().flatten();
        dirs.extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
}

/// Returns the process of the server that still works in a directory; another's with the same number does not name it.
fn server_of(dir: &Path) -> Option<Pid> {
    let pid = fs::read_to_string(dir.join(PID_FILE)).ok()?.trim().parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let needle = dir.as_os_str().as_encoded_bytes();
    let is_its = command.windows(needle.len()).any(|part| part == needle);
    is_its.then(|| Pid::from_raw(pid)).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_whose_owner_lives_is_not_swept_and_one_whose_owner_is_gone_is() {
        let parent = tempfile::tempdir().unwrap();
        let alive = Dir::make(parent.path()).unwrap();
        let drill = Scratch::for_drill(parent.path()).unwrap();
        let gone = ["bkp-drill-gone", "bkp-sandbox-gone"].map(|name| parent.path().join(name));
        for gone in &gone {
            fs::create_dir_all(gone.join("images/shop0001")).unwrap();
            fs::write(gone.join(OWNER), "4194304").unwrap();
        }
        fs::create_dir(parent.path().join("bkp-sandbox-new")).unwrap();
        fs::create_dir(parent.path().join("another")).unwrap();

        let mut swept: Vec<PathBuf> = remove_stale(parent.path())
            .into_iter()
            .filter(|(_, removed)| removed.is_ok())
            .map(|(dir, _)| dir)
            .collect();
        swept.sort();
        assert_eq!(swept, gone);
        assert!(gone.iter().all(|gone| !gone.exists()));
        assert!(alive.path().exists() && drill.path().exists());
        assert!(parent.path().join("bkp-sandbox-new").exists());
        assert!(parent.path().join("another").exists());
    }

    #[test]
    fn a_directory_is_its_owners_alone() {
        let parent = tempfile::tempdir().unwrap();
        let dir = Dir::make(parent.path()).unwrap();
        let drill = Scratch::for_drill(parent.path()).unwrap();
        for path in [dir.path(), drill.path()] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_restored_tree_of_read_only_directories_goes() {
        let parent = tempfile::tempdir().unwrap();
        let (scratch, another) = (Scratch::for_drill(parent.path()).unwrap(), parent.path().join("another"));
        let (shut, within) = (scratch.path().join("images"), scratch.path().join("images/shop0001"));
        fs::create_dir_all(&within).unwrap();
        fs::create_dir(&another).unwrap();
        fs::write(within.join("1.jpg"), "x").unwrap();
        std::os::unix::fs::symlink(&another, within.join("link")).unwrap();
        for (dir, mode) in [(&within, 0o555), (&shut, 0o500), (&another, 0o555)] {
            fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
        }
        // Root could remove them as they are.
        make_writable(scratch.path());
        let mode = |dir: &Path| fs::symlink_metadata(dir).unwrap().mode() & 0o777;
        assert_eq!((mode(&within), mode(&shut), mode(&another)), (0o755, 0o700, 0o555));

        fs::set_permissions(&within, fs::Permissions::from_mode(0o555)).unwrap();
        let path = scratch.path().to_owned();
        scratch.remove().unwrap();
        assert!(!path.exists() && another.exists());
        let dropped = Scratch::for_drill(parent.path()).unwrap().path().to_owned();
        assert!(!dropped.exists());
    }

    #[test]
    fn what_is_kept_for_a_look_is_not_swept() {
        let parent = tempfile::tempdir().unwrap();
        let drill = Scratch::for_drill(parent.path()).unwrap();
        fs::create_dir(drill.path().join("images")).unwrap();
        let kept = drill.keep().unwrap();
        // Long after.
        let old = std::time::SystemTime::now() - 2 * UNOWNED_MAX;
        File::open(&kept).unwrap().set_modified(old).unwrap();
        assert!(remove_stale(parent.path()).is_empty());
        assert!(kept.join("images").exists() && !kept.join(OWNER).exists());
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let long = parent.path().join("x".repeat(90));
        fs::create_dir(&long).unwrap();
        assert!(matches!(Dir::make(&long), Err(SandboxError::PathTooLong { .. })));
    }

    #[test]
    fn the_errors_of_a_log_are_told_and_without_them_its_end() {
        let parent = tempfile::tempdir().unwrap();
        let dir = Dir::make(parent.path()).unwrap();
        let mut lines: Vec<String> = (0..40).map(|line| format!("line {line}")).collect();
        fs::write(dir.path().join(ERROR_LOG), lines.join("\n")).unwrap();
        assert!(dir.logs().starts_with("line 28\n") && dir.logs().ends_with("line 39"));
        lines[3] = "2026-11-23 0 [ERROR] no room".to_owned();
        fs::write(dir.path().join(ERROR_LOG), lines.join("\n")).unwrap();
        assert_eq!(dir.logs(), lines[3]);
    }
}
