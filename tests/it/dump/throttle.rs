//! Live: a dump makes way for the application, and loses nothing by it.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use bkp::exit::{Exit, Failure};
use bkp::policy::{Limits, MysqlSource, Throttle};
use bkp::source::mysql::{Reason, Snapshot, Unheld};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::cut::wait_until_alone;
use super::world::{self, DirSink, Notes, as_user, by_socket, noted, source};
use super::{BOTH, CHUNK_BYTES, dump_by_while, make_large};
use crate::servers::{Product, Server};

/// The server gives a session up that lets it wait for so long, unless the session asks for more.
const NET_WRITE_TIMEOUT: Duration = Duration::from_secs(1);

const MINUTE: Duration = Duration::from_mins(1);

/// A server under a dump that pauses.
struct Guest {
    server: Server,
    dir: TempDir,
}

impl Guest {
    fn new(product: Product) -> Self {
        let option = format!("--net-write-timeout={}", NET_WRITE_TIMEOUT.as_secs());
        let server = Server::start(product, &[&option]);
        make_large(&server);
        Self { server, dir: TempDir::new().unwrap() }
    }

    fn pause_file(&self) -> PathBuf {
        self.dir.path().join("pause")
    }

    fn policy(&self, usual: Limits, pause_max: Duration) -> MysqlSource {
        let throttle = Throttle { usual, pause_max, pause_file: Some(self.pause_file()), ..Throttle::default() };
        MysqlSource { throttle, ..source(2) }
    }

    /// Runs so many statements that last so long; returns what tells that all have ended.
    fn occupy(&self, sessions: usize, seconds: f64) -> Receiver<()> {
        let (done, is_done) = sync_channel(sessions);
        for _ in 0..sessions {
            let mut wire = by_socket(&self.server).open_wire(&CancellationToken::new()).unwrap();
            wire.send(&format!("SELECT SLEEP({seconds})")).unwrap();
            let done = done.clone();
            std::thread::spawn(move || {
                wire.finish().unwrap();
                done.send(()).unwrap();
            });
        }
        is_done
    }
}

/// Waits until a run has noted this.
fn wait_for(notes: &Notes, said: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !notes.text().contains(said) {
        assert!(Instant::now() < deadline, "nobody said {said:?}: {}", notes.text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_dump_makes_way_for_a_busy_server_and_for_its_operator_and_loses_nothing() {
    std::thread::scope(|scope| {
        for product in BOTH {
            scope.spawn(move || {
                let guest = Guest::new(product);
                begin_when_there_is_room(&guest);
                pause_in_the_midst(&guest);
                give_up_after_too_long(&guest);
                keep_to_a_bandwidth(&guest);
            });
        }
    });
}

/// Our own connections do not count: there are more of them than the limit allows.
fn begin_when_there_is_room(guest: &Guest) {
    let limits = Limits { threads_running_max: Some(3), bandwidth: None };
    let (run, notes) = noted();
    let is_done = guest.occupy(5, 1.5);
    let snapshot =
        Snapshot::open(&as_user(&guest.server, "bkp", "bkp"), &guest.policy(limits, MINUTE), Unheld::Refuse, &run);
    // It goes on at three quarters of the limit.
    assert!(is_done.try_iter().count() >= 3, "the read views were opened on a busy server");
    let snapshot = snapshot.unwrap();
    let throttle = snapshot.throttle();
    let manifest = snapshot.with_chunk_bytes(CHUNK_BYTES).dump(&DirSink::new(), None, &run).unwrap();
    assert_eq!(manifest.rows(), 1 << 15);
    let said = notes.text();
    // MySQL counts its own event scheduler.
    let busy = ["5", "6"].map(|count| format!("paused: {count} threads running on the server, 3 are allowed"));
    assert!(busy.iter().any(|busy| said.contains(busy)), "{said}");
    assert!(said.contains("going on after a pause of "), "{said}");
    assert_eq!(said.matches("paused: ").count(), 1, "its own threads made it pause: {said}");
    let pauses = throttle.pauses();
    assert_eq!(pauses.iter().map(|pause| pause.reason).collect::<Vec<_>>(), [Reason::ThreadsRunning]);
    assert!((500..5000).contains(&pauses[0].millis), "{pauses:?}");
}

/// The server is kept waiting with rows for longer than it waits for others.
fn pause_in_the_midst(guest: &Guest) {
    let limits = Limits { threads_running_max: Some(3), bandwidth: None };
    let (run, notes) = noted();
    let file = guest.pause_file();
    let notes = &*notes;
    std::thread::scope(|scope| {
        let address = as_user(&guest.server, "bkp", "bkp");
        let (dumped, dir) = dump_by_while(&address, &guest.policy(limits, MINUTE), &run, || {
            std::fs::write(&file, "").unwrap();
            wait_for(notes, &format!("paused: `{}` is there", file.display()));
            scope.spawn(|| go_on_by_and_by(guest, notes));
        });
        assert_eq!(dumped.unwrap().rows(), 1 << 15, "{:?}", guest.server.product());
        assert!(dir.path().join("manifest.json").exists());
    });
    assert!(notes.text().contains("going on after a pause of "), "{}", notes.text());
}

fn go_on_by_and_by(guest: &Guest, notes: &Notes) {
    let file = guest.pause_file();
    std::thread::sleep(NET_WRITE_TIMEOUT * 3);
    assert!(!world::readers(&guest.server).is_empty(), "the server is not kept waiting");
    let is_done = guest.occupy(5, 1.5);
    std::fs::remove_file(&file).unwrap();
    // Another reason keeps it from going on.
    wait_for(notes, "going on after a pause of ");
    assert!(is_done.try_iter().count() >= 3, "it went on while the server was busy");
}

fn give_up_after_too_long(guest: &Guest) {
    let file = guest.pause_file();
    let address = as_user(&guest.server, "bkp", "bkp");
    let policy = guest.policy(Limits::default(), Duration::from_secs(1));
    let (run, notes) = noted();
    let (dumped, dir) = dump_by_while(&address, &policy, &run, || {
        std::fs::write(&file, "").unwrap();
        wait_for(&notes, "paused: ");
    });
    std::fs::remove_file(&file).unwrap();
    let failure = Failure::from(dumped.unwrap_err());
    assert_eq!(failure.exit, Exit::Failed);
    let said = format!("dump the server: all pauses together took longer than 1.0 s: `{}` is there", file.display());
    assert!(failure.message.starts_with(&said), "{failure:?}");
    assert!(failure.hint.is_some_and(|hint| hint.contains("throttle.pause_max")));
    assert!(!dir.path().join("manifest.json").exists());
    wait_until_alone(&guest.server);
}

fn keep_to_a_bandwidth(guest: &Guest) {
    const BYTES_PER_SECOND: u64 = 20 << 20;
    let limits = Limits { threads_running_max: None, bandwidth: Some(BYTES_PER_SECOND) };
    let (run, notes) = noted();
    let start = Instant::now();
    let address = as_user(&guest.server, "bkp", "bkp");
    let manifest =
        world::dump_by(&address, &guest.policy(limits, MINUTE), &DirSink::new(), 1 << 20, None, &run).unwrap();
    let took = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "seconds to a tenth")]
    let least = manifest.bytes() as f64 / BYTES_PER_SECOND as f64 * 0.9;
    assert!(least > 1.0 && took >= least, "{} bytes took {took} s", manifest.bytes());
    assert!(notes.text().contains("rows are read at 20.0 MiB/s at most"), "{}", notes.text());
}
