//! The file that says which restore is under way in a directory.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::id::BlobId;
use crate::target::files::State;
use crate::target::files::dir::TargetDir;

/// Far more than a marker has.
const MARKER_BYTES_MAX: u64 = 4_096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    tree: BlobId,
    /// The machine's boot that wrote it: after a power cut a file may have its size and name, and not its bytes.
    boot: String,
    is_foreign: bool,
}

impl Marker {
    pub(super) fn new(tree: BlobId, state: State) -> Self {
        Self { tree, boot: this_boot(), is_foreign: state == State::Foreign }
    }

    pub(super) fn is_of(&self, tree: &BlobId) -> bool {
        self.tree == *tree
    }

    pub(super) fn state(&self) -> State {
        if self.is_foreign || self.boot != this_boot() { State::Foreign } else { State::Interrupted }
    }

    pub(super) fn read(root: &TargetDir) -> io::Result<Option<Self>> {
        let file = match root.open_file(name()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = String::new();
        file.take(MARKER_BYTES_MAX).read_to_string(&mut text)?;
        Ok(Self::parse(&text))
    }

    pub(super) fn write(&self, root: &Arc<TargetDir>) -> io::Result<()> {
        let temp = root.temp_file()?;
        temp.file().write_all(self.text().as_bytes())?;
        temp.file().sync_all()?;
        temp.publish(name())
    }

    pub(super) fn remove(root: &TargetDir) -> io::Result<()> {
        root.remove_file(name())
    }

    fn text(&self) -> String {
        let before = if self.is_foreign { "not empty" } else { "empty" };
        format!(
            "bkp is restoring into this directory; remove this file to make it forget that.\ntree {}\nboot {}\nbefore {before}\n",
            self.tree, self.boot
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        };
        Some(Self {
            tree: value("tree")?.parse().ok()?,
            boot: value("boot")?.to_owned(),
            is_foreign: value("before")? != "empty",
        })
    }
}

/// The marker's name begins like those of unfinished entries, so that no restored entry can take it.
pub(super) fn name() -> &'static OsStr {
    OsStr::new(".bkp-restore.marker")
}

fn this_boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::files::dir::OWN_PREFIX;

    #[test]
    fn a_marker_reads_back_as_it_was_written() {
        let marker = Marker::new(BlobId::of(b"tree"), State::Foreign);
        assert_eq!(Marker::parse(&marker.text()), Some(marker));
        assert_eq!(Marker::parse("tree abc\n"), None);
    }

    #[test]
    fn only_this_boots_word_on_an_empty_directory_is_taken() {
        let fresh = Marker::new(BlobId::of(b"tree"), State::Empty);
        assert_eq!(fresh.state(), State::Interrupted);
        assert_eq!(Marker { boot: "another".into(), ..fresh.clone() }.state(), State::Foreign);
        assert_eq!(Marker { is_foreign: true, ..fresh }.state(), State::Foreign);
        assert!(name().as_encoded_bytes().starts_with(OWN_PREFIX));
    }
}
