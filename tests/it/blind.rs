//! A copy with credentials that may put and nothing else: what is there is known from a record, and nothing is sent twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bkp::copy::{Copied, CopyError, Ledger, Terms, copy_under};
use bkp::policy::{Access, Network, S3Place};
use bkp::repository::Repository;
use bkp::run::Run;
use bkp::store::faulty::{Faulty, Operation};
use bkp::store::s3::{Line, S3Store};
use bkp::store::{FileKind, Key, SharedStore};

use crate::cli::desk::Desk;
use crate::copy::{memory, repository, save};
use crate::immutable::copy_to;
use crate::s3;
use crate::servers::{Asked, Fault, S3};

/// What a server was asked for by the key that may only write: method and path, and whether it was let through.
type Log = Arc<Mutex<Vec<(String, String, bool)>>>;

/// Starts a server that lets one key put and nothing else, and the other do anything.
fn guarded(more: impl Fn(&str, usize) -> Option<Fault> + Send + Sync + 'static) -> (S3, Log) {
    let log = Log::default();
    let (heard, puts) = (log.clone(), Mutex::new(0));
    let s3 = S3::start_with_faults(move |asked: &Asked| {
        let signed = asked.headers().get("authorization").unwrap().to_str().unwrap();
        let (method, path) = (asked.method().to_string(), asked.uri().path().to_owned());
        if signed.contains(S3::READER_KEY) {
            return None;
        }
        let fault = match method.as_str() {
            "PUT" if asked.uri().query().is_none_or(|query| query.starts_with("x-id")) => {
                let mut puts = puts.lock().unwrap();
                *puts += 1;
                more(&path, *puts)
            }
            _ => Some(Fault::Status(403)),
        };
        heard.lock().unwrap().push((method, path, fault.is_none()));
        fault
    });
    (s3, log)
}

fn all(_: &str, _: usize) -> Option<Fault> {
    None
}

/// Returns how often each object was put with success, and starts a new log.
fn puts(log: &Log) -> BTreeMap<String, u32> {
    let mut puts = BTreeMap::new();
    for (method, path, is_through) in log.lock().unwrap().drain(..) {
        assert_eq!(method, "PUT", "{path}");
        *puts.entry(path).or_default() += u32::from(is_through);
    }
    puts
}

async fn target(s3: &S3) -> SharedStore {
    let place = S3Place { access: Access::WriteOnly, ..s3::place(s3) };
    let run = Run::silent();
    Arc::new(S3Store::open(&place, Some(s3::credentials()), &Network::default(), Line::default(), &run).await.unwrap())
}

async fn copied(from: &Repository, s3: &S3, dir: &Path) -> Copied {
    let to = target(s3).await;
    let ledger = Ledger::open(&dir.join("there.sent"), from.id(), &to.location()).unwrap();
    let terms = Terms { ledger: Some(&ledger), is_blind: true, ..Terms::plain(3) };
    copy_under(&terms, from, &to, &Run::silent()).await.unwrap()
}

async fn three_snapshots() -> Arc<Repository> {
    let from = repository(memory()).await;
    for seed in 1..=3 {
        save(&from, seed, &[]).await;
    }
    from
}

async fn assert_same(from: &Repository, s3: &S3) {
    for kind in [FileKind::Config, FileKind::Key, FileKind::Pack, FileKind::Index, FileKind::Snapshot] {
        for listed in from.store().list(kind).await.unwrap() {
            let key = Key::new(kind, listed.name);
            let there = std::fs::read(s3.objects().join("dr/mall").join(key.path())).unwrap();
            assert_eq!(there, from.store().get(&key).await.unwrap(), "{key}");
        }
    }
}

#[tokio::test]
async fn puts_alone_make_a_whole_copy_and_the_next_sends_only_what_is_new() {
    let ((s3, log), dir) = (guarded(all), tempfile::tempdir().unwrap());
    let from = three_snapshots().await;
    let first = copied(&from, &s3, dir.path()).await;
    assert!(first.is_complete() && first.snapshots.len() == 3, "{first:?}");
    let sent = puts(&log);
    assert_eq!(sent.len(), 14, "no lock is put, for it could not be taken back: {sent:?}");
    assert!(sent.values().all(|count| *count == 1));
    assert_same(&from, &s3).await;

    assert!(copied(&from, &s3, dir.path()).await.is_complete());
    assert_eq!(puts(&log).len(), 0);
    save(&from, 4, &[]).await;
    let one = copied(&from, &s3, dir.path()).await;
    assert_eq!((one.packs, one.indexes, one.snapshots.len(), puts(&log).len()), (2, 1, 1, 4));
    assert_same(&from, &s3).await;
}

#[tokio::test]
async fn without_its_record_everything_is_sent_again() {
    let ((s3, log), dir) = (guarded(all), tempfile::tempdir().unwrap());
    let from = three_snapshots().await;
    copied(&from, &s3, dir.path()).await;
    puts(&log);
    std::fs::remove_file(dir.path().join("there.sent")).unwrap();
    assert!(copied(&from, &s3, dir.path()).await.is_complete());
    assert_eq!(puts(&log).len(), 14);
    assert_same(&from, &s3).await;
}

#[tokio::test]
async fn a_copy_that_is_cut_at_any_put_goes_on_and_sends_nothing_twice() {
    let from = three_snapshots().await;
    for nth in 1..=14 {
        let fails_from = move |_: &str, puts: usize| (nth..nth + 20).contains(&puts).then_some(Fault::Status(403));
        let ((s3, log), dir) = (guarded(fails_from), tempfile::tempdir().unwrap());
        let cut = copied(&from, &s3, dir.path()).await;
        assert!(!cut.is_complete(), "cut at {nth}");
        // What the fault still holds is used up.
        while !copied(&from, &s3, dir.path()).await.is_complete() {}
        let sent = puts(&log);
        assert_eq!(sent.len(), 14, "cut at {nth}");
        assert!(sent.values().all(|count| *count == 1), "cut at {nth}: {sent:?}");
        assert_same(&from, &s3).await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_confirm_the_bytes_is_not_believed() {
    // It takes all and answers with nothing but its status.
    let (s3, dir) = (S3::start_with_faults(|_| Some(Fault::Status(200))), tempfile::tempdir().unwrap());
    let failed = copied(&*three_snapshots().await, &s3, dir.path()).await;
    assert!(failed.snapshots.is_empty() && !failed.is_complete());
    let (_, error) = &failed.failed[0];
    assert!(bkp::human::chain(error).contains("does not confirm the SHA-256"), "{error:?}");
}

#[tokio::test]
async fn a_record_that_cannot_be_written_ends_the_copy() {
    let (from, dir) = (three_snapshots().await, tempfile::tempdir().unwrap());
    let faulty = Arc::new(Faulty::new(memory()));
    let to: SharedStore = faulty.clone();
    let ledger = Ledger::look(&dir.path().join("there.sent"), from.id(), "there").unwrap();
    let terms = Terms { ledger: Some(&ledger), is_blind: true, ..Terms::plain(3) };
    let ended = copy_under(&terms, &from, &to, &Run::silent()).await.unwrap_err();
    assert!(matches!(ended, CopyError::Ledger(_)), "{ended:?}");
    let puts = faulty.count(Operation::Put);
    assert!((1..=3).contains(&puts), "no more than were on their way: {puts}");
}

const WRITE_ONLY: &str = "prefix = \"mall\"\naccess = \"write-only\"\n";

fn reader(desk: &Desk) -> String {
    let secret = desk.text("s3.key");
    format!("[copy.s3.reader]\naccess_key_id = \"{}\"\nsecret_access_key_file = \"{secret}\"\n", S3::READER_KEY)
}

#[test]
fn reading_needs_a_readers_key_and_the_program_says_so() {
    let ((s3, _log), desk) = (guarded(all), Desk::ready());
    copy_to(&desk, &s3.endpoint(), S3::BUCKET, WRITE_ONLY);
    desk.bkp(&["backup", "mall"]).expect(0);
    for args in [
        &["verify", "mall", "--copy", "usb"][..],
        &["restore", "mall", "--from", "usb", "--to-dir", &desk.text("back"), "--yes"],
        &["prune", "mall", "--copy", "usb"],
        &["forget", "mall", "--copy", "usb"],
        &["drill", "mall", "--from", "usb"],
    ] {
        let ended = desk.bkp(args).expect(12);
        assert!(ended.err.contains("open copy `usb`: the policy's credentials for it may only write"), "{ended:?}");
        assert!(ended.err.contains("hint: add [copy.s3.reader] with a key that has s3:GetObject"), "{ended:?}");
    }
    let doctor = desk.bkp(&["doctor", "mall"]).expect(0);
    assert!(doctor.out.contains("warning copy usb: can be reached: s3://bkp/mall: write-only"), "{doctor:?}");
    assert_eq!(desk.bkp(&["copy", "mall", "--dry-run", "--json"]).expect(0).json()["copies"][0]["objects"], 0);
}

#[test]
fn a_kit_counts_on_the_next_copy_where_this_machine_may_only_write() {
    let ((s3, log), desk) = (guarded(all), Desk::ready());
    copy_to(&desk, &s3.endpoint(), S3::BUCKET, WRITE_ONLY);
    desk.bkp(&["backup", "mall"]).expect(0);
    puts(&log);
    let (kit, passphrase) = (desk.text("kit"), desk.path("kit.pw"));
    std::fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    std::fs::set_permissions(&passphrase, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let args = ["kit", "export", &kit, "mall", "--passphrase-file", passphrase.to_str().unwrap()];
    let exported = desk.bkp(&args).expect(0);
    assert!(exported.err.contains("the next `bkp copy` brings the kit's key there"), "{exported:?}");
    let runbook = std::fs::read_to_string(desk.path("kit/RUNBOOK.md")).unwrap();
    assert!(runbook.contains("could not see whether the copy has this kit's key"), "{runbook}");
    assert!(runbook.contains("printf 'access key: '"), "the key that may read is not known: {runbook}");
    let key = bkp::id::ObjectId::of(&std::fs::read(desk.path("kit/keys/mall.key")).unwrap());
    desk.bkp(&["copy", "mall"]).expect(0);
    let sent = puts(&log);
    assert!(sent.keys().any(|path| path.ends_with(&format!("/keys/{key}"))), "{sent:?}");
}

#[test]
fn with_a_readers_key_a_copy_is_verified_and_restored_and_what_it_lost_is_sent_again() {
    let ((s3, log), desk) = (guarded(all), Desk::ready());
    copy_to(&desk, &s3.endpoint(), S3::BUCKET, &format!("{WRITE_ONLY}{}", reader(&desk)));
    desk.bkp(&["backup", "mall"]).expect(0);
    desk.bkp(&["verify", "mall", "--copy", "usb", "--level", "data"]).expect(0);
    desk.bkp(&["restore", "mall", "--from", "usb", "--to-dir", &desk.text("back"), "--yes"]).expect(0);
    assert_eq!(crate::world::files(&desk.path("back")), crate::world::files(&desk.path("images")));
    puts(&log);

    // A prune from elsewhere, which this machine knows nothing of.
    let packs = s3.objects().join("mall/data");
    std::fs::remove_dir_all(&packs).unwrap();
    desk.bkp(&["copy", "mall"]).expect(0);
    assert!(puts(&log).is_empty() && !packs.exists(), "the record believes in what is gone");
    desk.bkp(&["verify", "mall", "--copy", "usb"]).expect(13);
    desk.bkp(&["copy", "mall"]).expect(0);
    assert!(puts(&log).keys().all(|path| path.contains("/data/")), "only what was lost");
    desk.bkp(&["verify", "mall", "--copy", "usb", "--level", "data"]).expect(0);
}

#[test]
fn a_copy_that_moves_to_another_server_is_not_believed_to_be_there_already() {
    let ((one, ones), (other, others), desk) = (guarded(all), guarded(all), Desk::ready());
    copy_to(&desk, &one.endpoint(), S3::BUCKET, WRITE_ONLY);
    desk.bkp(&["backup", "mall"]).expect(0);
    let (sent, record) = (puts(&ones), desk.path("state/copies/usb.sent"));
    let known = std::fs::read(&record).unwrap();
    let entries = || std::fs::read_dir(desk.path("state/copies")).unwrap().map(|entry| entry.unwrap().path());
    let count = entries().count();

    desk.change_policy(&one.endpoint(), &other.endpoint());
    let plan = desk.bkp(&["copy", "mall", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(plan["copies"][0]["objects"], sent.len());
    assert_eq!(std::fs::read(&record).unwrap(), known, "a dry run leaves the record as it is");
    assert_eq!(entries().count(), count);
    desk.bkp(&["copy", "mall"]).expect(0);
    assert_eq!(puts(&others), sent);
    assert_eq!(objects(&other), objects(&one));

    // What the other record knew was moved aside, and holds again with the old server.
    let aside: Vec<_> = entries().filter(|path| std::fs::read(path).unwrap() == known).collect();
    assert_eq!(aside.len(), 1);
    std::fs::rename(&aside[0], &record).unwrap();
    desk.change_policy(&other.endpoint(), &one.endpoint());
    desk.bkp(&["copy", "mall"]).expect(0);
    assert!(puts(&ones).is_empty());
}

/// Returns the paths of a copy's objects.
fn objects(s3: &S3) -> BTreeSet<String> {
    let files = crate::world::files(&s3.objects().join("mall")).into_keys();
    files.map(|path| path.to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_verify_looks_for_all_that_was_sent_also_for_what_no_snapshot_there_needs() {
    let ((s3, log), desk) = (guarded(all), Desk::ready());
    copy_to(&desk, &s3.endpoint(), S3::BUCKET, &format!("{WRITE_ONLY}{}", reader(&desk)));
    desk.bkp(&["backup", "mall"]).expect(0);
    let first = objects(&s3);
    desk.write("images/shop0001/1.jpg", &crate::world::noise(77, 30_000));
    desk.bkp(&["backup", "mall"]).expect(0);
    let second: BTreeSet<_> = objects(&s3).difference(&first).cloned().collect();
    puts(&log);
    for lost in
        [&["snapshots/"][..], &["snapshots/", "data/"], &["snapshots/", "data/", "index/"], &["data/", "index/"]]
    {
        let lost: BTreeSet<_> =
            second.iter().filter(|path| lost.iter().any(|dir| path.starts_with(dir))).cloned().collect();
        for path in &lost {
            std::fs::remove_file(s3.objects().join("mall").join(path)).unwrap();
        }
        let verified = desk.bkp(&["verify", "mall", "--copy", "usb"]);
        let told = format!("copy `usb` lacks {} object(s) that were sent to it", lost.len());
        assert!(!lost.is_empty() && verified.err.contains(&told), "{lost:?} {verified:?}");
        desk.bkp(&["copy", "mall"]).expect(0);
        let prefix = format!("/{}/mall/", S3::BUCKET);
        let sent: BTreeSet<_> = puts(&log).into_keys().map(|path| path.replace(&prefix, "")).collect();
        assert_eq!(sent, lost);
        let whole = desk.bkp(&["verify", "mall", "--copy", "usb", "--level", "data"]).expect(0);
        assert!(!whole.err.contains("lacks"), "{whole:?}");
    }
}

#[test]
fn what_a_prune_from_here_deletes_is_struck_off_the_record() {
    let ((s3, log), desk) = (guarded(all), Desk::ready());
    copy_to(&desk, &s3.endpoint(), S3::BUCKET, &format!("{WRITE_ONLY}{}", reader(&desk)));
    desk.bkp(&["backup", "mall"]).expect(0);
    let record = || std::fs::read_to_string(desk.path("state/copies/usb.sent")).unwrap();
    let first = desk.snapshots()[0]["id"].as_str().unwrap().to_owned();
    desk.write("images/shop0001/1.jpg", &crate::world::noise(77, 30_000));
    desk.change_policy("last = 9", "last = 1");
    desk.bkp(&["backup", "mall"]).expect(0);
    assert!(record().contains(&first));
    desk.bkp(&["forget", "mall", "--copy", "usb"]).expect(0);
    desk.bkp(&["copy", "mall"]).expect(0);
    let last = record().lines().rfind(|line| line.contains(&first)).map(str::to_owned);
    assert_eq!(last, Some(format!("snapshots/{first}\t-")), "struck off, and not sent again");
    desk.bkp(&["prune", "mall", "--max-unused", "0"]).expect(0);
    desk.bkp(&["copy", "mall"]).expect(0);
    puts(&log);
    let before = objects(&s3);
    desk.bkp(&["prune", "mall", "--copy", "usb", "--max-unused", "0"]).expect(0);
    let gone: Vec<_> = before.difference(&objects(&s3)).cloned().collect();
    assert!(gone.iter().any(|path| path.starts_with("data/")), "{gone:?}");
    for path in gone {
        let last = record().lines().rfind(|line| line.contains(&path)).map(str::to_owned);
        assert_eq!(last, Some(format!("{path}\t-")));
    }
    desk.bkp(&["copy", "mall"]).expect(0);
    desk.bkp(&["verify", "mall", "--copy", "usb", "--level", "data"]).expect(0);
}

#[test]
fn what_a_heal_gives_up_in_a_copy_is_struck_off_the_record() {
    let ((s3, _log), desk) = (guarded(all), Desk::ready());
    copy_to(&desk, &s3.endpoint(), S3::BUCKET, &format!("{WRITE_ONLY}{}", reader(&desk)));
    desk.bkp(&["backup", "mall"]).expect(0);
    let before = objects(&s3);
    desk.rot();
    // No store has it whole.
    for path in before.iter().filter(|path| path.starts_with("data/")) {
        std::fs::copy(desk.path("repository").join(path), s3.objects().join("mall").join(path)).unwrap();
    }
    desk.bkp(&["verify", "mall", "--level", "data", "--heal", "--salvage", "--copy", "usb"]).expect(13);
    let after = objects(&s3);
    let gone: BTreeSet<_> = before.difference(&after).cloned().collect();
    assert!(gone.iter().any(|path| path.starts_with("index/")), "{gone:?}");
    let record = std::fs::read_to_string(desk.path("state/copies/usb.sent")).unwrap();
    let struck: BTreeSet<_> = record.lines().filter_map(|line| line.strip_suffix("\t-")?.split('\t').next()).collect();
    assert!(gone.iter().all(|path| struck.contains(path.as_str())), "{gone:?} {record}");
}

/// Returns the keys that a record says are there.
fn keys_in(record: &Path) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for line in std::fs::read_to_string(record).unwrap().lines().filter(|line| line.starts_with("keys/")) {
        let (path, rest) = line.split_once('\t').unwrap();
        if rest == "-" {
            keys.remove(path)
        } else {
            keys.insert(path.to_owned())
        };
    }
    keys
}

#[test]
fn a_key_that_comes_or_goes_is_noted_or_struck_off_the_record() {
    let ((s3, log), desk) = (guarded(all), Desk::ready());
    copy_to(&desk, &s3.endpoint(), S3::BUCKET, &format!("{WRITE_ONLY}{}", reader(&desk)));
    desk.bkp(&["backup", "mall"]).expect(0);
    puts(&log);
    let agree = |count: usize| {
        let there: BTreeSet<_> = objects(&s3).into_iter().filter(|path| path.starts_with("keys/")).collect();
        assert_eq!((there.len(), keys_in(&desk.path("state/copies/usb.sent"))), (count, there));
        desk.bkp(&["copy", "mall"]).expect(0);
        assert_eq!(puts(&log).len(), 0, "what is there was sent again");
        let verified = desk.bkp(&["verify", "mall", "--copy", "usb"]).expect(0);
        assert!(!verified.err.contains("lacks"), "{verified:?}");
    };
    agree(1);
    let (second, third) = (desk.text("second.pw"), desk.text("third.pw"));
    for (file, password) in [(&second, "the second password\n"), (&third, "the third password\n")] {
        std::fs::write(file, password).unwrap();
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let added = desk.bkp(&["key", "add", "mall", "--new-password-file", &second, "--json"]).expect(0).json();
    agree(2);
    let id = added["key"].as_str().unwrap();
    let record = std::fs::read(desk.path("state/copies/usb.sent")).unwrap();
    desk.bkp(&["key", "remove", "mall", id, "--dry-run"]).expect(0);
    assert_eq!(std::fs::read(desk.path("state/copies/usb.sent")).unwrap(), record, "a dry run changed the record");
    desk.bkp(&["key", "remove", "mall", id, "--yes"]).expect(0);
    agree(1);
    desk.bkp(&["key", "passwd", "mall", "--new-password-file", &third]).expect(0);
    std::fs::copy(&third, desk.path("mall.key")).unwrap();
    agree(1);
    desk.bkp(&["kit", "export", &desk.text("kit"), "mall", "--passphrase-file", &second]).expect(0);
    agree(2);
}

// -------------------------------------------------------------------------------------------------- README's IAM policies

/// What an IAM policy allows: actions, and on what.
type Allowed = Vec<(BTreeSet<String>, String)>;

/// Reads the IAM policies of README: the writer's and the reader's.
fn readmes_iam_policies() -> [Allowed; 2] {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let blocks = readme.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let policies = blocks.filter(|block| block.contains("\"2012-10-17\"")).map(|block| {
        let policy: serde_json::Value = serde_json::from_str(block).unwrap();
        let statements = policy["Statement"].as_array().unwrap().iter().map(|statement| {
            assert_eq!(statement["Effect"], "Allow");
            let actions = statement["Action"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned());
            (actions.collect(), statement["Resource"].as_str().unwrap().to_owned())
        });
        statements.collect()
    });
    policies.collect::<Vec<Allowed>>().try_into().unwrap()
}

fn is_allowed(allowed: &Allowed, action: &str, on: &str) -> bool {
    allowed.iter().any(|(actions, resource)| {
        let is_meant = resource.strip_suffix('*').map_or(on == resource, |begin| on.starts_with(begin));
        actions.contains(action) && is_meant
    })
}

/// Returns the rights that AWS wants for a request, and the thing on which; the bucket is README's.
fn rights(asked: &Asked) -> (Vec<&'static str>, String) {
    let (path, query) = (asked.uri().path(), asked.uri().query().unwrap_or_default());
    let below = path.strip_prefix(&format!("/{}", S3::BUCKET)).unwrap().trim_end_matches('/');
    let has = |parameter: &str| query.split('&').any(|it| it.split('=').next() == Some(parameter));
    let is_locking = asked.headers().contains_key("x-amz-object-lock-mode");
    let actions = match (asked.method().as_str(), below.is_empty()) {
        ("GET", true) if has("object-lock") => vec!["s3:GetBucketObjectLockConfiguration"],
        ("GET", true) if has("list-type") => vec!["s3:ListBucket"],
        ("GET", false) if has("retention") => vec!["s3:GetObjectRetention"],
        ("GET", false) => vec!["s3:GetObject"],
        // Without the second the answer does not show the lock.
        ("HEAD", false) => vec!["s3:GetObject", "s3:GetObjectRetention"],
        ("PUT", false) if has("retention") => vec!["s3:PutObjectRetention"],
        ("PUT", false) if is_locking => vec!["s3:PutObject", "s3:PutObjectRetention"],
        ("PUT", false) => vec!["s3:PutObject"],
        ("DELETE", false) if has("versionId") => vec!["s3:DeleteObjectVersion"],
        ("DELETE", false) => vec!["s3:DeleteObject"],
        other => panic!("{other:?} {path}?{query}"),
    };
    (actions, format!("arn:aws:s3:::mall-dr{below}"))
}

/// What was asked for by each key: rights that it has, and rights with their things that it has not.
#[derive(Default)]
struct Heard {
    used: [BTreeSet<String>; 2],
    refused: [BTreeSet<String>; 2],
}

#[test]
fn readmes_iam_policies_give_a_writer_and_a_reader_what_they_use_and_no_more() {
    let allowed = readmes_iam_policies();
    let granted = allowed
        .clone()
        .map(|allowed| allowed.into_iter().flat_map(|(actions, _)| actions).collect::<BTreeSet<String>>());
    let heard = Arc::new(Mutex::new(Heard::default()));
    let hears = heard.clone();
    let s3 = S3::start_with_faults(move |asked: &Asked| {
        let signed = asked.headers().get("authorization").unwrap().to_str().unwrap();
        let who = usize::from(signed.contains(S3::READER_KEY));
        let (actions, on) = rights(asked);
        let mut heard = hears.lock().unwrap();
        if let Some(lacking) = actions.iter().find(|action| !is_allowed(&allowed[who], action, &on)) {
            let thing = on.rsplit('/').nth(1).unwrap();
            heard.refused[who].insert(format!("{lacking} {thing}"));
            return Some(Fault::Status(403));
        }
        heard.used[who].extend(actions.iter().map(|&action| action.to_owned()));
        // The server knows no locks: it says that it has set one, and that there is none.
        match (asked.method().as_str(), actions[0]) {
            ("PUT", "s3:PutObjectRetention") => Some(Fault::Status(200)),
            ("GET", "s3:GetBucketObjectLockConfiguration") => Some(Fault::Status(404)),
            _ => None,
        }
    });
    let desk = Desk::ready();
    let lock = "object_lock = { mode = \"governance\", retain = \"30d\" }\n";
    let more = format!("prefix = \"bkp\"\naccess = \"write-only\"\n{lock}{}", reader(&desk));
    copy_to(&desk, &s3.endpoint(), S3::BUCKET, &more);
    desk.bkp(&["backup", "mall"]).expect(0);
    desk.bkp(&["copy", "mall"]).expect(0);
    // It finds no lock on what it has put with one.
    desk.bkp(&["doctor", "mall"]).expect(1);
    desk.bkp(&["verify", "mall", "--copy", "usb", "--level", "data"]).expect(0);
    desk.bkp(&["snapshots", "mall", "--from", "usb"]).expect(0);
    desk.bkp(&["restore", "mall", "--from", "usb", "--to-dir", &desk.text("back"), "--yes", "--verify"]).expect(0);
    desk.bkp(&["drill", "mall", "--from", "usb"]).expect(0);

    let Heard { used, refused } = &*heard.lock().unwrap();
    assert_eq!(*used, granted);
    // Who reads tries to keep prunes away meanwhile, and goes on without.
    assert_eq!(*refused, [BTreeSet::new(), BTreeSet::from(["s3:PutObject locks".to_owned()])]);
}
