//! Live: the line to the server is cut at any byte, and a dump is whole or none.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bkp::exit::{Exit, Failure};
use bkp::mysql::manifest::Manifest;
use bkp::mysql::server::Server as Address;
use bkp::policy::MysqlAddress;
use bkp::run::Run;
use sha2::{Digest, Sha256};

use super::world::{DirSink, as_user, dump_by, source};
use super::{BOTH, CHUNK_BYTES};
use crate::servers::{Product, Server};

/// A line to a server that can be cut where a chosen byte passes, in either direction, of whichever connection carries it.
pub(crate) struct Line {
    port: u16,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    passed: AtomicU64,
    /// The byte that does not pass any more; 0: all pass.
    cut_at: AtomicU64,
    is_reset: AtomicBool,
    was_cut: AtomicBool,
    /// Connections below this number pass nothing on.
    black_below: AtomicU64,
    opened: AtomicU64,
}

/// How a cut looks from both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// As if the other end had closed in good order.
    Close,
    Reset,
}

impl Line {
    pub(crate) fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Self { port: listener.local_addr().unwrap().port(), state: Arc::default() };
        let (state, server) = (line.state.clone(), server.port());
        std::thread::spawn(move || {
            for inward in listener.incoming() {
                // A server that is just gone takes nobody: so does the line.
                let (Ok(inward), Ok(outward)) = (inward, TcpStream::connect(("127.0.0.1", server))) else { continue };
                let number = state.opened.fetch_add(1, Ordering::SeqCst);
                for (from, to) in [(&inward, &outward), (&outward, &inward)] {
                    let (from, to, state) = (from.try_clone().unwrap(), to.try_clone().unwrap(), state.clone());
                    std::thread::spawn(move || state.pass(number, from, to));
                }
            }
        });
        line
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns how user `bkp` reaches the server by this line.
    pub(crate) fn address(&self, server: &Server) -> Address {
        let address = MysqlAddress::Tcp { host: "127.0.0.1".to_owned(), port: self.port };
        Address { address, ..as_user(server, "bkp", "bkp") }
    }

    /// Cuts the connection that will carry the byte of this number, counted from now on. Only that one: the next gets through.
    pub(crate) fn cut_at(&self, byte: u64, cut: Cut) {
        self.state.is_reset.store(cut == Cut::Reset, Ordering::SeqCst);
        self.state.was_cut.store(false, Ordering::SeqCst);
        self.state.passed.store(0, Ordering::SeqCst);
        self.state.cut_at.store(byte, Ordering::SeqCst);
    }

    /// Takes no byte more of any connection that is open, as a firewall that has forgotten them: neither end hears of it.
    /// New ones get through.
    pub(crate) fn go_black(&self) {
        self.state.black_below.store(self.state.opened.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Lets all pass again; returns how many bytes have passed since, and whether the line was cut.
    pub(crate) fn mend(&self) -> (u64, bool) {
        self.state.cut_at.store(0, Ordering::SeqCst);
        (self.state.passed.load(Ordering::SeqCst), self.state.was_cut.load(Ordering::SeqCst))
    }
}

impl State {
    fn pass(&self, number: u64, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            while number < self.black_below.load(Ordering::SeqCst) {
                std::thread::park();
            }
            let before = self.passed.fetch_add(count as u64, Ordering::SeqCst);
            let cut_at = self.cut_at.load(Ordering::SeqCst);
            if (before..before + count as u64).contains(&cut_at) && cut_at > 0 {
                to.write_all(&buffer[..usize::try_from(cut_at - before).unwrap()]).ok();
                self.was_cut.store(true, Ordering::SeqCst);
                self.cut(&from, &to);
                return;
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Write).ok();
    }

    fn cut(&self, from: &TcpStream, to: &TcpStream) {
        for end in [from, to] {
            if self.is_reset.load(Ordering::SeqCst) {
                // The last of us to let go of it then resets it; the other thread wakes by this.
                socket2::SockRef::from(end).set_linger(Some(Duration::ZERO)).unwrap();
                end.shutdown(Shutdown::Read).ok();
            } else {
                end.shutdown(Shutdown::Both).ok();
            }
        }
    }
}

/// Numbers that look random, and are the same for the same seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Takes the seed from `BKP_TEST_SEED`, else from the clock, and prints it.
    pub(crate) fn seeded() -> Self {
        let given = std::env::var("BKP_TEST_SEED").ok().map(|text| text.parse().expect("BKP_TEST_SEED is a number"));
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let seed = given.unwrap_or_else(now);
        println!("BKP_TEST_SEED={seed}");
        Self(seed)
    }

    /// Returns a number from 1 to `max`.
    pub(crate) fn up_to(&mut self, max: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        1 + (mixed ^ (mixed >> 31)) % max
    }

    pub(crate) fn cut(&mut self) -> Cut {
        if self.up_to(2) == 1 { Cut::Close } else { Cut::Reset }
    }
}

/// Returns how often each product's line is cut; `BKP_TEST_CUTS` asks for more.
pub(crate) fn cuts() -> u32 {
    std::env::var("BKP_TEST_CUTS").ok().map_or(100, |text| text.parse().expect("BKP_TEST_CUTS is a number"))
}

/// Waits until the server has no session of user `bkp` any more.
pub(crate) fn wait_until_alone(server: &Server) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.value("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'bkp'") != "0" {
        assert!(Instant::now() < deadline, "{:?}: a session goes on without us", server.product());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn make_shop(server: &Server) {
    server.execute(
        "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, v VARCHAR(80) NOT NULL); \
         CREATE TABLE shop.loose (id INT NOT NULL, v VARCHAR(80)); CREATE VIEW shop.seen AS SELECT id FROM shop.orders; \
         CREATE PROCEDURE shop.fill() SELECT 1",
    );
    let rows: Vec<String> = (0..1500).map(|id| format!("({id}, REPEAT('v', {}))", id % 80)).collect();
    for table in ["orders", "loose"] {
        server.execute(&format!("INSERT INTO shop.{table} VALUES {}", rows.join(", ")));
    }
    server.execute("ANALYZE TABLE shop.orders");
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_dump_whose_line_is_cut_at_any_byte_is_whole_or_none() {
    let dice = Dice::seeded();
    std::thread::scope(|scope| {
        for product in BOTH {
            scope.spawn(move || cut_dumps(product, dice));
        }
    });
}

fn cut_dumps(product: Product, mut dice: Dice) {
    let server = Server::start(product, &[]);
    make_shop(&server);
    let line = Line::to(&server);
    let address = line.address(&server);
    let attempt = |dir: &DirSink| dump_by(&address, &source(2), dir, CHUNK_BYTES, None, &Run::silent());
    line.cut_at(u64::MAX, Cut::Close);
    let whole = attempt(&DirSink::new()).unwrap();
    let (bytes, _) = line.mend();
    let mut broken = 0;
    for trial in 0..cuts() {
        let (at, cut) = (dice.up_to(bytes), dice.cut());
        let what = format!("{product:?}, cut {trial}: {cut:?} at byte {at} of {bytes}");
        let dir = DirSink::new();
        line.cut_at(at, cut);
        let dumped = attempt(&dir);
        let (_, was_cut) = line.mend();
        match dumped {
            Ok(manifest) => {
                assert_eq!((manifest.rows(), manifest.objects.len()), (whole.rows(), whole.objects.len()), "{what}");
                assert_files(&dir, &manifest, &what);
            }
            Err(error) => {
                assert!(was_cut, "{what}: {error:?}");
                assert!(!dir.path().join("manifest.json").exists(), "{what}: a broken dump has a manifest");
                let failure = Failure::from(error);
                assert_eq!(failure.exit, Exit::Failed, "{what}: {failure:?}");
                assert!(!failure.message.is_empty() && failure.hint.is_some(), "{what}: {failure:?}");
                broken += 1;
            }
        }
    }
    assert!(broken > cuts() / 2, "{product:?}: only {broken} cuts broke a dump");
    wait_until_alone(&server);
    // Nothing is locked any more, neither rows nor definitions.
    server.execute(
        "SET lock_wait_timeout = 1; ALTER TABLE shop.orders ADD COLUMN w INT; INSERT INTO shop.loose VALUES (-1, '')",
    );
}

/// Asserts that each row file has the bytes that the manifest names.
fn assert_files(dir: &DirSink, manifest: &Manifest, what: &str) {
    for chunk in manifest.tables.iter().flat_map(|table| &table.chunks) {
        let bytes = std::fs::read(dir.path().join(&chunk.path)).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&bytes)), chunk.sha256, "{what}: {}", chunk.path);
    }
}
