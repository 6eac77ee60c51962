//! A server that is thrown away: a private `mariadbd` or `mysqld` in a temporary directory, reachable by a socket only.
//!
//! It is gone when its value is, and also when this process is killed: a guard process ends it then, and should the whole
//! machine go down, the next sandbox sweeps up what is left. Nothing in it is meant to last, so nothing in it waits for a disk.

mod dir;
mod error;
mod process;
mod program;
mod zones;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::manifest::{Manifest, Product};
use crate::mysql::server::Server;
use crate::policy::{MysqlAddress, Network, Tls};
use crate::run::Run;
use crate::sandbox::dir::Dir;
use crate::sandbox::process::Process;
use crate::sandbox::program::Program;

pub use dir::{Scratch, sweep};
pub use error::SandboxError;

/// What kind of server to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxPlan {
    pub product: Product,
    /// The server program; `None`: found in `PATH` and the usual places.
    pub program: Option<PathBuf>,
    /// Where its directory is made; `None`: the system's temporary directory. Wants room for the restored database.
    pub dir: Option<PathBuf>,
    pub buffer_pool_bytes: u64,
    /// Has to be as it was where the dump comes from: a row may be too long for smaller pages.
    pub page_bytes: u32,
    /// What must be free in the directory.
    pub room_bytes: u64,
    /// Has to be as it was where the dump comes from.
    pub lower_case_table_names: u8,
    /// Transactions have GTIDs where the dump comes from: only such a server can follow it by them. Of MySQL alone.
    pub has_gtids: bool,
    /// How long the server may take to answer.
    pub start_max: Duration,
    /// Options of the server program beside those that every sandbox has.
    pub options: Vec<String>,
}

/// A load is fastest while its indexes fit; a drill is not to push the machine's own work out of memory.
fn buffer_pool_bytes(memory: u64) -> u64 {
    (memory / 4).clamp(128 << 20, 4 << 30)
}

/// Rows take about as much again for their indexes, and half as much for what a page leaves empty and for logs.
fn room_bytes(plain: u64) -> u64 {
    plain.saturating_mul(5) / 2
}

/// MySQL makes its files in about ten seconds and starts in three; a machine at work takes some times that.
const START_MAX: Duration = Duration::from_mins(3);

const POLL: Duration = Duration::from_millis(50);

/// Of both products, unless told otherwise.
const PAGE_BYTES: u32 = 16 << 10;

/// Returns this machine's memory, or what its control group may use of it.
#[must_use]
pub fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = text.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").unwrap_or_default();
    let limit = group.trim().parse().unwrap_or(u64::MAX);
    (kib * 1024).min(limit)
}

impl SandboxPlan {
    /// Plans a server of the product that a dump was taken from.
    #[must_use]
    pub fn for_dump(manifest: &Manifest) -> Self {
        let number = |name: &str| manifest.variables.get(name).and_then(|value| value.parse().ok());
        Self {
            product: manifest.product,
            program: None,
            dir: None,
            buffer_pool_bytes: buffer_pool_bytes(memory_bytes()),
            page_bytes: number("innodb_page_size").unwrap_or(PAGE_BYTES),
            room_bytes: room_bytes(manifest.bytes()),
            lower_case_table_names: number("lower_case_table_names")
                .and_then(|value| value.try_into().ok())
                .unwrap_or(0),
            has_gtids: manifest.product == Product::MySql && manifest.gtid.as_ref().is_some_and(|set| !set.is_empty()),
            start_max: START_MAX,
            options: Vec::new(),
        }
    }
}

/// Returns the server program that a sandbox of a product would be started with; one that is named must be it.
///
/// # Errors
/// Where none is installed, or the named one is no server of the product.
pub fn program(product: Product, named: Option<&Path>) -> Result<PathBuf, SandboxError> {
    Program::find(product, named).map(|program| program.path().to_owned())
}

/// A running server that nobody else knows of.
#[derive(Debug)]
pub struct Sandbox {
    // Dropped in this order: first the process, then its files.
    process: Process,
    dir: Dir,
    version: String,
}

impl Sandbox {
    /// Makes and starts a server, and waits until it answers.
    pub async fn start(plan: &SandboxPlan, run: &Run) -> Result<Self, SandboxError> {
        let program = Program::find(plan.product, plan.program.as_deref())?;
        let parent = plan.dir.clone().unwrap_or_else(std::env::temp_dir);
        sweep(&parent, &run.events);
        check_room(&parent, plan.room_bytes)?;
        let dir = Dir::make(&parent)?;
        let deadline = Instant::now() + plan.start_max;
        let finding = tokio::task::spawn_blocking(zones::prepare);
        initialise(&program, plan, &dir, run, deadline).await?;
        let command = program.command(&dir, &options(plan, &dir));
        let mut process = Process::spawn(command, dir.path())?;
        let (conn, version) = answer(&mut process, &dir, run, deadline).await?;
        let settling = async {
            // Where that panicked, what wants it does as well.
            finding.await.ok();
            settle(conn, run).await;
        };
        tokio::select! {
            () = settling => {}
            () = run.cancel.cancelled() => return Err(SandboxError::Stopped),
            () = tokio::time::sleep_until(deadline.into()) => return Err(SandboxError::NoAnswer { log: dir.logs() }),
        }
        Ok(Self { process, dir, version })
    }

    /// Returns how to reach the server: by its socket, as `root`, without a password.
    #[must_use]
    pub fn server(&self) -> Server {
        server_at(&self.dir)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the directory that holds everything of it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the version as `SELECT VERSION()` says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Ends the server and removes its directory. Dropping does the same, but cannot say that it failed.
    pub fn stop(self) -> Result<(), SandboxError> {
        let Self { process, dir, .. } = self;
        drop(process);
        dir.remove()
    }
}

fn server_at(dir: &Dir) -> Server {
    Server {
        address: MysqlAddress::Socket(dir.socket()),
        user: "root".to_owned(),
        password: None,
        tls: Tls::default(),
        network: Network::default(),
    }
}

/// Returns how many bytes may still be written into a directory's filesystem.
///
/// # Errors
/// Where the directory cannot be looked at.
pub fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let system = rustix::fs::statvfs(dir)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

fn check_room(dir: &Path, wanted: u64) -> Result<(), SandboxError> {
    let free = free_bytes(dir).map_err(SandboxError::dir(dir))?;
    if free < wanted { Err(SandboxError::NoRoom { dir: dir.to_owned(), wanted, free }) } else { Ok(()) }
}

/// Makes the system tables.
async fn initialise(
    program: &Program,
    plan: &SandboxPlan,
    dir: &Dir,
    run: &Run,
    deadline: Instant,
) -> Result<(), SandboxError> {
    let mut command = program.initialiser(dir, &options_to_keep(plan))?;
    let log = std::fs::File::create(dir.path().join("initialise.log")).map_err(SandboxError::dir(dir.path()))?;
    let errors = log.try_clone().map_err(SandboxError::dir(dir.path()))?;
    command.stdout(log).stderr(errors);
    let mut process = Process::spawn(command, dir.path())?;
    loop {
        match process.ended()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                return Err(SandboxError::Initialise { status, log: dir.logs() });
            }
            None => pause(dir, run, deadline).await?,
        }
    }
}

/// What a server is told once it is up.
const SETTLING: [&str; 2] = [
    // MySQL: what is thrown away need not survive a crash.
    "ALTER INSTANCE DISABLE INNODB REDO_LOG",
    // MariaDB: accounts with this plugin come back only where it is loaded.
    "INSTALL SONAME 'auth_ed25519'",
];

/// Waits until the server answers, and returns a connection and its version.
async fn answer(
    process: &mut Process,
    dir: &Dir,
    run: &Run,
    deadline: Instant,
) -> Result<(Conn, String), SandboxError> {
    let server = server_at(dir);
    loop {
        if let Some(status) = process.ended()? {
            return Err(SandboxError::Ended { status, log: dir.logs() });
        }
        // Until it is up there is no socket, or nobody behind it: that is why we ask again.
        if let Ok(mut conn) = server.connect().await
            && let Ok(Some(version)) = conn.query_first("SELECT VERSION()").await
        {
            return Ok((conn, version));
        }
        pause(dir, run, deadline).await?;
    }
}

async fn settle(mut conn: Conn, run: &Run) {
    for statement in SETTLING {
        // The other product, an older version or a leaner package does not know it, and does without.
        conn.query_drop(statement).await.ok();
    }
    // Most databases name no zone.
    if let Err(error) = zones::fill(&mut conn).await {
        run.events.warn(format!("the sandbox knows no time zone by name: {error}"));
    }
    conn.disconnect().await.ok();
}

async fn pause(dir: &Dir, run: &Run, deadline: Instant) -> Result<(), SandboxError> {
    if Instant::now() > deadline {
        return Err(SandboxError::NoAnswer { log: dir.logs() });
    }
    tokio::select! {
        () = run.cancel.cancelled() => Err(SandboxError::Stopped),
        () = tokio::time::sleep(POLL) => Ok(()),
    }
}

/// Options that must be the same when the files are made and when they are used.
fn options_to_keep(plan: &SandboxPlan) -> Vec<String> {
    // Loose: older versions do not know it, and do without.
    let redo_log = match plan.product {
        Product::MariaDb => "--loose-innodb-log-file-size=256M",
        Product::MySql => "--loose-innodb-redo-log-capacity=512M",
    };
    let fixed = [redo_log, "--skip-innodb-doublewrite", "--innodb-flush-log-at-trx-commit=0"];
    let case = format!("--lower-case-table-names={}", plan.lower_case_table_names);
    let page = format!("--innodb-page-size={}", plan.page_bytes);
    fixed.into_iter().map(str::to_owned).chain([case, page]).collect()
}

fn options(plan: &SandboxPlan, dir: &Dir) -> Vec<String> {
    let in_dir = |option: &str, name: &str| format!("--{option}={}", dir.path().join(name).display());
    let own = [
        format!("--socket={}", dir.socket().display()),
        in_dir("pid-file", dir::PID_FILE),
        in_dir("log-error", dir::ERROR_LOG),
        in_dir("tmpdir", "tmp"),
        in_dir("secure-file-priv", "tmp"),
        format!("--innodb-buffer-pool-size={}", plan.buffer_pool_bytes),
    ];
    let of_product: &[&str] = match plan.product {
        // Indexes are built after the rows.
        Product::MariaDb => &["--loose-innodb-sort-buffer-size=64M"],
        // Accounts of older servers come with the older plugin.
        Product::MySql => &["--loose-mysqlx=OFF", "--loose-mysql-native-password=ON"],
    };
    let gtids: &[&str] =
        if plan.has_gtids { &["--loose-gtid-mode=ON", "--loose-enforce-gtid-consistency=ON"] } else { &[] };
    let fixed = OPTIONS.iter().chain(of_product).chain(gtids).map(|&option| option.to_owned());
    fixed.chain(own).chain(options_to_keep(plan)).chain(plan.options.iter().cloned()).collect()
}

/// Options of every sandbox. Nobody comes in but by the socket, whose directory is ours alone.
const OPTIONS: [&str; 13] = [
    "--skip-networking",
    "--skip-name-resolve",
    "--event-scheduler=OFF",
    "--local-infile=1",
    "--skip-log-bin",
    "--innodb-buffer-pool-load-at-startup=OFF",
    "--innodb-buffer-pool-dump-at-shutdown=OFF",
    // Several connections may fill a table with an AUTO_INCREMENT column at once.
    "--innodb-autoinc-lock-mode=2",
    "--performance-schema=OFF",
    "--max-allowed-packet=1G",
    "--max-connections=64",
    "--character-set-server=utf8mb4",
    // A table with a DATA DIRECTORY would be made there, outside of what is thrown away. Loads keep this mode.
    "--sql-mode=NO_DIR_IN_CREATE,NO_ENGINE_SUBSTITUTION",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_pool_is_a_quarter_of_the_memory_within_bounds() {
        assert_eq!(buffer_pool_bytes(8 << 30), 2 << 30);
        assert_eq!(buffer_pool_bytes(512 << 30), 4 << 30);
        assert_eq!(buffer_pool_bytes(0), 128 << 20);
    }
}
