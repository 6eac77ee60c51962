//! Object stores and lines that fail in mid-work: throttling, resets, bodies cut and stalled, answers that lie, slow lines. A run
//! succeeds or says why it did not, nothing is lost, nothing is sent twice, and the next run ends what the first began.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bkp::place;
use bkp::policy::Network;
use bkp::policy::Policy;
use bkp::repository::{BlobKind, LockMode, Repository};
use bkp::run::Run;
use bkp::store::retry::{Backoff, Retry};
use bkp::store::s3::{Line, S3Store};
use bkp::store::{FileKind, Key, SharedStore, StoreError};
use bkp::verify::{Level, Options, verify};
use tokio_util::sync::CancellationToken;

use crate::cli::desk::Desk;
use crate::copy::{memory, password, repository, save};
use crate::immutable::copy_to;
use crate::restic::VERSIONS;
use crate::s3;
use crate::servers::{Asked, Fault, S3, program};
use crate::world::{Ended, files};

/// Which requests of a run fail, how, and how often; and what came of all of them.
#[derive(Default)]
struct Script {
    method: &'static str,
    path: &'static str,
    fault: Option<Fault>,
    left: usize,
    fired: usize,
    /// Puts that reached the store, by their path.
    puts: BTreeMap<String, u32>,
}

type Shared = Arc<Mutex<Script>>;

/// A server that follows a script.
fn scripted() -> (S3, Shared) {
    let script = Shared::default();
    let followed = script.clone();
    let s3 = S3::start_with_faults(move |asked: &Asked| {
        let mut script = followed.lock().unwrap();
        let (method, path) = (asked.method().as_str(), asked.uri().path().to_owned());
        let is_meant = script.left > 0 && method == script.method && path.contains(script.path);
        let fault = script.fault.filter(|_| is_meant);
        if fault.is_some() {
            script.left -= 1;
            script.fired += 1;
        }
        if method == "PUT" && matches!(fault, None | Some(Fault::Delay(_))) {
            *script.puts.entry(path).or_default() += 1;
        }
        fault
    });
    (s3, script)
}

/// Lets the next requests of a kind fail.
fn plan(script: &Shared, method: &'static str, path: &'static str, fault: Fault, times: usize) {
    let mut script = script.lock().unwrap();
    *script = Script { method, path, fault: Some(fault), left: times, ..Script::default() };
}

/// Proves that each planned fault came, and returns how often each object was put.
#[track_caller]
fn end(script: &Shared, times: usize) -> BTreeMap<String, u32> {
    let mut script = script.lock().unwrap();
    assert_eq!((script.fired, script.left), (times, 0), "faults that came, and that are left");
    std::mem::take(&mut script.puts)
}

/// A desk whose copy lies on a server that follows a script, with one backup that was not yet copied.
fn desk() -> (Desk, S3, Shared) {
    let (s3, script) = scripted();
    let desk = Desk::ready();
    copy_to(&desk, &s3.endpoint(), S3::BUCKET, "prefix = \"mall\"");
    desk.bkp(&["backup", "mall", "--no-copy"]).expect(0);
    (desk, s3, script)
}

/// Runs the real restic over the copy.
fn restic_check(desk: &Desk, s3: &S3) {
    restic_check_at(desk, &format!("{}/{}/mall", s3.endpoint(), S3::BUCKET));
}

/// Runs the real restic over a repository in a bucket.
pub(crate) fn restic_check_at(desk: &Desk, place: &str) {
    for version in VERSIONS {
        let ended: Ended = Command::new(program(version))
            .args(["-r", &format!("s3:{place}"), "--no-cache"])
            .args(["check", "--read-data", "--password-file", &desk.text("mall.key")])
            .env("AWS_ACCESS_KEY_ID", S3::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", S3::SECRET_KEY)
            .env_remove("AWS_CA_BUNDLE")
            .output()
            .unwrap()
            .into();
        let ended = ended.expect(0);
        assert!(ended.out.contains("no errors were found"), "{ended:?}");
    }
}

#[test]
#[ignore = "needs restic; scripts/test runs it"]
fn a_copy_outlives_what_a_line_does_to_it_and_sends_nothing_twice() {
    for (fault, times) in [
        (Fault::Status(503), 3),
        (Fault::Status(500), 2),
        (Fault::Busy(1), 1),
        (Fault::Disconnect, 2),
        (Fault::CutUpload, 2),
        (Fault::CutAnswer, 1),
    ] {
        let (desk, s3, script) = desk();
        plan(&script, "PUT", "/data/", fault, times);
        desk.bkp(&["copy", "mall"]).expect(0);
        let puts = end(&script, times);
        let sent = puts.len();
        // An answer that was cut came after the object: it may be put again, and only it.
        let twice = puts.values().filter(|count| **count > 1).count();
        assert!(twice == 0 && puts.keys().any(|path| path.contains("/snapshots/")), "{fault:?}: {puts:?}");
        desk.bkp(&["copy", "mall"]).expect(0);
        let again = end(&script, times);
        assert!(again.is_empty() && sent >= 5, "{fault:?}: {again:?}");
        desk.bkp(&["verify", "mall", "--copy", "usb", "--level", "data"]).expect(0);
        restic_check(&desk, &s3);
    }
}

#[test]
#[ignore = "needs restic; scripts/test runs it"]
fn a_store_that_lies_is_found_out_and_the_next_copy_makes_it_good() {
    for kind in ["/data/", "/index/", "/snapshots/", "/keys/"] {
        let (desk, s3, script) = desk();
        plan(&script, "PUT", kind, Fault::Lie, 1);
        let ended = desk.bkp(&["copy", "mall"]).expect(3);
        assert!(ended.err.contains("it was put, and the target does not list it"), "{kind}: {ended:?}");
        let first = end(&script, 1);
        desk.bkp(&["copy", "mall"]).expect(0);
        let second = end(&script, 1);
        assert!(
            first.keys().all(|path| !second.contains_key(path) || path.contains("/locks/")),
            "{first:?} {second:?}"
        );
        desk.bkp(&["verify", "mall", "--copy", "usb", "--level", "data"]).expect(0);
        restic_check(&desk, &s3);
    }
}

#[test]
fn a_line_of_200_ms_is_slow_and_nothing_else() {
    let (desk, _s3, script) = desk();
    plan(&script, "PUT", "", Fault::Delay(Duration::from_millis(200)), 5);
    desk.bkp(&["copy", "mall"]).expect(0);
    assert!(end(&script, 5).values().all(|count| *count == 1));
    plan(&script, "GET", "/data/", Fault::Delay(Duration::from_millis(200)), 2);
    desk.bkp(&["verify", "mall", "--copy", "usb", "--level", "data"]).expect(0);
    end(&script, 2);
}

#[test]
fn a_restore_from_a_copy_outlives_what_a_line_does_to_it() {
    for (fault, times) in [
        (Fault::Status(503), 3),
        (Fault::Busy(1), 1),
        (Fault::Disconnect, 2),
        (Fault::CutAnswer, 3),
        (Fault::Delay(Duration::from_millis(200)), 2),
    ] {
        for kind in ["/data/", "/index/", "/snapshots/"] {
            let (desk, _s3, script) = desk();
            desk.bkp(&["copy", "mall"]).expect(0);
            std::fs::remove_dir_all(desk.path("repository")).unwrap();
            let times = if kind == "/data/" { times } else { 1 };
            plan(&script, "GET", kind, fault, times);
            desk.bkp(&["restore", "mall", "--from", "usb", "--to-dir", &desk.text("back"), "--yes"]).expect(0);
            end(&script, times);
            assert_eq!(files(&desk.path("back")), files(&desk.path("images")), "{fault:?} {kind}");
        }
    }
}

#[test]
#[ignore = "needs restic; scripts/test runs it"]
fn a_prune_of_a_copy_outlives_what_a_line_does_to_it() {
    for (method, path, fault, times) in [
        ("DELETE", "/data/", Fault::Status(503), 2),
        ("DELETE", "/index/", Fault::Disconnect, 1),
        ("HEAD", "/data/", Fault::Status(500), 1),
        ("PUT", "/locks/", Fault::Disconnect, 1),
        ("GET", "/index/", Fault::CutAnswer, 1),
    ] {
        let (desk, s3, script) = desk();
        desk.bkp(&["copy", "mall"]).expect(0);
        for n in 1..=3 {
            desk.write(&format!("images/shop0001/{n}.jpg"), &crate::world::noise(90 + n, 20_000));
        }
        desk.change_policy("last = 9", "last = 1");
        desk.bkp(&["backup", "mall"]).expect(0);
        desk.bkp(&["prune", "mall", "--max-unused", "0"]).expect(0);
        desk.bkp(&["copy", "mall"]).expect(0);
        desk.bkp(&["forget", "mall", "--copy", "usb"]).expect(0);
        plan(&script, method, path, fault, times);
        let pruned = desk.bkp(&["prune", "mall", "--copy", "usb", "--max-unused", "0", "--json"]).expect(0).json();
        end(&script, times);
        assert!(pruned["steps"][0]["result"]["packs_deleted"].as_u64() > Some(0), "{pruned}");
        desk.bkp(&["verify", "mall", "--copy", "usb", "--level", "data"]).expect(0);
        restic_check(&desk, &s3);
        let copied = desk.bkp(&["copy", "mall", "--json"]).expect(0).json();
        assert_eq!(copied["steps"][0]["result"]["copies"][0]["bytes"], 0, "{copied}");
    }
}

/// A server that is away for a minute, and who asked it how often: what it refused, and what it did.
#[derive(Default)]
struct Minute {
    /// Which request is the first that it refuses; from then on it refuses all.
    method: &'static str,
    began: Option<Instant>,
    refused: BTreeMap<String, u32>,
    puts: BTreeMap<String, u32>,
}

/// The waits of a store that is tried again span 70 s at the least.
const AWAY: Duration = Duration::from_secs(61);

/// Starts a server that will be away for a minute, from the first such request for a pack on.
fn leaving() -> (S3, Arc<Mutex<Minute>>) {
    let minute = Arc::<Mutex<Minute>>::default();
    let told = minute.clone();
    let s3 = S3::start_with_faults(move |asked: &Asked| {
        let mut minute = told.lock().unwrap();
        let (method, path) = (asked.method().as_str(), asked.uri().path().to_owned());
        if minute.began.is_none() && method == minute.method && path.contains("/data/") {
            minute.began = Some(Instant::now());
        }
        if minute.began.is_some_and(|began| began.elapsed() < AWAY) {
            *minute.refused.entry(path).or_default() += 1;
            return Some(Fault::Status(503));
        }
        if method == "PUT" {
            *minute.puts.entry(path).or_default() += 1;
        }
        None
    });
    (s3, minute)
}

fn started(desk: &Desk, args: &[&str]) -> Child {
    desk.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) -> Ended {
    child.wait_with_output().unwrap().into()
}

/// The only test that sleeps: what takes a minute of its own clock takes the same minute.
#[test]
fn a_minute_of_503_is_outlived_and_another_ones_lock_is_waited_for_no_longer() {
    let desks = ["PUT", "GET"].map(|method| {
        let ((s3, minute), desk) = (leaving(), Desk::ready());
        copy_to(&desk, &s3.endpoint(), S3::BUCKET, "prefix = \"mall\"");
        desk.bkp(&["backup", "mall", "--no-copy"]).expect(0);
        if method == "GET" {
            desk.bkp(&["copy", "mall"]).expect(0);
        }
        minute.lock().unwrap().method = method;
        (desk, s3, minute)
    });
    let locked = Desk::backed_up();
    locked.rot();
    let rotten = files(&locked.path("repository/data"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let lock = runtime.block_on(async {
        let policy = Policy::load(&locked.path("policies/mall.toml")).unwrap();
        let repository = place::repository(&policy, &Run::silent()).await.unwrap();
        repository.lock(LockMode::Exclusive, Duration::ZERO, &Run::silent()).await.unwrap()
    });

    let [(copying, s3, copied), (restoring, _s3, restored)] = desks;
    let copy = started(&copying, &["copy", "mall"]);
    let back = restoring.text("back");
    let restore = started(&restoring, &["restore", "mall", "--from", "usb", "--to-dir", &back, "--yes"]);
    let heal = started(&locked, &["verify", "mall", "--level", "data", "--heal"]);
    ended(copy).expect(0);
    ended(restore).expect(0);
    let refused = ended(heal).expect(11);

    for minute in [&copied, &restored] {
        let minute = minute.lock().unwrap();
        // Each wait is between half and all of twice the one before, up to 30 s: nine to eleven tries fall into a minute.
        let packs: Vec<_> = minute.refused.iter().filter(|(path, _)| path.contains("/data/")).collect();
        assert!(!packs.is_empty() && packs.iter().all(|(_, tries)| (9..=11).contains(*tries)), "{packs:?}");
    }
    let puts = std::mem::take(&mut copied.lock().unwrap().puts);
    assert!(puts.len() >= 5 && puts.values().all(|times| *times == 1), "{puts:?}");
    copying.bkp(&["verify", "mall", "--copy", "usb", "--level", "data"]).expect(0);
    assert_eq!(files(&restoring.path("back")), files(&restoring.path("images")));
    drop(s3);

    for told in ["waiting for the lock of", "holds a lock that shuts all others out"] {
        assert!(refused.err.contains(told), "{refused:?}");
    }
    assert_eq!(files(&locked.path("repository/data")), rotten, "nothing is put without a lock");
    runtime.block_on(lock.release()).unwrap();
    locked.bkp(&["verify", "mall", "--level", "data", "--heal"]).expect(0);
}

/// A store that bears a fifth of a second of silence, and tries so often without a wait.
async fn impatient(s3: &S3, tries_max: u32) -> SharedStore {
    let line = Line::impatient(Duration::from_millis(200));
    let (network, run) = (Network::default(), Run::silent());
    let store = S3Store::open(&s3::place(s3), Some(s3::credentials()), &network, line, &run).await.unwrap();
    let backoff = Backoff { tries_max, delay_max: Duration::ZERO, ..Backoff::default() };
    Arc::new(Retry::new(Arc::new(store), backoff, CancellationToken::new()))
}

async fn copied_there(s3: &S3) -> (Arc<Repository>, SharedStore) {
    let (from, to) = (repository(memory()).await, impatient(s3, 4).await);
    save(&from, 1, &[]).await;
    let copied = bkp::copy::copy(&from, &to, 4, &Run::silent()).await.unwrap();
    assert!(copied.is_complete(), "{copied:?}");
    (from, to)
}

#[tokio::test]
async fn silence_in_mid_answer_and_before_it_is_given_up_and_asked_for_again() {
    let (s3, script) = scripted();
    let (from, to) = copied_there(&s3).await;
    let opened = Repository::open(Arc::clone(&to), &password(), &Run::silent()).await.unwrap();
    opened.load_index(&Run::silent()).await.unwrap();
    for (fault, why) in [(Fault::StallAnswer, "no byte moved for 200ms"), (Fault::Stall, "no answer for 200ms")] {
        plan(&script, "GET", "/data/", fault, 2);
        let tree = opened.snapshots().await.unwrap()[0].snapshot.tree;
        assert_eq!(opened.blob(BlobKind::Tree, &tree).await.unwrap(), from.blob(BlobKind::Tree, &tree).await.unwrap());
        end(&script, 2);

        let pack = Key::new(FileKind::Pack, to.list(FileKind::Pack).await.unwrap().remove(0).name);
        plan(&script, "GET", "/data/", fault, 4);
        let error = to.get(&pack).await.unwrap_err();
        assert!(matches!(error, StoreError::Transient { .. }), "{error}");
        assert!(error.to_string().contains(why) && error.to_string().contains("(tried 4 times)"), "{error}");
        end(&script, 4);
    }
}

#[tokio::test]
async fn a_put_that_is_not_answered_is_put_again() {
    let (s3, script) = scripted();
    plan(&script, "PUT", "/data/", Fault::Stall, 3);
    copied_there(&s3).await;
    assert!(end(&script, 3).values().all(|count| *count == 1));
}

#[tokio::test]
async fn a_verify_over_a_broken_line_fails_and_calls_nothing_damaged() {
    let (s3, script) = scripted();
    let (_, to) = copied_there(&s3).await;
    let opened = Repository::open(Arc::clone(&to), &password(), &Run::silent()).await.unwrap();
    let options = Options { level: Level::Data, subset: None };
    // Each of the two packs is tried four times, and what else asks for them as often.
    plan(&script, "GET", "/data/", Fault::CutAnswer, 4);
    let cut = verify(&opened, options, &Run::silent()).await;
    assert!(script.lock().unwrap().fired == 4);
    match cut {
        Err(error) => assert!(error.to_string().contains("tried 4 times"), "{error}"),
        Ok(report) => panic!("{report:#?}"),
    }
    let whole = verify(&opened, options, &Run::silent()).await.unwrap();
    assert!(whole.is_sound());
}
