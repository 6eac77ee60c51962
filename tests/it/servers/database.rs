//! A private MariaDB or MySQL server: one process, one temporary directory, a socket and a loopback port.

use super::block_on;
use super::programs::program;
use super::template;
use mysql_async::Conn;
use mysql_async::Opts;
use mysql_async::OptsBuilder;
use mysql_async::Row;
use mysql_async::Value;
use mysql_async::prelude::Queryable as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use tempfile::TempDir;

/// A server has needed 20 s on a machine with eight builds beside it.
const START_MAX: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(20);
/// Between choosing a free port and taking it another process can be faster.
const START_TRIES_MAX: usize = 5;

/// Runs before the first connection, so that nobody ever meets the server without its user.
const INIT_SQL: &str = "SET SESSION sql_log_bin=0;
CREATE USER IF NOT EXISTS 'bkp'@'%' IDENTIFIED BY 'bkp';
GRANT ALL PRIVILEGES ON *.* TO 'bkp'@'%' WITH GRANT OPTION;
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Product {
    MariaDb,
    MySql,
}

/// Which of a product's versions: what Debian's stable suite has, or its newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    Stable,
    Newest,
}

impl Product {
    /// There is one MySQL only.
    pub(super) fn server_program(self, suite: Suite) -> &'static str {
        match (self, suite) {
            (Self::MariaDb, Suite::Stable) => "MARIADBD",
            (Self::MariaDb, Suite::Newest) => "MARIADBD_NEWEST",
            (Self::MySql, _) => "MYSQLD",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::MariaDb => &["--binlog-format=ROW", "--innodb-log-file-size=64M"],
            Self::MySql => {
                &["--mysqlx=OFF", "--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--innodb-redo-log-capacity=128M"]
            }
        }
    }
}

/// Returns the option without which a server refuses to run as root.
pub(super) fn as_root() -> &'static [&'static str] {
    if rustix::process::geteuid().is_root() { &["--user=root"] } else { &[] }
}

/// The options of every server here: small, and fast. Commits outlive the process, not the machine.
const OPTIONS: &[&str] = &[
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--log-bin=binlog",
    "--character-set-server=utf8mb4",
    "--innodb-buffer-pool-size=128M",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-flush-method=nosync",
    "--skip-innodb-doublewrite",
    "--sync-binlog=0",
    "--local-infile=1",
    "--performance-schema=OFF",
    "--max-allowed-packet=256M",
    "--max-connections=100",
    // Days by default: two who wait for each other are to fail, not to hang.
    "--lock-wait-timeout=300",
];

/// A running server. `root` has no password over the socket; user `bkp`, password `bkp`, may do everything.
#[derive(Debug)]
pub(crate) struct Server {
    product: Product,
    suite: Suite,
    options: Vec<String>,
    port: u16,
    process: Process,
    dir: TempDir,
}

impl Server {
    pub(crate) fn mariadb() -> Self {
        Self::start(Product::MariaDb, &[])
    }

    pub(crate) fn mysql() -> Self {
        Self::start(Product::MySql, &[])
    }

    /// Starts a server with options of the caller's, which win over the usual ones.
    pub(crate) fn start(product: Product, options: &[&str]) -> Self {
        Self::start_of(product, Suite::Stable, options)
    }

    pub(crate) fn start_of(product: Product, suite: Suite, options: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("bkp-it-").tempdir().unwrap();
        template::copy_to(product, suite, &dir.path().join("data"));
        fs::create_dir(dir.path().join("tmp")).unwrap();
        fs::write(dir.path().join("init.sql"), INIT_SQL).unwrap();
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let (process, port) = launch(product, suite, dir.path(), &options);
        Self { product, suite, options, port, process, dir }
    }

    pub(crate) fn product(&self) -> Product {
        self.product
    }

    /// Returns the temporary directory: `data`, `s.sock`, `error.log`.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_of(self.dir.path())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.server.id()
    }

    /// Returns the address of `root` over the socket.
    pub(crate) fn root_url(&self) -> String {
        let socket = self.socket().display().to_string().replace('/', "%2F");
        format!("mysql://root@localhost/?socket={socket}")
    }

    /// Returns the address of user `bkp` over TCP.
    pub(crate) fn tcp_url(&self) -> String {
        format!("mysql://bkp:bkp@127.0.0.1:{}/", self.port)
    }

    /// Runs one statement or several with `;` between; a routine's body needs no DELIMITER.
    pub(crate) fn execute(&self, sql: &str) {
        let run = async { self.connect().await.query_iter(sql).await?.drop_result().await };
        block_on(run).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Runs as [`Server::execute`] what may be refused.
    pub(crate) fn try_execute(&self, sql: &str) -> Result<(), String> {
        let run = async { self.connect().await.query_iter(sql).await?.drop_result().await };
        block_on(run).map_err(|error: mysql_async::Error| error.to_string())
    }

    /// Returns the rows of one statement as text; NULL is `None`.
    pub(crate) fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let run = async { self.connect().await.query::<Row, _>(sql).await };
        let rows = block_on(run).unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows.into_iter().map(|row| row.unwrap().into_iter().map(text_of).collect()).collect()
    }

    /// Returns the first column of the first row.
    pub(crate) fn value(&self, sql: &str) -> String {
        let rows = self.query(sql);
        rows[0][0].clone().unwrap_or_else(|| panic!("{sql}: NULL"))
    }

    /// Opens a session of `root`'s over the socket.
    pub(crate) async fn connect(&self) -> Conn {
        Conn::new(root_opts(self.dir.path())).await.unwrap()
    }

    /// Returns the product's own command-line client and the arguments with which it reaches this server as `root`.
    pub(crate) fn client(&self) -> (PathBuf, Vec<String>) {
        let name = if self.product == Product::MariaDb { "MARIADB" } else { "MYSQL" };
        let socket = format!("--socket={}", self.socket().display());
        let arguments = ["--no-defaults", "--user=root", &socket, "--default-character-set=utf8mb4"];
        (program(name), arguments.map(str::to_owned).to_vec())
    }

    /// Returns what the product's own client prints for a statement that it sends over TCP as `bkp`.
    pub(crate) fn run_client(&self, sql: &str) -> String {
        let port = format!("--port={}", self.port);
        let output = Command::new(self.client().0)
            .args(["--no-defaults", "--host=127.0.0.1", &port, "--user=bkp", "--password=bkp", "-BNe", sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ends the server as a crash does.
    pub(crate) fn kill(&mut self) {
        self.process.server.kill().unwrap();
        self.process.server.wait().unwrap();
    }

    /// Ends the server in good order.
    pub(crate) fn shut_down(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process.server);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + START_MAX;
        while self.process.server.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the server does not end within {START_MAX:?}");
            thread::sleep(POLL);
        }
    }

    /// Starts an ended server again on the same data; the port changes.
    pub(crate) fn start_again(&mut self) {
        (self.process, self.port) = launch(self.product, self.suite, self.dir.path(), &self.options);
    }
}

/// A server's process and the one that ends it should this test process be killed.
#[derive(Debug)]
struct Process {
    server: Child,
    guard: Child,
}

impl Process {
    fn spawn(mut command: Command, dir: &Path) -> Self {
        let server = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        // The guard reads a pipe that only we hold: when it closes without our having killed the guard, we are gone.
        let script = r#"read -r _; kill -9 "$1"; rm -rf "$2""#;
        let guard = Command::new("sh")
            .args(["-c", script, "guard", &server.id().to_string()])
            .arg(dir)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self { server, guard }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for child in [&mut self.guard, &mut self.server] {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Starts the program until it answers.
fn launch(product: Product, suite: Suite, dir: &Path, options: &[String]) -> (Process, u16) {
    for _ in 0..START_TRIES_MAX {
        let port = free_port();
        let mut process = Process::spawn(command(product, suite, dir, port, options), dir);
        if answers(&mut process.server, dir) {
            return (process, port);
        }
    }
    let log = fs::read_to_string(dir.join("error.log")).unwrap_or_default();
    panic!("{product:?} does not start:\n{log}");
}

fn command(product: Product, suite: Suite, dir: &Path, port: u16, options: &[String]) -> Command {
    let in_dir = |option: &str, name: &str| format!("--{option}={}", dir.join(name).display());
    let log = fs::File::create(dir.join("stdout.log")).unwrap();
    let mut command = Command::new(program(product.server_program(suite)));
    command
        .arg("--no-defaults")
        .args([in_dir("datadir", "data"), in_dir("socket", "s.sock"), in_dir("tmpdir", "tmp")])
        .args([in_dir("pid-file", "server.pid"), in_dir("log-error", "error.log"), in_dir("init-file", "init.sql")])
        .args([format!("--port={port}"), format!("--server-id={port}")])
        .args(as_root())
        .args(OPTIONS)
        .args(product.options())
        .args(options)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command
}

/// Waits until the server answers a query; `false` once its process has ended.
fn answers(server: &mut Child, dir: &Path) -> bool {
    let deadline = Instant::now() + START_MAX;
    while server.try_wait().unwrap().is_none() {
        let ask = async { Conn::new(root_opts(dir)).await?.ping().await };
        if socket_of(dir).exists() && block_on(ask).is_ok() {
            return true;
        }
        assert!(Instant::now() < deadline, "no answer after {START_MAX:?}");
        thread::sleep(POLL);
    }
    false
}

fn root_opts(dir: &Path) -> Opts {
    let socket = socket_of(dir).display().to_string();
    OptsBuilder::default().user(Some("root")).socket(Some(socket)).into()
}

fn socket_of(dir: &Path) -> PathBuf {
    dir.join("s.sock")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn text_of(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true)),
    }
}
