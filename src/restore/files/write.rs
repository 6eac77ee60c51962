//! Writing one entry: beside its place, then all that belongs to it, then its name.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;

use crate::entry::Metadata;
use crate::repository::Node;
use crate::restore::files::content::{self, ContentError, Unproved};
use crate::restore::files::fault::Fault;
use crate::restore::files::walk::{Spot, Walk};
use crate::target::files::State;
use crate::target::files::dir::TargetDir;
use crate::target::files::metadata::give;

/// What was done for one file.
pub(super) struct Done {
    pub(super) bytes: u64,
    pub(super) was_there: bool,
}

impl Walk<'_> {
    pub(super) fn file(&self, spot: &Spot<'_>, node: &Node, path: &Path) -> Result<Done, Fault> {
        let dir = self.dir(spot)?;
        let Some(written) = self.links.meet(&node.metadata) else {
            return self.write_file(dir, node, path);
        };
        // Threads that meet another name meanwhile wait here: the file is written by this thread alone, without rayon.
        let mut mine = None;
        let first = written.get_or_init(|| {
            let done = self.write_file(dir, node, path);
            let is_written = done.is_ok();
            mine = Some(done);
            is_written.then(|| path.to_owned())
        });
        match (mine, first) {
            (Some(done), _) => done,
            (None, None) => self.write_file(dir, node, path),
            (None, Some(first)) => {
                let linked = self.link(dir, node, first);
                linked.map_err(|error| self.fault(path, ContentError::File(error)))
            }
        }
    }

    fn link(&self, dir: &TargetDir, node: &Node, first: &Path) -> io::Result<Done> {
        let above = first.parent().unwrap_or(Path::new(""));
        let of = self.target.root().descend(above)?;
        let temp = dir.temp_link(&of, first.file_name().unwrap_or_default())?;
        temp.publish(&node.name)?;
        self.task.add(node.metadata.size);
        Ok(Done { bytes: node.metadata.size, was_there: false })
    }

    fn write_file(&self, dir: &TargetDir, node: &Node, path: &Path) -> Result<Done, Fault> {
        if let Some(done) = self.kept(dir, node, path)? {
            return Ok(done);
        }
        let told = |bytes| self.task.add(bytes);
        self.write_new(dir, node, path, |file| content::write(self.repository, file, &node.content, self.run, told))
    }

    /// Leaves a file as it is that is there already.
    pub(super) fn kept(&self, dir: &TargetDir, node: &Node, path: &Path) -> Result<Option<Done>, Fault> {
        let bytes = node.metadata.size;
        if !self.is_there(dir, node, path)? {
            return Ok(None);
        }
        self.task.add(bytes);
        Ok(Some(Done { bytes, was_there: true }))
    }

    /// Writes a file beside its place, filled by `fill`, which returns its length.
    pub(super) fn write_new(
        &self,
        dir: &TargetDir,
        node: &Node,
        path: &Path,
        fill: impl FnOnce(&File) -> Result<u64, ContentError>,
    ) -> Result<Done, Fault> {
        let fault = |error| self.fault(path, error);
        let mut temp = dir.temp_file().map_err(|error| fault(ContentError::File(error)))?;
        let bytes = fill(temp.file()).map_err(fault)?;
        if bytes != node.metadata.size {
            let size = node.metadata.size;
            self.reduced(path, format!("the snapshot says {size} bytes, its content has {bytes}"));
        }
        let given = self.give(dir, temp.name(), path, &node.metadata);
        let published = given.and_then(|()| temp.publish(&node.name));
        published.map_err(|error| fault(ContentError::File(error)))?;
        Ok(Done { bytes, was_there: false })
    }

    /// Tells whether a file is there already. What an interrupted restore of this tree named is whole; of anything else
    /// the bytes are read and hashed.
    fn is_there(&self, dir: &TargetDir, node: &Node, path: &Path) -> Result<bool, Fault> {
        if self.target.state() == State::Empty {
            return Ok(false);
        }
        let Ok(stat) = dir.stat(&node.name) else {
            return Ok(false);
        };
        if !looks_same(&stat, &node.metadata) {
            return Ok(false);
        }
        if self.target.state() == State::Interrupted {
            return Ok(true);
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
        let given = self.give(dir, &node.name, path, &node.metadata);
        given.map_err(|error| fault(ContentError::File(error)))?;
        Ok(true)
    }

    pub(super) fn special(&self, spot: &Spot<'_>, node: &Node, path: &Path) -> Result<(), Fault> {
        let dir = self.dir(spot)?;
        let made = dir.temp_special(&node.metadata).and_then(|temp| {
            self.give(dir, temp.name(), path, &node.metadata)?;
            temp.publish(&node.name)
        });
        made.map_err(|error| self.fault(path, ContentError::File(error)))
    }

    pub(super) fn give(&self, dir: &TargetDir, name: &OsStr, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let reduced = give(dir, name, metadata)?;
        if reduced.owner {
            self.count(|restored| restored.owners_lost += 1);
        }
        for reason in reduced.reasons {
            self.reduced(path, reason);
        }
        Ok(())
    }
}

fn looks_same(stat: &rustix::fs::Stat, metadata: &Metadata) -> bool {
    let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let mtime = chrono::DateTime::from_timestamp(stat.st_mtime, nanoseconds);
    is_file && u64::try_from(stat.st_size) == Ok(metadata.size) && mtime == Some(metadata.mtime)
}
