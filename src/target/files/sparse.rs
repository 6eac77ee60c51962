//! Writing bytes with holes where they are zero.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The smallest hole that filesystems keep.
const BLOCK: usize = 4_096;

/// Writes bytes at an offset of a file that is all hole there, leaving out whole blocks of zeros.
///
/// # Errors
/// Those of writing.
pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    for run in runs(bytes, offset) {
        file.write_all_at(&bytes[run.clone()], offset + run.start as u64)?;
    }
    Ok(())
}

/// Ends a file where its content does: a hole at the end is not written, and not there yet.
///
/// # Errors
/// Those of cutting or stretching.
pub fn end_at(file: &File, size: u64) -> io::Result<()> {
    if file.metadata()?.len() == size { Ok(()) } else { file.set_len(size) }
}

/// Returns the stretches that hold anything but zeros, by the file's blocks.
fn runs(bytes: &[u8], offset: u64) -> Vec<Range<usize>> {
    let into_block = usize::try_from(offset % BLOCK as u64).unwrap_or(0);
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    let mut end = (BLOCK - into_block).min(bytes.len());
    while start < bytes.len() {
        let is_hole = bytes[start..end].iter().all(|byte| *byte == 0);
        match runs.last_mut() {
            _ if is_hole => {}
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
        start = end;
        end = (start + BLOCK).min(bytes.len());
    }
    runs
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init)]
    use super::*;

    #[test]
    fn bytes_without_zero_blocks_are_one_run() {
        assert_eq!(runs(&[7; 10_000], 123), vec![0..10_000]);
        assert_eq!(runs(&[], 0), Vec::<Range<usize>>::new());
    }

    #[test]
    fn holes_are_whole_blocks_of_the_file() {
        let mut bytes = vec![0; 3 * BLOCK];
        bytes[0] = 1;
        bytes[3 * BLOCK - 1] = 1;
        assert_eq!(runs(&bytes, 0), vec![0..BLOCK, 2 * BLOCK..3 * BLOCK]);
        // One byte into a block of the file: the first block ends one byte sooner.
        assert_eq!(runs(&bytes, 1), vec![0..BLOCK - 1, 3 * BLOCK - 1..3 * BLOCK]);
        assert_eq!(runs(&vec![0; 9 * BLOCK], 5), Vec::<Range<usize>>::new());
    }
}
