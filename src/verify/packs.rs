//! Checks packs: that they are there, and that every byte of them hashes right.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::event::{Task, Unit};
use crate::id::ObjectId;
use crate::repository::{BlobKind, PackContents, PackedBlob, Repository, RepositoryError};
use crate::run::Run;
use crate::store::{FileKind, Key};
use crate::verify::report::{Draft, Fault, State};
use crate::verify::{Subset, VerifyError};

/// Packs read at once; each is some 16 MiB in memory.
const READS_IN_FLIGHT_MAX: usize = 4;

/// Makes threads of their own for work that waits for a store.
pub(super) fn pool(threads: usize) -> Result<ThreadPool, VerifyError> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|error| VerifyError::Work(error.to_string()))
}

/// Compares a pack that the index names with the one that is there.
pub(super) fn check_size(pack: &PackContents, size: Option<u64>, draft: &mut Draft) {
    let Some(size) = size else {
        let fault = Fault {
            state: State::Missing,
            what: "it is named, but not there".to_owned(),
            lost: blobs_of(pack).collect(),
        };
        draft.add_pack(pack.id, fault);
        return;
    };
    let expected = pack.size();
    if size != expected {
        let cut = pack.blobs.iter().filter(|blob| blob.range().end > size);
        let lost: Vec<_> = cut.map(|blob| (blob.kind, blob.id)).collect();
        let what = format!("it has {size} bytes where the index needs {expected}");
        draft.add_pack(pack.id, Fault::damaged(what).losing(lost));
    }
}

fn blobs_of(pack: &PackContents) -> impl Iterator<Item = (BlobKind, crate::id::BlobId)> {
    pack.blobs.iter().map(|blob| (blob.kind, blob.id))
}

/// Reads the packs of a share whole, several at once, but those that are known to be so.
pub(super) fn read(
    repository: &Repository,
    subset: Option<Subset>,
    whole: &HashSet<ObjectId>,
    draft: &mut Draft,
    run: &Run,
) -> Result<(), VerifyError> {
    let packs = repository.packs();
    let is_chosen = |number: &usize| {
        let id = packs.id(*number);
        subset.is_none_or(|subset| subset.covers(&id)) && !whole.contains(&id)
    };
    let chosen: Vec<usize> = (0..packs.len()).filter(is_chosen).collect();
    let total = chosen.iter().map(|number| packs.get(*number).size()).sum();
    let task = run.events.task("read packs", Unit::Bytes, total);
    let pool = pool(READS_IN_FLIGHT_MAX)?;
    let blobs_read = AtomicU64::new(0);
    let faults: Result<Vec<_>, RepositoryError> = pool.install(|| {
        let reads = chosen.par_iter().map(|number| {
            let pack = packs.get(*number);
            blobs_read.fetch_add(pack.blobs.len() as u64, Ordering::Relaxed);
            read_one(repository, &pack, &task, run)
        });
        reads.filter_map(Result::transpose).collect()
    });
    for (pack, fault) in faults? {
        draft.add_pack(pack, fault);
    }
    draft.checked.packs_read += chosen.len() as u64;
    draft.checked.blobs_read += blobs_read.into_inner();
    draft.checked.bytes_read += task.done();
    Ok(())
}

/// Reads one pack; returns what is wrong with it.
fn read_one(
    repository: &Repository,
    pack: &PackContents,
    task: &Task,
    run: &Run,
) -> Result<Option<(ObjectId, Fault)>, RepositoryError> {
    run.check()?;
    let key = Key::new(FileKind::Pack, pack.id.to_string());
    let fault = match repository.get_blocking(&key, run) {
        Ok(bytes) => {
            task.add(bytes.len() as u64);
            check_bytes(repository, pack, &bytes)
        }
        Err(error) => Some(Fault::of(&error).ok_or(error)?.losing(blobs_of(pack))),
    };
    Ok(fault.map(|fault| (pack.id, fault)))
}

fn check_bytes(repository: &Repository, pack: &PackContents, bytes: &Bytes) -> Option<Fault> {
    let mut faults = Vec::new();
    let actual = ObjectId::of(bytes);
    if actual != pack.id {
        faults.push(format!("its bytes hash to {}", actual.short()));
    }
    match repository.read_pack_header(bytes) {
        // Both are in the order of offsets.
        Ok(header) if header == pack.blobs => {}
        Ok(_) => faults.push("its header does not agree with the index".to_owned()),
        Err(reason) => faults.push(reason),
    }
    let mut lost = Vec::new();
    for blob in &pack.blobs {
        if let Err(reason) = open(repository, blob, bytes) {
            faults.push(format!("{} blob {}: {reason}", blob.kind, blob.id.short()));
            lost.push((blob.kind, blob.id));
        }
    }
    let first = faults.first()?;
    let what = match faults.len() {
        1 => first.clone(),
        count => format!("{first}; {}; {count} faults in all", faults[count - 1]),
    };
    Some(Fault::damaged(what).losing(lost))
}

fn open(repository: &Repository, blob: &PackedBlob, bytes: &Bytes) -> Result<(), String> {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    let range = blob.range();
    let sealed = bytes.get(place(range.start)..place(range.end)).ok_or("it lies past the pack's end")?;
    let opened = repository.open_packed(blob, sealed);
    opened.map(|_| ()).map_err(|error| error.to_string())
}
