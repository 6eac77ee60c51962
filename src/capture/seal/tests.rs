use std::sync::Arc;

use super::*;
use crate::capture::chain::{Beginning, Epoch, Origin};
use crate::clock::FixedClock;
use crate::event::Events;
use crate::mysql::manifest::Product;
use crate::mysql::server::Server;
use crate::policy::{Ack, CapturePlan, MysqlAddress, Network, Tls};
use crate::repository::key::Cost;
use crate::secret::Secret;
use crate::store::memory::MemoryStore;

/// A source whose spool is filled by hand, and a repository.
struct Desk {
    dir: tempfile::TempDir,
    repository: Arc<Repository>,
    clock: FixedClock,
    run: Run,
}

impl Desk {
    async fn new() -> Self {
        let clock = FixedClock::at(noon());
        let run = Run::new(Arc::new(clock.clone()), Events::silent());
        let repository = repository(&run).await;
        Self { dir: tempfile::tempdir().unwrap(), repository, clock, run }
    }

    fn capture(&self, spool: &str) -> Capture {
        let (policy, source) = ("mall".to_owned(), "db1".to_owned());
        let server = Server {
            address: MysqlAddress::Socket("/run/none.sock".into()),
            user: String::new(),
            password: None,
            tls: Tls::default(),
            network: Network::default(),
        };
        let (window, interval) = (Duration::from_hours(24), Duration::from_mins(1));
        let plan = CapturePlan { window, interval, spool: self.dir.path().join(spool), server_id: 7, ack: Ack::Off };
        Capture { policy, source, server, plan }
    }

    /// Makes a spool with an epoch of no segment.
    fn spool(&self, name: &str) -> Arc<Spool> {
        let spool = Spool::open(&self.capture(name)).unwrap();
        let server = Origin { product: Product::MySql, version: String::new(), server: "a".to_owned() };
        let epoch = Epoch::new(1, noon(), Beginning::FirstCapture, server);
        spool.change(|chain| chain.epochs.push(epoch)).unwrap();
        spool.make_epoch(1).unwrap();
        Arc::new(spool)
    }

    async fn seal(&self, spool: &Arc<Spool>, name: &str) -> Result<Option<Sealed>, CaptureError> {
        Sealer::new(&self.repository).seal(&self.capture(name), spool, Duration::ZERO, &self.run).await
    }

    async fn newest(&self) -> Stored {
        let snapshots = self.repository.snapshots().await.unwrap();
        self.repository.load_index(&self.run).await.unwrap();
        stored::open(&self.repository, stored::newest(&snapshots, "mall", "db1").unwrap()).await.unwrap()
    }
}

async fn repository(run: &Run) -> Arc<Repository> {
    let (store, cheap) = (Arc::new(MemoryStore::new()), Cost { log_n: 10, r: 8, p: 1 });
    Repository::init_with(store, &Secret::new("secret".to_owned()), cheap, run).await.unwrap()
}

fn noon() -> DateTime<Utc> {
    "2026-11-26T12:00:00Z".parse().unwrap()
}

/// Puts a file and what the chain says of it into a spool.
fn put(spool: &Spool, number: u32, bytes: &[u8], is_closed: bool) {
    let file = format!("b.{number:06}");
    fs::write(spool.file(1, &file), bytes).unwrap();
    let segment = Segment {
        file,
        bytes: bytes.len() as u64,
        sha256: hex::encode(Sha256::digest(bytes)),
        created: u32::try_from(noon().timestamp()).unwrap() + number,
        first: None,
        last: None,
        transactions: 1,
        before: None,
        after: String::new(),
        is_closed,
    };
    let add = |chain: &mut Chain| {
        let segments = &mut chain.epochs.last_mut().unwrap().segments;
        segments.retain(|other| other.file != segment.file);
        segments.push(segment);
    };
    spool.change(add).unwrap();
}

fn files(chain: &Chain) -> Vec<(&str, u64)> {
    chain.segments().map(|(_, segment)| (segment.file.as_str(), segment.bytes)).collect()
}

#[tokio::test]
async fn each_snapshot_is_later_than_the_one_before_though_the_clock_goes_back() {
    let desk = Desk::new().await;
    let spool = desk.spool("spool");
    let mut last = None;
    for (step, forward) in [(1, 0), (2, -3_600), (3, 60)] {
        desk.clock.advance(TimeDelta::seconds(forward));
        put(&spool, 1, &vec![b'x'; step * 100], false);
        let now = desk.run.now();
        spool.note(|chain| chain.note_as_of(now, now));
        assert_eq!(spool.chain().as_of, Some(now), "it neither stands still nor lies ahead");
        let sealed = desk.seal(&spool, "spool").await.unwrap().unwrap();
        assert!(Some(sealed.time) > last, "{step}");
        last = Some(sealed.time);
        assert_eq!(desk.newest().await.snapshot.id, sealed.id);
    }
}

#[tokio::test]
async fn a_spool_that_was_put_back_takes_nothing_from_what_the_repository_holds() {
    let desk = Desk::new().await;
    let spool = desk.spool("spool");
    put(&spool, 1, b"the first", true);
    put(&spool, 2, b"the sec", false);
    let stale = spool.chain();
    desk.seal(&spool, "spool").await.unwrap().unwrap();
    put(&spool, 2, b"the second", true);
    put(&spool, 3, b"the third", true);
    put(&spool, 4, b"the four", false);
    desk.seal(&spool, "spool").await.unwrap().unwrap();
    let whole = [("b.000001", 9), ("b.000002", 10), ("b.000003", 9), ("b.000004", 8)];
    assert_eq!(files(&desk.newest().await.chain), whole);

    let back = desk.spool("back");
    back.adopt(stale).unwrap();
    put(&back, 2, b"the sec", false);
    put(&back, 5, b"the fifth", false);
    desk.seal(&back, "back").await.unwrap().unwrap();
    let newest = desk.newest().await;
    assert_eq!(files(&newest.chain), [&whole[..], &[("b.000005", 9)]].concat());
    let fetched = desk.dir.path().join("fetched");
    let (_, third) = newest.chain.segments().nth(2).unwrap();
    newest.fetch(&desk.repository, 1, third, &fetched, &desk.run).await.unwrap();
    assert_eq!(fs::read(fetched).unwrap(), b"the third");
    // Before it follows, it takes up what it lacks.
    Sealer::new(&desk.repository).restore_chain(&desk.capture("back"), &back, &desk.run).await.unwrap();
    assert_eq!(files(&back.chain()), files(&newest.chain));
}

#[tokio::test]
async fn a_new_repository_gets_what_the_spool_still_has() {
    let mut desk = Desk::new().await;
    let spool = desk.spool("spool");
    put(&spool, 1, b"the first", true);
    put(&spool, 2, b"the second", false);
    desk.seal(&spool, "spool").await.unwrap().unwrap();
    assert!(!spool.file(1, "b.000001").exists());
    desk.repository = repository(&desk.run).await;
    put(&spool, 2, b"the second", true);
    put(&spool, 3, b"the third", false);
    desk.seal(&spool, "spool").await.unwrap().unwrap();
    assert_eq!(files(&desk.newest().await.chain), [("b.000002", 10), ("b.000003", 9)]);
    assert_eq!(files(&spool.chain()), [("b.000002", 10), ("b.000003", 9)]);
    assert!(desk.seal(&spool, "spool").await.unwrap().is_none());
}

#[tokio::test]
async fn a_closed_segment_that_rotted_in_the_spool_is_not_called_whole() {
    let desk = Desk::new().await;
    let spool = desk.spool("spool");
    put(&spool, 1, b"the first", true);
    put(&spool, 2, b"the second", false);
    fs::write(spool.file(1, "b.000001"), b"the f\0rst").unwrap();
    assert!(matches!(desk.seal(&spool, "spool").await, Err(CaptureError::Rotten { .. })));
    fs::write(spool.file(1, "b.000001"), b"the first").unwrap();
    assert!(desk.seal(&spool, "spool").await.unwrap().is_some());
}
