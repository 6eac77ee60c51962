//! A pack: many blobs in one object, with a header at its end that says where each lies.

use std::fmt;
use std::mem;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{BlobId, ObjectId};
use crate::repository::error::RepositoryError;
use crate::seal::{MasterKey, OVERHEAD, SealError};

/// A pack is closed once it is at least this long: small enough to fetch whole, large enough that a store holds few.
pub(super) const SIZE_TARGET: usize = 16 << 20;

/// Blobs in a pack: keeps the header of a pack of tiny blobs below 3 MiB, where readers allow 16.
const BLOBS_MAX: usize = 1 << 16;

/// The header's length, at the very end.
const LENGTH_FIELD: usize = 4;
const HEADER_MAX: usize = 16 << 20;
const PLAIN_ENTRY: usize = 1 + 4 + 32;
const COMPRESSED_ENTRY: usize = PLAIN_ENTRY + 4;

/// What a blob holds. Each kind has packs of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobKind {
    /// Bytes of files.
    Data,
    /// The entries of a directory.
    Tree,
}

impl fmt::Display for BlobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "data",
            Self::Tree => "tree",
        })
    }
}

/// Where a blob lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedBlob {
    pub kind: BlobKind,
    pub id: BlobId,
    pub offset: u32,
    /// Bytes as stored.
    pub length: u32,
    /// Plain bytes, where they are compressed.
    pub plain: Option<u32>,
}

impl PackedBlob {
    /// Returns the length of the plain bytes.
    #[must_use]
    pub fn plain_length(&self) -> u64 {
        let stored = u64::from(self.length).saturating_sub(OVERHEAD as u64);
        self.plain.map_or(stored, u64::from)
    }

    /// Returns the place in the pack.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<u64> {
        let start = u64::from(self.offset);
        start..start + u64::from(self.length)
    }
}

/// A pack that is whole, and its name.
#[derive(Debug, Clone)]
pub(super) struct Pack {
    pub(super) id: ObjectId,
    pub(super) bytes: Bytes,
    pub(super) blobs: Vec<PackedBlob>,
}

/// A pack that still grows.
#[derive(Debug)]
pub(super) struct PackBuilder {
    kind: BlobKind,
    bytes: Vec<u8>,
    blobs: Vec<PackedBlob>,
}

impl PackBuilder {
    pub(super) fn new(kind: BlobKind) -> Self {
        Self { kind, bytes: Vec::new(), blobs: Vec::new() }
    }

    /// Adds a sealed blob. `plain` is the length of its plain bytes, where they are compressed.
    pub(super) fn add(&mut self, id: BlobId, sealed: &[u8], plain: Option<u32>) -> Result<(), RepositoryError> {
        let too_long = |_| RepositoryError::refused("blob", "its pack would be longer than 4 GiB");
        let offset = u32::try_from(self.bytes.len()).map_err(too_long)?;
        let length = u32::try_from(sealed.len()).map_err(too_long)?;
        offset
            .checked_add(length)
            .ok_or_else(|| RepositoryError::refused("blob", "its pack would be longer than 4 GiB"))?;
        if self.bytes.is_empty() {
            // The last blob overshoots the target by up to its own length; most are a MiB.
            self.bytes.reserve(sealed.len().max(64 << 10));
        }
        self.bytes.extend_from_slice(sealed);
        self.blobs.push(PackedBlob { kind: self.kind, id, offset, length, plain });
        Ok(())
    }

    pub(super) fn is_full(&self, size_target: usize) -> bool {
        self.bytes.len() >= size_target || self.blobs.len() >= BLOBS_MAX
    }

    /// Takes what has grown, and starts anew.
    pub(super) fn take(&mut self) -> Option<Self> {
        (!self.blobs.is_empty()).then(|| mem::replace(self, Self::new(self.kind)))
    }

    /// Gives a pack that is still empty the memory of one that was put.
    pub(super) fn grow_in(&mut self, buffer: Option<Vec<u8>>) {
        if let Some(mut buffer) = buffer.filter(|_| self.bytes.is_empty()) {
            buffer.clear();
            self.bytes = buffer;
        }
    }

    /// Closes the pack: adds the header and names it.
    pub(super) fn finish(mut self, key: &MasterKey) -> Result<Pack, SealError> {
        let header = print_entries(&self.blobs);
        let start = self.bytes.len();
        self.bytes.reserve_exact(header.len() + OVERHEAD + LENGTH_FIELD);
        key.encrypt_into(&header, &mut self.bytes)?;
        let length = u32::try_from(self.bytes.len() - start)
            .map_err(|_| SealError::Seal { reason: "a pack's header is longer than 4 GiB".to_owned() })?;
        self.bytes.extend_from_slice(&length.to_le_bytes());
        Ok(Pack { id: ObjectId::of(&self.bytes), bytes: self.bytes.into(), blobs: self.blobs })
    }
}

/// Prints the entries of a header.
pub(super) fn print_entries(blobs: &[PackedBlob]) -> Vec<u8> {
    blobs.iter().flat_map(header_entry).collect()
}

fn header_entry(blob: &PackedBlob) -> Vec<u8> {
    let kind = match blob.kind {
        BlobKind::Data => 0,
        BlobKind::Tree => 1,
    };
    let mut entry = Vec::with_capacity(COMPRESSED_ENTRY);
    entry.push(if blob.plain.is_some() { kind | 2 } else { kind });
    entry.extend_from_slice(&blob.length.to_le_bytes());
    if let Some(plain) = blob.plain {
        entry.extend_from_slice(&plain.to_le_bytes());
    }
    entry.extend_from_slice(blob.id.as_bytes());
    entry
}

/// Returns how long a pack of these blobs is.
pub(super) fn size_of(blobs: &[PackedBlob]) -> u64 {
    let shares: u64 = blobs.iter().map(|blob| share_of(blob.length, blob.plain.is_some())).sum();
    shares + (OVERHEAD + LENGTH_FIELD) as u64
}

/// Returns how much of its pack a blob takes: its bytes, and its entry in the header.
pub(super) fn share_of(length: u32, is_compressed: bool) -> u64 {
    u64::from(length) + if is_compressed { COMPRESSED_ENTRY } else { PLAIN_ENTRY } as u64
}

/// How many bytes at a pack's end hold its whole header, told by the last bytes of it.
pub(super) fn header_size(tail: &[u8], pack_size: u64) -> Result<usize, String> {
    let Some(field) = tail.last_chunk::<LENGTH_FIELD>() else {
        return Err(format!("{} bytes are too short for a pack", tail.len()));
    };
    let length = usize::try_from(u32::from_le_bytes(*field)).unwrap_or(usize::MAX);
    if !(OVERHEAD + PLAIN_ENTRY..=HEADER_MAX).contains(&length) || (length + LENGTH_FIELD) as u64 > pack_size {
        return Err(format!("its header's length {length} is out of bounds"));
    }
    Ok(length + LENGTH_FIELD)
}

/// Reads a pack's header from bytes that end where the pack ends. The blobs fill the pack from its start to the header.
pub(super) fn read_header(key: &MasterKey, tail: &[u8], pack_size: u64) -> Result<Vec<PackedBlob>, String> {
    let size = header_size(tail, pack_size)?;
    let start = tail.len().checked_sub(size).ok_or("its header is cut off")?;
    let header =
        key.decrypt(&tail[start..tail.len() - LENGTH_FIELD]).map_err(|error| format!("its header: {error}"))?;
    let blobs = parse_entries(&header).ok_or("its header's entries are cut off or of an unknown type")?;
    let filled = blobs.last().map_or(0, |blob| blob.range().end);
    if filled + size as u64 == pack_size {
        Ok(blobs)
    } else {
        Err(format!("its blobs fill {filled} bytes where {} lie before the header", pack_size - size as u64))
    }
}

/// Reads the entries of a header.
pub(super) fn parse_entries(mut header: &[u8]) -> Option<Vec<PackedBlob>> {
    let mut blobs = Vec::with_capacity(header.len() / PLAIN_ENTRY);
    let mut offset = 0u32;
    while let Some((kind, rest)) = header.split_first() {
        let (length, rest) = rest.split_first_chunk()?;
        let (plain, rest) = match kind & 2 {
            0 => (None, rest),
            _ => rest.split_first_chunk().map(|(plain, rest)| (Some(u32::from_le_bytes(*plain)), rest))?,
        };
        let (id, rest) = rest.split_first_chunk()?;
        let length = u32::from_le_bytes(*length);
        blobs.push(PackedBlob {
            kind: match kind {
                0 | 2 => BlobKind::Data,
                1 | 3 => BlobKind::Tree,
                _ => return None,
            },
            id: BlobId::from_bytes(*id),
            offset,
            length,
            plain,
        });
        offset = offset.checked_add(length)?;
        header = rest;
    }
    Some(blobs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn key() -> MasterKey {
        MasterKey::from_bytes(&[7; 64])
    }

    fn pack(lengths: &[(u8, bool)]) -> Pack {
        let mut builder = PackBuilder::new(BlobKind::Data);
        for (length, is_compressed) in lengths {
            let sealed = vec![1; usize::from(*length)];
            builder.add(BlobId::of(&sealed), &sealed, is_compressed.then_some(99)).unwrap();
        }
        builder.finish(&key()).unwrap()
    }

    #[test]
    fn the_layout_is_blobs_then_header_then_its_length() {
        let pack = pack(&[(40, false), (50, true)]);
        assert_eq!(pack.id, ObjectId::of(&pack.bytes));
        let header = PLAIN_ENTRY + COMPRESSED_ENTRY + OVERHEAD;
        assert_eq!(pack.bytes.len(), 90 + header + LENGTH_FIELD);
        assert_eq!(pack.bytes.len() as u64, size_of(&pack.blobs));
        assert_eq!(pack.bytes[pack.bytes.len() - 4..], u32::try_from(header).unwrap().to_le_bytes());
        let entries = key().decrypt(&pack.bytes[90..90 + header]).unwrap();
        assert_eq!((entries[0], &entries[1..5]), (0, &40u32.to_le_bytes()[..]));
        assert_eq!(
            (entries[37], &entries[38..42], &entries[42..46]),
            (2, &50u32.to_le_bytes()[..], &99u32.to_le_bytes()[..])
        );
    }

    #[test]
    fn a_pack_is_full_by_bytes_or_by_blobs() {
        let mut builder = PackBuilder::new(BlobKind::Tree);
        assert!(builder.take().is_none());
        for _ in 0..BLOBS_MAX {
            assert!(!builder.is_full(SIZE_TARGET));
            builder.add(BlobId::of(b""), b"x", None).unwrap();
        }
        assert!(builder.is_full(SIZE_TARGET));
        assert!(builder.take().is_some() && !builder.is_full(1));
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let pack = pack(&[(40, false)]);
        let size = pack.bytes.len() as u64;
        assert_eq!(read_header(&key(), &pack.bytes, size).unwrap(), pack.blobs);
        assert!(read_header(&key(), &pack.bytes, size + 1).unwrap_err().contains("fill 40 bytes"));
        assert!(read_header(&key(), &pack.bytes[pack.bytes.len() - 50..], size).is_err());
        for hostile in [&b""[..], b"\0\0\0", &[0xff; 100], &[0; 100]] {
            assert!(read_header(&key(), hostile, hostile.len() as u64).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_header_reads_back(lengths in proptest::collection::vec((any::<u8>(), any::<bool>()), 1..40)) {
            let pack = pack(&lengths);
            let size = pack.bytes.len() as u64;
            let tail = &pack.bytes[pack.bytes.len() - header_size(&pack.bytes, size).unwrap()..];
            prop_assert_eq!(read_header(&key(), tail, size).unwrap(), pack.blobs);
        }

        #[test]
        fn hostile_entries_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_entries(&bytes);
        }
    }
}
