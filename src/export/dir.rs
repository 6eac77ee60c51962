//! The directory of an export: it is there whole or not at all.
//!
//! Files are written as `NAME.partial`, synced, and given their names when all are whole, the decisive one last. What a failure
//! leaves is removed. Only the owner can read them: they hold what the repository keeps encrypted.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::export::ExportError;

/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Dir {
    root: PathBuf,
    /// It was made for this export, and goes with it until it is published.
    is_ours: bool,
    /// What lies in it as `NAME.partial`.
    partial: Mutex<BTreeSet<String>>,
    /// What bears its name already, while others do not.
    named: Vec<String>,
}

impl Dir {
    /// Makes the directory, or takes one that is empty.
    pub(super) fn make(root: &Path) -> Result<Self, ExportError> {
        let made = DirBuilder::new().recursive(false).mode(0o700).create(root);
        let is_ours = match made {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(failure(root, error)),
        };
        if !is_ours && !is_empty(root).map_err(|error| not_a_dir(root, error))? {
            return Err(ExportError::NotEmpty(root.to_owned()));
        }
        let dir = Self { root: root.to_owned(), is_ours, partial: Mutex::default(), named: Vec::new() };
        if is_ours {
            sync(&root.join(".."))?;
        }
        Ok(dir)
    }

    pub(super) fn file(&self, name: &str) -> Result<Out, ExportError> {
        let path = self.root.join(partial(name));
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = opened.map_err(|error| failure(&path, error))?;
        self.partial.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(Out { path, file: BufWriter::with_capacity(BUFFER_BYTES, file) })
    }

    /// Gives all files their names, and returns how many they are and their bytes. `last` comes last: without it the others are
    /// no export.
    pub(super) fn publish(mut self, last: &str) -> Result<(usize, u64), ExportError> {
        let (decisive, others): (Vec<String>, Vec<String>) =
            self.partial().iter().cloned().partition(|name| name == last);
        let mut bytes = 0;
        // Each is synced: after a power cut the decisive one is not there without the others.
        for names in [&others, &decisive] {
            for name in names {
                bytes += self.name(name)?;
            }
            sync(&self.root)?;
        }
        self.named.clear();
        self.is_ours = false;
        Ok((others.len() + decisive.len(), bytes))
    }

    /// Gives a file its name, and returns its bytes.
    fn name(&mut self, name: &str) -> Result<u64, ExportError> {
        let (from, to) = (self.root.join(partial(name)), self.root.join(name));
        fs::rename(&from, &to).map_err(|error| failure(&to, error))?;
        self.partial().remove(name);
        self.named.push(name.to_owned());
        Ok(fs::metadata(&to).map_err(|error| failure(&to, error))?.len())
    }

    fn partial(&mut self) -> &mut BTreeSet<String> {
        self.partial.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Dir {
    /// Removes what has not been published.
    fn drop(&mut self) {
        // The decisive one first: what is left without it is no export.
        let named = std::mem::take(&mut self.named).into_iter().rev();
        let partial = std::mem::take(self.partial()).into_iter().map(|name| partial(&name));
        for name in named.chain(partial) {
            // The failure that brought us here is told.
            fs::remove_file(self.root.join(name)).ok();
        }
        if self.is_ours {
            fs::remove_dir(&self.root).ok();
        }
    }
}

fn partial(name: &str) -> String {
    format!("{name}.partial")
}

/// Brings the names in a directory onto the disk.
fn sync(dir: &Path) -> Result<(), ExportError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| failure(dir, error))
}

fn is_empty(root: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(root)?.next().is_none())
}

fn not_a_dir(root: &Path, error: io::Error) -> ExportError {
    match error.kind() {
        io::ErrorKind::NotADirectory => ExportError::NotEmpty(root.to_owned()),
        _ => failure(root, error),
    }
}

fn failure(path: &Path, error: io::Error) -> ExportError {
    ExportError::Write { path: path.to_owned(), error }
}

/// A file of an export that is being written.
#[derive(Debug)]
pub(super) struct Out {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Out {
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.write(|file| file.write_all(bytes))
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), ExportError> {
        self.bytes(text.as_bytes())
    }

    /// Writes by what writes to files of any kind.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), ExportError> {
        write(&mut self.file).map_err(|error| failure(&self.path, error))
    }

    /// Ends the file: it is on the disk then.
    pub(super) fn finish(self) -> Result<(), ExportError> {
        let Self { path, file } = self;
        let file = file.into_inner().map_err(|error| failure(&path, error.into_error()))?;
        file.sync_all().map_err(|error| failure(&path, error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn files_get_their_names_when_all_are_whole_and_are_the_owners_alone() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("out");
        let dir = Dir::make(&root).unwrap();
        for (name, text) in [("metadata", "m"), ("a.sql", "one")] {
            let mut out = dir.file(name).unwrap();
            out.text(text).unwrap();
            out.finish().unwrap();
        }
        assert_eq!(names(&root), ["a.sql.partial", "metadata.partial"]);
        assert_eq!(dir.publish("metadata").unwrap(), (2, 4));
        assert_eq!(names(&root), ["a.sql", "metadata"]);
        assert_eq!((mode(&root), mode(&root.join("a.sql"))), (0o700, 0o600));
    }

    #[test]
    fn what_is_not_published_leaves_nothing_and_an_empty_directory_of_somebody_elses_stays() {
        let parent = tempfile::tempdir().unwrap();
        let (ours, theirs) = (parent.path().join("ours"), parent.path().join("theirs"));
        fs::create_dir(&theirs).unwrap();
        for root in [&ours, &theirs] {
            let dir = Dir::make(root).unwrap();
            dir.file("a.sql").unwrap().text("half").unwrap();
            drop(dir);
        }
        assert!(!ours.exists());
        assert_eq!(names(&theirs), [""; 0]);
    }

    #[test]
    fn files_that_bear_their_names_already_go_where_another_cannot_have_its_own() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("out");
        let dir = Dir::make(&root).unwrap();
        for name in ["a.sql", "b.sql", "metadata"] {
            dir.file(name).unwrap().finish().unwrap();
        }
        // Somebody is quicker.
        fs::create_dir(root.join("b.sql")).unwrap();
        assert!(matches!(dir.publish("metadata"), Err(ExportError::Write { path, .. }) if path.ends_with("b.sql")));
        assert_eq!(names(&root), ["b.sql"]);
    }

    #[test]
    fn what_is_no_empty_directory_is_refused_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("kept"), "x").unwrap();
        for root in [parent.path().to_owned(), parent.path().join("kept")] {
            assert!(matches!(Dir::make(&root), Err(ExportError::NotEmpty(_))), "{}", root.display());
        }
        assert_eq!(fs::read(parent.path().join("kept")).unwrap(), b"x");
        assert!(matches!(Dir::make(&parent.path().join("no/where")), Err(ExportError::Write { .. })));
    }
}
