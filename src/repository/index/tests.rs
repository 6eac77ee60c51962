#![allow(clippy::unwrap_used)]

use super::*;

fn blob(kind: BlobKind, number: u32, offset: u32) -> PackedBlob {
    PackedBlob {
        kind,
        id: BlobId::of(&number.to_le_bytes()),
        offset,
        length: 40 + number,
        plain: (number % 2 == 1).then_some(100 + number),
    }
}

fn pack(name: &str, blobs: Vec<PackedBlob>) -> PackContents {
    PackContents { id: ObjectId::of(name.as_bytes()), blobs }
}

fn index(packs: &[PackContents]) -> Index {
    let mut builder = IndexBuilder::default();
    for pack in packs {
        builder.add(pack);
    }
    builder.build()
}

#[test]
fn an_entry_takes_48_bytes() {
    assert_eq!(size_of::<Entry>(), 48);
}

#[test]
fn every_blob_is_found_and_no_other() {
    for count in [0, 1, 7, 8, 9, 1000, 20_000] {
        let blobs: Vec<_> = (0..count).map(|number| blob(BlobKind::Data, number, number)).collect();
        let index = index(&[pack("p", blobs.clone())]);
        for blob in blobs {
            assert_eq!(index.find(BlobKind::Data, &blob.id).next().unwrap().blob, blob);
            assert!(index.find(BlobKind::Tree, &blob.id).next().is_none());
        }
        assert!(index.find(BlobKind::Data, &BlobId::of(b"another")).next().is_none());
        assert!(index.find(BlobKind::Data, &BlobId::from_bytes([0xff; 32])).next().is_none());
    }
}

#[test]
fn a_blob_in_two_packs_has_two_places() {
    let twice = blob(BlobKind::Tree, 3, 0);
    let index = index(&[pack("p", vec![twice]), pack("q", vec![twice]), pack("q", vec![twice])]);
    assert_eq!(index.find(BlobKind::Tree, &twice.id).count(), 2);
}

#[test]
fn a_file_reads_as_it_was_printed_and_restics_too() {
    let packs = [pack("p", vec![blob(BlobKind::Data, 1, 0), blob(BlobKind::Data, 2, 41)])];
    assert_eq!(parse(&print(&packs).unwrap()).unwrap(), packs);
    let id = BlobId::of(b"x");
    let json = format!(
        r#"{{"supersedes":["{id}"],"packs":[{{"id":"{id}","blobs":[{{"id":"{id}","type":"tree","offset":38,"length":112,"uncompressed_length":511}}]}},{{"id":"{id}","blobs":null}}]}}"#
    );
    let read = parse(json.as_bytes()).unwrap();
    assert_eq!((read[0].blobs[0].kind, read[0].blobs[0].plain), (BlobKind::Tree, Some(511)));
    assert!(parse(b"{\"packs\":[{\"id\":\"zz\"}]}").is_err());
}

#[test]
fn what_was_saved_since_is_found_beside_what_was_loaded() {
    let mut live = LiveIndex::default();
    live.replace(index(&[pack("p", vec![blob(BlobKind::Data, 1, 0)])]));
    live.add(&pack("q", vec![blob(BlobKind::Data, 2, 0)]));
    for number in [1, 2] {
        let id = blob(BlobKind::Data, number, 0).id;
        assert!(live.has(BlobKind::Data, &id));
        assert_eq!(live.find(BlobKind::Data, &id).len(), 1);
        assert!(live.first(BlobKind::Data, &id).is_some());
    }
    assert_eq!(live.by_pack().len(), 2);
}

#[test]
fn packs_are_gone_through_one_by_one_for_four_bytes_a_blob() {
    let blobs =
        |from: u32| (from..from + 50).map(|at| blob(if at % 2 == 0 { BlobKind::Data } else { BlobKind::Tree }, at, at));
    let loaded: Vec<_> = (0..20).map(|nth| pack(&format!("p{nth}"), blobs(nth * 50).collect())).collect();
    let since = [pack("q", blobs(5000).collect()), pack("r", blobs(6000).collect())];
    let mut live = LiveIndex::default();
    live.replace(index(&loaded));
    for pack in &since {
        live.add(pack);
    }
    // Loaded again by another way: it is one pack all the same.
    live.add(&loaded[3]);
    let packs = live.by_pack();
    assert_eq!((packs.len(), packs.blobs()), (22, 22 * 50));
    assert_eq!(packs.bytes_besides_the_index(), 20 * 50 * 4 + 21 * 4);
    let mut found: Vec<_> = packs.iter().collect();
    assert!((0..22).all(|number| packs.id(number) == found[number].id));
    found.sort_by_key(|pack| pack.id);
    let mut expected = [&loaded[..], &since].concat();
    expected.sort_by_key(|pack| pack.id);
    assert_eq!(found, expected);
    live.leave_out(&HashSet::from([loaded[0].id, since[0].id]));
    let left: Vec<_> = live.by_pack().into_iter().collect();
    assert_eq!(left.iter().filter(|pack| !pack.blobs.is_empty()).count(), 20);
}

#[test]
fn a_million_blobs_are_held_in_49_bytes_each() {
    let mut builder = IndexBuilder::default();
    for nth in 0..8_000u32 {
        let blobs = (0..125).map(|at| blob(BlobKind::Data, nth * 125 + at, at * 100));
        builder.add(&pack(&nth.to_string(), blobs.collect()));
    }
    let section = builder.build().data;
    let bytes = section.entries.capacity() * size_of::<Entry>() + section.starts.capacity() * size_of::<u32>();
    assert!(bytes <= 49 * 1_000_000, "{bytes}");
}

#[test]
fn what_was_saved_is_sorted_in_and_nothing_of_it_is_lost() {
    let mut live = LiveIndex::default();
    let count = u32::try_from(3 * NEWEST_MIN).unwrap();
    let packs: Vec<_> = (0..count / 1000)
        .map(|nth| {
            let kind = if nth % 10 == 0 { BlobKind::Tree } else { BlobKind::Data };
            pack(&nth.to_string(), (0..1000).map(|at| blob(kind, nth * 1000 + at, at * 1000)).collect())
        })
        .collect();
    for pack in &packs {
        live.add(pack);
    }
    assert!(live.newest.len() <= NEWEST_MIN);
    let sorted = live.saved.data.entries.len() + live.saved.trees.entries.len();
    assert_eq!(sorted + live.newest.len(), packs.len() * 1000);
    for pack in &packs {
        for blob in [&pack.blobs[0], &pack.blobs[500], &pack.blobs[999]] {
            let place = Location { pack: pack.id, blob: *blob };
            assert!(live.has(blob.kind, &blob.id));
            assert_eq!((live.first(blob.kind, &blob.id), live.find(blob.kind, &blob.id)), (Some(place), vec![place]));
        }
    }
    assert!(live.by_pack().iter().eq(packs.iter().cloned()));
    live.leave_out(&HashSet::from([packs[0].id, packs[packs.len() - 1].id]));
    assert!(!live.has(BlobKind::Tree, &packs[0].blobs[7].id));
    assert!(live.by_pack().iter().eq(packs[1..packs.len() - 1].iter().cloned()));
}
