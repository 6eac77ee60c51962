//! Writing one entry: beside its place, then all that belongs to it, then its name.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::entry::Metadata;
use crate::repository::Node;
use crate::restore::files::RestoreFilesError;
use crate::restore::files::content::{self, ContentError, Unproved};
use crate::restore::files::fault::Fault;
use crate::restore::files::spot::Spot;
use crate::restore::files::walk::Walk;
use crate::restore::files::window::{File, Part};
use crate::target::files::State;
use crate::target::files::dir::{TargetDir, Temp};
use crate::target::files::metadata::{self, Reduced};
use crate::target::files::sparse;

/// What was done for one file.
pub(super) struct Done {
    pub(super) bytes: u64,
    pub(super) was_there: bool,
}

impl Walk<'_> {
    /// Ends a file's work, once: counts or notes it, sees to its other names, and lets its directory go.
    pub(super) fn end_file(&self, file: &Arc<File>, came: Result<Done, Fault>) -> Result<(), RestoreFilesError> {
        if !file.end() {
            return Ok(());
        }
        // What has grown in vain is removed now, not when the last name of the file in memory goes.
        drop(file.growing.lock().unwrap_or_else(PoisonError::into_inner).take());
        let is_written = came.is_ok();
        match came {
            Ok(done) => self.count_file(&done),
            Err(fault) => self.note(&file.path(), fault)?,
        }
        self.settle(file, is_written)?;
        self.done(&file.spot)
    }

    /// Makes a name a link to the file's first one.
    pub(super) fn end_link(&self, file: &Arc<File>, first: &Path) -> Result<(), RestoreFilesError> {
        let path = file.path();
        let linked = self.dir(&file.spot).and_then(|dir| {
            let linked = self.link(&dir, &file.node, first);
            linked.map_err(|error| self.fault(&path, ContentError::File(error)))
        });
        match linked {
            Ok(done) => self.count_file(&done),
            Err(fault) => self.note(&path, fault)?,
        }
        self.done(&file.spot)
    }

    fn link(&self, dir: &Arc<TargetDir>, node: &Node, first: &Path) -> io::Result<Done> {
        let above = first.parent().unwrap_or(Path::new(""));
        let of = self.target.root().descend(above)?;
        let temp = dir.temp_link(&of, first.file_name().unwrap_or_default())?;
        temp.publish(&node.name)?;
        self.task.add(node.metadata.size);
        Ok(Done { bytes: node.metadata.size, was_there: false })
    }

    /// Leaves a file as it is that is there already.
    pub(super) fn kept(&self, file: &File) -> Result<Option<Done>, Fault> {
        if self.target.state() == State::Empty {
            return Ok(None);
        }
        let (dir, bytes) = (self.dir(&file.spot)?, file.node.metadata.size);
        if !self.is_there(&dir, &file.node, &file.path())? {
            return Ok(None);
        }
        self.task.add(bytes);
        Ok(Some(Done { bytes, was_there: true }))
    }

    /// Writes a file that has come whole.
    pub(super) fn write_whole(&self, file: &File, bytes: &[u8]) -> Result<Done, Fault> {
        let fault = |error| self.fault(&file.path(), ContentError::File(error));
        let temp = self.dir(&file.spot)?.temp_file().map_err(fault)?;
        sparse::write_at(temp.file(), bytes, 0).map_err(fault)?;
        self.task.add(bytes.len() as u64);
        self.publish(file, &temp, bytes.len() as u64)
    }

    /// Writes a part of a file; returns what was done once it was the last.
    pub(super) fn write_part(&self, part: &Part, bytes: &[u8]) -> Result<Option<Done>, Fault> {
        let file = &part.file;
        let fault = |error| self.fault(&file.path(), ContentError::File(error));
        let temp = self.growing(file)?;
        sparse::write_at(temp.file(), bytes, part.offset).map_err(fault)?;
        let length = bytes.len() as u64;
        self.task.add(length);
        file.written.fetch_add(length, Ordering::Relaxed);
        if file.undone.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(None);
        }
        self.publish(file, &temp, file.written.load(Ordering::Relaxed)).map(Some)
    }

    fn growing(&self, file: &File) -> Result<Arc<Temp<fs::File>>, Fault> {
        let mut growing = file.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(temp) = &*growing {
            return Ok(Arc::clone(temp));
        }
        let temp = self.dir(&file.spot)?.temp_file();
        let temp = Arc::new(temp.map_err(|error| self.fault(&file.path(), ContentError::File(error)))?);
        *growing = Some(Arc::clone(&temp));
        Ok(temp)
    }

    /// Gives a file all that belongs to it and then its name.
    fn publish(&self, file: &File, temp: &Temp<fs::File>, size: u64) -> Result<Done, Fault> {
        let (path, node) = (file.path(), &file.node);
        if size != node.metadata.size {
            let said = node.metadata.size;
            self.reduced(&path, format!("the snapshot says {said} bytes, its content has {size}"));
        }
        let published = sparse::end_at(temp.file(), size)
            .and_then(|()| self.give(temp.file(), &path, &node.metadata))
            .and_then(|()| temp.publish(&node.name));
        published.map_err(|error| self.fault(&path, ContentError::File(error)))?;
        self.target.written(temp.file(), size);
        Ok(Done { bytes: size, was_there: false })
    }

    /// Tells whether a file is there already. What an interrupted restore of this tree named is whole; of anything else
    /// the bytes are read and hashed.
    fn is_there(&self, dir: &TargetDir, node: &Node, path: &Path) -> Result<bool, Fault> {
        let Ok(stat) = dir.stat(&node.name) else {
            return Ok(false);
        };
        if !looks_same(&stat, &node.metadata) {
            return Ok(false);
        }
        if self.target.state() == State::Interrupted {
            return Ok(true);
        }
        // More names than it should have: one of them may be another's file, which is not to be given away.
        if links(&stat) > node.metadata.links.max(1) {
            return Ok(false);
        }
        let Ok(mut file) = dir.open_file(&node.name) else {
            return Ok(false);
        };
        let fault = |error| self.fault(path, error);
        match content::prove(self.repository, &mut file, &node.content, self.run) {
            Ok(()) => {}
            Err(Unproved::Differs | Unproved::Unknown) => return Ok(false),
            Err(Unproved::Failed(error)) => return Err(fault(error)),
        }
        let given = self.give(&file, path, &node.metadata);
        given.map_err(|error| fault(ContentError::File(error)))?;
        Ok(true)
    }

    pub(super) fn special(&self, spot: &Spot, node: &Node, path: &Path) -> Result<(), Fault> {
        let dir = self.dir(spot)?;
        let made = dir.temp_special(&node.metadata).and_then(|temp| {
            self.note_reduced(path, metadata::give_special(&dir, temp.name(), &node.metadata)?);
            temp.publish(&node.name)
        });
        made.map_err(|error| self.fault(path, ContentError::File(error)))
    }

    /// Gives metadata to an open file or directory.
    pub(super) fn give(&self, open: impl AsFd, path: &Path, metadata: &Metadata) -> io::Result<()> {
        self.note_reduced(path, metadata::give(open, metadata)?);
        Ok(())
    }

    fn note_reduced(&self, path: &Path, reduced: Reduced) {
        if reduced.owner {
            self.count(|restored| restored.owners_lost += 1);
        }
        for reason in reduced.reasons {
            self.reduced(path, reason);
        }
    }
}

#[allow(clippy::useless_conversion, reason = "the count of names is 32 bits wide on some machines")]
fn links(stat: &rustix::fs::Stat) -> u64 {
    u64::from(stat.st_nlink)
}

fn looks_same(stat: &rustix::fs::Stat, metadata: &Metadata) -> bool {
    let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let mtime = chrono::DateTime::from_timestamp(stat.st_mtime, nanoseconds);
    is_file && u64::try_from(stat.st_size) == Ok(metadata.size) && mtime == Some(metadata.mtime)
}
