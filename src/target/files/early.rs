//! Has the disk write large files back while the restore goes on, so that its end does not wait for all of them.

use std::fs::File;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Smaller ones cost more commits of the filesystem's journal than they gain: they are left to the end.
const FILE_BYTES_MIN: u64 = 8 << 20;

/// Files that wait; each is open. What finds no place here is left to the end.
const FILES_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct EarlyWriteBack {
    /// `None` where the thread could not be started.
    files: Option<SyncSender<File>>,
}

impl EarlyWriteBack {
    /// Starts the thread, which ends by itself once this is gone; nobody waits for it.
    pub(super) fn start() -> Self {
        let (sender, files) = sync_channel(FILES_MAX);
        let started = thread::Builder::new().name("write-back".to_owned()).spawn(move || write_back(&files));
        Self { files: started.is_ok().then_some(sender) }
    }

    /// Takes a file that is whole.
    pub(super) fn add(&self, file: &File, size: u64) {
        if size >= FILE_BYTES_MIN
            && let Some(files) = &self.files
            && let Ok(file) = file.try_clone()
        {
            let _left_to_the_end = files.try_send(file);
        }
    }
}

fn write_back(files: &Receiver<File>) {
    for file in files {
        // What fails here fails for the filesystem as a whole at the end, too, and is told there.
        let _told_at_the_end = file.sync_data();
    }
}
