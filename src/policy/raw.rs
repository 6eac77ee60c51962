//! What the file says, key by key, before it is checked. The doc comments are the descriptions in `bkp policy schema`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// A policy of bkp: what is backed up, when, to where, how long it is kept, and how recovery is rehearsed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[schemars(title = "bkp policy")]
pub(super) struct RawPolicy {
    /// The version of this format: 1.
    #[expect(dead_code, reason = "judged before the keys, in policy::read; here it is wanted and described")]
    pub(super) version: i64,
    /// The policy's name: small letters, digits, `-` and `_`. Snapshots carry it, so it never changes.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9_-]*$"))]
    pub(super) name: String,
    /// The time zone of schedules, keep rules and reports, as the IANA names it (`Asia/Seoul`). Default: `UTC`.
    pub(super) timezone: Option<String>,
    /// Where stamps, locks and the catalog lie. Default: `/var/lib/bkp/NAME`.
    pub(super) state_dir: Option<String>,
    /// What recovery must reach; drills and `bkp status` set the measured values beside it.
    #[serde(default)]
    pub(super) objectives: RawObjectives,
    /// The way out: backup bytes leave by it or not at all. Default: any way.
    #[serde(default)]
    pub(super) network: RawNetwork,
    /// Where snapshots are kept.
    pub(super) repository: RawRepository,
    /// The copies of the repository.
    #[serde(default)]
    pub(super) copy: Vec<RawCopy>,
    /// The database servers, each under a name of its own.
    #[serde(default)]
    pub(super) mysql: BTreeMap<String, RawMysql>,
    /// The directory trees, each under a name of its own.
    #[serde(default)]
    pub(super) files: BTreeMap<String, RawFiles>,
    /// When each verb runs.
    #[serde(default)]
    pub(super) schedule: RawSchedule,
    /// What a scheduled verify does beside looking.
    #[serde(default)]
    pub(super) verify: RawVerify,
    /// Which snapshots stay. At least one rule is above zero.
    pub(super) retention: RawRetention,
    /// How databases come back.
    #[serde(default)]
    pub(super) restore: RawRestore,
    /// How recovery is rehearsed.
    #[serde(default)]
    pub(super) drill: RawDrill,
}

/// Objectives are spans: `90s`, `5m`, `2h`, `7d`, `1h30m`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawObjectives {
    /// The recovery point objective: the most work, as time, that may be lost. The backup schedule must be able to meet it.
    pub(super) rpo: Option<String>,
    /// The recovery time objective: the longest that recovery may take.
    pub(super) rto: Option<String>,
}

/// Each key narrows the way; without any, every way is allowed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawNetwork {
    /// The interface that bytes leave by (`eth2`).
    pub(super) interface: Option<String>,
    /// The local address that bytes leave from (`10.0.30.5`).
    pub(super) source: Option<String>,
    /// The addresses and ranges that databases and object stores may have (`10.0.30.0/24`).
    #[serde(default)]
    pub(super) peers: Vec<String>,
}

/// The repository, in restic's format, and the password that opens it. Exactly one of the password keys is set.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawRepository {
    /// The directory.
    pub(super) path: String,
    /// A file of one line that only its owner can read. `bkp init` makes it where it is missing.
    pub(super) password_file: Option<String>,
    /// A command that prints the password (`sh -c`).
    pub(super) password_command: Option<String>,
    /// The name of a systemd credential.
    pub(super) password_credential: Option<String>,
}

/// A copy lies in a bucket (`s3`) or in a directory (`path`).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawCopy {
    /// The copy's name, for `--copy` and `--from`.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9_-]*$"))]
    pub(super) name: String,
    /// The bucket.
    pub(super) s3: Option<RawS3>,
    /// The directory, on another disk than the repository's.
    pub(super) path: Option<String>,
    /// The most bytes a second, each way (`80MiB/s`). Default: no limit.
    pub(super) bandwidth: Option<String>,
    /// Uploads at once, 1 to 64. Default: 4.
    pub(super) uploads: Option<i64>,
}

/// A bucket of an S3 object store.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawS3 {
    /// The bucket.
    pub(super) bucket: String,
    /// What all keys begin with. Default: nothing.
    #[serde(default)]
    pub(super) prefix: String,
    /// The region (`ap-northeast-2`).
    pub(super) region: String,
    /// The server, `https://HOST[:PORT]`. Default: AWS's own for the region.
    pub(super) endpoint: Option<String>,
    /// Whether the bucket stands in the path rather than in the host's name. Default: true with an endpoint, else false.
    pub(super) path_style: Option<bool>,
    /// PEM file of the authority that signs the endpoint's certificate. Default: the system's.
    pub(super) ca_file: Option<String>,
    /// The access key's id. Default, together with the secret key: environment, profile or instance role, as AWS's tools do.
    pub(super) access_key_id: Option<String>,
    /// A file with the secret key, that only its owner can read.
    pub(super) secret_access_key_file: Option<String>,
    /// A command that prints the secret key.
    pub(super) secret_access_key_command: Option<String>,
    /// The name of a systemd credential with the secret key.
    pub(super) secret_access_key_credential: Option<String>,
    /// The storage class of new packs (`STANDARD_IA`). Default: the bucket's.
    pub(super) storage_class: Option<String>,
    /// How the server encrypts: `AES256`, or `{ kms = "KEY-ID" }`. Default: as the bucket is set up.
    pub(super) sse: Option<RawSse>,
    /// Makes each object immutable for a time (S3 Object Lock). The bucket must have been made with Object Lock.
    pub(super) object_lock: Option<RawObjectLock>,
    /// What the credentials may do: `full`, or `write-only` (s3:PutObject alone). Default: `full`.
    pub(super) access: Option<String>,
    /// Other credentials, which verify, restore, prune, forget and drill use instead.
    pub(super) reader: Option<RawReader>,
}

/// A word, or a key of the server's key service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "\"AES256\" or { kms = \"KEY-ID\" }")]
pub(super) enum RawSse {
    Word(String),
    Kms(RawKms),
}

/// A key of the server's key service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawKms {
    /// The key's id or ARN.
    pub(super) kms: String,
}

/// The store's own lock on each object. It is lengthened by each copy while the repository still holds the object.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawObjectLock {
    /// `governance` (credentials with s3:BypassGovernanceRetention may lift it) or `compliance` (nobody may, not even the owner).
    pub(super) mode: String,
    /// For how long (`30d`), counted from the last copy that held the object.
    pub(super) retain: String,
}

/// Credentials beside those that copies use.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawReader {
    /// The access key's id.
    pub(super) access_key_id: String,
    /// A file with the secret key, that only its owner can read.
    pub(super) secret_access_key_file: Option<String>,
    /// A command that prints the secret key.
    pub(super) secret_access_key_command: Option<String>,
    /// The name of a systemd credential with the secret key.
    pub(super) secret_access_key_credential: Option<String>,
}

/// A database server, reached by `host` or by `socket`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawMysql {
    /// The server's name or address.
    pub(super) host: Option<String>,
    /// The server's port. Default: 3306.
    pub(super) port: Option<i64>,
    /// The server's Unix socket, instead of `host`.
    pub(super) socket: Option<String>,
    /// The account; the README has its grants.
    pub(super) user: String,
    /// A file with the account's password, that only its owner can read.
    pub(super) password_file: Option<String>,
    /// A command that prints the account's password.
    pub(super) password_command: Option<String>,
    /// The name of a systemd credential with the account's password.
    pub(super) password_credential: Option<String>,
    /// `verify` (certificate and host name are checked) or `off`. Default: `verify`, but `off` for a socket and for loopback.
    pub(super) tls: Option<String>,
    /// PEM file of the authority that signs the server's certificate. Default: the system's.
    pub(super) tls_ca_file: Option<String>,
    /// Connections that read rows, 1 to 64. Default: 4.
    pub(super) connections: Option<i64>,
    /// The schemas to dump. Default: all but the server's own.
    #[serde(default)]
    pub(super) schemas: Vec<String>,
    /// What to leave out: `schema.table`, or `schema.*`.
    #[serde(default)]
    pub(super) exclude: Vec<String>,
    /// How long to wait for the short global lock before giving way to the application. Default: `5s`.
    pub(super) lock_wait: Option<String>,
    /// Tables of engines without transactions: `refuse` the dump, or `lock` them while they are read. Default: `refuse`.
    pub(super) non_transactional: Option<String>,
    /// How the dump makes way for the application. Default: it does not.
    #[serde(default)]
    pub(super) throttle: RawThrottle,
    /// How the server's binlog is captured, for recovery to any moment. Default: it is not.
    #[serde(default)]
    pub(super) binlog: RawBinlog,
    /// How rows tell which shop they are of, so that one shop's alone can come back. Default: they do not.
    pub(super) tenant: Option<RawTenant>,
    /// How a warm standby follows the capture.
    #[serde(default)]
    pub(super) standby: RawStandby,
}

/// The column by which each table tells whose a row is, for `bkp restore --where`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawTenant {
    /// The column's name, the same in most tables (`shop_id`).
    pub(super) column: String,
    /// Tables that call it otherwise: `"schema.table" = "column"`.
    #[serde(default)]
    pub(super) tables: BTreeMap<String, String>,
}

/// A warm standby, which `bkp standby start` restores and keeps.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawStandby {
    /// How old a transaction must be before the standby gets it, so that a mistake can be stopped; less than `binlog.window`.
    /// Default: `0s`.
    pub(super) delay: Option<String>,
}

/// The capture of a binlog: with a dump before, it brings back every moment since.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawBinlog {
    /// Whether it is captured. Default: false.
    #[serde(default)]
    pub(super) capture: bool,
    /// How far back every moment can be recovered. Default: `7d`.
    pub(super) window: Option<String>,
    /// How often what is new goes into the repository while `bkp daemon` runs, 1s to 1d. Default: `60s`.
    pub(super) interval: Option<String>,
    /// Where segments lie until they are in the repository. Default: `STATE_DIR/binlog`.
    pub(super) spool: Option<String>,
    /// The number by which the server knows bkp as a replica, 1 to 4294967295; no other of its replicas may have it. Default: one
    /// above 2147483648 that comes from the names of policy and source.
    pub(super) server_id: Option<i64>,
    /// `spool`: a commit waits until `bkp daemon` has it in its spool, where the server replicates semi-synchronously; `off`: it does
    /// not. Default: `off`.
    pub(super) ack: Option<String>,
}

/// How a dump makes way for the application: it pauses, or reads more slowly, and keeps its moment all the while.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawThrottle {
    /// The readers pause while the server runs more threads than these, 1 to 100000; their own are not counted. Default: no limit.
    pub(super) threads_running_max: Option<i64>,
    /// The most bytes of rows a second, all readers together (`50MB/s`). Default: no limit.
    pub(super) bandwidth: Option<String>,
    /// Times of day with limits of their own; the first that holds the time counts.
    #[serde(default)]
    pub(super) hours: Vec<RawHours>,
    /// How long all pauses of one dump may take together before it is given up, up to 12h. Default: `1h`.
    pub(super) pause_max: Option<String>,
}

/// Times of day, in the policy's time zone; what is left out is as at any other time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawHours {
    /// The first moment (`09:00`).
    pub(super) from: String,
    /// The first moment after (`23:00`); before `from`, it is of the next day.
    pub(super) to: String,
    /// The most running threads.
    pub(super) threads_running_max: Option<i64>,
    /// The most bytes of rows a second.
    pub(super) bandwidth: Option<String>,
}

/// A directory tree, as of a mounted file server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawFiles {
    /// The directory.
    pub(super) path: String,
    /// Whether the path must be a mount of its own: an unmounted file server looks like an empty directory. Default: false.
    #[serde(default)]
    pub(super) require_mount: bool,
    /// The type that the filesystem must have (`nfs4`), as /proc/self/mountinfo prints it.
    pub(super) fs_type: Option<String>,
    /// Glob patterns, relative to the path, of what is left out.
    #[serde(default)]
    pub(super) exclude: Vec<String>,
    /// Threads that list and read, 1 to 256. Default: 16.
    pub(super) threads: Option<i64>,
    /// What must be true before a snapshot is believed.
    #[serde(default)]
    pub(super) guard: RawGuard,
}

/// A guard that trips means no snapshot, and nothing is forgotten.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawGuard {
    /// A file that must exist, relative to the path.
    pub(super) sentinel: Option<String>,
    /// The fewest files that the tree has.
    pub(super) files_min: Option<i64>,
    /// The largest share of files that may be gone since the last snapshot (`20%`).
    pub(super) files_drop: Option<String>,
    /// The largest share of bytes that may be gone since the last snapshot (`20%`).
    pub(super) bytes_drop: Option<String>,
}

/// Five fields as in crontab(5), in the policy's time zone. What is left out runs only by hand.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawSchedule {
    /// When sources are backed up, copied, verified and old snapshots forgotten.
    pub(super) backup: Option<String>,
    /// When the repository is verified beyond what each backup does.
    pub(super) verify: Option<String>,
    /// When what no snapshot needs is freed. It rests while retention rests.
    pub(super) prune: Option<String>,
    /// When recovery is rehearsed.
    pub(super) drill: Option<String>,
    /// What becomes of missed runs: `one` run makes up for them, or `none`. Default: `one`.
    pub(super) catch_up: Option<String>,
}

/// A scheduled verify reads the repository, a share of the packs each time.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawVerify {
    /// Whether it puts back what is damaged or missing from a copy that holds it whole. Default: true.
    pub(super) heal: Option<bool>,
}

/// How many snapshots of each kind stay, for each source. A snapshot stays if one rule wants it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawRetention {
    /// The newest.
    #[serde(default)]
    pub(super) last: i64,
    /// The newest of each of so many days.
    #[serde(default)]
    pub(super) daily: i64,
    /// The newest of each of so many weeks.
    #[serde(default)]
    pub(super) weekly: i64,
    /// The newest of each of so many months.
    #[serde(default)]
    pub(super) monthly: i64,
    /// The newest of each of so many years.
    #[serde(default)]
    pub(super) yearly: i64,
}

/// How databases come back, in a restore as in a drill.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawRestore {
    /// The tables that come before all others, in this order: `schema.table`, or `schema.*`. Default: none.
    #[serde(default)]
    pub(super) first: Vec<String>,
}

/// A drill restores into a sandbox, runs the checks and measures the time.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawDrill {
    /// What must hold of the restored data.
    #[serde(default)]
    pub(super) checks: Vec<RawCheck>,
    /// Where reports are written. Default: `STATE_DIR/reports`.
    pub(super) report_dir: Option<String>,
    /// The copy to restore from. Default: the repository.
    pub(super) from: Option<String>,
    /// The servers that a drill starts and throws away.
    #[serde(default)]
    pub(super) sandbox: RawSandbox,
}

/// A statement and what its answer must be: a value (`min`, `max`, `equals`) or paths of files (`files_in`).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawCheck {
    /// The statement, on the restored server.
    pub(super) sql: String,
    /// How reports call the check. Default: the statement.
    pub(super) name: Option<String>,
    /// The database source whose restored server is asked. Default: the only one.
    pub(super) mysql: Option<String>,
    /// The least that the first column of the first row may be.
    pub(super) min: Option<f64>,
    /// The most that it may be.
    pub(super) max: Option<f64>,
    /// What it must be, as text.
    pub(super) equals: Option<RawScalar>,
    /// The files source in whose restored tree each path of the first column must exist.
    pub(super) files_in: Option<String>,
    /// How many of these paths may be missing. Default: 0.
    pub(super) missing_max: Option<i64>,
}

/// A number or a text.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a number or a text")]
pub(super) enum RawScalar {
    Integer(i64),
    Number(f64),
    Text(String),
}

/// The programs and the place of a drill's servers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawSandbox {
    /// The server program for dumps of MariaDB. Default: `mariadbd` in PATH or /usr/sbin.
    pub(super) mariadbd: Option<String>,
    /// The server program for dumps of MySQL. Default: `mysqld` in PATH or /usr/sbin.
    pub(super) mysqld: Option<String>,
    /// Where the sandbox's data lies while the drill runs; it needs room for the restored data. Default: the system's temp directory.
    pub(super) work_dir: Option<String>,
}
