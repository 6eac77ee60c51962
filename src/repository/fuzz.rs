//! The parsers of stored bytes, one function each, for the fuzz targets in `tests/fuzz` and for the corpus that they left.
//!
//! A parser may refuse whatever it is given, but it neither panics nor takes memory out of proportion; what it accepts reads back
//! the same. Most stored bytes are sealed, and a fuzzer cannot guess a MAC: so the input is what lies under the seal, as someone
//! would write it who has the key, or whose memory flips a bit before the seal.

#![allow(clippy::missing_panics_doc, reason = "each panics where a promise is broken: that is what it is for")]

use chrono::DateTime;

use crate::id::BlobId;
use crate::mysql::binlog::fuzz as binlog;
use crate::mysql::manifest::Manifest;
use crate::repository::config::Config;
use crate::repository::index::{self, IndexBuilder};
use crate::repository::lock::Lock;
use crate::repository::{Snapshot, Tree, key, pack};
use crate::seal::{self, MasterKey};
use crate::secret::Secret;

/// A parser and the name of its directory in the corpus.
pub type Parser = (&'static str, fn(&[u8]));

/// All of them.
pub const PARSERS: &[Parser] = &[
    ("blob", blob),
    ("config", config),
    ("document", document),
    ("gtid_set", binlog::gtid_set),
    ("index", index),
    ("key", key),
    ("lock", lock),
    ("manifest", manifest),
    ("pack_header", pack_header),
    ("segment", segment),
    ("snapshot", snapshot),
    ("tree", tree),
];

/// Key files that ask for more work than this are parsed and not opened: scrypt does what they ask, for seconds.
const SCRYPT_WORK_MAX: u64 = 1 << 9;

/// Returns what a key file asks for: r times p blocks, N times.
fn scrypt_work(bytes: &[u8]) -> Option<u64> {
    let (cost, ..) = key::parse(bytes).ok()?;
    u64::from(cost.r).checked_mul(u64::from(cost.p))?.checked_mul(1 << cost.log_n)
}

fn master() -> MasterKey {
    MasterKey::from_bytes(&[7; 64])
}

fn sealed(plain: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    master().encrypt_into(plain, &mut sealed).unwrap_or_else(|error| panic!("{error}"));
    sealed
}

/// A blob as it lies in a pack: four bytes of how long an index says it is, then what was squeezed.
pub fn blob(bytes: &[u8]) {
    let Some((length, squeezed)) = bytes.split_first_chunk() else {
        return;
    };
    // A blob may be a GiB long, and a fuzzer's limit of memory is lower.
    let length = u32::from_le_bytes(*length) % (1 << 24);
    let opened = seal::open(&master(), &BlobId::of(b""), &sealed(squeezed), Some(length));
    assert!(opened.is_err() || length == 0, "{length} bytes hash as none");
    assert!(seal::open(&master(), &BlobId::of(squeezed), &sealed(squeezed), None).is_ok_and(|plain| plain == squeezed));
    assert!(seal::open(&master(), &BlobId::of(squeezed), bytes, None).is_err(), "bytes without a seal are believed");
}

/// A document under its seal: an encoding and JSON, squeezed or not.
pub fn document(bytes: &[u8]) {
    assert!(seal::open_document(&master(), bytes).is_err(), "bytes without a seal are believed");
    let _ = seal::open_document(&master(), &sealed(bytes));
}

/// A repository's config.
pub fn config(bytes: &[u8]) {
    if let Ok(config) = Config::from_json(bytes, "here") {
        let printed = config.to_json().unwrap_or_else(|error| panic!("{error}"));
        assert!(Config::from_json(&printed, "here").is_ok_and(|again| again == config));
    }
}

/// A key file.
pub fn key(bytes: &[u8]) {
    if scrypt_work(bytes).is_some_and(|work| work <= SCRYPT_WORK_MAX) {
        let _ = key::open(bytes, &Secret::new("password".to_owned()));
    }
}

/// A lock.
pub fn lock(bytes: &[u8]) {
    if let Ok(lock) = serde_json::from_slice::<Lock>(bytes) {
        let _ = lock.is_stale(DateTime::UNIX_EPOCH, false);
        read_back(&lock);
    }
}

/// The manifest of a dump, as it lies in a snapshot.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) {
        read_back(&manifest);
    }
}

/// A snapshot.
pub fn snapshot(bytes: &[u8]) {
    if let Ok(snapshot) = serde_json::from_slice::<Snapshot>(bytes) {
        let _ = snapshot.tag("source");
        read_back(&snapshot);
    }
}

fn read_back<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let printed = serde_json::to_vec(value).unwrap_or_else(|error| panic!("{value:?}: {error}"));
    let again: T = serde_json::from_slice(&printed).unwrap_or_else(|error| panic!("{value:?}: {error}"));
    assert_eq!(again, *value);
}

/// A tree.
pub fn tree(bytes: &[u8]) {
    if let Ok(tree) = Tree::from_json(bytes) {
        let printed = tree.to_json().unwrap_or_else(|error| panic!("{tree:?}: {error}"));
        let again = Tree::from_json(&printed).unwrap_or_else(|error| panic!("{tree:?}: {error}"));
        // Not the nodes: restic tells the device of every file, bkp only where links are to be found again.
        assert_eq!(again.to_json().ok(), Some(printed), "a tree has one way to be printed");
    }
}

/// An index file: all that it lists is found again.
pub fn index(bytes: &[u8]) {
    let Ok(packs) = index::parse(bytes) else {
        return;
    };
    let printed = index::print(&packs).unwrap_or_else(|error| panic!("{error}"));
    assert!(index::parse(&printed).is_ok_and(|again| again == packs));
    let mut builder = IndexBuilder::default();
    builder.add_file("0".repeat(64), &packs);
    let index = builder.build();
    for pack in &packs {
        let _ = pack.size();
        for blob in &pack.blobs {
            let mut places = index.find(blob.kind, &blob.id);
            assert!(places.any(|place| place.pack == pack.id && place.blob == *blob), "{blob:?} is not found");
        }
    }
}

/// A pack's header under its seal.
pub fn pack_header(bytes: &[u8]) {
    assert!(pack::read_header(&master(), bytes, bytes.len() as u64).is_err(), "bytes without a seal are believed");
    let mut tail = sealed(bytes);
    tail.extend_from_slice(&u32::try_from(tail.len()).unwrap_or(u32::MAX).to_le_bytes());
    let filled = pack::parse_entries(bytes).map_or(0, |blobs| blobs.last().map_or(0, |blob| blob.range().end));
    if let Ok(blobs) = pack::read_header(&master(), &tail, filled + tail.len() as u64) {
        assert_eq!(pack::print_entries(&blobs), bytes);
        assert_eq!(pack::size_of(&blobs), filled + tail.len() as u64);
    }
}

/// A binlog's events, after the format description.
pub fn segment(bytes: &[u8]) {
    let _ = binlog::segment(bytes);
}

/// Returns what a target's corpus holds.
#[cfg(test)]
pub(crate) fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus");
    let entries =
        std::fs::read_dir(std::path::Path::new(dir).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let read = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read(entry?.path());
    entries.map(|entry| read(entry).unwrap_or_else(|error| panic!("{name}: {error}"))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::mysql::gtid::GtidSet;

    /// A target that nothing gets through proves nothing.
    #[test]
    fn each_corpus_holds_what_its_parser_accepts() {
        let is_accepted = |name, accepts: &dyn Fn(&[u8]) -> bool| {
            assert!(corpus(name).iter().any(|bytes| accepts(bytes)), "{name}: all is refused");
        };
        is_accepted("config", &|bytes| Config::from_json(bytes, "here").is_ok());
        is_accepted("document", &|bytes| {
            seal::open_document(&master(), &sealed(bytes)).is_ok_and(|json| json.len() > 2)
        });
        is_accepted("index", &|bytes| {
            index::parse(bytes).is_ok_and(|packs| packs.iter().any(|pack| !pack.blobs.is_empty()))
        });
        is_accepted("key", &|bytes| scrypt_work(bytes).is_some_and(|work| work <= SCRYPT_WORK_MAX));
        is_accepted("lock", &|bytes| serde_json::from_slice::<Lock>(bytes).is_ok());
        is_accepted("manifest", &|bytes| serde_json::from_slice::<Manifest>(bytes).is_ok());
        is_accepted("pack_header", &|bytes| pack::parse_entries(bytes).is_some_and(|blobs| blobs.len() > 1));
        is_accepted("snapshot", &|bytes| serde_json::from_slice::<Snapshot>(bytes).is_ok_and(|it| !it.tags.is_empty()));
        is_accepted("gtid_set", &|bytes| {
            std::str::from_utf8(bytes).is_ok_and(|text| text.parse().is_ok_and(|set: GtidSet| set.count() > 1))
        });
        is_accepted("segment", &|bytes| bytes.first() == Some(&0) && binlog::segment(bytes) > 10);
        is_accepted("segment", &|bytes| bytes.first() == Some(&1) && binlog::segment(bytes) > 10);
        is_accepted("tree", &|bytes| Tree::from_json(bytes).is_ok_and(|tree| tree.nodes.len() > 1));
    }
}
