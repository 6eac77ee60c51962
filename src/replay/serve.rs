//! The source itself: it listens, lets one replica in, and sends what the replica asks for.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::event::Events;
use crate::human;
use crate::mysql::binlog::{Checksum, previous_gtids};
use crate::mysql::wire::cursor::Cursor;
use crate::replay::answers::{Answer, Identity, answer};
use crate::replay::door::Door;
use crate::replay::feed::{Feed, FeedError, Sender, Served, Start, send_made};
use crate::replay::guard::Guard;
use crate::replay::line::Line;
use crate::replay::made;
use crate::replay::wire::{Packets, Patient};

/// How often the listener looks whether the replay has ended, and a connection whether the feed has grown.
const POLL: Duration = Duration::from_millis(50);

/// A replica has one connection, and a second while it gives the first up. Others are strangers.
const CLIENTS_MAX: usize = 8;

/// The longest between two heartbeats; a replica that asks for fewer is glad of more.
const HEARTBEAT_MAX: Duration = Duration::from_secs(10);

const COM_QUIT: u8 = 0x01;
const COM_INIT_DB: u8 = 0x02;
pub(super) const COM_QUERY: u8 = 0x03;
const COM_PING: u8 = 0x0E;
pub(super) const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_SLAVE: u8 = 0x15;
pub(super) const COM_BINLOG_DUMP_GTID: u8 = 0x1E;

/// `BINLOG_DUMP_NON_BLOCK`: the client does not wait for more.
const END_AT_END: u16 = 0x01;

/// `ER_MASTER_FATAL_ERROR_READING_BINLOG`, on which a replica stops instead of trying again.
const FATAL: u16 = 1236;

/// A source of replication that serves segments. It ends with its value.
#[derive(Debug)]
pub struct Source {
    pub address: SocketAddr,
    pub user: String,
    pub password: String,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

/// What all connections of a source have in common.
#[derive(Debug)]
struct Shared {
    /// May be replaced by one that holds more.
    feed: Mutex<Arc<Feed>>,
    /// The number of the one replica that is served; `None`: any.
    replica: Option<u32>,
    door: Door,
    identity: Identity,
    sent: AtomicU64,
    clients: AtomicUsize,
    cancel: CancellationToken,
    /// Ends the dump that was asked for last: a replica that asks again has given it up.
    dump: Mutex<CancellationToken>,
    failure: Mutex<Option<String>>,
    /// Somebody has come in who knows the password: our replica.
    has_let_in: AtomicBool,
    /// Why one who came before that was not let in for want of TLS.
    insecure: Mutex<Option<String>>,
    events: Events,
}

/// What a source says of itself beside its events.
#[derive(Debug, Clone)]
pub struct Face {
    pub server_id: u32,
    pub server_uuid: String,
    pub version: String,
    pub has_gtids: bool,
    /// The number that the replica was given. One that comes by another has been started anew without its settings: it might leave
    /// out what bears its own. `None`: whoever knows the password is served.
    pub replica: Option<u32>,
}

impl Source {
    /// Listens at an address (port 0: any) until the value is dropped or the token is cancelled. With a guard, it talks under TLS
    /// alone.
    ///
    /// # Errors
    /// An address that cannot be listened at, or segments that cannot be read.
    pub fn open(
        feed: Feed,
        face: Face,
        listen: SocketAddr,
        guard: Option<Guard>,
        events: Events,
        cancel: &CancellationToken,
    ) -> Result<Self, io::Error> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let first = feed.segments.first().ok_or(ErrorKind::NotFound)?;
        let checksum = Feed::checksum_of(first).map_err(io::Error::other)?;
        let (user, password) = (format!("bkp_{}", &random_text()?[..8]), random_text()?);
        let door = Door {
            product: feed.product,
            version: face.version.clone(),
            user: user.clone(),
            password: password.clone(),
            guard,
        };
        let identity = Identity {
            server_id: face.server_id,
            server_uuid: face.server_uuid,
            version: face.version,
            gtid_mode: if face.has_gtids { "ON" } else { "OFF" },
            checksum: if checksum == Checksum::Crc32 { "CRC32" } else { "NONE" },
        };
        let cancel = cancel.child_token();
        let shared = Arc::new(Shared {
            feed: Mutex::new(Arc::new(feed)),
            replica: face.replica,
            door,
            identity,
            sent: AtomicU64::new(0),
            clients: AtomicUsize::new(0),
            dump: Mutex::new(cancel.child_token()),
            cancel,
            failure: Mutex::new(None),
            has_let_in: AtomicBool::new(false),
            insecure: Mutex::new(None),
            events,
        });
        let of_thread = shared.clone();
        let listener =
            std::thread::Builder::new().name("replay".to_owned()).spawn(move || listen_on(&listener, &of_thread))?;
        Ok(Self { address, user, password, shared, listener: Some(listener) })
    }

    /// Returns the bytes of the events that were sent or skipped.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Serves on by a feed that holds more than the one before; what the replica has applied need not be in it any more.
    pub fn extend(&self, feed: Feed) {
        *self.shared.feed.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(feed);
    }

    /// Returns why the source cannot go on, where it cannot.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells whether the replica has come in, at any time.
    #[must_use]
    pub fn has_let_in(&self) -> bool {
        self.shared.has_let_in.load(Ordering::Relaxed)
    }

    /// Returns why one who came was not let in, where it was for want of TLS. Nobody who fails at that can prove to be our replica: once
    /// that has come in, any other is a stranger.
    #[must_use]
    pub fn insecure(&self) -> Option<String> {
        self.shared.insecure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    /// Notes whether somebody has come in.
    fn note(&self, admitted: &Result<bool, FeedError>) {
        let mut insecure = self.insecure.lock().unwrap_or_else(PoisonError::into_inner);
        match admitted {
            Ok(true) => {
                self.has_let_in.store(true, Ordering::Relaxed);
                *insecure = None;
            }
            Err(FeedError::Tls(why)) if !self.has_let_in.load(Ordering::Relaxed) => *insecure = Some(why.clone()),
            _ => {}
        }
    }

    fn feed(&self) -> Arc<Feed> {
        Arc::clone(&self.feed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
        if let Some(listener) = self.listener.take() {
            // A thread that panicked has nothing more to end.
            listener.join().ok();
        }
    }
}

fn random_text() -> io::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(hex::encode(random))
}

fn listen_on(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut clients: Vec<JoinHandle<()>> = Vec::new();
    while !shared.cancel.is_cancelled() {
        match listener.accept() {
            Ok((socket, peer)) if shared.clients.load(Ordering::Relaxed) < CLIENTS_MAX => {
                clients.retain(|client| !client.is_finished());
                let shared = shared.clone();
                shared.clients.fetch_add(1, Ordering::Relaxed);
                clients.push(std::thread::spawn(move || {
                    client(socket, peer.ip(), &shared);
                    shared.clients.fetch_sub(1, Ordering::Relaxed);
                }));
            }
            // A stranger too many is hung up on; whatever else befalls the listener is looked at again.
            Ok(_) | Err(_) => std::thread::sleep(POLL),
        }
    }
    for client in clients {
        client.join().ok();
    }
}

fn client(socket: TcpStream, peer: IpAddr, shared: &Shared) {
    match serve(socket, peer, shared) {
        Ok(()) => {}
        Err(FeedError::Gone(error)) => shared.events.detail(format!("the replica at {peer} has gone: {error}")),
        Err(error) => shared.events.detail(format!("the replica at {peer} cannot be served: {}", human::chain(&error))),
    }
}

/// Serves one connection until the client hangs up or the replay ends.
fn serve(socket: TcpStream, peer: IpAddr, shared: &Shared) -> Result<(), FeedError> {
    let cancel = shared.cancel.child_token();
    let patient = Patient::new(socket, cancel.clone())?;
    let mut packets = Packets::new(Line::new(&patient));
    let admitted = shared.door.admit(&mut packets, &nonce()?);
    shared.note(&admitted);
    if !admitted? {
        return Ok(packets.stream.flush()?);
    }
    patient.trust();
    if let Some(cipher) = packets.stream.cipher() {
        shared.events.detail(format!("the replica at {peer} has come in by TLS ({cipher})"));
    }
    let mut session = Session { packets, patient: &patient, cancel, shared, set: BTreeMap::new() };
    while let Some(command) = session.packets.command()? {
        match command.split_first() {
            None | Some((&COM_QUIT, _)) => break,
            Some((&word, rest)) => session.command(word, rest)?,
        }
    }
    Ok(())
}

/// Makes a nonce of printable bytes: in the greeting it ends with a NUL.
fn nonce() -> io::Result<[u8; 20]> {
    let mut nonce = [0; 20];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    Ok(nonce.map(|byte| b'!' + byte % 94))
}

/// A connection that has logged in.
struct Session<'a> {
    packets: Packets<Line<'a>>,
    patient: &'a Patient,
    cancel: CancellationToken,
    shared: &'a Shared,
    /// User variables, in upper case.
    set: BTreeMap<String, String>,
}

impl Session<'_> {
    fn command(&mut self, word: u8, rest: &[u8]) -> Result<(), FeedError> {
        match word {
            COM_QUERY => Ok(self.query(&String::from_utf8_lossy(rest))?),
            COM_PING | COM_INIT_DB | COM_REGISTER_SLAVE => Ok(self.packets.ok()?),
            COM_BINLOG_DUMP | COM_BINLOG_DUMP_GTID => match Asked::parse(word, rest, &self.set) {
                Some(asked) if self.shared.replica.is_some_and(|replica| asked.replica != replica) => {
                    // It tries again, and is let in once it has its number back.
                    let text =
                        format!("a replica comes by the number {}, which is not the one it was given", asked.replica);
                    self.shared.events.detail(text);
                    Err(FeedError::Gone(ErrorKind::ConnectionRefused.into()))
                }
                Some(asked) => self.dump(asked),
                None => Ok(self.packets.error(FATAL, "bkp cannot read where the dump is to begin")?),
            },
            _ => Ok(self.packets.error(1047, "Unknown command")?),
        }
    }

    fn query(&mut self, sql: &str) -> io::Result<()> {
        match answer(sql, &self.shared.identity, &mut self.set) {
            Answer::Ok => self.packets.ok(),
            Answer::Rows { columns, rows } => self.packets.rows(&columns, &rows),
            Answer::Unknown(what) => {
                self.shared.events.detail(format!("the replica asks what a source of segments does not know: {what}"));
                self.packets.error(1193, &format!("Unknown system variable or statement: {what}"))
            }
        }
    }

    fn dump(&mut self, asked: Asked) -> Result<(), FeedError> {
        let mut current = self.shared.dump.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, self.cancel.clone()).cancel();
        drop(current);
        self.shared.sent.store(0, Ordering::Relaxed);
        match self.send(asked) {
            Err(FeedError::Gone(error)) => Err(FeedError::Gone(error)),
            Err(error) => {
                let text = human::chain(&error);
                *self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.clone());
                // In the midst of an event nothing else can be said than that it does not come whole.
                if !matches!(error, FeedError::Midway(_)) {
                    self.packets.error(FATAL, &text)?;
                    self.packets.stream.flush()?;
                }
                Err(error)
            }
            done => done,
        }
    }

    /// Sends what there is, and what comes to it, until the replica hangs up or the replay ends.
    fn send(&mut self, asked: Asked) -> Result<(), FeedError> {
        let mut feed = self.shared.feed();
        let server_id = self.shared.identity.server_id;
        let mut sender: Sender<'_> = feed.sender(asked.start, server_id, &self.shared.sent, &mut self.packets)?;
        loop {
            let served = sender.send(&feed, &mut self.packets)?;
            if asked.ends_at_end {
                return Ok(self.packets.eof()?);
            }
            match self.hold(&served, &feed)? {
                Some(grown) => feed = grown,
                None => return Ok(()),
            }
        }
    }

    /// Keeps a replica that has been sent everything, until there is more; `None`: it has hung up, or the replay has ended.
    fn hold(&mut self, served: &Served, feed: &Arc<Feed>) -> Result<Option<Arc<Feed>>, FeedError> {
        let asked =
            ["SOURCE_HEARTBEAT_PERIOD", "MASTER_HEARTBEAT_PERIOD"].into_iter().find_map(|name| self.set.get(name));
        let asked = asked.and_then(|text| text.parse().ok()).filter(|nanos| *nanos > 0).map(Duration::from_nanos);
        let period = asked.map_or(HEARTBEAT_MAX, |asked| asked.min(HEARTBEAT_MAX));
        loop {
            if let Some(beat) = made::heartbeat(self.shared.identity.server_id, served) {
                send_made(&mut self.packets, &beat)?;
            }
            self.packets.stream.flush()?;
            let beat_at = Instant::now() + period;
            while Instant::now() < beat_at {
                let now = self.shared.feed();
                if !Arc::ptr_eq(&now, feed) {
                    return Ok(Some(now));
                }
                if self.patient.wait(POLL)? {
                    return Ok(None);
                }
            }
        }
    }
}

/// What a replica asks for.
#[derive(Debug)]
pub(super) struct Asked {
    start: Start,
    replica: u32,
    /// It does not wait for more.
    ends_at_end: bool,
}

impl Asked {
    /// Reads where a dump is to begin, for whom, and whether it ends. `set` holds what the replica has said of itself.
    pub(super) fn parse(word: u8, rest: &[u8], set: &BTreeMap<String, String>) -> Option<Self> {
        let mut cursor = Cursor::new(rest);
        if word == COM_BINLOG_DUMP_GTID {
            let (flags, replica) = (cursor.u16().ok()?, cursor.u32().ok()?);
            let name = cursor.u32().ok()?;
            cursor.take(name as usize).ok()?;
            let (_offset, length) = (cursor.u64().ok()?, cursor.u32().ok()?);
            let executed = previous_gtids(cursor.take(length as usize).ok()?).ok()?;
            return Some(Self { start: Start::Without(executed), replica, ends_at_end: flags & END_AT_END != 0 });
        }
        let (offset, flags, replica) = (cursor.u32().ok()?, cursor.u16().ok()?, cursor.u32().ok()?);
        let start = match set.get("SLAVE_CONNECT_STATE") {
            Some(position) => Start::After(position.parse().ok()?),
            None => Start::At { file: String::from_utf8(cursor.rest().to_vec()).ok()?, offset: u64::from(offset) },
        };
        Some(Self { start, replica, ends_at_end: flags & END_AT_END != 0 })
    }
}
