//! Does what a plan says: fetches, proves, puts back, and proves again.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::event::Unit;
use crate::heal::plan::{HealPlan, Left, PutBack};
use crate::heal::{HealError, Healed, How, Mended, Tried, Ward};
use crate::human;
use crate::id::ObjectId;
use crate::repository::{LockGuard, RepositoryError};
use crate::run::Run;
use crate::store::{FileKind, Key, StoreError};
use crate::verify::{Finding, Object};

/// Objects on their way at once: each is a pack in memory, of 16 MiB as a rule and of 128 MiB where restic was told so.
const OBJECTS_IN_FLIGHT_MAX: usize = 4;

/// Puts objects back, kind by kind in the order of publishing. Under a lock.
pub(super) async fn put_back(
    ward: &Ward,
    objects: &[PutBack],
    healed: &mut Healed,
    run: &Run,
) -> Result<(), HealError> {
    let task = run.events.task(format!("heal {}", ward.name), Unit::Bytes, objects.iter().map(|one| one.bytes).sum());
    let mut is_refused = false;
    // One that was here is put only in its own place: who deleted it since meant to.
    let was_here = |object: &Key| {
        let is = |finding: &Finding| matches!(&finding.object, Object::Stored(key) if key == object);
        matches!(object.kind, FileKind::Snapshot | FileKind::Key) && healed.report.damaged.iter().any(is)
    };
    let was_here: HashSet<Key> = objects.iter().map(|one| one.object.clone()).filter(was_here).collect();
    for kind in objects.chunk_by(|a, b| a.object.kind == b.object.kind) {
        // A store that is full, or lets nobody write, says so to every object.
        if is_refused {
            healed.left.extend(kind.iter().map(|one| left(one, "not tried: the store takes nothing")));
            continue;
        }
        // Owned: a closure over borrowed items would make the future of a heal impossible to spawn.
        let kind: Vec<_> = kind.iter().map(|one| (was_here.contains(&one.object), one.clone())).collect();
        let puts = kind.into_iter().map(|(was_here, one)| async move {
            let put = put_one(ward, &one, was_here, run).await;
            (one, put)
        });
        let mut puts = stream::iter(puts).buffer_unordered(OBJECTS_IN_FLIGHT_MAX);
        while let Some((one, put)) = puts.next().await {
            task.add(one.bytes);
            match put {
                Ok(mended) => healed.mended.push(mended),
                Err(Unmended::Fatal(error)) => return Err(error.into()),
                Err(Unmended::Refused(error)) => {
                    is_refused = true;
                    healed.left.push(left(&one, &error.to_string()));
                }
                Err(Unmended::NotHad(why, away)) => {
                    healed.left.push(left(&one, &why));
                    healed.away.extend(away);
                }
            }
        }
    }
    Ok(())
}

fn left(one: &PutBack, why: &str) -> Left {
    Left::new(&Object::Stored(one.object.clone()), why)
}

/// Why an object is not back.
enum Unmended {
    /// No store gave good bytes; these did not answer.
    NotHad(String, Vec<String>),
    /// The store does not take it.
    Refused(RepositoryError),
    /// A signal, or a lock that was lost.
    Fatal(RepositoryError),
}

async fn put_one(ward: &Ward, one: &PutBack, was_here: bool, run: &Run) -> Result<Mended, Unmended> {
    let (bytes, from) = fetch(ward, one, run).await?;
    if was_here && is_gone(ward, &one.object).await? {
        return Err(Unmended::NotHad("somebody deleted it meanwhile".to_owned(), Vec::new()));
    }
    let length = bytes.len() as u64;
    match ward.repository.put_back(&one.object, bytes).await {
        Ok(()) => Ok(Mended { what: one.object.to_string(), how: How::From(from), bytes: length }),
        Err(error @ (RepositoryError::LockLost { .. } | RepositoryError::Stopped(_))) => Err(Unmended::Fatal(error)),
        Err(RepositoryError::Store(error)) if error.is_final() => Err(Unmended::Refused(error.into())),
        Err(error) => Err(Unmended::NotHad(error.to_string(), Vec::new())),
    }
}

async fn is_gone(ward: &Ward, key: &Key) -> Result<bool, Unmended> {
    let size = ward.repository.store().size(key).await;
    size.map(|size| size.is_none()).map_err(|error| Unmended::NotHad(error.to_string(), Vec::new()))
}

/// Fetches an object from the first store whose bytes of it are good.
async fn fetch(ward: &Ward, one: &PutBack, run: &Run) -> Result<(Bytes, String), Unmended> {
    let (mut faults, mut away) = (Vec::new(), Vec::new());
    for donor in ward.donors.iter().filter(|donor| one.from.contains(&donor.name)) {
        let got = run.cancel.run_until_cancelled(donor.store.get(&one.object)).await;
        let got = got.ok_or_else(|| Unmended::Fatal(crate::run::Stopped.into()))?;
        let proved = match got {
            Ok(bytes) => prove(ward, one, bytes).await,
            Err(error) => Err(error.into()),
        };
        match proved {
            Ok(bytes) => return Ok((bytes, donor.name.clone())),
            Err(error) => {
                // What cannot be read there now may lie there whole.
                if !error.is_damage() || matches!(error, RepositoryError::Store(StoreError::Unreadable { .. })) {
                    away.push(donor.name.clone());
                }
                faults.push(format!("{}: {}", donor.name, human::chain(&error)));
            }
        }
    }
    Err(Unmended::NotHad(format!("no other store holds it whole: {}", faults.join("; ")), away))
}

async fn prove(ward: &Ward, one: &PutBack, bytes: Bytes) -> Result<Bytes, RepositoryError> {
    let (repository, key) = (ward.repository.clone(), one.object.clone());
    // A pack takes tens of milliseconds to hash, too long for the threads that wait.
    let proved = tokio::task::spawn_blocking(move || repository.check_bytes(&key, &bytes).map(|()| bytes)).await;
    proved.map_err(|error| RepositoryError::refused("an object", error))?
}

/// Names packs that have no index, and removes what is worth nothing any more. The lock is exclusive.
pub(super) async fn change_index(
    ward: &Ward,
    plan: &HealPlan,
    tried: &Tried,
    lock: &LockGuard,
    healed: &mut Healed,
    run: &Run,
) -> Result<(), HealError> {
    let repository = &ward.repository;
    if plan.rebuilds_index {
        repository.load_index_and_headers(run).await?;
        let lost = |object: &Object| match object {
            Object::Blob(kind, id) => Some((*kind, *id)),
            Object::Stored(_) => None,
        };
        let lost = healed.report.findings().filter_map(|finding| lost(&finding.object)).collect();
        let named = repository.save_index_for(&lost).await?;
        if named > 0 {
            let packs = human::counted(named as u64, "pack", "packs");
            healed.mended.push(Mended { what: format!("an index of {packs}"), how: How::Rebuilt, bytes: 0 });
        }
    } else {
        // Only now does nobody else change what index files and packs there are.
        repository.load_index(run).await?;
    }
    let twins = plan.removed.iter().filter(|key| key.kind != FileKind::Index).cloned();
    let indexes =
        repository.worthless_index_files().into_iter().filter(|key| !tried.removed.contains(&key.to_string()));
    for key in twins.chain(indexes) {
        if remove(ward, &key, lock, healed, run).await? {
            healed.mended.push(Mended { what: key.to_string(), how: How::Removed, bytes: 0 });
        }
    }
    Ok(())
}

/// Gives packs up: new packs and new index files first, then the old index files go, and the packs last. The lock is exclusive.
pub(super) async fn salvage(
    ward: &Ward,
    packs: &HashSet<ObjectId>,
    lock: &LockGuard,
    healed: &mut Healed,
    run: &Run,
) -> Result<(), HealError> {
    ward.repository.load_index(run).await?;
    if let Some(why) = protection(ward, packs, run).await? {
        healed.leave_all(&format!("not given up: {why}"));
        return Ok(());
    }
    let salvage = ward.repository.salvage(packs, run).await?;
    for pack in &salvage.unread {
        let key = Key::new(FileKind::Pack, pack.to_string());
        let why = "not given up: nothing of it can be read here; check its rights and its disk, or delete it by hand";
        healed.left.push(Left::new(&Object::Stored(key), why));
    }
    for name in &salvage.old_indexes {
        // An index file that stays names packs that must stay with it.
        if !remove(ward, &Key::new(FileKind::Index, name), lock, healed, run).await? {
            return Ok(());
        }
    }
    let mut bytes = salvage.bytes;
    for pack in salvage.packs {
        let key = Key::new(FileKind::Pack, pack.pack.to_string());
        if remove(ward, &key, lock, healed, run).await? {
            let how = How::Salvaged { blobs: pack.blobs, lost: pack.lost };
            healed.mended.push(Mended { what: key.to_string(), how, bytes: std::mem::take(&mut bytes) });
        }
    }
    Ok(())
}

/// Returns why the store would not delete what a salvage makes superfluous: new packs beside what stays would be written each time.
async fn protection(ward: &Ward, packs: &HashSet<ObjectId>, run: &Run) -> Result<Option<StoreError>, HealError> {
    let packs_held = packs.iter().map(|pack| Key::new(FileKind::Pack, pack.to_string()));
    let store = ward.repository.store();
    for key in ward.repository.index_files_of(packs).into_iter().chain(packs_held) {
        run.check()?;
        let until = match store.immutable_until(&key).await {
            Ok(until) => until.filter(|until| *until > run.now()),
            // What is not there is protected by nothing.
            Err(StoreError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if until.is_some() {
            return Ok(Some(StoreError::Protected { act: "delete", thing: key.path(), until }));
        }
    }
    Ok(None)
}

/// Deletes an object, and tells whether the store did so.
async fn remove(ward: &Ward, key: &Key, lock: &LockGuard, healed: &mut Healed, run: &Run) -> Result<bool, HealError> {
    run.check()?;
    lock.prove().await?;
    let deleted = ward.repository.store().delete(key).await;
    let is_gone = deleted.is_ok();
    healed.kept.extend(deleted.err().map(|error| (key.clone(), error)));
    Ok(is_gone)
}
