//! A heal and restic on one repository at once: each heeds the other's locks, and nothing is lost between them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bkp::heal::{Heal, heal};
use bkp::repository::StoredSnapshot;
use bkp::run::Run;
use bkp::store::{FileKind, Key, SharedStore};
use rustix::process::{Pid, Signal, kill_process};

use super::{DATA, Desk, VERSIONS, locking_backup};
use crate::damage::{flip, names, pack_of};
use crate::heal::{copied, healed, stored, ward};
use crate::repository::{local, made, memory, noise, opened, read_all, save_dir};

async fn assert_reads(store: &SharedStore, snapshot: &StoredSnapshot, path: &Path, bytes: &[u8]) {
    let read = read_all(&*opened(store).await, snapshot.snapshot.tree).await;
    assert!(read.values().all(Result::is_ok));
    assert!(*read[path].as_ref().unwrap() == bytes, "{} differs", path.display());
}

/// Waits until a pack is there that was not before.
async fn wait_for_pack(store: &SharedStore, before: &[Key]) {
    let start = Instant::now();
    while names(store, FileKind::Pack).await.iter().all(|pack| before.contains(pack)) {
        assert!(start.elapsed() < Duration::from_mins(1), "restic puts no pack");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn beside_a_running_restic_backup_what_is_hurt_comes_back_and_what_it_has_just_put_stays() {
    for version in VERSIONS {
        let desk = Desk::new(version);
        let source = desk.source();
        let store = local(&desk.repository());
        let saved = save_dir(&made(&store).await, &source).await;
        let copy = memory();
        copied(&store, &copy).await;
        let (packs, whole) = (names(&store, FileKind::Pack).await, stored(&store).await);

        let mut restic = locking_backup(&desk, &*opened(&store).await).await;
        // Enough for whole packs, which no index names yet.
        let rows = noise(7, 60 << 20);
        restic.stdin.as_mut().unwrap().write_all(&rows).unwrap();
        wait_for_pack(&store, &packs).await;
        let index = names(&store, FileKind::Index).await;
        assert_eq!(index.len(), 1);
        let snapshot = Key::new(FileKind::Snapshot, saved.id.to_string());
        for key in [&pack_of(&store, &noise(1, 30_000)).await, &index[0], &snapshot] {
            flip(&store, key).await;
        }
        let beside = healed(&store, &[("copy", &copy)], DATA).await;
        assert!(beside.is_sound() && beside.mended.len() == 3, "{beside:#?}");
        let now = stored(&store).await;
        assert!(whole.iter().all(|(key, bytes)| now.get(key) == Some(bytes)));
        assert_eq!(names(&store, FileKind::Index).await, index, "what restic has just put is not named by us");

        // What has to be made anew needs the repository alone.
        store.delete(&index[0]).await.unwrap();
        let waits = healed(&store, &[], DATA).await;
        assert!(!waits.is_sound() && waits.left.iter().all(|left| left.why.contains("holds a lock")), "{waits:#?}");
        assert_eq!(names(&store, FileKind::Index).await, []);
        drop(restic.stdin.take());
        assert!(restic.wait().unwrap().success());
        let ended = healed(&store, &[], DATA).await;
        assert!(ended.is_sound(), "{ended:#?}");

        desk.check();
        let snapshots = opened(&store).await.snapshots().await.unwrap();
        assert_eq!(snapshots.len(), 2);
        let by_restic = snapshots.iter().find(|stored| stored.id != saved.id).unwrap();
        assert_reads(&store, by_restic, Path::new("/stdin"), &[&b"rows"[..], &rows].concat()).await;
        let large = source.join("images/상품 \"1\"/large.jpg");
        assert_reads(&store, &saved, &large, &noise(2, 5 << 20)).await;
    }
}

/// Below the least length of a chunk: one blob.
const WHOLE: usize = 400_000;

/// A repository in which restic's prune has half of most packs to move, and a file in a pack of its own.
async fn half_forgotten(desk: &Desk) -> (PathBuf, SharedStore) {
    let dir = desk.dir.path().join("source");
    fs::create_dir(&dir).unwrap();
    let store = local(&desk.repository());
    made(&store).await;
    let write = |name: &str, seed, length| fs::write(dir.join(name), noise(seed, length)).unwrap();
    let back_up = || desk.restic(&["backup", dir.to_str().unwrap()]);
    write("whole", 99, WHOLE);
    back_up();
    for number in 0..20_u64 {
        write(&format!("{number:02}"), number, 2 << 20);
    }
    back_up();
    let forgotten = opened(&store).await.snapshots().await.unwrap().remove(1);
    for number in (0..20).step_by(2) {
        fs::remove_file(dir.join(format!("{number:02}"))).unwrap();
    }
    back_up();
    desk.restic(&["forget", &forgotten.id.to_string()]);
    (dir, store)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
async fn while_restic_prunes_nothing_is_put_and_a_heal_that_waits_comes_after_it() {
    for version in VERSIONS {
        let desk = Desk::new(version);
        let (dir, store) = half_forgotten(&desk).await;
        let copy = memory();
        copied(&store, &copy).await;
        let hurt = pack_of(&store, &noise(99, WHOLE)).await;
        flip(&store, &hurt).await;
        let (patient, run) = (ward(&store, &[("copy", &copy)]).await, Run::silent());
        let mut early = Heal::begin(&patient.name, &patient.repository, DATA, &run).await.unwrap();
        assert_eq!(early.so_far().found, 1);

        // Slowed down, and stopped once some of what stays is in new packs and all the old ones are there.
        let packs = names(&store, FileKind::Pack).await;
        let args = ["--limit-upload", "8192", "--pack-size", "4", "prune", "--max-unused", "0"];
        let mut prune = desk.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_child(&prune);
        wait_for_pack(&store, &packs).await;
        kill_process(pid, Signal::STOP).unwrap();
        let before = stored(&store).await;
        assert!(packs.iter().all(|pack| before.contains_key(pack)), "it was too fast");

        early.mend(&patient, &run).await.unwrap();
        let early = early.end();
        assert!(early.mended.is_empty() && early.left[0].why.contains("holds a lock"), "{early:#?}");
        let late = ward(&store, &[("copy", &copy)]).await;
        let late = tokio::spawn(async move { heal(&late, DATA, &Run::silent()).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!late.is_finished() && stored(&store).await == before);

        kill_process(pid, Signal::CONT).unwrap();
        assert!(prune.wait().unwrap().success());
        let late = late.await.unwrap().unwrap();
        assert!(late.is_sound() && late.mended.len() == 1, "{late:#?}");
        desk.check();
        assert!(names(&store, FileKind::Pack).await.iter().filter(|pack| packs.contains(pack)).count() < packs.len());
        for stored in opened(&store).await.snapshots().await.unwrap() {
            assert_reads(&store, &stored, &dir.join("whole"), &noise(99, WHOLE)).await;
        }
    }
}
