//! The real program heals: what it says, what it keeps in mind, and what its exit code tells.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bkp::catalog::{Catalog, REPOSITORY};
use bkp::event::Events;
use bkp::policy::Policy;
use bkp::repository::{BlobKind, LockMode, Repository};
use bkp::run::Run;
use bkp::store::{FileKind, Key};

use crate::cli::desk::{Desk, flip as flip_file};
use crate::repository::{local, made};
use crate::servers::{Product, block_on};
use crate::world::{Ended, World};

/// Returns the packs of the copy in a directory.
fn packs_of_copy(desk: &Desk) -> Vec<PathBuf> {
    let dirs = fs::read_dir(desk.path("usb/data")).unwrap().map(|dir| dir.unwrap().path());
    dirs.flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path())).collect()
}

fn healed_by_hand(desk: &Desk) -> (Vec<u8>, Vec<u8>) {
    let mut packs = desk.packs();
    packs.sort();
    let mut there = packs_of_copy(desk);
    there.sort();
    (fs::read(&packs[0]).unwrap(), fs::read(there.last().unwrap()).unwrap())
}

#[test]
fn the_program_mends_every_store_says_so_and_keeps_the_trace() {
    let desk = Desk::backed_up();
    let whole = healed_by_hand(&desk);
    let (mut here, mut there) = (desk.packs(), packs_of_copy(&desk));
    here.sort();
    there.sort();
    flip_file(&here[0]);
    flip_file(there.last().unwrap());
    assert_ne!(healed_by_hand(&desk), whole);

    let planned = desk.bkp(&["verify", "mall", "--level", "data", "--heal", "--dry-run"]).expect(13);
    assert!(planned.out.contains("would put back data/") && planned.out.contains("from usb"), "{}", planned.out);
    assert!(planned.out.contains("from repository"), "{}", planned.out);
    let json = desk.bkp(&["verify", "mall", "--level", "data", "--heal", "--dry-run", "--json"]).expect(13).json();
    assert_eq!(
        (&json["stores"][1]["store"], &json["stores"][1]["plan"]["put_back"][0]["from"][0]),
        (&"usb".into(), &"repository".into())
    );
    assert_ne!(healed_by_hand(&desk), whole, "a dry run changed something");

    let healed = desk.bkp(&["verify", "mall", "--level", "data", "--heal"]).expect(0);
    assert!(healed.out.contains("repository healed 1 object"), "{}", healed.out);
    assert!(healed.out.contains("usb        healed 1 object"), "{}", healed.out);
    assert_eq!(healed_by_hand(&desk), whole);
    desk.bkp(&["verify", "mall", "--level", "data"]).expect(0);
    desk.bkp(&["verify", "mall", "--level", "data", "--copy", "usb"]).expect(0);

    let status = desk.bkp(&["status", "mall"]).expect(0);
    assert!(status.out.contains("verify healed 1 object of `repository`"), "{}", status.out);
    let catalog = Catalog::open(&desk.path("state"), &Events::silent()).unwrap();
    let heals = catalog.heals(9).unwrap();
    let stores: BTreeSet<_> = heals.iter().map(|heal| heal.store.as_str()).collect();
    assert_eq!(stores, BTreeSet::from([REPOSITORY, "usb"]));
    assert!(
        heals.iter().all(|heal| heal.left.is_empty() && heal.bytes > 0 && heal.mended[0].contains(" from ")),
        "{heals:?}"
    );
}

#[test]
fn the_program_names_what_no_store_has_and_exits_13() {
    let desk = Desk::backed_up();
    desk.rot();
    let pack = desk.packs().into_iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    let name = pack.file_name().unwrap();
    let there = packs_of_copy(&desk).into_iter().find(|other| other.file_name() == Some(name)).unwrap();
    flip_file(&there);
    let healed = desk.bkp(&["verify", "mall", "--level", "data", "--heal"]).expect(13);
    assert!(healed.out.contains("costs /") && healed.out.contains("images/shop0001/"), "{}", healed.out);
    assert!(
        healed.out.contains("not healed: data/") && healed.out.contains("no store that answers holds "),
        "{}",
        healed.out
    );
    let json = desk.bkp(&["verify", "mall", "--level", "data", "--heal", "--json"]).expect(13).json();
    assert_eq!(json["steps"][0]["result"]["healed"]["left"].as_array().unwrap().len(), 1);
    desk.bkp(&["forget", "mall", "--dry-run"]).expect(0);
    assert!(desk.bkp(&["forget", "mall", "--dry-run"]).out.contains("rests"));
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_dump_is_mended_from_s3_and_what_both_have_lost_is_told_as_rows() {
    let world = World::ready(Product::MariaDb);
    world.bkp(&["backup", "mall", "--source", "db1"]).expect(0);
    let packs = |root: PathBuf| -> Vec<PathBuf> {
        let dirs = fs::read_dir(root.join("data")).unwrap().map(|dir| dir.unwrap().path());
        dirs.flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path())).collect()
    };
    let here = packs(world.path("repository"));
    let before: Vec<_> = here.iter().map(|pack| fs::read(pack).unwrap()).collect();
    for pack in &here {
        flip_file(pack);
    }
    let told = world.bkp(&["verify", "mall", "--level", "data"]).expect(13);
    assert!(told.out.contains("`bkp verify mall --level data --heal`"), "{}", told.out);
    let healed = world.bkp(&["verify", "mall", "--level", "data", "--heal"]).expect(0);
    assert!(healed.out.contains("from offsite"), "{}", healed.out);
    assert_eq!(here.iter().map(|pack| fs::read(pack).unwrap()).collect::<Vec<_>>(), before);
    let checked = world.restic(&["check", "--read-data"]).expect(0);
    assert!(checked.out.contains("no errors were found"), "{}", checked.out);

    // The orders' rows, in both stores.
    let repository = block_on(async {
        let policy = Policy::load(&world.path("policies/mall.toml")).unwrap();
        bkp::place::repository(&policy, &Run::silent()).await.unwrap()
    });
    let place = block_on(async {
        repository.load_index(&Run::silent()).await.unwrap();
        let stored = repository.snapshots().await.unwrap().remove(0);
        let mut tree = stored.snapshot.tree;
        for name in ["mysql", "db1", "mall", "orders"] {
            let node = repository.tree(&tree).await.unwrap().nodes.into_iter().find(|node| node.name == name).unwrap();
            tree = node.subtree.unwrap();
        }
        let rows =
            repository.tree(&tree).await.unwrap().nodes.into_iter().find(|node| node.name == "00000.tsv").unwrap();
        repository.locate(BlobKind::Data, &rows.content[0]).unwrap()
    });
    let pack = Key::new(FileKind::Pack, place.pack.to_string()).path();
    for root in [world.path("repository"), world.s3.objects().join("dr")] {
        let file = root.join(&pack);
        let mut bytes = fs::read(&file).unwrap();
        bytes[place.blob.offset as usize + 20] ^= 1;
        fs::remove_file(&file).unwrap();
        fs::write(&file, bytes).unwrap();
    }
    let left = world.bkp(&["verify", "mall", "--level", "data", "--heal"]).expect(13);
    assert!(left.out.contains("costs /mysql/db1/mall/orders/00000.tsv"), "{}", left.out);
    assert!(left.out.contains("which is 1,500 rows of mall.orders"), "{}", left.out);
    assert!(left.out.contains("not healed: data/"), "{}", left.out);
    // Given up, it is stored again by the next backup, as far as the source still has it; and the copy gets it from there.
    let salvaged =
        world.bkp(&["verify", "mall", "--level", "data", "--heal", "--salvage", "--copy", "offsite"]).expect(13);
    assert!(salvaged.out.contains("given up: "), "{}", salvaged.out);
    let salvaged = world.bkp(&["verify", "mall", "--level", "data", "--heal", "--salvage"]).expect(13);
    assert!(salvaged.out.contains("costs /mysql/db1/mall/orders/00000.tsv"), "{}", salvaged.out);
    world.bkp(&["backup", "mall", "--source", "db1"]).expect(0);
    world.bkp(&["verify", "mall", "--level", "data", "--heal"]).expect(0);
    let checked = world.restic(&["check", "--read-data"]).expect(0);
    assert!(checked.out.contains("no errors were found"), "{}", checked.out);
}

#[test]
fn a_lost_config_is_brought_back_by_the_program_and_an_empty_place_is_no_repository() {
    let desk = Desk::backed_up();
    fs::remove_file(desk.path("repository/config")).unwrap();
    for dir in fs::read_dir(desk.path("repository/keys")).unwrap() {
        fs::remove_file(dir.unwrap().path()).unwrap();
    }
    desk.bkp(&["verify", "mall"]).expect(10);
    let healed = desk.bkp(&["verify", "mall", "--heal"]).expect(0);
    assert!(healed.out.contains("config from usb") && healed.out.contains("keys/"), "{}", healed.out);
    desk.bkp(&["verify", "mall", "--level", "data"]).expect(0);
    fs::remove_dir_all(desk.path("repository")).unwrap();
    desk.bkp(&["verify", "mall", "--heal"]).expect(10);
    assert!(!desk.path("repository").exists());
}

#[test]
fn a_scheduled_verify_mends_what_it_finds_unless_the_policy_says_no() {
    for heals in [true, false] {
        let desk = Desk::backed_up();
        desk.write_policy(if heals { "" } else { "[verify]\nheal = false" });
        desk.change_policy("backup = \"15 2 * * *\"", "verify = \"0 5 * * *\"");
        let index = fs::read_dir(desk.path("repository/snapshots")).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&index).unwrap();
        flip_file(&index);
        let ran = desk.bkp(&["run", "mall", "--now"]);
        let out = &ran.out;
        assert_eq!(out.contains("healed 1 object"), heals, "{out}{}", ran.err);
        assert_eq!(fs::read(&index).unwrap() == whole, heals);
        assert_eq!(ran.code == Some(0), heals);
    }
}

/// Makes what is harmless: a damaged index file that is worth nothing.
fn add_bad_index(desk: &Desk) {
    fs::write(desk.path("repository/index").join("00".repeat(32)), b"rot").unwrap();
}

/// Makes what needs the store alone: an index file that no other store has. Returns it.
fn hurt_index(desk: &Desk) -> PathBuf {
    for index in fs::read_dir(desk.path("usb/index")).unwrap() {
        fs::remove_file(index.unwrap().path()).unwrap();
    }
    let index = fs::read_dir(desk.path("repository/index")).unwrap().next().unwrap().unwrap().path();
    flip_file(&index);
    index
}

#[test]
fn what_costs_no_snapshot_anything_is_told_and_keeps_retention_from_nothing() {
    let desk = Desk::backed_up();
    let rests = || desk.bkp(&["forget", "mall", "--dry-run"]).expect(0).out.contains("rests");
    add_bad_index(&desk);
    let told = desk.bkp(&["verify", "mall", "--level", "data"]).expect(13);
    assert!(told.out.contains(&"00".repeat(32)), "{}", told.out);
    assert!(!rests());
    desk.rot();
    desk.bkp(&["verify", "mall", "--level", "data"]).expect(13);
    assert!(rests(), "of this something is needed");
}

#[test]
fn the_lock_of_a_killed_run_does_not_keep_a_heal_from_its_end() {
    let desk = Desk::backed_up();
    add_bad_index(&desk);
    // Whole ones: a kill may also leave what was not yet renamed.
    let is_whole = |entry: &std::io::Result<fs::DirEntry>| entry.as_ref().unwrap().file_name().len() == 64;
    let locks = || fs::read_dir(desk.path("repository/locks")).unwrap().filter(is_whole).count();
    let mut killed =
        desk.command(&["verify", "mall", "--heal"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // It lets its lock settle for a fifth of a second.
    for _ in 0..2_000 {
        if locks() > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(locks(), 1, "the kill met no lock");
    desk.bkp(&["verify", "mall", "--heal"]).expect(0);
    assert_eq!(locks(), 0);
}

#[test]
fn where_nothing_is_to_be_mended_no_other_store_is_opened() {
    let desk = Desk::backed_up();
    desk.write_policy(&format!("[[copy]]\nname = \"away\"\npath = \"{}\"", desk.text("unplugged")));
    let heal = ["verify", "mall", "--heal", "--copy", "usb"];
    for args in [&heal[..], &[&heal[..], &["--dry-run"]].concat()] {
        let sound = desk.bkp(args).expect(0);
        assert!(!sound.err.contains("away"), "{}", sound.err);
    }
    flip_file(&fs::read_dir(desk.path("usb/snapshots")).unwrap().next().unwrap().unwrap().path());
    let healed = desk.bkp(&heal).expect(0);
    assert!(healed.err.contains("away: open copy `away`"), "{}", healed.err);
}

#[test]
fn damage_is_remembered_although_a_signal_ends_the_heal() {
    let desk = Desk::backed_up();
    let index = hurt_index(&desk);
    desk.bkp(&["forget", "mall", "--dry-run"]).expect(0);
    // A lock of another, for which the heal waits.
    let policy = Policy::load(&desk.path("policies/mall.toml")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let lock = runtime.block_on(async {
        let repository = bkp::place::repository(&policy, &Run::silent()).await.unwrap();
        repository.lock(LockMode::Shared, Duration::ZERO, &Run::silent()).await.unwrap()
    });
    let healing =
        desk.command(&["verify", "mall", "--heal"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let catalog = Catalog::open(&desk.path("state"), &Events::silent()).unwrap();
    let is_noted = || catalog.verifies(REPOSITORY).unwrap().iter().any(|verify| !verify.is_sound);
    for _ in 0..200 {
        if is_noted() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(healing.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended: Ended = healing.wait_with_output().unwrap().into();
    ended.expect(143);
    runtime.block_on(lock.release()).unwrap();
    assert!(desk.bkp(&["forget", "mall", "--dry-run"]).expect(0).out.contains("rests"));
    assert!(index.exists());
    desk.bkp(&["verify", "mall", "--heal"]).expect(0);
    assert!(!desk.bkp(&["forget", "mall", "--dry-run"]).expect(0).out.contains("rests"));
}

#[test]
fn an_empty_mount_point_and_a_foreign_repository_may_hold_what_is_lost() {
    for is_foreign in [false, true] {
        let desk = Desk::backed_up();
        desk.rot();
        let before = desk.packs();
        fs::rename(desk.path("usb"), desk.path("unplugged")).unwrap();
        fs::create_dir(desk.path("usb")).unwrap();
        if is_foreign {
            block_on(async { made(&local(&desk.path("usb"))).await });
        }
        let left = desk.bkp(&["verify", "mall", "--level", "data", "--heal", "--salvage"]);
        assert!(left.out.contains("not given up: usb may hold it"), "{}{}", left.out, left.err);
        assert!(left.err.contains("usb: "), "{}", left.err);
        assert_eq!(desk.packs().len(), before.len());
        fs::remove_dir_all(desk.path("usb")).unwrap();
        fs::rename(desk.path("unplugged"), desk.path("usb")).unwrap();
        desk.bkp(&["verify", "mall", "--level", "data", "--heal"]).expect(0);
    }
}

#[test]
fn the_config_of_another_repository_does_not_open_this_one() {
    let desk = Desk::backed_up();
    fs::remove_dir_all(desk.path("usb")).unwrap();
    fs::create_dir(desk.path("usb")).unwrap();
    let policy = Policy::load(&desk.path("policies/mall.toml")).unwrap();
    block_on(async {
        let password = bkp::place::password(&policy).unwrap();
        Repository::init(local(&desk.path("usb")), &password, &Run::silent()).await.unwrap();
    });
    fs::remove_file(desk.path("repository/config")).unwrap();
    desk.bkp(&["verify", "mall", "--heal", "--copy", "usb"]).expect(0);
    let refused = desk.bkp(&["verify", "mall", "--heal"]);
    assert!(refused.code != Some(0), "{}", refused.out);
    assert!(!desk.path("repository/config").exists());
}
