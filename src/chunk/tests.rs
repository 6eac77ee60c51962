#![allow(clippy::unwrap_used)]

use std::convert::Infallible;

use fastcdc::v2020::{FastCDC, Normalization};
use proptest::prelude::*;
use rand::{RngCore, SeedableRng};

use super::*;

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand_pcg::Pcg64Mcg::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn chunks(seed: u64, bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut chunker = Chunker::new(Cutter::new(seed, CHUNKS));
    let mut found = Vec::new();
    for part in bytes.chunks(piece) {
        let pushed: Result<(), Infallible> = chunker.push(part, |chunk| {
            found.push(chunk);
            Ok(b"of another chunk".to_vec())
        });
        pushed.unwrap();
    }
    found.extend(chunker.finish());
    found
}

fn lengths(chunks: &[Vec<u8>]) -> Vec<usize> {
    chunks.iter().map(Vec::len).collect()
}

#[test]
fn cuts_fall_where_the_reference_puts_them() {
    for (seed, length) in [(0, 20 << 20), (77, (20 << 20) + 1), (0, MIN), (3, MIN + 1), (5, 100)] {
        let bytes = noise(seed, length);
        let reference = FastCDC::with_level_and_seed(&bytes, MIN, AVERAGE, MAX, Normalization::Level1, seed);
        let expected: Vec<_> = reference.map(|chunk| chunk.length).collect();
        assert_eq!(lengths(&chunks(seed, &bytes, 64 << 10)), expected, "seed {seed}, {length} bytes");
    }
}

#[test]
fn pieces_are_cut_where_the_reference_puts_them() {
    for (seed, length) in [(0, 1 << 20), (77, 300_001), (5, 100), (6, 0)] {
        let bytes = noise(seed, length);
        let Sizes { min, average, max } = PIECES;
        let reference = FastCDC::with_level_and_seed(&bytes, min, average, max, Normalization::Level1, seed);
        let expected: Vec<_> = reference.map(|chunk| chunk.length).collect();
        let found = Cutter::new(seed, PIECES).cut(&bytes);
        assert_eq!(found.iter().map(|piece| piece.len()).collect::<Vec<_>>(), expected, "seed {seed}, {length} bytes");
        assert_eq!(found.concat(), bytes);
    }
}

#[test]
fn a_run_of_zeros_is_cut_at_the_maximum() {
    let lengths = lengths(&chunks(1, &vec![0; MAX * 2 + 5], 1 << 20));
    assert_eq!(lengths, [MAX, MAX, 5]);
}

#[test]
fn an_insertion_moves_few_chunks() {
    let before = noise(9, 24 << 20);
    let mut after = before.clone();
    after.splice(5_000_000..5_000_000, noise(10, 333));
    let known: std::collections::HashSet<_> = chunks(4, &before, 1 << 20).into_iter().collect();
    let fresh = chunks(4, &after, 1 << 20).into_iter().filter(|chunk| !known.contains(chunk));
    assert!((1..=3).contains(&fresh.count()));
}

#[test]
fn another_seed_cuts_elsewhere() {
    let bytes = noise(2, 8 << 20);
    assert_ne!(lengths(&chunks(1, &bytes, 1 << 20)), lengths(&chunks(2, &bytes, 1 << 20)));
}

#[test]
fn an_empty_stream_has_no_chunk() {
    assert!(chunks(1, &[], 1).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn chunks_join_to_the_stream_and_pieces_do_not_matter(seed: u64, length in 0usize..(6 << 20), piece in 1usize..300_000) {
        let bytes = noise(seed, length);
        let found = chunks(seed, &bytes, piece);
        prop_assert_eq!(found.concat(), bytes.clone());
        prop_assert_eq!(lengths(&found), lengths(&chunks(seed, &bytes, length.max(1))));
        let (last, all_but_last) = found.split_last().map_or((None, &[][..]), |(last, rest)| (Some(last), rest));
        prop_assert!(all_but_last.iter().all(|chunk| (MIN..=MAX).contains(&chunk.len())));
        prop_assert!(last.is_none_or(|chunk| !chunk.is_empty() && chunk.len() <= MAX));
    }
}
