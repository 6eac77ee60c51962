//! Reads the fields of a body that may be larger than memory: past what is of no interest, and never back.

use std::io::{self, Read};

/// What is held of one field at most: a table's columns take 4096 bytes, and a bitmap of them 512.
const FIELD_BYTES_MAX: usize = 256 * 1024;

pub(super) struct Fields<'a>(pub(super) &'a mut dyn Read);

impl Fields<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> io::Result<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// Reads a byte, or nothing where the body ends.
    pub(super) fn next(&mut self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        match self.0.read_exact(&mut byte) {
            Ok(()) => Ok(Some(byte[0])),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads an integer of so many bytes, the lowest first.
    pub(super) fn int(&mut self, bytes: usize) -> io::Result<u64> {
        let mut value = [0; 8];
        self.0.read_exact(&mut value[..bytes.min(8)])?;
        Ok(u64::from_le_bytes(value))
    }

    /// Reads an integer that tells its own length.
    pub(super) fn length(&mut self) -> io::Result<u64> {
        match self.u8()? {
            small @ 0..=0xFA => Ok(small.into()),
            0xFC => self.int(2),
            0xFD => self.int(3),
            0xFE => self.int(8),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    pub(super) fn take(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= FIELD_BYTES_MAX);
        let mut field = vec![0; bytes.ok_or(io::ErrorKind::InvalidData)?];
        self.0.read_exact(&mut field)?;
        Ok(field)
    }

    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        let mut piece = [0; 4096];
        while left > 0 {
            let count = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
            self.0.read_exact(&mut piece[..count])?;
            left -= count as u64;
        }
        Ok(())
    }
}
