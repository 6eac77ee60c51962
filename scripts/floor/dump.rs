//! The floor of a dump: the mall's rows read by all connections and thrown away.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use bkp::mysql::server::Server;
use bkp::policy::{MysqlAddress, Network, Policy, Tls, TlsMode};
use bkp::run::Run;
use bkp::source::mysql::{Snapshot, Unheld};
use bkp::source::{FileSink, Sink, SinkError};
use tokio_util::sync::CancellationToken;

pub(crate) fn server(socket: PathBuf, user: String) -> Server {
    Server {
        address: MysqlAddress::Socket(socket),
        user,
        password: None,
        tls: Tls { mode: TlsMode::Off, ..Tls::default() },
        network: Network::default(),
    }
}

/// Shops read by one statement: enough for statements to cost nothing, few enough to share out.
const SHOPS_AT_ONCE: usize = 8;

/// Reads all tables, shared out by stretches of shops, and returns the bytes of the rows' packets.
pub(crate) fn rows(server: &Server, schema: &str, connections: usize) -> anyhow::Result<u64> {
    let cancel = CancellationToken::new();
    let mut wire = server.open_wire(&cancel)?;
    let mut statements = statements(&mut wire, schema)?;
    statements.reverse();
    let (work, bytes) = (Mutex::new(statements), AtomicU64::new(0));
    let read = || -> anyhow::Result<()> {
        let mut wire = server.open_wire(&cancel)?;
        while let Some(statement) = work.lock().ok().and_then(|mut work| work.pop()) {
            let mut rows = wire.read(&statement).with_context(|| statement.clone())?;
            let mut sum = 0;
            while let Some(packet) = rows.next()? {
                sum += packet.len() as u64;
            }
            bytes.fetch_add(sum, Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(read)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a reader broke down"))?)
    })?;
    Ok(bytes.into_inner())
}

fn statements(wire: &mut bkp::mysql::wire::Wire, schema: &str) -> anyhow::Result<Vec<String>> {
    let shops = texts(wire, &format!("SELECT shop_id FROM {schema}.shops ORDER BY shop_id"))?;
    let tables = format!(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = '{schema}' AND column_name = 'shop_id'
         AND table_name IN (SELECT table_name FROM information_schema.tables
                            WHERE table_schema = '{schema}' AND table_type = 'BASE TABLE')
         ORDER BY table_name"
    );
    let mut statements = Vec::new();
    for table in texts(wire, &tables)? {
        for shops in shops.chunks(SHOPS_AT_ONCE) {
            let (first, last) = (&shops[0], &shops[shops.len() - 1]);
            statements.push(format!("SELECT * FROM {schema}.{table} WHERE shop_id BETWEEN {first} AND {last}"));
        }
    }
    Ok(statements)
}

fn texts(wire: &mut bkp::mysql::wire::Wire, sql: &str) -> anyhow::Result<Vec<String>> {
    let rows = wire.query(sql)?;
    let text = |row: Vec<Option<Vec<u8>>>| {
        let value = row.into_iter().next().flatten().unwrap_or_default();
        Ok(String::from_utf8(value)?)
    };
    rows.into_iter().map(text).collect()
}

/// Dumps a policy's source into nothing, and returns the bytes of its row files.
pub(crate) fn encode(policy: &std::path::Path, source: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(policy)?;
    let policy = Policy::parse(&text, policy)?;
    let place = policy.mysql.get(source).with_context(|| format!("no source is named `{source}`"))?;
    let server = Server::of(place, &policy.network)?;
    let run = Run::silent();
    let manifest = Snapshot::open(&server, place, Unheld::Refuse, &run)?.dump(&Nothing, None, &run)?;
    Ok(manifest.bytes())
}

/// Keeps nothing.
struct Nothing;

impl Sink for Nothing {
    fn file(&self, _path: &str) -> Result<Box<dyn FileSink + '_>, SinkError> {
        Ok(Box::new(Self))
    }
}

impl Write for Nothing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FileSink for Nothing {
    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}
