//! A policy: one TOML file, parsed once into values that hold together.
//!
//! [`Policy`] is what the verbs read. `policy::raw` is what the file says, unknown keys refused; `policy::check` turns the
//! one into the other, or says file, line, key and remedy of each fault. `policies/full.toml` explains every key.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{Metadata, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono_tz::Tz;
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::policy::locate::Places;
use crate::policy::raw::RawPolicy;
pub use crate::schedule::CatchUp;
use crate::schedule::Cron;
use crate::secret::SecretSource;

mod check;
mod error;
mod find;
mod lint;
mod locate;
mod raw;
mod read;
#[cfg(test)]
mod tests;
mod throttle;
mod units;

pub use crate::policy::error::{Fault, PolicyError};
pub use crate::policy::find::{all, find};
pub use crate::policy::lint::{Lint, lints};
pub use crate::policy::throttle::{Hours, Limits, Throttle};

#[derive(Debug, Clone)]
pub struct Policy {
    /// Where the file lies, for messages.
    pub file: PathBuf,
    /// SHA-256 of the file's text: a drill's report is true of this policy only.
    pub hash: String,
    pub name: String,
    pub timezone: Tz,
    pub objectives: Objectives,
    pub network: Network,
    pub repository: RepositoryPlace,
    /// Where the catalog, stamps and locks of this policy live (default `/var/lib/bkp/<name>`).
    pub state_dir: PathBuf,
    pub copies: Vec<CopyPlace>,
    pub mysql: BTreeMap<String, MysqlSource>,
    pub files: BTreeMap<String, FilesSource>,
    pub schedule: Schedule,
    pub verify: VerifyPlan,
    pub retention: Keep,
    pub restore: RestorePlan,
    pub drill: DrillPlan,
}

/// The file in the state directory that pauses dumps.
const PAUSE: &str = "pause";

/// A policy is a page of text; a larger file is another file.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Policy {
    /// Reads a policy's file.
    ///
    /// # Errors
    /// All faults at once, each with line, key and remedy. A file that others can write is refused: it names commands that run
    /// with our rights.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let read_error = |error| PolicyError::Read { path: path.to_owned(), error };
        // Without NONBLOCK the open of a FIFO would wait for a writer.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(read_error)?;
        let meta = file.metadata().map_err(read_error)?;
        judge(path, Rights::of(&meta), Us::here())?;
        if meta.len() > FILE_BYTES_MAX {
            return Err(read_error(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "larger than 1 MiB, which no policy is",
            )));
        }
        let text = io::read_to_string(file).map_err(read_error)?;
        Self::parse(&text, path)
    }

    /// Parses a policy's text; `file` only names it.
    ///
    /// # Errors
    /// All faults at once, each with line, key and remedy.
    pub fn parse(text: &str, file: &Path) -> Result<Self, PolicyError> {
        let wrong = |faults| PolicyError::Wrong { file: file.to_owned(), faults };
        let places = Places::new(text);
        let raw = read::raw(text, &places).map_err(|fault| wrong(vec![fault]))?;
        let hash = hex::encode(Sha256::digest(text.as_bytes()));
        check::policy(raw, file, hash, &places).map_err(wrong)
    }

    /// Returns the names of all sources: databases, then trees.
    #[must_use]
    pub fn sources(&self) -> Vec<String> {
        self.mysql.keys().chain(self.files.keys()).cloned().collect()
    }

    /// Returns the file that keeps the policy's dumps from reading as long as it is there.
    #[must_use]
    pub fn pause_file(&self) -> PathBuf {
        self.state_dir.join(PAUSE)
    }

    /// Returns where reports are written.
    #[must_use]
    pub fn report_dir(&self) -> PathBuf {
        self.drill.report_dir.clone().unwrap_or_else(|| self.state_dir.join("reports"))
    }
}

/// Who may write a file.
#[derive(Debug, Clone, Copy)]
struct Rights {
    owner: u32,
    group: u32,
    mode: u32,
}

impl Rights {
    fn of(meta: &Metadata) -> Self {
        Self { owner: meta.uid(), group: meta.gid(), mode: meta.mode() & 0o7777 }
    }
}

/// As whom we read a policy, and carry out what it says.
#[derive(Debug, Clone, Copy)]
struct Us {
    user: u32,
    group: u32,
}

impl Us {
    fn here() -> Self {
        Self { user: rustix::process::geteuid().as_raw(), group: rustix::process::getegid().as_raw() }
    }
}

/// Refuses a file that anyone but root and us can write.
fn judge(path: &Path, rights: Rights, us: Us) -> Result<(), PolicyError> {
    let path = path.to_owned();
    let Rights { owner, group, mode } = rights;
    if owner != 0 && owner != us.user {
        return Err(PolicyError::Foreign { path, owner, us: us.user });
    }
    let is_group_ours = group == 0 || group == us.group;
    if mode & 0o002 != 0 || (mode & 0o020 != 0 && !is_group_ours) {
        return Err(PolicyError::Exposed { path, mode });
    }
    Ok(())
}

/// Returns the JSON Schema of a policy file.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(RawPolicy).to_value()
}

/// The objectives that drills and `status` set the measured values beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Objectives {
    pub rpo: Option<Duration>,
    pub rto: Option<Duration>,
}

/// By which way backup bytes may leave. Empty: any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    pub interface: Option<String>,
    pub source: Option<IpAddr>,
    /// The addresses that a peer (database, object store) may have; empty: any.
    pub peers: Vec<IpNet>,
}

#[derive(Debug, Clone)]
pub struct RepositoryPlace {
    pub path: PathBuf,
    pub password: SecretSource,
    /// On a bare machine, with a recovery kit: where the key is, and what stands for the repository.
    pub from_kit: Option<FromKit>,
}

/// What a recovery kit gives in place of a lost repository. No policy's file says it.
#[derive(Debug, Clone)]
pub struct FromKit {
    /// The key file that the password opens, whatever keys are in the copy.
    pub key_file: PathBuf,
    /// The copy to read where none is named.
    pub copy: String,
}

#[derive(Debug, Clone)]
pub struct CopyPlace {
    pub name: String,
    pub place: CopyTarget,
    /// Bytes a second each way: for all uploads of this copy together, and for all reads of it.
    pub bandwidth: Option<u64>,
    /// Uploads at once.
    pub uploads: usize,
}

impl CopyPlace {
    /// Returns the secrets that open the copy's store, as far as the policy names them.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        let s3 = self.s3();
        let writer = s3.and_then(|s3| s3.secret_access_key.as_ref());
        let reader = s3.and_then(|s3| s3.reader.as_ref()).map(|reader| &reader.secret_access_key);
        writer.into_iter().chain(reader)
    }

    /// Returns the place in a bucket; `None` for a directory.
    #[must_use]
    pub fn s3(&self) -> Option<&S3Place> {
        match &self.place {
            CopyTarget::S3(s3) => Some(s3),
            CopyTarget::Dir(_) => None,
        }
    }

    /// Returns for how long each object that is put there is immutable.
    #[must_use]
    pub fn object_lock(&self) -> Option<ObjectLock> {
        self.s3().and_then(|s3| s3.object_lock)
    }

    /// Tells whether the credentials that copies use can only write, so that a record here says what is there.
    #[must_use]
    pub fn is_write_only(&self) -> bool {
        self.s3().is_some_and(|s3| s3.access == Access::WriteOnly)
    }
}

#[derive(Debug, Clone)]
pub enum CopyTarget {
    S3(Box<S3Place>),
    /// A directory, as of a disk that is taken away.
    Dir(PathBuf),
}

/// Names the place in reports: `s3://bucket/prefix (region or endpoint)`, or the directory.
impl fmt::Display for CopyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(dir) => write!(f, "{}", dir.display()),
            Self::S3(s3) => {
                let slash = if s3.prefix.is_empty() { "" } else { "/" };
                let at = s3.endpoint.as_ref().unwrap_or(&s3.region);
                write!(f, "s3://{}{slash}{} ({at})", s3.bucket, s3.prefix)
            }
        }
    }
}

#[derive(Debug, Clone)]
pub struct S3Place {
    pub bucket: String,
    /// No slash at either end; may be empty.
    pub prefix: String,
    pub region: String,
    /// `http(s)://host[:port]`; `None`: AWS's own.
    pub endpoint: Option<String>,
    pub path_style: bool,
    /// PEM file of the authority that signs the endpoint's certificate.
    pub ca_file: Option<PathBuf>,
    pub access_key_id: Option<String>,
    /// `None`: the SDK's chain (environment, profile, instance role).
    pub secret_access_key: Option<SecretSource>,
    pub storage_class: Option<String>,
    /// How the server encrypts what it stores; `None`: as the bucket is set up.
    pub encryption: Option<Encryption>,
    pub object_lock: Option<ObjectLock>,
    pub access: Access,
    /// Other credentials, for all but copying.
    pub reader: Option<AccessKey>,
}

impl S3Place {
    /// Tells whether the server is this machine by its very name.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let endpoint = self.endpoint.as_deref().and_then(|endpoint| endpoint.split_once("://"));
        let Some((_, rest)) = endpoint else { return false };
        let host = match rest.strip_prefix('[') {
            Some(rest) => rest.split(']').next(),
            None => rest.split(':').next(),
        };
        let host = host.unwrap_or_default();
        is_loopback(host)
    }
}

/// Tells whether what goes to a host, by this name or address, stays on this machine.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// With keys that the server keeps (SSE-S3).
    Aes256,
    /// With a key of the server's key service (SSE-KMS).
    Kms { key: String },
}

/// The store's own lock on each object but a repository's lock files (S3 Object Lock).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    pub mode: RetainMode,
    /// How long from the last copy on that held the object.
    pub retain: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetainMode {
    /// Credentials with a right of its own may lift it.
    Governance,
    /// Nobody may lift it before its time, the account's owner included.
    Compliance,
}

/// What the credentials of a copy may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// List, get, put and delete.
    #[default]
    Full,
    /// Put, and nothing else.
    WriteOnly,
}

#[derive(Debug, Clone)]
pub struct AccessKey {
    pub access_key_id: String,
    pub secret_access_key: SecretSource,
}

#[derive(Debug, Clone)]
pub struct MysqlSource {
    pub address: MysqlAddress,
    pub user: String,
    /// `None`: an account without a password (socket authentication).
    pub password: Option<SecretSource>,
    pub tls: Tls,
    /// Connections that read rows.
    pub connections: usize,
    /// Schemas to dump; empty: all but the server's own.
    pub schemas: Vec<String>,
    /// `schema.table` names or `schema.*` left out.
    pub exclude: Vec<String>,
    /// How long to wait for the short global lock before giving way to the shop.
    pub lock_wait: Duration,
    /// Dump tables of engines without transactions while locked, instead of refusing.
    pub non_transactional: NonTransactional,
    /// How the dump makes way for the application.
    pub throttle: Throttle,
    /// How its binlog is captured; `None`: it is not.
    pub binlog: Option<CapturePlan>,
    /// How rows tell whose they are; `None`: they do not.
    pub tenant: Option<Tenant>,
    /// How old a transaction must be before a warm standby gets it.
    pub standby_delay: Duration,
}

/// The column by which rows tell whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub column: String,
    /// Of tables that call it otherwise, by `schema.table`.
    pub tables: BTreeMap<String, String>,
}

impl Tenant {
    /// Returns the column of a table.
    #[must_use]
    pub fn column_of(&self, schema: &str, table: &str) -> &str {
        self.tables.get(&format!("{schema}.{table}")).unwrap_or(&self.column)
    }
}

/// How a server's binlog is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturePlan {
    /// How far back every moment can be recovered.
    pub window: Duration,
    /// How often what is new goes from the spool into the repository.
    pub interval: Duration,
    /// Where segments lie until they are in the repository.
    pub spool: PathBuf,
    /// The number by which the server knows us as a replica: no other of its replicas may have it.
    pub server_id: u32,
    pub ack: Ack,
}

/// What commits of a captured server may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ack {
    #[default]
    Off,
    /// Until they are safe in the spool, where the server replicates semi-synchronously.
    Spool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MysqlAddress {
    Socket(PathBuf),
    Tcp { host: String, port: u16 },
}

impl MysqlAddress {
    /// Tells whether what goes there stays on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Tcp { host, .. } => is_loopback(host),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    pub mode: TlsMode,
    /// PEM file of the authority that signs the server's certificate; `None`: the system's.
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// No TLS: sockets, loopback, or said so.
    Off,
    /// TLS with the certificate and the host's name verified.
    #[default]
    Verify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NonTransactional {
    #[default]
    Refuse,
    Lock,
}

#[derive(Debug, Clone)]
pub struct FilesSource {
    pub path: PathBuf,
    /// The path must be a mount of its own, not a directory of the filesystem above it.
    pub require_mount: bool,
    /// The filesystem type the mount must have (`nfs4`), as mountinfo prints it.
    pub fs_type: Option<String>,
    /// Glob patterns relative to `path` that are left out.
    pub exclude: Vec<String>,
    /// Threads that list, stat and read.
    pub threads: usize,
    pub guard: FilesGuard,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct FilesGuard {
    /// A file that must exist, relative to `path`.
    pub sentinel: Option<PathBuf>,
    pub files_min: u64,
    /// Shares (0 to 1) by which files or bytes may fall against the last snapshot.
    pub files_drop: Option<f64>,
    pub bytes_drop: Option<f64>,
}

/// Scheduled verifies read a share of the packs each, and so many of them read all.
pub const VERIFY_SHARES: u32 = 7;

#[derive(Debug, Clone, Default)]
pub struct Schedule {
    pub backup: Option<Cron>,
    pub verify: Option<Cron>,
    pub prune: Option<Cron>,
    pub drill: Option<Cron>,
    pub catch_up: CatchUp,
}

/// What a scheduled verify does beside looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyPlan {
    /// Mend what is damaged or missing from the copies.
    pub heal: bool,
}

/// How databases come back, in a restore as in a drill.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestorePlan {
    /// `schema.table` and `schema.*`: the tables that come before all others, in this order.
    pub first: Vec<String>,
}

/// Tells whether `schema.table` or `schema.*`, as a policy writes it, names a table.
#[must_use]
pub fn names_table(pattern: &str, schema: &str, table: &str) -> bool {
    let rest = pattern.strip_prefix(schema).and_then(|rest| rest.strip_prefix('.'));
    rest.is_some_and(|rest| rest == "*" || rest == table)
}

/// Keep rules. A rule of zero keeps nothing by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    pub last: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
}

#[derive(Debug, Clone, Default)]
pub struct DrillPlan {
    pub checks: Vec<Check>,
    /// Default: `<state_dir>/reports`.
    pub report_dir: Option<PathBuf>,
    /// Where sandboxes live (default: the system's temp directory).
    pub work_dir: Option<PathBuf>,
    /// Programs to start sandboxes with; default: `mariadbd` or `mysqld` found in PATH and `/usr/sbin`.
    pub mariadbd: Option<PathBuf>,
    pub mysqld: Option<PathBuf>,
    /// Restore from this copy instead of the repository.
    pub from: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// The first column of the first row, compared as a number or as text.
    Sql {
        name: String,
        /// The source whose restored server is asked; `None`: the only one.
        mysql: Option<String>,
        sql: String,
        min: Option<f64>,
        max: Option<f64>,
        equals: Option<String>,
    },
    /// Every path that the statement returns exists in the restored tree of this files source.
    FilesIn {
        name: String,
        /// As for `Sql`.
        mysql: Option<String>,
        source: String,
        sql: String,
        missing_max: u64,
    },
}
