//! Files whose bytes are fetched together: across directories, in the order in which they lie in packs.
//!
//! An image is too small to ask an object store for it alone, and a disk reads a pack fastest from its start to its end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::id::BlobId;
use crate::repository::BlobKind;
use crate::repository::Node;
use crate::repository::Repository;
use crate::repository::RepositoryError;
use crate::repository::Wanted;
use crate::restore::files::RestoreFilesError;
use crate::restore::files::below;
use crate::restore::files::content::ContentError;
use crate::restore::files::links::{self, Settled};
use crate::restore::files::spot::Spot;
use crate::restore::files::walk::Walk;
use crate::target::files::dir::Temp;

/// Files in a window: some ten MiB of entries in memory, in each of the two windows that there are at once.
const FILES_MAX: usize = 16_384;

/// Plain bytes in a window: the few packs of a second or two, against which the pause between two windows is nothing. They are not
/// held in memory.
const BYTES_MAX: u64 = 256 << 20;

/// Files of several blobs in a window: each is held open, with its directory, until its last blob has come.
const LONG_FILES_MAX: usize = 64;

/// What is fetched in one go.
#[derive(Debug, Default)]
pub(super) struct Window {
    files: Vec<Arc<File>>,
    parts: Vec<Wanted<Part>>,
    bytes: u64,
    long_files: usize,
}

/// A file that is to be written.
#[derive(Debug)]
pub(super) struct File {
    pub(super) spot: Arc<Spot>,
    pub(super) node: Node,
    /// A blob of it that no index names.
    lost: Option<BlobId>,
    /// What it grows in, where it has several blobs.
    pub(super) growing: Mutex<Option<Arc<Temp<std::fs::File>>>>,
    /// Bytes written, and parts that are not.
    pub(super) written: AtomicU64,
    pub(super) undone: AtomicUsize,
    /// Nothing more is to be written: it is there, or cannot be.
    is_over: AtomicBool,
}

/// Where one blob of a file goes.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
}

impl Window {
    pub(super) fn add(&mut self, file: &Arc<File>) {
        self.long_files += usize::from(file.is_long());
        self.files.push(Arc::clone(file));
    }

    pub(super) fn add_part(&mut self, part: Wanted<Part>) {
        self.bytes += part.0.blob.plain_length();
        self.parts.push(part);
    }

    pub(super) fn is_full(&self) -> bool {
        self.files.len() >= FILES_MAX || self.bytes >= BYTES_MAX || self.long_files >= LONG_FILES_MAX
    }
}

impl File {
    /// A file that the directory waits for from now on.
    pub(super) fn new(spot: &Arc<Spot>, node: Node, repository: &Repository) -> Self {
        spot.begin();
        let lost = node.content.iter().find(|blob| !repository.has(BlobKind::Data, blob)).copied();
        let undone = AtomicUsize::new(node.content.len());
        let (growing, written, is_over) = (Mutex::default(), AtomicU64::new(0), AtomicBool::new(false));
        Self { spot: Arc::clone(spot), node, lost, growing, written, undone, is_over }
    }

    pub(super) fn path(&self) -> PathBuf {
        below(&self.spot.path, &self.node)
    }

    pub(super) fn is_long(&self) -> bool {
        self.node.content.len() > 1
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Ends the file's work; tells whether it had not ended before.
    pub(super) fn end(&self) -> bool {
        !self.is_over.swap(true, Ordering::AcqRel)
    }

    /// Returns the parts of a file of which nothing is lost.
    pub(super) fn parts(self: &Arc<Self>, repository: &Repository) -> impl Iterator<Item = Wanted<Part>> {
        let blobs = if self.lost.is_none() { self.node.content.as_slice() } else { &[] };
        let located = blobs.iter().filter_map(|blob| repository.locate(BlobKind::Data, blob));
        located.scan(0, |end, location| {
            let part = Part { file: Arc::clone(self), offset: *end };
            *end += location.blob.plain_length();
            Some((location, part))
        })
    }
}

impl Walk<'_> {
    /// Writes the files of a window, and then those names of them whose first one failed.
    pub(super) fn window(&self, window: Window) -> Result<(), RestoreFilesError> {
        self.fetch(window)?;
        loop {
            let again = self.take_again();
            if again.is_empty() {
                return Ok(());
            }
            let mut window = Window::default();
            for file in &again {
                window.add(file);
                window.parts.extend(file.parts(self.repository));
            }
            self.fetch(window)?;
        }
    }

    fn fetch(&self, window: Window) -> Result<(), RestoreFilesError> {
        let Window { files, mut parts, .. } = window;
        files.par_iter().try_for_each(|file| self.begin(file))?;
        parts.retain(|(_, part)| !part.file.is_over());
        self.repository.fetch_blocking(parts, self.run, |same, plain| match plain {
            Ok(bytes) => same.iter().try_for_each(|(_, part)| self.part(part, &bytes)),
            Err(error) => same.iter().try_for_each(|(_, part)| self.lose(&part.file, error.clone())),
        })
    }

    /// Ends a file that needs no bytes: it is there already, has none, or some are lost.
    fn begin(&self, file: &Arc<File>) -> Result<(), RestoreFilesError> {
        self.run.check()?;
        match self.kept(file) {
            Ok(Some(done)) => return self.end_file(file, Ok(done)),
            Ok(None) => {}
            Err(fault) => return self.end_file(file, Err(fault)),
        }
        if let Some(id) = file.lost {
            return self.lose(file, RepositoryError::MissingBlob { kind: BlobKind::Data, id });
        }
        if file.node.content.is_empty() { self.end_file(file, self.write_whole(file, &[])) } else { Ok(()) }
    }

    fn part(&self, part: &Part, bytes: &[u8]) -> Result<(), RestoreFilesError> {
        let file = &part.file;
        if file.is_over() {
            return Ok(());
        }
        if !file.is_long() {
            return self.end_file(file, self.write_whole(file, bytes));
        }
        match self.write_part(part, bytes) {
            Ok(None) => Ok(()),
            Ok(Some(done)) => self.end_file(file, Ok(done)),
            Err(fault) => self.end_file(file, Err(fault)),
        }
    }

    fn lose(&self, file: &Arc<File>, error: RepositoryError) -> Result<(), RestoreFilesError> {
        let fault = self.fault(&file.path(), ContentError::Repository(error));
        self.end_file(file, Err(fault))
    }

    /// Settles what follows from a file's other names.
    pub(super) fn settle(&self, file: &File, is_written: bool) -> Result<(), RestoreFilesError> {
        if links::key(&file.node.metadata).is_none() {
            return Ok(());
        }
        let path = file.path();
        match self.links.settle(&file.node.metadata, is_written.then_some(path.as_path())) {
            Settled::Link(names) => names.iter().try_for_each(|name| self.end_link(name, &path)),
            Settled::Write(next) => {
                self.write_again(next);
                Ok(())
            }
        }
    }
}
