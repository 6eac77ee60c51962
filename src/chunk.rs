//! Cuts a stream into chunks where its content says so, so that an insertion moves one cut and not all that follow.
//!
//! FastCDC of 2020 with normalized chunking. The cuts are those of the `fastcdc` crate on the whole stream; here the stream may
//! come in pieces of any size, and no more than the chunk that is being cut is held.

use std::mem;

use fastcdc::v2020::{Normalization, get_gear_with_seed, select_masks};

/// No chunk but a stream's last is shorter.
pub const MIN: usize = 512 << 10;
/// Most chunks are about this long.
pub const AVERAGE: usize = 1 << 20;
/// No chunk is longer; restic's own readers expect blobs of no more.
pub const MAX: usize = 8 << 20;

/// How long chunks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// No chunk but a stream's last is shorter.
    pub min: usize,
    /// Most chunks are about this long.
    pub average: usize,
    /// No chunk is longer.
    pub max: usize,
}

/// Of every stream: few enough for an index of terabytes.
pub const CHUNKS: Sizes = Sizes { min: MIN, average: AVERAGE, max: MAX };

/// Of a chunk that is cut once more, because little in it changes and often.
pub const PIECES: Sizes = Sizes { min: 4 << 10, average: 16 << 10, max: 64 << 10 };

/// Memory for a chunk: most need no more, so that they are not copied while they grow.
pub const ROOM: usize = AVERAGE + MIN;

/// The seeded table of random numbers and the masks that decide where a cut falls.
#[derive(Debug, Clone)]
pub struct Cutter {
    gear: Box<[u64; 256]>,
    /// Used before the average length: a cut is unlikely.
    strict: u64,
    /// Used after it: a cut is likely.
    loose: u64,
    sizes: Sizes,
}

impl Cutter {
    /// Makes the cutter of one repository. Another seed cuts elsewhere, so that lengths tell a stranger nothing.
    #[must_use]
    pub fn new(seed: u64, sizes: Sizes) -> Self {
        let (table, _) = get_gear_with_seed(seed);
        let mut gear = Box::new([0; 256]);
        gear.copy_from_slice(&table);
        let (strict, loose) = select_masks(sizes.average, Normalization::Level1);
        Self { gear, strict, loose, sizes }
    }

    /// Cuts bytes that are all there. Joined, the chunks are the bytes again.
    #[must_use]
    pub fn cut<'a>(&self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let (mut chunks, mut rest) = (Vec::with_capacity(2 * bytes.len() / self.sizes.average + 1), bytes);
        while !rest.is_empty() {
            let length = self.scan(&mut 0, 0, rest).unwrap_or(rest.len());
            let (chunk, after) = rest.split_at(length);
            chunks.push(chunk);
            rest = after;
        }
        chunks
    }

    /// Scans bytes that begin at `start` of a chunk; returns how many of them belong to it, or `None` if all do and more may.
    fn scan(&self, hash: &mut u64, start: usize, bytes: &[u8]) -> Option<usize> {
        let at = |place: usize| place.saturating_sub(start).min(bytes.len());
        let Sizes { min, average, max } = self.sizes;
        let (first, middle, last) = (at(min), at(average), at(max));
        let cut = self
            .find(hash, self.strict, first, &bytes[first..middle])
            .or_else(|| self.find(hash, self.loose, middle, &bytes[middle..last]));
        cut.or_else(|| (start + last == max).then_some(last))
    }

    /// Rolls the hash over bytes, two at a time: the sum of a pair does not wait for the hash before it.
    fn find(&self, hash: &mut u64, mask: u64, offset: usize, bytes: &[u8]) -> Option<usize> {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let mut rolled = *hash;
        for (index, [a, b]) in pairs.iter().enumerate() {
            let (a, b) = (self.gear[usize::from(*a)], self.gear[usize::from(*b)]);
            if (rolled << 1).wrapping_add(a) & mask == 0 {
                return Some(offset + index * 2);
            }
            rolled = (rolled << 2).wrapping_add((a << 1).wrapping_add(b));
            if rolled & mask == 0 {
                return Some(offset + index * 2 + 1);
            }
        }
        for byte in rest {
            rolled = (rolled << 1).wrapping_add(self.gear[usize::from(*byte)]);
            if rolled & mask == 0 {
                return Some(offset + pairs.len() * 2);
            }
        }
        *hash = rolled;
        None
    }
}

/// Cuts one stream.
#[derive(Debug)]
pub struct Chunker {
    cutter: Cutter,
    hash: u64,
    held: Vec<u8>,
}

impl Chunker {
    #[must_use]
    pub fn new(cutter: Cutter) -> Self {
        Self { cutter, hash: 0, held: Vec::new() }
    }

    /// Takes the next bytes of the stream in, and hands each chunk that they complete out; what `emit` returns is the memory for
    /// the next one.
    ///
    /// # Errors
    /// Whatever `emit` returns.
    pub fn push<E>(&mut self, bytes: &[u8], mut emit: impl FnMut(Vec<u8>) -> Result<Vec<u8>, E>) -> Result<(), E> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(count) = self.cutter.scan(&mut self.hash, self.held.len(), rest) else {
                self.held.extend_from_slice(rest);
                break;
            };
            self.held.extend_from_slice(&rest[..count]);
            rest = &rest[count..];
            self.hash = 0;
            self.held = emit(mem::take(&mut self.held))?;
            self.held.clear();
        }
        Ok(())
    }

    /// Ends the stream: returns its last chunk, `None` if there is nothing left.
    #[must_use]
    pub fn finish(self) -> Option<Vec<u8>> {
        (!self.held.is_empty()).then_some(self.held)
    }
}

#[cfg(test)]
mod tests;
