use super::*;
use crate::repository::pack::PackedBlob;

const MIB: u32 = 1 << 20;

/// A blob in the pack of that number.
fn at(pack: u8, offset: u32, length: u32) -> Wanted<()> {
    let id = BlobId::of(&[&[pack][..], &offset.to_le_bytes()].concat());
    let blob = PackedBlob { kind: BlobKind::Data, id, offset, length, plain: None };
    (Location { pack: ObjectId::from_bytes([pack; 32]), blob }, ())
}

fn ranges(wanted: &[Wanted<()>]) -> Vec<(u8, Range<u64>, Range<usize>)> {
    let tell = |stretch: Stretch| (stretch.pack.as_bytes()[0], stretch.range, stretch.wanted);
    stretches(wanted).into_iter().map(tell).collect()
}

#[test]
fn neighbours_come_in_one_stretch_and_strangers_do_not() {
    let near = [at(1, 0, 100), at(1, 100, 100), at(1, 1_000, 100)];
    assert_eq!(ranges(&near), [(1, 0..1_100, 0..3)]);
    let far = [at(1, 0, 100), at(1, MIB, 100), at(2, MIB + 100, 100)];
    assert_eq!(ranges(&far), [(1, 0..100, 0..1), (1, 1_048_576..1_048_676, 1..2), (2, 1_048_676..1_048_776, 2..3)]);
    let twice = [at(1, 0, 100), at(1, 0, 100), at(1, 100, 50)];
    assert_eq!(ranges(&twice), [(1, 0..150, 0..3)]);
    assert_eq!(ranges(&[]), []);
}

#[test]
fn no_stretch_is_longer_than_the_bound_but_one_of_a_single_blob() {
    let blobs: Vec<_> = (0..40).map(|number| at(1, number * MIB, MIB)).collect();
    let found = stretches(&blobs);
    assert_eq!(found.len(), 5);
    assert!(found.iter().all(|stretch| stretch.range.end - stretch.range.start == STRETCH_MAX));
    let huge = [at(1, 0, 3 * MIB), at(1, 3 * MIB, 100 * MIB), at(1, 103 * MIB, MIB)];
    assert_eq!(stretches(&huge).len(), 3);
}

#[test]
fn pieces_cover_a_stretch_and_keep_one_blob_together() {
    let mut blobs: Vec<_> = (0..200).map(|number| at(1, number * 100, 100)).collect();
    for _ in 0..100 {
        blobs.insert(63, at(1, 6_300, 100));
    }
    let plan = plan(&blobs);
    let [(stretch, pieces)] = plan.as_slice() else { panic!("{plan:?}") };
    assert_eq!(*stretch, Stretch { pack: blobs[0].0.pack, range: 0..20_000, wanted: 0..300 });
    assert_eq!(*pieces, [0..164, 164..228, 228..292, 292..300]);
    let large: Vec<_> = (0..3).map(|number| at(1, number * MIB, MIB)).collect();
    assert_eq!(super::plan(&large)[0].1, [0..1, 1..2, 2..3]);
}
