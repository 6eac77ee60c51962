#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rand::{RngCore, SeedableRng};

use super::squeeze::{LEVEL, QUICK_LEVEL};
use super::*;

fn key() -> MasterKey {
    MasterKey::from_bytes(&std::array::from_fn(|index| u8::try_from(index).unwrap()))
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand_pcg::Pcg64Mcg::seed_from_u64(1).fill_bytes(&mut bytes);
    bytes
}

fn sealed(compress: Compress<'_>, plain: &[u8]) -> (Vec<u8>, Option<u32>) {
    let mut sealer = Sealer::new().unwrap();
    let sealed = sealer.seal(&key(), compress, plain).unwrap();
    let length = u32::try_from(plain.len()).unwrap();
    (sealed.bytes.to_vec(), sealed.is_compressed.then_some(length))
}

#[test]
fn poly1305_aes_matches_the_paper() {
    // D. J. Bernstein, "The Poly1305-AES message-authentication code", appendix B: r, k, nonce, message, tag.
    let hex = |text: &str| hex::decode(text).unwrap();
    let mut bytes = [0; 64];
    bytes[32..48].copy_from_slice(&hex("ec074c835580741701425b623235add6"));
    bytes[48..].copy_from_slice(&hex("851fc40c3467ac0be05cc20404f3f700"));
    let nonce: [u8; 16] = hex("fb447350c4e868c52ac3275cf9d4327e").try_into().unwrap();
    let tag = cipher::mac_for_test(&MasterKey::from_bytes(&bytes), nonce, &hex("f3f6"));
    assert_eq!(hex::encode(tag), "f4c633c3044fc145f84f335cb81953de");
}

#[test]
fn rows_are_compressed_and_noise_is_not() {
    let rows = "17\tKim\t2026-01-02 03:04:05\t12.50\n".repeat(40_000);
    let (bytes, length) = sealed(Compress::WherePays, rows.as_bytes());
    assert!(length.is_some() && bytes.len() < rows.len() / 10);
    let noise = noise(1 << 20);
    let (bytes, length) = sealed(Compress::WherePays, &noise);
    assert_eq!((bytes.len(), length), (noise.len() + OVERHEAD, None));
    let (_, length) = sealed(Compress::WherePays, &noise[..5000]);
    assert_eq!(length, None, "a short one is tried, and its plain bytes are kept");
    let (_, length) = sealed(Compress::Always, &noise[..5000]);
    assert_eq!(length, Some(5000));
}

#[test]
fn half_noise_is_compressed() {
    let mut mixed = noise(1 << 20);
    mixed[..600_000].fill(b'x');
    assert!(sealed(Compress::WherePays, &mixed).1.is_some());
}

#[test]
fn the_same_bytes_are_never_sealed_alike() {
    assert_ne!(sealed(Compress::Always, b"twice").0, sealed(Compress::Always, b"twice").0);
}

#[test]
fn every_flipped_bit_is_refused() {
    let plain = b"image".repeat(20);
    let (bytes, length) = sealed(Compress::Always, &plain);
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&key(), &BlobId::of(&plain), &bytes, length), Err(SealError::Forged), "bit {bit}");
    }
}

#[test]
fn another_blobs_bytes_are_refused() {
    let (bytes, length) = sealed(Compress::Always, b"mine");
    let error = open(&key(), &BlobId::of(b"yours"), &bytes, length).unwrap_err();
    assert!(matches!(error, SealError::Damaged { .. }), "{error}");
}

#[test]
fn a_length_that_lies_is_refused() {
    let plain = vec![7; 100_000];
    let (bytes, _) = sealed(Compress::Always, &plain);
    for lie in [0, 99_999, 100_001, u32::MAX] {
        let error = open(&key(), &BlobId::of(&plain), &bytes, Some(lie)).unwrap_err();
        assert!(matches!(error, SealError::Decompress { .. }), "{lie}: {error}");
    }
}

#[test]
fn a_document_that_swells_is_refused() {
    let bomb = squeeze::squeeze_document(&vec![b' '; 2 << 20]).unwrap();
    assert!(squeeze::expand_document(&bomb, 1 << 20).is_err());
    assert!(squeeze::expand_document(&bomb, 2 << 20).is_ok());
}

#[test]
fn a_key_comes_back_from_json() {
    let json = key().to_json().unwrap();
    let again = MasterKey::from_json(&json).unwrap();
    let sealed = seal_document(&key(), b"{}").unwrap();
    assert_eq!(open_document(&again, &sealed).unwrap(), b"{}");
    assert!(MasterKey::from_json(b"{}").is_none());
}

proptest! {
    #[test]
    fn open_after_seal_is_what_was_sealed(plain in proptest::collection::vec(any::<u8>(), 0..40_000), always: bool) {
        let compress = if always { Compress::Always } else { Compress::WherePays };
        let (bytes, length) = sealed(compress, &plain);
        prop_assert_eq!(open(&key(), &BlobId::of(&plain), &bytes, length), Ok(plain));
    }

    #[test]
    fn a_document_opens_as_it_was_sealed(text in "[{\\[].{0,2000}") {
        let sealed = seal_document(&key(), text.as_bytes()).unwrap();
        prop_assert_eq!(open_document(&key(), &sealed), Ok(text.into_bytes()));
    }

    #[test]
    fn hostile_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), length: Option<u32>) {
        prop_assert!(open(&key(), &BlobId::of(b""), &bytes, length).is_err());
        prop_assert!(open_document(&key(), &bytes).is_err());
        let mut authentic = Vec::new();
        key().encrypt_into(&bytes, &mut authentic).unwrap();
        let _ = open(&key(), &BlobId::of(b"other"), &authentic, length);
        let _ = open_document(&key(), &authentic);
    }
}

/// A megabyte of lines, each of them `line`'s for a random number.
fn lines(line: impl Fn(u64) -> String) -> String {
    let mut dice = rand_pcg::Pcg64Mcg::seed_from_u64(5);
    let mut text = String::new();
    while text.len() < 1 << 20 {
        text.push_str(&line(dice.next_u64()));
    }
    text
}

#[test]
fn a_stream_goes_on_at_the_level_that_its_first_chunk_was_worth() {
    let rows = lines(|dice| format!("{}\t{}\t2026-01-{:02}\n", dice % 40, dice >> 40, dice % 28));
    // Sentences that come back long after they have left the quick level's sight.
    let prose =
        lines(|dice| format!("{:032x}{:032x}\n", u128::from(dice % 4000).pow(9), u128::from(dice % 4000).pow(10)));
    for (text, level) in [(rows, QUICK_LEVEL), (prose, LEVEL)] {
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        let effort = Effort::default();
        let part = |plain| sealed(Compress::AsLearnt(&effort), plain).0.len() - OVERHEAD;
        let alone = |plain, level| zstd::bulk::compress(plain, level).unwrap().len();
        assert_eq!(part(first), alone(first, LEVEL).min(alone(first, QUICK_LEVEL)), "the first keeps the smaller one");
        assert_ne!(alone(second, LEVEL), alone(second, QUICK_LEVEL));
        assert_eq!(part(second), alone(second, level));
    }
}

#[test]
fn a_short_chunk_teaches_nothing() {
    let rows = lines(|dice| format!("{}\t{}\n", dice % 40, dice >> 40));
    let effort = Effort::default();
    let (short, long) = rows.as_bytes().split_at(10_000);
    for plain in [short, &long[..10_000]] {
        let expected = zstd::bulk::compress(plain, LEVEL).unwrap().len();
        assert_eq!(sealed(Compress::AsLearnt(&effort), plain).0.len() - OVERHEAD, expected);
    }
}
