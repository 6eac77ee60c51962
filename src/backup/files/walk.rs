//! The walk through a tree, directory by directory, with the parent's tree beside it.
//!
//! Of the parent only the directories on the way are held, so memory follows the widest directory and not the tree: an entry of a
//! directory that is being saved takes 1.2 KiB (its name, its node, its JSON), and half a KiB more beside a parent. Ten million files
//! in ten thousand directories need no more than ten thousand files in ten; a million in a single one need 1.5 GiB.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

use crate::backup::files::BackupFilesError;
use crate::backup::files::Counts;
use crate::backup::files::tally::Tally;
use crate::chunk;
use crate::entry::{DEPTH_MAX, Kind, Metadata, Xattr};
use crate::id::BlobId;
use crate::repository::BlobKind;
use crate::repository::Node;
use crate::repository::Repository;
use crate::repository::RepositoryError;
use crate::repository::StoredSnapshot;
use crate::repository::Tree;
use crate::repository::Writer;
use crate::run::Run;
use crate::source::files::FilesSource;
use crate::source::files::LeftOut;
use crate::source::files::dir::{Dir, Listing};
use crate::source::files::read::{ReadError, Reading};
use crate::source::files::unchanged::CleanBefore;

/// Names that one thread takes at a time: few enough to share out one directory, many enough to be worth the sharing.
const NAMES_AT_ONCE: usize = 16;

/// So many unreadable entries are told at once; a dead disk would tell millions. The list has more.
const WARNINGS_MAX: u64 = 20;

/// Bytes asked for at a time: what NFS fetches in one call.
const READ_BYTES: usize = 1 << 20;

pub(super) struct Walk<'a> {
    source: &'a FilesSource,
    parent: Option<Parent<'a>>,
    repository: &'a Arc<Repository>,
    writer: &'a Writer,
    run: &'a Run,
    tally: &'a Tally<'a>,
}

struct Parent<'a> {
    snapshot: &'a StoredSnapshot,
    clean: CleanBefore,
}

/// One saved entry, or none where it is not in the snapshot.
type Entry = Result<Option<Node>, BackupFilesError>;

impl<'a> Walk<'a> {
    pub(super) fn new(
        source: &'a FilesSource,
        parent: Option<&'a StoredSnapshot>,
        repository: &'a Arc<Repository>,
        writer: &'a Writer,
        run: &'a Run,
        tally: &'a Tally<'a>,
    ) -> Self {
        let parent = parent.map(|stored| Parent { snapshot: stored, clean: source.clean_before(stored.snapshot.time) });
        Self { source, parent, repository, writer, run, tally }
    }

    /// Saves the tree from its top.
    pub(super) fn top(&self, listing: Listing) -> Result<BlobId, BackupFilesError> {
        let parent = self.parent.as_ref().map(|parent| parent.snapshot.snapshot.tree);
        let names = self.source.path().components().skip(1);
        let parent = names.fold(parent, |tree, name| {
            let above = self.parent_nodes(tree);
            find(&above, name.as_os_str())?.subtree
        });
        self.directory(listing, parent)
    }

    /// Saves one directory and all below it.
    fn directory(&self, listing: Listing, parent: Option<BlobId>) -> Result<BlobId, BackupFilesError> {
        let old = self.parent_nodes(parent);
        let Listing { dir, names } = listing;
        let nodes = names
            .par_iter()
            .with_max_len(NAMES_AT_ONCE)
            .map(|name| self.entry(&dir, name, find(&old, name)))
            .collect::<Result<Vec<Option<Node>>, _>>()?;
        let nodes = nodes.into_iter().flatten().collect();
        let tree = self.writer.save_tree(&Tree { nodes })?;
        self.tally.count(|counts| {
            counts.dirs += 1;
            match parent {
                None => counts.dirs_new += 1,
                Some(parent) if parent == tree => counts.dirs_unmodified += 1,
                Some(_) => counts.dirs_changed += 1,
            }
        });
        Ok(tree)
    }

    fn entry(&self, dir: &Dir, name: &OsStr, old: Option<&Node>) -> Entry {
        self.run.check()?;
        let now = match self.source.look(dir, name) {
            Ok(now) => now,
            Err(error) => return Ok(self.missed(dir, name, old, &error)),
        };
        match self.source.leaves_out(dir, name, &now) {
            Some(LeftOut::Excluded | LeftOut::ServerSnapshot) => {
                self.tally.count(|counts| counts.excluded += 1);
                return Ok(None);
            }
            Some(LeftOut::OtherFilesystem) => return self.mount_point(dir, name, now, old),
            None => {}
        }
        match now.kind {
            Kind::File => self.file(dir, name, &now, old),
            Kind::Dir => self.subdirectory(dir, name, now, old),
            _ => {
                self.tally.count(|counts| counts.others += 1);
                Ok(Some(self.node(dir, name, now, old)))
            }
        }
    }

    fn file(&self, dir: &Dir, name: &OsStr, now: &Metadata, old: Option<&Node>) -> Entry {
        if let Some(old) = old.filter(|old| self.trusts(old, now) && self.has_content(old)) {
            self.tally.file(now.size, |counts| counts.files_unmodified += 1);
            return Ok(Some(Node {
                name: name.to_owned(),
                metadata: Metadata { xattrs: old.metadata.xattrs.clone(), ..now.clone() },
                content: old.content.clone(),
                subtree: None,
            }));
        }
        let take = |reading: &mut Reading<'_>| self.take(reading);
        let outcome = match self.source.read(dir, name, self.run, take) {
            Ok(outcome) => outcome,
            Err(ReadError::Stopped(stopped)) => return Err(stopped.into()),
            Err(ReadError::Taker(error)) => return Err(error.into()),
            Err(ReadError::Source(error)) => return Ok(self.missed(dir, name, old, &error)),
        };
        let is_new = old.is_none_or(|old| old.metadata.kind != Kind::File);
        self.tally.file(outcome.metadata.size, |counts| {
            counts.bytes_read += outcome.bytes;
            *(if is_new { &mut counts.files_new } else { &mut counts.files_changed }) += 1;
        });
        if outcome.is_fuzzy {
            self.tally.fuzzy(dir.path().join(name));
        }
        let mut metadata = outcome.metadata;
        metadata.xattrs = match old.filter(|old| self.trusts(old, &metadata)) {
            Some(old) => old.metadata.xattrs.clone(),
            None => self.readable(dir, name, outcome.xattrs),
        };
        Ok(Some(Node { name: name.to_owned(), metadata, content: outcome.value, subtree: None }))
    }

    /// Saves a file's bytes: one that is no longer than a chunk at once, others cut on their way.
    fn take(&self, reading: &mut Reading<'_>) -> Result<Vec<BlobId>, RepositoryError> {
        if reading.size() <= chunk::MIN as u64 {
            let whole = reading.read_whole().map_err(taking)?;
            if whole.is_empty() {
                return Ok(Vec::new());
            }
            return Ok(vec![self.writer.save(BlobKind::Data, whole)?]);
        }
        let mut file = self.writer.file();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match reading.read(&mut buffer) {
                Ok(0) => return Ok(file.finish()?.blobs),
                Ok(count) => file.write_all(&buffer[..count]).map_err(taking)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(taking(error)),
            }
        }
    }

    fn subdirectory(&self, dir: &Dir, name: &OsStr, now: Metadata, old: Option<&Node>) -> Entry {
        let listing = if dir.depth() < DEPTH_MAX {
            self.source.enter(dir, name)
        } else {
            Err(io::Error::other(format!("deeper than {DEPTH_MAX} directories")))
        };
        let listing = match listing {
            Ok(listing) => listing,
            Err(error) => {
                let kept = self.missed(dir, name, old, &error);
                let is_there = error.kind() != io::ErrorKind::NotFound;
                return match kept {
                    None if is_there => self.empty_directory(dir, name, now, old),
                    kept => Ok(kept),
                };
            }
        };
        let mut node = self.node(dir, name, now, old);
        node.subtree = Some(self.directory(listing, old.and_then(|old| old.subtree))?);
        Ok(Some(node))
    }

    /// Keeps the place of another filesystem, so that it can be mounted there again.
    fn mount_point(&self, dir: &Dir, name: &OsStr, now: Metadata, old: Option<&Node>) -> Entry {
        let path = dir.path().join(name);
        self.run.events.warn(format!(
            "`{}` is another filesystem and its content is left out",
            self.source.path().join(&path).display()
        ));
        self.tally.other_filesystem(&path);
        self.empty_directory(dir, name, now, old)
    }

    fn empty_directory(&self, dir: &Dir, name: &OsStr, now: Metadata, old: Option<&Node>) -> Entry {
        let mut node = self.node(dir, name, now, old);
        node.subtree = Some(self.writer.save_tree(&Tree::default())?);
        self.tally.count(|counts| counts.dirs += 1);
        Ok(Some(node))
    }

    /// Makes an entry's node, with the extended attributes of the parent's where that still is true of it.
    fn node(&self, dir: &Dir, name: &OsStr, mut now: Metadata, old: Option<&Node>) -> Node {
        now.xattrs = match old.filter(|old| self.trusts(old, &now)) {
            Some(old) => old.metadata.xattrs.clone(),
            None => self.readable(dir, name, self.source.xattrs(dir, name)),
        };
        Node { name: name.to_owned(), metadata: now, content: Vec::new(), subtree: None }
    }

    /// Returns extended attributes, and notes where they cannot be read.
    fn readable(&self, dir: &Dir, name: &OsStr, xattrs: io::Result<Vec<Xattr>>) -> Vec<Xattr> {
        xattrs.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                let reason = format!("its extended attributes: {error}");
                self.tally.unreadable(dir.path().join(name), &reason);
            }
            Vec::new()
        })
    }

    /// Notes an entry that was listed and cannot be read. It stands as the parent has it, unless it is gone.
    fn missed(&self, dir: &Dir, name: &OsStr, old: Option<&Node>, error: &io::Error) -> Option<Node> {
        if error.kind() == io::ErrorKind::NotFound {
            self.tally.count(|counts| counts.vanished += 1);
            return None;
        }
        let path = dir.path().join(name);
        let told = self.source.path().join(&path);
        if self.tally.unreadable(path, error) <= WARNINGS_MAX {
            self.run.events.warn(format!("`{}` cannot be read: {error}", told.display()));
        }
        let old = old?;
        self.tally.add(&self.whole(old)?);
        Some(old.clone())
    }

    /// Counts a parent's entry and all below it, if the repository holds every part.
    fn whole(&self, old: &Node) -> Option<Counts> {
        let mut counts = Counts::default();
        match (&old.metadata.kind, old.subtree) {
            (Kind::File, _) => {
                self.has_content(old).then_some(())?;
                counts.files = 1;
                counts.bytes = old.metadata.size;
            }
            (Kind::Dir, tree) => {
                counts.dirs = 1;
                for node in self.repository.tree_blocking(&tree?).ok()?.nodes {
                    let below = self.whole(&node)?;
                    counts.files += below.files;
                    counts.bytes += below.bytes;
                    counts.dirs += below.dirs;
                    counts.others += below.others;
                }
            }
            _ => counts.others = 1,
        }
        Some(counts)
    }

    fn trusts(&self, old: &Node, now: &Metadata) -> bool {
        self.parent.as_ref().is_some_and(|parent| parent.clean.trusts(&old.metadata, now))
    }

    /// Tells whether a file's blobs still are where the index says: what was lost is read and saved again.
    fn has_content(&self, old: &Node) -> bool {
        old.content.iter().all(|blob| self.repository.has(BlobKind::Data, blob))
    }

    /// Reads a directory of the parent. Without it everything in the directory is read.
    fn parent_nodes(&self, tree: Option<BlobId>) -> Vec<Node> {
        let Some(tree) = tree else { return Vec::new() };
        match self.repository.tree_blocking(&tree) {
            Ok(tree) => tree.nodes,
            Err(error) => {
                self.run.events.warn(format!("a directory of the parent snapshot is read anew: {error}"));
                Vec::new()
            }
        }
    }
}

fn find<'n>(nodes: &'n [Node], name: &OsStr) -> Option<&'n Node> {
    let found = nodes.binary_search_by(|node| node.name.as_os_str().cmp(name));
    found.ok().map(|index| &nodes[index])
}

/// Finds the writer's own error in what `io::Write` makes of it.
fn taking(error: io::Error) -> RepositoryError {
    match error.downcast::<RepositoryError>() {
        Ok(error) => error,
        Err(error) => RepositoryError::refused("a file's bytes", error),
    }
}
