//! A stream that was saved before, cut finer where it changes.
//!
//! A day's orders lie at the end of each shop's rows: hundreds of places, and each would cost a whole chunk of a megabyte every day.
//! So a chunk that is new behind one that is there is cut once more, into pieces: the first change of a place costs what it did,
//! and from the second on the pieces that stayed are there already. No record of it is needed, because a chunk of which most pieces
//! are there is stored in pieces again. The others of a run of new chunks are new data, most likely, and stay in large blobs: the
//! index of terabytes must fit into memory. (Where they were no new data, the run gets shorter by one with each save.)

use crate::chunk::Cutter;
use crate::id::BlobId;

/// Bytes and their id.
type Part = (BlobId, Vec<u8>);

/// Decides of each chunk whether it is stored whole or in pieces.
#[derive(Debug)]
pub(super) struct Again {
    cutter: Cutter,
    /// Most of the chunk before was there; so it is at the stream's begin.
    is_after_known: bool,
}

impl Again {
    pub(super) fn new(cutter: Cutter) -> Self {
        Self { cutter, is_after_known: true }
    }

    /// Takes the next chunk, and returns what is to be stored of it, in the stream's order.
    pub(super) fn next(&mut self, chunk: Vec<u8>, knows: impl Fn(BlobId) -> bool) -> Vec<Part> {
        let whole = BlobId::of(&chunk);
        if knows(whole) {
            self.is_after_known = true;
            return vec![(whole, chunk)];
        }
        let mut pieces = Vec::new();
        let (mut new_bytes, new_bytes_max) = (0, chunk.len() / 2);
        for piece in self.cutter.cut(&chunk) {
            let id = BlobId::of(piece);
            if !knows(id) {
                new_bytes += piece.len();
                if new_bytes > new_bytes_max && !self.is_after_known {
                    return vec![(whole, chunk)];
                }
            }
            pieces.push((id, piece.to_vec()));
        }
        self.is_after_known = new_bytes <= new_bytes_max;
        pieces
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::convert::Infallible;

    use rand::{RngCore, SeedableRng};

    use super::*;
    use crate::chunk::{AVERAGE, CHUNKS, Chunker, PIECES};

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        rand_pcg::Pcg64Mcg::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }

    /// What of a stream was new, in bytes, and how many blobs it has.
    #[derive(Debug, PartialEq)]
    struct Saved {
        stored: usize,
        blobs: usize,
    }

    fn save(store: &mut HashSet<BlobId>, stream: &[u8], mut again: Option<Again>) -> Saved {
        let mut parts: Vec<Part> = Vec::new();
        let mut chunker = Chunker::new(Cutter::new(1, CHUNKS));
        let mut take = |chunk: Vec<u8>| match &mut again {
            Some(again) => parts.extend(again.next(chunk, |id| store.contains(&id))),
            None => parts.push((BlobId::of(&chunk), chunk)),
        };
        let pushed: Result<(), Infallible> = chunker.push(stream, |chunk| {
            take(chunk);
            Ok(Vec::new())
        });
        pushed.unwrap_or_else(|never| match never {});
        chunker.finish().into_iter().for_each(take);
        let joined: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes).copied().collect();
        assert!(joined == stream, "the parts are not the stream");
        assert!(parts.iter().all(|(id, bytes)| BlobId::of(bytes) == *id));
        let new = parts.iter().filter(|(id, _)| store.insert(*id));
        Saved { stored: new.map(|(_, bytes)| bytes.len()).sum(), blobs: parts.len() }
    }

    fn again() -> Again {
        Again::new(Cutter::new(1, PIECES))
    }

    #[test]
    fn a_place_that_changes_day_by_day_costs_a_chunk_once_and_a_piece_each_day() {
        let mut store = HashSet::new();
        let mut rows = noise(1, 24 << 20);
        let first = save(&mut store, &rows, None);
        let mut change = |at: usize, day: u64| {
            rows.splice(at..at, noise(day, 200));
            save(&mut store, &rows, Some(again()))
        };
        let cost = change(10_000_000, 2);
        assert!((CHUNKS.min..CHUNKS.max).contains(&cost.stored), "{cost:?}");
        for day in 3..9 {
            let cost = change(10_000_000, day);
            assert!(cost.stored <= 2 * PIECES.max, "day {day}: {cost:?}");
            assert!(cost.blobs < first.blobs + 2 * CHUNKS.max / PIECES.average, "day {day}: {cost:?}");
        }
        // Elsewhere the first day comes again, and what was cut there before stays as it is.
        let cost = change(20_000_000, 10);
        assert!((CHUNKS.min..CHUNKS.max).contains(&cost.stored), "{cost:?}");
        assert!(change(10_000_000, 11).stored <= 2 * PIECES.max);
    }

    #[test]
    fn what_has_not_changed_costs_nothing_however_it_was_cut() {
        let mut store = HashSet::new();
        let mut rows = noise(1, 12 << 20);
        save(&mut store, &rows, None);
        assert_eq!(save(&mut store, &rows, Some(again())).stored, 0);
        // Chunks that change one by one and lie side by side in the end.
        for at in [11 << 20, 9 << 20, 7 << 20, 5 << 20, 3 << 20, 1 << 20] {
            rows[at] ^= 1;
            assert!(save(&mut store, &rows, Some(again())).stored > 0);
        }
        assert_eq!(save(&mut store, &rows, Some(again())).stored, 0);
    }

    #[test]
    fn places_side_by_side_are_cut_finer_day_by_day() {
        let mut store = HashSet::new();
        let mut rows = noise(1, 12 << 20);
        save(&mut store, &rows, None);
        let mut day = || {
            (2 << 20..8 << 20).step_by(1 << 18).for_each(|at| rows[at] = rows[at].wrapping_add(1));
            save(&mut store, &rows, Some(again())).stored
        };
        let days: Vec<usize> = (0..10).map(|_| day()).collect();
        assert!(days[0] > 6 << 20, "{days:?}");
        assert!(days.windows(2).all(|pair| pair[1] <= pair[0]), "{days:?}");
        assert!(days[9] < 24 * 2 * PIECES.max / 3, "{days:?}");
    }

    #[test]
    fn new_data_stays_in_large_blobs() {
        let mut store = HashSet::new();
        let mut rows = noise(1, 8 << 20);
        save(&mut store, &rows, None);
        rows.extend(noise(2, 32 << 20));
        let grown = save(&mut store, &rows, Some(again()));
        assert!(grown.blobs < 2 * rows.len() / AVERAGE + 2 * CHUNKS.max / PIECES.average, "{grown:?}");
        let written_over = save(&mut store, &noise(3, 32 << 20), Some(again()));
        assert_eq!(written_over.stored, 32 << 20);
        assert!(written_over.blobs < 2 * (32 << 20) / AVERAGE + 2 * CHUNKS.max / PIECES.average, "{written_over:?}");
    }

    #[test]
    fn a_stream_that_is_empty_has_no_part() {
        assert_eq!(save(&mut HashSet::new(), &[], Some(again())), Saved { stored: 0, blobs: 0 });
    }
}
