//! The listing of a tree: directories are made as they are met, files gathered into windows.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crate::entry::{DEPTH_MAX, Kind};
use crate::id::BlobId;
use crate::repository::Node;
use crate::restore::files::RestoreFilesError;
use crate::restore::files::below;
use crate::restore::files::content::ContentError;
use crate::restore::files::fault::Fault;
use crate::restore::files::links::Met;
use crate::restore::files::selection::Meant;
use crate::restore::files::spot::Spot;
use crate::restore::files::walk::Walk;
use crate::restore::files::window::{File, Window};
use crate::run::Stopped;
use crate::target::files::dir::check_name;

/// Walks a tree depth first, as it was saved: files that follow one another lie side by side in packs.
pub(super) struct Lister<'w, 'a> {
    walk: &'w Walk<'a>,
    /// The directories from the top down to the one being listed, with what is left of each.
    open: Vec<(Arc<Spot>, std::vec::IntoIter<Node>)>,
    window: Window,
    windows: SyncSender<Window>,
}

impl<'w, 'a> Lister<'w, 'a> {
    pub(super) fn new(walk: &'w Walk<'a>, windows: SyncSender<Window>) -> Self {
        Self { walk, open: Vec::new(), window: Window::default(), windows }
    }

    /// Lists all that is meant.
    pub(super) fn list(mut self, tree: &BlobId) -> Result<(), RestoreFilesError> {
        self.enter(Spot::top(self.walk.selection.is_all()), tree)?;
        while let Some((spot, nodes)) = self.open.last_mut() {
            let spot = Arc::clone(spot);
            if let Some(node) = nodes.next() {
                self.node(&spot, node)?;
            } else {
                self.open.pop();
                self.walk.done(&spot)?;
            }
        }
        self.send()
    }

    fn enter(&mut self, spot: Arc<Spot>, tree: &BlobId) -> Result<(), RestoreFilesError> {
        match self.walk.repository.tree_blocking(tree) {
            Ok(tree) => self.open.push((spot, tree.nodes.into_iter())),
            Err(error) => {
                let fault = self.walk.fault(&spot.path, ContentError::Repository(error));
                self.walk.note(&spot.path, fault.of_all_below())?;
                self.walk.done(&spot)?;
            }
        }
        Ok(())
    }

    fn node(&mut self, spot: &Arc<Spot>, node: Node) -> Result<(), RestoreFilesError> {
        self.walk.run.check()?;
        let path = below(&spot.path, &node);
        let meant = if spot.is_meant { Meant::All } else { self.walk.selection.means(&path) };
        if meant == Meant::No {
            return Ok(());
        }
        if let Err(reason) = check_name(&node.name) {
            return self.walk.note(&path, Fault::entry(reason));
        }
        match (meant, &node.metadata.kind) {
            (_, Kind::Dir) => self.subdirectory(spot, node, meant == Meant::All),
            (Meant::All, Kind::File) => self.file(spot, node),
            (Meant::All, _) => match self.walk.special(spot, &node, &path) {
                Ok(()) => {
                    self.walk.count(|restored| restored.others += 1);
                    Ok(())
                }
                Err(fault) => self.walk.note(&path, fault),
            },
            _ => Ok(()),
        }
    }

    fn subdirectory(&mut self, above: &Arc<Spot>, node: Node, is_meant: bool) -> Result<(), RestoreFilesError> {
        let spot = Spot::below(above, node.name, node.metadata, is_meant);
        let made = if is_meant { self.walk.dir(&spot).map(drop) } else { Ok(()) };
        let fault = match (made, node.subtree) {
            (Err(fault), _) => fault.of_all_below(),
            (Ok(()), _) if spot.depth > DEPTH_MAX => {
                Fault::entry(format!("deeper than {DEPTH_MAX} directories")).of_all_below()
            }
            (Ok(()), Some(tree)) => return self.enter(spot, &tree),
            (Ok(()), None) => Fault::damage("its tree is not named"),
        };
        self.walk.note(&spot.path, fault)?;
        self.walk.done(&spot)
    }

    fn file(&mut self, spot: &Arc<Spot>, node: Node) -> Result<(), RestoreFilesError> {
        let file = Arc::new(File::new(spot, node, self.walk.repository));
        match self.walk.links.meet(&file) {
            Met::First => self.gather(&file),
            Met::Waits => Ok(()),
            Met::Link(first) => self.walk.end_link(&file, &first),
        }
    }

    /// Takes a file into the window, and on into the next ones where it is long.
    fn gather(&mut self, file: &Arc<File>) -> Result<(), RestoreFilesError> {
        self.window.add(file);
        for part in file.parts(self.walk.repository) {
            self.window.add_part(part);
            if self.window.is_full() {
                self.send()?;
            }
        }
        if self.window.is_full() { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), RestoreFilesError> {
        // Nobody receives any more: the restore has ended, and its error is the one to tell.
        let sent = self.windows.send(std::mem::take(&mut self.window));
        sent.map_err(|_| Stopped.into())
    }
}
