//! A directory to dump into, servers to dump from, and ways to look at them that share nothing with the dump.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bkp::event::{Event, Listener};
use bkp::mysql::manifest::Manifest;
use bkp::mysql::server::Server as Address;
use bkp::policy::{MysqlAddress, MysqlSource, Network, NonTransactional, Throttle, Tls, TlsMode};
use bkp::run::Run;
use bkp::secret::Secret;
use bkp::source::mysql::{MysqlSourceError, Snapshot, Unheld};
use bkp::source::{FileSink, Sink, SinkError};
use tempfile::TempDir;

use super::{Product, Receiver, Server, program, sync_channel};

/// Writes a dump into a directory of its own.
pub(crate) struct DirSink {
    dir: TempDir,
    gate: Mutex<Option<Gate>>,
}

/// Where the first row file waits.
pub(crate) struct Gate {
    reached: SyncSender<()>,
    go: Receiver<()>,
}

impl DirSink {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), gate: Mutex::new(None) }
    }

    /// Returns a sink whose first write to a row file tells that it was reached, and waits to be let go.
    pub(crate) fn with_gate() -> (Self, Receiver<()>, SyncSender<()>) {
        let ((reached, is_reached), (go, may_go)) = (sync_channel(1), sync_channel(1));
        let sink = Self::new();
        *sink.gate.lock().unwrap() = Some(Gate { reached, go: may_go });
        (sink, is_reached, go)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Sink for DirSink {
    fn file(&self, path: &str) -> Result<Box<dyn FileSink + '_>, SinkError> {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let is_rows = path.extension().is_some_and(|extension| extension == "tsv");
        Ok(Box::new(DirFile { file: File::create_new(path).unwrap(), gate: is_rows.then_some(&self.gate) }))
    }
}

struct DirFile<'a> {
    file: File,
    gate: Option<&'a Mutex<Option<Gate>>>,
}

impl Write for DirFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(gate) = self.gate.and_then(|gate| gate.lock().unwrap().take()) {
            gate.reached.send(()).unwrap();
            gate.go.recv().ok();
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl FileSink for DirFile<'_> {
    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Keeps what a run notes.
#[derive(Default)]
pub(crate) struct Notes(Mutex<String>);

impl Notes {
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl Listener for Notes {
    fn hear(&self, event: &Event) {
        if let Event::Note(text) | Event::Warning(text) = event {
            self.0.lock().unwrap().push_str(&format!("{text}\n"));
        }
    }
}

/// Returns a run and what it notes.
pub(crate) fn noted() -> (Run, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    (Run::new(Arc::new(bkp::clock::SystemClock), bkp::event::Events::new(notes.clone())), notes)
}

pub(crate) fn by_socket(server: &Server) -> Address {
    Address {
        address: MysqlAddress::Socket(server.socket()),
        user: "root".to_owned(),
        password: None,
        tls: Tls::default(),
        network: Network::default(),
    }
}

/// Returns the address over TCP without TLS.
pub(crate) fn as_user(server: &Server, user: &str, password: &str) -> Address {
    Address {
        address: MysqlAddress::Tcp { host: "127.0.0.1".to_owned(), port: server.port() },
        user: user.to_owned(),
        password: Some(Secret::new(password.to_owned())),
        tls: Tls { mode: TlsMode::Off, ca_file: None },
        network: Network::default(),
    }
}

pub(crate) fn source(connections: usize) -> MysqlSource {
    MysqlSource {
        address: MysqlAddress::Socket(PathBuf::new()),
        user: String::new(),
        password: None,
        tls: Tls::default(),
        connections,
        schemas: Vec::new(),
        exclude: Vec::new(),
        lock_wait: Duration::from_secs(3),
        non_transactional: NonTransactional::Refuse,
        throttle: Throttle::default(),
        binlog: None,
        tenant: None,
        standby_delay: Duration::ZERO,
    }
}

pub(crate) fn dump(
    server: &Server,
    sink: &DirSink,
    chunk_bytes: u64,
    previous: Option<&Manifest>,
) -> Result<Manifest, MysqlSourceError> {
    dump_by(&by_socket(server), &source(3), sink, chunk_bytes, previous, &Run::silent())
}

pub(crate) fn dump_by(
    address: &Address,
    source: &MysqlSource,
    sink: &DirSink,
    chunk_bytes: u64,
    previous: Option<&Manifest>,
    run: &Run,
) -> Result<Manifest, MysqlSourceError> {
    let snapshot = Snapshot::open(address, source, Unheld::Refuse, run)?;
    snapshot.with_chunk_bytes(chunk_bytes).dump(sink, previous, run)
}

/// Dumps as `dump_by` where the account may take no lock.
pub(crate) fn dump_unheld(address: &Address, sink: &DirSink, run: &Run) -> Result<Manifest, MysqlSourceError> {
    Snapshot::open(address, &source(1), Unheld::Allow, run)?.dump(sink, None, run)
}

/// Loads a dump as its README says, and takes no warning from the client.
pub(crate) fn restore(server: &Server, dir: &Path) {
    server.execute("SET GLOBAL local_infile = 1");
    let (client, arguments) = server.client();
    let mut command = Command::new(client);
    command.args(arguments).args(["--local-infile=1", "--comments"]);
    run_script(command.current_dir(dir), File::open(dir.join("restore.sql")).unwrap().into());
}

/// Runs a file of SQL by the product's own client.
pub(crate) fn run_file(server: &Server, file: &str) {
    let (client, arguments) = server.client();
    run_script(Command::new(client).args(arguments).arg("--comments"), File::open(file).unwrap().into());
}

fn run_script(command: &mut Command, script: Stdio) {
    let output = command.stdin(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Applies the source's binlog up to the manifest's position, by the products' own programs.
pub(crate) fn replay(original: &Server, manifest: &Manifest, target: &Server) {
    let position = manifest.position.as_ref().unwrap();
    let data = original.dir().join("data");
    let mut files: Vec<PathBuf> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| {
        let name = file.file_name().unwrap().to_str().unwrap();
        name.starts_with("binlog.0") && name <= position.file.as_str()
    });
    files.sort();
    let reader = if original.product() == Product::MariaDb { "MARIADB_BINLOG" } else { "MYSQLBINLOG" };
    let mut reader = Command::new(program(reader))
        .args(["--no-defaults", &format!("--stop-position={}", position.offset)])
        .args(files)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (client, arguments) = target.client();
    run_script(Command::new(client).args(arguments).arg("--binary-mode"), reader.stdout.take().unwrap().into());
    assert!(reader.wait().unwrap().success());
}

/// Returns the ids of sessions that read rows for a dump.
pub(crate) fn readers(server: &Server) -> Vec<String> {
    let rows = server.query(
        "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT%FROM `large`.`t`%' AND USER = 'bkp'",
    );
    rows.into_iter().map(|row| row[0].clone().unwrap()).collect()
}

/// Returns schema and name of all tables that hold rows of their own.
pub(crate) fn tables(server: &Server) -> Vec<(String, String)> {
    let rows = server.query(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') \
         AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema') ORDER BY 1, 2",
    );
    rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap())).collect()
}

/// Returns a table's name as statements have it.
pub(crate) fn name_of(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Returns all rows, sorted, each value in a form that shows its every bit: numbers as doubles and integers, all else as HEX.
pub(crate) fn rows_of(server: &Server, schema: &str, table: &str) -> Vec<Vec<Option<String>>> {
    let of_table = format!("TABLE_SCHEMA = {} AND TABLE_NAME = {}", literal(schema), literal(table));
    let columns = server.query(&format!(
        "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE {of_table} ORDER BY ORDINAL_POSITION"
    ));
    let mut shown: Vec<String> =
        columns.iter().map(|row| show(row[0].as_ref().unwrap(), row[1].as_ref().unwrap())).collect();
    let kind = server.value(&format!("SELECT TABLE_TYPE FROM information_schema.TABLES WHERE {of_table}"));
    let mut from = format!("{}.{}", quote(schema), quote(table));
    if kind == "SYSTEM VERSIONED" {
        from.push_str(" FOR SYSTEM_TIME ALL");
        if !columns.iter().any(|row| row[0].as_deref() == Some("s")) {
            shown.extend(["row_start".to_owned(), "row_end".to_owned()]);
        }
    }
    let mut rows = server.query(&format!("SELECT {} FROM {from}", shown.join(", ")));
    rows.sort();
    rows
}

fn show(column: &str, data_type: &str) -> String {
    let column = quote(column);
    match data_type {
        "float" | "double" => format!("{column} + 0e0"),
        "bit" | "year" => format!("{column} + 0"),
        "json" => format!("HEX(CAST({column} AS CHAR CHARACTER SET utf8mb4))"),
        "date" | "time" | "datetime" | "timestamp" | "decimal" | "tinyint" | "smallint" | "mediumint" | "int"
        | "bigint" => column,
        _ => format!("HEX({column})"),
    }
}

/// Returns the definitions of all objects as the server shows them, and who may do what.
pub(crate) fn objects(server: &Server) -> BTreeSet<String> {
    let mut shown = BTreeSet::new();
    let schemas = "NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')";
    let mut add = |list: &str, show: &dyn Fn(&[Option<String>]) -> String, drop_last: usize| {
        for row in server.query(list) {
            let statement = show(&row);
            for answer in server.query(&statement) {
                let kept = answer.len() - drop_last;
                shown.insert(format!("{statement}: {:?}", &answer[..kept]));
            }
        }
    };
    let name =
        |row: &[Option<String>]| format!("{}.{}", quote(row[0].as_ref().unwrap()), quote(row[1].as_ref().unwrap()));
    add(
        &format!("SELECT SCHEMA_NAME, '' FROM information_schema.SCHEMATA WHERE SCHEMA_NAME {schemas}"),
        &|row| format!("SHOW CREATE DATABASE {}", quote(row[0].as_ref().unwrap())),
        0,
    );
    add(
        &format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA {schemas} ORDER BY 1, 2"
        ),
        &|row| format!("SHOW CREATE VIEW {}", name(row)),
        0,
    );
    add(
        &format!(
            "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA {schemas} ORDER BY 3, 1, 2"
        ),
        &|row| format!("SHOW CREATE {} {}", row[2].as_ref().unwrap(), name(row)),
        0,
    );
    // The last column is when the trigger was made.
    add(
        &format!(
            "SELECT TRIGGER_SCHEMA, TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA {schemas} ORDER BY 1, 2"
        ),
        &|row| format!("SHOW CREATE TRIGGER {}", name(row)),
        1,
    );
    add(
        &format!(
            "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA {schemas} ORDER BY 1, 2"
        ),
        &|row| format!("SHOW CREATE EVENT {}", name(row)),
        0,
    );
    for (user, host) in accounts(server) {
        let account = if host.is_empty() { quote(&user) } else { format!("{}@{}", quote(&user), quote(&host)) };
        if !host.is_empty() {
            add("SELECT 1", &|_| format!("SHOW CREATE USER {account}"), 0);
        }
        add("SELECT 1", &|_| format!("SHOW GRANTS FOR {account}"), 0);
    }
    if server.product() == Product::MariaDb {
        add(
            &format!(
                "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'SEQUENCE' AND TABLE_SCHEMA {schemas}"
            ),
            &|row| format!("SHOW CREATE SEQUENCE {}", name(row)),
            0,
        );
    }
    let definitions: Vec<String> =
        tables(server).iter().map(|(schema, table)| definition(server, schema, table)).collect();
    shown.extend(definitions);
    if server.product() == Product::MariaDb {
        shown.insert(format!("NEXTVAL: {:?}", server.query("SELECT NEXTVAL(torture.numbers_of)")));
    }
    shown
}

/// Returns user and host of all accounts that are not the server's own, nor the tests'; a role of MariaDB's has no host.
fn accounts(server: &Server) -> Vec<(String, String)> {
    let rows = server.query(
        "SELECT user, host FROM mysql.user WHERE user NOT IN ('', 'root', 'bkp', 'PUBLIC') AND user NOT LIKE 'mysql%' \
         AND user NOT LIKE 'mariadb%' ORDER BY 1, 2",
    );
    rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap())).collect()
}

/// Returns a table's definition without the character set that MySQL spells out or leaves out as it pleases.
pub(crate) fn definition(server: &Server, schema: &str, table: &str) -> String {
    let shown = server.query(&format!("SHOW CREATE TABLE {}.{}", quote(schema), quote(table)));
    shown[0][1]
        .clone()
        .unwrap()
        .replace(" CHARACTER SET latin1 COLLATE latin1_german1_ci", " COLLATE latin1_german1_ci")
}

/// An authority and a server's certificate for 127.0.0.1, made by `openssl`.
pub(crate) struct Certificates(TempDir);

impl Certificates {
    pub(crate) fn make() -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("extensions"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        let openssl = |arguments: &str| {
            let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir.path()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
        openssl("req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr");
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.pem",
        );
        Self(dir)
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.0.path().join("ca.pem")
    }

    pub(crate) fn options(&self) -> [String; 3] {
        let path = |name: &str| self.0.path().join(name).display().to_string();
        [
            format!("--ssl-ca={}", path("ca.pem")),
            format!("--ssl-cert={}", path("server.pem")),
            format!("--ssl-key={}", path("server.key")),
        ]
    }
}
