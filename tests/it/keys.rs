//! Passwords: added, changed and taken away, and at every moment at least one that opens.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bkp::keys::{self, Changed, KeysError, Opened, PlaceKeys, Places, Removal};
use bkp::repository::key::Cost;
use bkp::repository::{Repository, RepositoryError};
use bkp::run::Run;
use bkp::secret::Secret;
use bkp::store::faulty::{Fault, Faulty, Operation, Rule};
use bkp::store::{FileKind, Key, SharedStore};
use insta::assert_snapshot;
use serde_json::json;

use crate::cli::{BKP, Desk, flip};
use crate::faults::kill;
use crate::immutable::copy_to;
use crate::repository::{made, memory, secret};
use crate::servers::{self, Asked, S3};
use crate::world::Ended;

const CHEAP: Cost = Cost { log_n: 4, r: 1, p: 1 };

fn new_password() -> Secret {
    Secret::new("battery staple".to_owned())
}

async fn opens(store: &SharedStore, password: &Secret) -> bool {
    match Repository::open(Arc::clone(store), password, &Run::silent()).await {
        Ok(_) => true,
        Err(RepositoryError::WrongPassword { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

async fn place(name: &str, store: &SharedStore) -> Opened {
    place_of(name, store, &secret()).await
}

async fn place_of(name: &str, store: &SharedStore, password: &Secret) -> Opened {
    let repository = Repository::open(Arc::clone(store), password, &Run::silent()).await.unwrap();
    Opened { name: name.to_owned(), repository, ledger: None }
}

/// Opens a repository and its copy with a password.
async fn both(stores: &[SharedStore; 2], password: &Secret) -> Places {
    let first = place_of("repository", &stores[0], password).await;
    Places { first, copies: vec![place_of("copy", &stores[1], password).await] }
}

async fn change(places: &Places, old: &Secret, new: &Secret) -> Result<Changed, KeysError> {
    keys::change(places, old, new, CHEAP, &Run::silent()).await
}

/// A repository and a copy of it, in memory.
async fn two() -> [SharedStore; 2] {
    let (store, copy) = (memory(), memory());
    bkp::copy::copy(&*made(&store).await, &copy, 4, &Run::silent()).await.unwrap();
    [store, copy]
}

// ------------------------------------------------------------------------------------------------------------- engine

/// Changes the password while one of the places dies at its `nth` operation; returns what came of it and whether it died.
async fn change_while_one_dies(dying: usize, nth: u64) -> (Result<Changed, KeysError>, bool) {
    let inner = two().await;
    let faulty = inner.each_ref().map(|store| Arc::new(Faulty::new(Arc::clone(store))));
    let stores: [SharedStore; 2] = [faulty[0].clone(), faulty[1].clone()];
    let places = both(&stores, &secret()).await;
    let before = faulty[dying].count(Operation::Any) as u64;
    faulty[dying].add(Rule::nth(Operation::Any, nth, Fault::Dead));
    let changed = change(&places, &secret(), &new_password()).await;
    let is_struck = faulty[dying].count(Operation::Any) as u64 >= before + nth;
    for (rank, store) in inner.iter().enumerate() {
        let (by_old, by_new) = (opens(store, &secret()).await, opens(store, &new_password()).await);
        assert!(by_old || by_new, "place {rank} opens with neither after {dying} died at operation {nth}");
        if let Ok(changed) = &changed {
            let is_done = changed.done.contains(&places.all().nth(rank).unwrap().name);
            assert!(!is_done || (by_new && !by_old), "place {rank} is said to be changed, operation {nth}");
        }
    }
    change_again(&inner, &format!("{dying} died at operation {nth}")).await;
    (changed, is_struck)
}

/// Does what an operator does after a change that broke off: gives it again, and later changes to a third password.
async fn change_again(stores: &[SharedStore; 2], what: &str) {
    for store in stores {
        for left in store.list(FileKind::Lock).await.unwrap() {
            store.delete(&Key::new(FileKind::Lock, left.name)).await.unwrap();
        }
    }
    if opens(&stores[0], &secret()).await {
        change(&both(stores, &secret()).await, &secret(), &new_password()).await.unwrap();
    } else {
        let repository = place_of("repository", &stores[0], &new_password()).await.repository;
        bkp::copy::copy(&repository, &stores[1], 4, &Run::silent()).await.unwrap();
    }
    let third = Secret::new("a third password".to_owned());
    let changed = change(&both(stores, &new_password()).await, &new_password(), &third).await.unwrap();
    assert_eq!(changed.done, ["repository", "copy"], "{what}");
    for store in stores {
        assert!(opens(store, &third).await && !opens(store, &new_password()).await, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_killed_at_any_operation_leaves_a_password_that_opens_each_place() {
    for dying in [0, 1] {
        let mut cuts = 0;
        loop {
            let (changed, is_struck) = change_while_one_dies(dying, cuts + 1).await;
            if !is_struck {
                assert_eq!(changed.unwrap().done, ["repository", "copy"]);
                break;
            }
            cuts += 1;
        }
        assert!(cuts > 8, "only {cuts} operations of place {dying} were cut");
    }
}

#[tokio::test]
async fn a_costly_key_does_not_make_the_opening_with_a_cheap_one_slow() {
    let store = memory();
    let repository = made(&store).await;
    // Among several some come before the cheap one by their names.
    for n in 0..6 {
        let password = Secret::new(format!("costly {n}"));
        let file = repository.seal_key(&password, Cost { log_n: 16, r: 8, p: 1 }, &Run::silent()).await.unwrap();
        repository.put_key(&file, &password).await.unwrap();
    }
    let time = |began: Instant| began.elapsed();
    let began = Instant::now();
    assert!(opens(&store, &secret()).await);
    let cheap = time(began);
    let began = Instant::now();
    assert!(!opens(&store, &Secret::new("none of them".to_owned())).await);
    assert!(cheap * 4 < time(began), "{cheap:?}: costly keys were tried first");
}

#[tokio::test(start_paused = true)]
async fn a_removal_is_planned_over_all_places_and_never_shuts_us_out() {
    let [store, copy] = two().await;
    let run = Run::silent();
    let places = both(&[store.clone(), copy.clone()], &secret()).await;
    let added = keys::add(&places, &new_password(), CHEAP, &run).await.unwrap();
    assert_eq!(added.done, ["repository", "copy"]);
    let (second, ours) = (added.new, places.first.repository.key());
    let plan = async |prefix: &str| {
        let all = [PlaceKeys::of(&places.first).await.unwrap(), PlaceKeys::of(&places.copies[0]).await.unwrap()];
        Removal::plan(prefix, &all)
    };
    assert!(matches!(plan("").await, Err(KeysError::AmbiguousId(_))));
    assert!(matches!(plan("xyz").await, Err(KeysError::UnknownId(_))));
    assert!(matches!(plan(&ours.to_string()).await, Err(KeysError::InUse { .. })));
    let removal = plan(&second.to_string()[..12]).await.unwrap();
    assert_eq!(removal.places, ["repository", "copy"]);

    // A place that lost the key that opened it keeps the other, whoever asks.
    let theirs = Key::new(FileKind::Key, ours.to_string());
    let bytes = copy.get(&theirs).await.unwrap();
    copy.delete(&theirs).await.unwrap();
    assert!(matches!(plan(&second.to_string()).await, Err(KeysError::Last { .. })));
    let removed = removal.apply(&places, &run).await;
    assert_eq!(removed.done, ["repository"]);
    assert!(matches!(removed.failed[..], [(_, KeysError::Last { .. })]), "{removed:?}");
    assert!(opens(&copy, &new_password()).await && !opens(&store, &new_password()).await);

    // The next removal finds what is left.
    copy.put(&theirs, bytes).await.unwrap();
    let removal = plan(&second.to_string()).await.unwrap();
    assert_eq!(removal.places, ["copy"]);
    assert_eq!(removal.apply(&places, &run).await.done, ["copy"]);
    assert!(!opens(&copy, &new_password()).await);
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_lock_protects_its_keys_is_named_and_the_repository_is_changed() {
    let [store, copy] = two().await;
    let places = both(&[store.clone(), copy.clone()], &secret()).await;
    let old = Key::new(FileKind::Key, places.first.repository.key().to_string());
    let until = chrono::Utc::now() + chrono::TimeDelta::days(30);
    copy.keep_immutable(&old, until, until).await.unwrap();
    let changed = change(&places, &secret(), &new_password()).await.unwrap();
    assert_eq!(changed.done, ["repository"]);
    assert_eq!((changed.failed[0].0.as_str(), changed.lacking.len()), ("copy", 0));
    assert_eq!(bkp::exit::Exit::from(&changed.failed[0].1), bkp::exit::Exit::Protected);
    assert!(opens(&copy, &secret()).await && opens(&copy, &new_password()).await);
    assert!(!opens(&store, &secret()).await);
}

#[tokio::test(start_paused = true)]
async fn a_key_goes_only_while_nobody_else_works_on_the_repository() {
    let [store, _] = two().await;
    let opened = place("repository", &store).await;
    let run = Run::silent();
    let places = Places { first: opened, copies: Vec::new() };
    let second = keys::add(&places, &new_password(), CHEAP, &run).await.unwrap().new;
    let other = place("repository", &store).await;
    let lock = other.repository.lock(bkp::repository::LockMode::Shared, Duration::ZERO, &run).await.unwrap();
    let removal = Removal { id: second, record: None, places: vec!["repository".to_owned()] };
    let removed = removal.apply(&places, &run).await;
    assert!(matches!(removed.failed[..], [(_, KeysError::Repository(RepositoryError::Locked { .. }))]), "{removed:?}");
    assert!(opens(&store, &new_password()).await);
    let third = Secret::new("a third password".to_owned());
    let refused = change(&places, &secret(), &third).await.unwrap_err();
    assert!(matches!(refused, KeysError::Repository(RepositoryError::Locked { .. })), "{refused:?}");
    assert!(!opens(&store, &third).await, "a change that was refused has left its key");
    lock.release().await.unwrap();
    assert_eq!(removal.apply(&places, &run).await.done, ["repository"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_file_that_rots_is_not_the_one_that_is_to_open_from_then_on() {
    let store = memory();
    let repository = made(&store).await;
    let file = repository.seal_key(&new_password(), CHEAP, &Run::silent()).await.unwrap();
    let second = repository.put_key(&file, &new_password()).await.unwrap();
    let places = Places { first: place("repository", &store).await, copies: Vec::new() };
    let ours = Key::new(FileKind::Key, places.first.repository.key().to_string());
    let mut bytes = store.get(&ours).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    store.put(&ours, bytes.into()).await.unwrap();
    let removal = Removal { id: second, record: None, places: vec!["repository".to_owned()] };
    let removed = removal.apply(&places, &Run::silent()).await;
    assert!(matches!(removed.failed[..], [(_, KeysError::Last { .. })]), "{removed:?}");
    assert!(opens(&store, &new_password()).await, "the last password that opens was taken away");
}

// ------------------------------------------------------------------------------------------------------------ program

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn keys_of(desk: &Desk, more: &[&str]) -> Vec<serde_json::Value> {
    let listed = desk.bkp(&[&["key", "list", "mall", "--json"], more].concat()).expect(0).json();
    listed["keys"].as_array().unwrap().clone()
}

/// Takes ids and times out of a text.
fn steady(desk: &Desk, text: &str, ids: &[&str]) -> String {
    ids.iter().enumerate().fold(desk.plain(text), |text, (n, id)| text.replace(&id[..8], &format!("<key{n}>")))
}

#[test]
fn a_second_password_opens_until_it_is_removed_here_and_in_the_copy() {
    let desk = Desk::backed_up();
    let (first, second) = (fs::read_to_string(desk.path("mall.key")).unwrap(), desk.path("second.pw"));
    write_secret(&second, "second password\n");
    let added = desk.bkp(&["key", "add", "mall", "--new-password-file", second.to_str().unwrap(), "--json"]);
    let id = added.expect(0).json()["key"].as_str().unwrap().to_owned();
    let listed = desk.bkp(&["key", "list", "mall"]).expect(0);
    let marked = listed.out.lines().filter(|line| line.contains('*')).collect::<Vec<_>>();
    assert!(marked.len() == 1 && !marked[0].contains(&id[..8]), "{}", listed.out);
    assert_eq!((keys_of(&desk, &[]).len(), keys_of(&desk, &["--copy", "usb"]).len()), (2, 2));

    let with = |password: &str, args: &[&str]| {
        write_secret(&desk.path("mall.key"), password);
        let ended = desk.bkp(args);
        write_secret(&desk.path("mall.key"), &first);
        ended
    };
    let snapshots: [&[&str]; 2] = [&["snapshots", "mall"], &["snapshots", "mall", "--from", "usb"]];
    for args in snapshots {
        with("second password\n", args).expect(0);
    }
    let ours = keys_of(&desk, &[]).iter().find(|key| key["in_use"] == true).unwrap()["id"].as_str().unwrap().to_owned();
    let refused = desk.bkp(&["key", "remove", "mall", &ours, "--yes"]).expect(2);
    assert_snapshot!(steady(&desk, &refused.err, &[&ours]), @r"
    error: remove key <key0>: it is the one that opens repository for us
    hint: change it with `bkp key passwd`, or let the policy use another password first
    ");
    desk.bkp(&["key", "remove", "mall", &id]).expect(2);
    let in_vain = desk.bkp(&["key", "remove", "mall", &id, "--copy", "usb", "--yes"]).expect(2);
    assert_snapshot!(steady(&desk, &in_vain.err, &[&id]), @r"
    error: remove key <key0> from copy `usb` alone: the repository has it too, and the next `bkp copy` would bring it back
    hint: leave `--copy` out: it is removed from the repository and from each copy
    ");
    assert_eq!(keys_of(&desk, &["--copy", "usb"]).len(), 2);
    let plan = desk.bkp(&["key", "remove", "mall", &id, "--dry-run"]).expect(0);
    assert!(plan.out.contains("from repository, usb"), "{}", plan.out);
    assert_eq!(keys_of(&desk, &[]).len(), 2, "a dry run removed a key");

    let removed = desk.bkp(&["key", "remove", "mall", &id[..10], "--yes"]).expect(0);
    assert_eq!(steady(&desk, &removed.out, &[&id]), "removed key <key0>: repository, usb\n");
    for args in snapshots {
        with("second password\n", args).expect(12);
        with(&first, args).expect(0);
    }
    desk.bkp(&["key", "remove", "mall", &ours, "--yes"]).expect(2);
}

#[test]
fn a_changed_password_opens_repository_and_copy_and_the_old_one_neither() {
    let desk = Desk::backed_up();
    let new = desk.path("a new.key");
    write_secret(&new, "quite another password\n");
    let passwd = ["key", "passwd", "mall", "--new-password-file", new.to_str().unwrap()];
    desk.bkp(&[&passwd[..], &["--copy", "usb"]].concat()).expect(2);
    assert_eq!(keys_of(&desk, &["--copy", "usb"]), keys_of(&desk, &[]), "one copy alone has another password");
    // A group of its own, where the test may give it away.
    let is_given = std::os::unix::fs::chown(desk.path("mall.key"), None, Some(7)).is_ok();
    let owner = |path: &str| fs::metadata(desk.path(path)).map(|it| (it.uid(), it.gid())).unwrap();
    let before = owner("mall.key");
    assert_eq!(is_given, before.1 == 7);
    let changed = desk.bkp(&passwd).expect(0);
    let next = desk.plain(changed.out.lines().last().unwrap());
    assert_eq!(
        next,
        format!(
            "NEXT: run `install -m 600 -o {} -g {} 'DIR/a new.key' DIR/mall.key`; until then every run of this policy ends with \
             exit code 12",
            before.0, before.1
        )
    );
    desk.bkp(&["snapshots", "mall"]).expect(12);
    desk.bkp(&["snapshots", "mall", "--from", "usb"]).expect(12);
    let install = next.split('`').nth(1).unwrap().replace("DIR", &desk.text(""));
    assert!(Command::new("sh").args(["-c", &install]).status().unwrap().success());
    assert_eq!(owner("mall.key"), before);
    desk.bkp(&["snapshots", "mall"]).expect(0);
    desk.bkp(&["snapshots", "mall", "--from", "usb"]).expect(0);
    assert_eq!((keys_of(&desk, &[]).len(), keys_of(&desk, &["--copy", "usb"]).len()), (1, 1));
    desk.bkp(&["backup", "mall"]).expect(0);
    desk.bkp(&["verify", "mall", "--level", "data", "--copy", "usb"]).expect(0);
}

#[test]
fn a_copy_that_is_not_there_is_named_and_its_password_kept_until_it_catches_up() {
    let desk = Desk::backed_up();
    let new = desk.path("new.key");
    write_secret(&new, "quite another password\n");
    let old = keys_of(&desk, &[])[0]["id"].as_str().unwrap().to_owned();
    let old_password = fs::read(desk.path("mall.key")).unwrap();
    fs::rename(desk.path("usb"), desk.path("unplugged")).unwrap();
    let changed = desk.bkp(&["key", "passwd", "mall", "--new-password-file", new.to_str().unwrap()]).expect(3);
    assert!(changed.err.contains("error: usb: open copy `usb`: there is no directory"), "{}", changed.err);
    assert!(
        changed
            .out
            .contains("KEEP the old password: until `bkp copy mall` nothing else opens `usb`\nNEXT: run `install -b "),
        "{}",
        changed.out
    );
    let install = changed.out.lines().last().unwrap().split('`').nth(1).unwrap();
    assert!(Command::new("sh").args(["-c", install]).status().unwrap().success());
    assert_eq!(fs::read(desk.path("mall.key.old")).unwrap(), old_password);
    fs::rename(desk.path("unplugged"), desk.path("usb")).unwrap();
    desk.bkp(&["snapshots", "mall", "--from", "usb"]).expect(12);
    let copied = desk.bkp(&["copy", "mall"]).expect(0);
    assert!(copied.err.contains("an old password still opens the copy"), "{}", copied.err);
    desk.bkp(&["snapshots", "mall", "--from", "usb"]).expect(0);
    let removed = desk.bkp(&["key", "remove", "mall", &old, "--yes"]).expect(0);
    assert_eq!(steady(&desk, &removed.out, &[&old]), "removed key <key0>: usb\n");
    assert_eq!(keys_of(&desk, &["--copy", "usb"]).len(), 1);
}

#[test]
fn an_added_password_says_which_copy_it_does_not_open_yet() {
    let desk = Desk::backed_up();
    let second = desk.path("second.pw");
    write_secret(&second, "second password\n");
    fs::rename(desk.path("usb"), desk.path("unplugged")).unwrap();
    let added = desk.bkp(&["key", "add", "mall", "--new-password-file", second.to_str().unwrap()]).expect(3);
    assert!(added.out.contains(": repository\n`bkp copy mall` brings it to `usb`"), "{}", added.out);
    fs::rename(desk.path("unplugged"), desk.path("usb")).unwrap();
    desk.bkp(&["copy", "mall"]).expect(0);
    assert_eq!(keys_of(&desk, &["--copy", "usb"]).len(), 2);
}

#[test]
fn a_password_that_a_command_makes_anew_each_time_is_refused() {
    let desk = Desk::ready();
    let from = |verb, command| desk.bkp(&["key", verb, "mall", "--new-password-command", command]);
    let anew = "cat /proc/sys/kernel/random/uuid";
    assert_snapshot!(from("passwd", anew).expect(2).err, @r"
    error: read the new password: command `cat` prints another each time
    hint: keep what it prints first, in a file or a vault, and let the command read it from there
    ");
    from("add", anew).expect(2);
    assert_eq!(keys_of(&desk, &[]).len(), 1);
    from("add", "echo always the same").expect(0);
    assert_eq!(keys_of(&desk, &[]).len(), 2);
}

#[test]
fn a_key_file_that_rots_is_named_beside_the_others() {
    let desk = Desk::ready();
    let second = desk.path("second.pw");
    write_secret(&second, "second password\n");
    let added = desk.bkp(&["key", "add", "mall", "--new-password-file", second.to_str().unwrap(), "--json"]);
    let id = added.expect(0).json()["key"].as_str().unwrap().to_owned();
    flip(&desk.path("repository/keys").join(&id));
    let listed = desk.bkp(&["key", "list", "mall", "--json"]).expect(13);
    assert_eq!(listed.json()["keys"].as_array().unwrap().len(), 1);
    assert_eq!(listed.json()["damaged"][0]["id"], id.as_str());
    assert!(listed.err.contains(&id), "{}", listed.err);
    desk.bkp(&["key", "remove", "mall", &id, "--yes"]).expect(0);
    desk.bkp(&["key", "list", "mall"]).expect(0);
}

/// Gives a command that changes a copy, breaks it off by a signal while the server of the copy puts off a request on keys, and
/// returns how it ended.
fn broken_off(args: &[&str], method: &'static str, signal: &str) -> (Desk, Ended) {
    let (is_armed, is_asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (armed, asked_now) = (is_armed.clone(), is_asked.clone());
    let s3 = S3::start_with_faults(move |asked: &Asked| {
        let is_hit = asked.method() == method && asked.uri().path().contains("/keys/") && armed.load(Ordering::SeqCst);
        asked_now.fetch_or(is_hit, Ordering::SeqCst);
        is_hit.then_some(servers::Fault::Status(503))
    });
    let desk = Desk::ready();
    copy_to(&desk, &s3.endpoint(), S3::BUCKET, "");
    desk.bkp(&["backup", "mall"]).expect(0);
    write_secret(&desk.path("second.pw"), "the second password\n");
    let added = desk.bkp(&["key", "add", "mall", "--new-password-file", &desk.text("second.pw"), "--json"]).expect(0);
    write_secret(&desk.path("new.pw"), "quite another password\n");
    is_armed.store(true, Ordering::SeqCst);
    let named = |arg: &&str| match *arg {
        "ID" => added.json()["key"].as_str().unwrap().to_owned(),
        arg => arg.replace("DIR/", &desk.text("")),
    };
    let args: Vec<String> = args.iter().map(named).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let child = desk.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_asked.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline, "{args:?} did not come to the copy");
        std::thread::sleep(Duration::from_millis(2));
    }
    kill(child.id(), signal);
    let ended = child.wait_with_output().unwrap().into();
    let locks = || fs::read_dir(desk.path("repository/locks")).unwrap().count();
    assert_eq!(locks(), 0, "{args:?}");
    (desk, ended)
}

#[test]
fn a_signal_that_breaks_a_change_of_the_copies_off_has_its_own_code_and_what_was_done_is_told() {
    let add = ["key", "add", "mall", "--new-password-file", "DIR/new.pw", "--json"];
    let remove = ["key", "remove", "mall", "ID", "--yes", "--json"];
    let passwd = ["key", "passwd", "mall", "--new-password-file", "DIR/new.pw", "--json"];
    for (args, method, signal, code) in [
        (&add[..], "PUT", "-TERM", 143),
        (&add[..], "PUT", "-INT", 130),
        (&remove[..], "DELETE", "-TERM", 143),
        (&passwd[..], "DELETE", "-TERM", 143),
    ] {
        let (_desk, ended) = broken_off(args, method, signal);
        let ended = ended.expect(code);
        let json = ended.json();
        assert_eq!((&json["done"], &json["failed"]), (&json!(["repository"]), &json!(["usb"])), "{args:?} {json}");
        assert_eq!(json["exit"], code, "{args:?}");
        assert!(ended.err.contains("error: usb: "), "{ended:?}");
    }
    let (desk, ended) =
        broken_off(&["kit", "export", "DIR/kit", "mall", "--passphrase-file", "DIR/new.pw"], "PUT", "-TERM");
    ended.expect(143);
    assert!(!desk.path("kit/kit.json").exists(), "a kit of which a copy has no key was made");
}

/// Counts the questions for the second time.
fn seen_again(screen: &[u8]) -> usize {
    String::from_utf8_lossy(screen).matches("again: ").count()
}

#[test]
fn a_new_password_is_typed_twice_and_never_shown() {
    let desk = Desk::ready();
    // `script` gives the program a terminal, and each answer is typed once it has asked.
    let typed = |answers: &[&str]| -> Ended {
        let line = format!("{BKP} key add mall --policies {}", desk.text("policies"));
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut seen = Vec::new();
        for (nth, answer) in answers.iter().enumerate() {
            let mut byte = [0];
            while String::from_utf8_lossy(&seen).matches("password: ").count() + seen_again(&seen) <= nth {
                screen.read_exact(&mut byte).unwrap();
                seen.push(byte[0]);
            }
            keyboard.write_all(answer.as_bytes()).unwrap();
        }
        screen.read_to_end(&mut seen).unwrap();
        let ended: Ended = child.wait_with_output().unwrap().into();
        Ended { out: String::from_utf8(seen).unwrap(), ..ended }
    };
    let added = typed(&["typed pÄss\u{7f}\u{7f}\u{7f}assword\r", "typed password\r"]).expect(0);
    let screen = added.out;
    assert!(screen.contains("Type new password: ") && screen.contains("added key"), "{screen}");
    assert!(!screen.contains("typed p"), "{screen}");
    let differing = typed(&["one password\r", "another password\r"]).expect(2);
    assert!(differing.out.contains("the two do not agree"), "{}", differing.out);
    let broken_off = typed(&["half a pass\u{3}"]).expect(130);
    assert!(!broken_off.out.contains("added"), "{}", broken_off.out);
    assert_eq!(keys_of(&desk, &[]).len(), 2);
    write_secret(&desk.path("mall.key"), "typed password\n");
    desk.bkp(&["snapshots", "mall"]).expect(0);
    // Nobody at a terminal is asked nothing.
    let refused = desk.bkp(&["key", "add", "mall"]).expect(2);
    assert!(refused.err.contains("give it with `--new-password-file FILE`"), "{}", refused.err);
}

#[test]
#[ignore = "needs root; scripts/test runs it"]
fn the_process_stays_out_of_core_dumps_and_out_of_reach_of_its_users_other_processes() {
    const NOBODY: u32 = 65_534;
    // Where a process may be dumped, /proc gives it to its user, and else to root.
    let dir = tempfile::tempdir().unwrap();
    let (copy, policies) = (dir.path().join("bkp"), dir.path().join("policies"));
    fs::copy(BKP, &copy).unwrap();
    fs::create_dir(&policies).unwrap();
    fs::copy(Desk::new().path("policies/mall.toml"), policies.join("mall.toml")).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let owner = |mut command: Command| {
        let mut child = command.uid(NOBODY).stdout(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut owner = NOBODY;
        while owner == NOBODY && Instant::now() < deadline {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            owner = fs::metadata(format!("/proc/{}/mem", child.id())).unwrap().uid();
            if command.get_program() == "sleep" {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        owner
    };
    let mut sleep = Command::new("sleep");
    sleep.arg("20");
    let mut bkp = Command::new(&copy);
    bkp.args(["key", "add", "mall", "--new-password-command", "sleep 20", "--policies"]).arg(&policies);
    assert_eq!(owner(sleep), NOBODY, "no process could be told from another");
    assert_eq!(owner(bkp), 0);
}
