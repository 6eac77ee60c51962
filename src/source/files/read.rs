//! Reading a file that somebody may be writing.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use rustix::fs::{AtFlags, StatxFlags};

use crate::entry::{Kind, Metadata, Xattr};
use crate::run::{Run, Stopped};
use crate::source::files::FilesSource;
use crate::source::files::dir::{self, Dir};
use crate::source::files::unchanged::is_same_state;

/// An image is written in far less than the waits between these; a file that is always being written never settles.
const READS_MAX: u32 = 3;
const READ_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What came of reading a file.
#[derive(Debug)]
pub struct ReadOutcome<T> {
    /// What the reader made of the bytes.
    pub value: T,
    /// The file's state when it was opened, its size the number of bytes read, extended attributes not included.
    pub metadata: Metadata,
    /// Its extended attributes, which may be refused where its bytes are not.
    pub xattrs: io::Result<Vec<Xattr>>,
    /// It changed on every reading: the bytes may be of no single moment.
    pub is_fuzzy: bool,
    /// All bytes read, attempts included.
    pub bytes: u64,
}

#[derive(Debug)]
pub enum ReadError<E> {
    Stopped(Stopped),
    /// The file cannot be read: this file's fault.
    Source(io::Error),
    /// The bytes could not be taken: not this file's fault.
    Taker(E),
}

impl FilesSource {
    /// Reads a file from its beginning to its end, and again where it changed meanwhile.
    ///
    /// `take` is called once for each attempt and must read to the end. On a file server whose handle went stale the
    /// file is opened once more.
    ///
    /// # Errors
    /// [`ReadError::Source`] with `NotFound` where the file vanished.
    pub fn read<T, E>(
        &self,
        dir: &Dir,
        name: &OsStr,
        run: &Run,
        mut take: impl FnMut(&mut Reading<'_>) -> Result<T, E>,
    ) -> Result<ReadOutcome<T>, ReadError<E>> {
        let (mut attempt, mut bytes, mut is_stale) = (1, 0, false);
        loop {
            match self.read_once(dir, name, run, &mut take) {
                Ok(outcome) => {
                    bytes += outcome.bytes;
                    if !outcome.is_fuzzy || attempt == READS_MAX {
                        return Ok(ReadOutcome { bytes, ..outcome });
                    }
                    std::thread::sleep(READ_AGAIN_AFTER * attempt);
                    attempt += 1;
                }
                Err(ReadError::Source(error)) if is_stale_handle(&error) && !is_stale => {
                    is_stale = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn read_once<T, E>(
        &self,
        dir: &Dir,
        name: &OsStr,
        run: &Run,
        take: &mut impl FnMut(&mut Reading<'_>) -> Result<T, E>,
    ) -> Result<ReadOutcome<T>, ReadError<E>> {
        let file = dir.open_file(name).map_err(ReadError::Source)?;
        let before = self.look_at_open(&file).map_err(ReadError::Source)?;
        if before.kind != Kind::File {
            return Err(ReadError::Source(io::Error::other("it is no file any more")));
        }
        let mut reading = Reading { file: &file, run, size: before.size, bytes: 0, failed: None };
        let taken = take(&mut reading);
        let (bytes, failed) = (reading.bytes, reading.failed);
        run.check().map_err(ReadError::Stopped)?;
        if let Some(error) = failed {
            return Err(ReadError::Source(error));
        }
        let value = taken.map_err(ReadError::Taker)?;
        let xattrs = dir::xattrs_of_open(&file);
        let after = self.look_after(&file).map_err(ReadError::Source)?;
        let is_settled = is_same_state(&before, &after) && bytes == after.size;
        Ok(ReadOutcome { value, metadata: Metadata { size: bytes, ..before }, xattrs, is_fuzzy: !is_settled, bytes })
    }

    fn look_at_open(&self, file: &File) -> io::Result<Metadata> {
        let stat = rustix::fs::fstat(file)?;
        let mut metadata = dir::metadata(&stat, || Err(io::Error::other("it is no file any more")))?;
        metadata.user = self.names.user(metadata.uid);
        metadata.group = self.names.group(metadata.gid);
        Ok(metadata)
    }

    /// Looks again after reading, past the client's cache: NFS believes its old answer for seconds.
    fn look_after(&self, file: &File) -> io::Result<Metadata> {
        if self.mount.is_remote() {
            let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
            // An old kernel that cannot be asked so has the cached answer only.
            rustix::fs::statx(file, c"", flags, StatxFlags::BASIC_STATS).ok();
        }
        self.look_at_open(file)
    }
}

fn is_stale_handle(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StaleNetworkFileHandle
}

/// An open file on its way to whoever takes the bytes. It ends at the size that the file had when it was opened, and stops
/// when the run does.
pub struct Reading<'a> {
    file: &'a File,
    run: &'a Run,
    size: u64,
    bytes: u64,
    failed: Option<io::Error>,
}

impl Reading<'_> {
    /// Returns the size that the file had when it was opened: no more bytes will come, and fewer if it is cut.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads all that is left into memory, in as few calls as the kernel allows. For files whose size is known to be small.
    ///
    /// # Errors
    /// Where the file cannot be read, or the run was stopped.
    pub fn read_whole(&mut self) -> io::Result<Vec<u8>> {
        let mut whole = vec![0; usize::try_from(self.size - self.bytes).map_err(io::Error::other)?];
        let mut filled = 0;
        while filled < whole.len() {
            match self.read(&mut whole[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        whole.truncate(filled);
        Ok(whole)
    }
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.run.check().map_err(io::Error::other)?;
        // No further than the size it had: a log that grows faster than it is read would never end.
        let left = usize::try_from(self.size - self.bytes).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        if most == 0 {
            return Ok(0);
        }
        match self.file.read(&mut buffer[..most]) {
            Ok(count) => {
                self.bytes += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let told = io::Error::new(error.kind(), error.to_string());
                self.failed = Some(error);
                Err(told)
            }
        }
    }
}
