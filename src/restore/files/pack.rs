//! Small files that lie in one pack, fetched together: an image is too small to ask an object store for it alone.

use std::collections::HashMap;

use crate::entry::Kind;
use crate::id::{BlobId, ObjectId};
use crate::repository::BlobKind;
use crate::repository::Node;
use crate::repository::PackedBlob;
use crate::restore::files::RestoreFilesError;
use crate::restore::files::below;
use crate::restore::files::content::ContentError;
use crate::restore::files::links;
use crate::restore::files::selection::Meant;
use crate::restore::files::walk::{Spot, Walk};
use crate::target::files::dir::check_name;
use crate::target::files::sparse;

/// Stored bytes that are fetched at a time by each thread.
const FETCHED_BYTES_MAX: u64 = 4 << 20;

/// Files that are fetched at a time: enough to save requests, few enough to share out a directory.
const FETCHED_FILES_MAX: usize = 64;

/// What one thread does in one go.
pub(super) enum Work<'n> {
    Entry(&'n Node),
    /// Files of one blob each, all in this pack.
    Pack(ObjectId, Vec<(&'n Node, PackedBlob)>),
}

impl Walk<'_> {
    /// Shares out a directory's entries: small files by the packs that they lie in, all others one by one.
    pub(super) fn share_out<'n>(&self, spot: &Spot<'_>, nodes: &'n [Node]) -> Vec<Work<'n>> {
        let mut work = Vec::new();
        let mut small = Vec::new();
        for node in nodes {
            match self.place_of(spot, node) {
                Some((pack, blob)) => small.push((pack, blob, node)),
                None => work.push(Work::Entry(node)),
            }
        }
        small.sort_unstable_by_key(|(pack, blob, _)| (*pack, blob.offset));
        let mut bytes = 0;
        for (pack, blob, node) in small {
            bytes += u64::from(blob.length);
            match work.last_mut() {
                Some(Work::Pack(open, files))
                    if *open == pack && files.len() < FETCHED_FILES_MAX && bytes <= FETCHED_BYTES_MAX =>
                {
                    files.push((node, blob));
                }
                _ => {
                    bytes = u64::from(blob.length);
                    work.push(Work::Pack(pack, vec![(node, blob)]));
                }
            }
        }
        work
    }

    /// Returns where a small file lies that can be written from its one blob.
    fn place_of(&self, spot: &Spot<'_>, node: &Node) -> Option<(ObjectId, PackedBlob)> {
        let [blob] = node.content.as_slice() else {
            return None;
        };
        let is_plain = node.metadata.kind == Kind::File && links::key(&node.metadata).is_none();
        if !is_plain || check_name(&node.name).is_err() {
            return None;
        }
        let place = self.repository.locate(BlobKind::Data, blob)?;
        let is_meant = || self.selection.means(&below(&spot.path, node)) == Meant::All;
        (spot.is_meant || is_meant()).then_some((place.pack, place.blob))
    }

    /// Writes small files of one pack.
    pub(super) fn pack(
        &self,
        spot: &Spot<'_>,
        pack: &ObjectId,
        files: &[(&Node, PackedBlob)],
    ) -> Result<(), RestoreFilesError> {
        self.run.check()?;
        let mut blobs: Vec<PackedBlob> = Vec::new();
        let mut nodes: HashMap<BlobId, Vec<&Node>> = HashMap::new();
        for (node, blob) in files {
            if self.keep(spot, node)? {
                continue;
            }
            let same = nodes.entry(blob.id).or_default();
            if same.is_empty() {
                blobs.push(*blob);
            }
            same.push(node);
        }
        let unread = self.repository.blobs_of_pack_blocking(pack, &blobs, |blob, bytes| {
            let nodes = nodes.get(&blob.id).into_iter().flatten();
            nodes.copied().try_for_each(|node| self.small(spot, node, &bytes))
        })?;
        for (blob, error) in unread {
            for node in nodes.get(&blob).into_iter().flatten() {
                let path = below(&spot.path, node);
                self.note(&path, self.fault(&path, ContentError::Repository(error.clone())))?;
            }
        }
        Ok(())
    }

    /// Tells whether a file need not be fetched: it is there already, or cannot be written.
    fn keep(&self, spot: &Spot<'_>, node: &Node) -> Result<bool, RestoreFilesError> {
        let path = below(&spot.path, node);
        match self.dir(spot).and_then(|dir| self.kept(dir, node, &path)) {
            Ok(Some(done)) => self.count_file(&done),
            Ok(None) => return Ok(false),
            Err(fault) => self.note(&path, fault)?,
        }
        Ok(true)
    }

    fn small(&self, spot: &Spot<'_>, node: &Node, bytes: &[u8]) -> Result<(), RestoreFilesError> {
        let path = below(&spot.path, node);
        self.run.check()?;
        let written = self.dir(spot).and_then(|dir| {
            self.write_new(dir, node, &path, |file| {
                let size = bytes.len() as u64;
                sparse::write_at(file, bytes, 0).map_err(ContentError::File)?;
                file.set_len(size).map_err(ContentError::File)?;
                self.task.add(size);
                Ok(size)
            })
        });
        match written {
            Ok(done) => self.count_file(&done),
            Err(fault) => self.note(&path, fault)?,
        }
        Ok(())
    }
}
