//! The verb that sets a snapshot of a database beside its living source: what has changed since, and what cannot have.
//!
//! The source is read within the read views of a dump, by the chunks of the manifest. Where it stands at the very position of the
//! snapshot, rows that differ have not been changed by anybody whom its binlog knows of: that is damage.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::backup::BackupError;
use crate::backup::mysql::check_way_back;
use crate::backup::{STOP_GRACE, joined};
use crate::id::SnapshotId;
use crate::mysql::manifest::{Chunk, Manifest, TableEntry};
use crate::mysql::server::Server;
use crate::policy::Policy;
use crate::repository::Repository;
use crate::restore::RestoreError;
use crate::restore::choose;
use crate::restore::choose::{Chosen, Moment};
use crate::run::Run;
use crate::source::mysql::{ChunkHash, Moment as ServerMoment, MysqlSourceError, Snapshot, Standing, Unheld};
use crate::verify::Rows;

/// What an operator asks to be compared.
#[derive(Debug, Clone)]
pub struct Request {
    pub moment: Moment,
    /// Empty: every database of the policy.
    pub sources: Vec<String>,
}

/// How a source stands to its snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub source: String,
    pub snapshot: SnapshotId,
    pub snapshot_time: DateTime<Utc>,
    /// The moment at which the source was read, on its own clock.
    pub compared_at: DateTime<Utc>,
    /// Whether the source stands where it stood for the snapshot; `None` where no binlog tells of every change.
    #[serde(rename = "unmoved")]
    pub is_unmoved: Option<bool>,
    /// Tables whose every row is as in the snapshot.
    pub equal: usize,
    pub changed: Vec<Changed>,
    /// Tables that have other columns or another key now; their rows were not compared.
    pub altered: Vec<String>,
    pub gone: Vec<String>,
    pub new: Vec<String>,
}

/// A stretch of a table whose rows are not those of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// As the snapshot has them.
    #[serde(flatten)]
    pub rows: Rows,
    /// How many the source has there.
    pub rows_now: u64,
}

impl Report {
    /// Tells whether the source is as the snapshot.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.changed.is_empty() && self.altered.is_empty() && self.gone.is_empty() && self.new.is_empty()
    }

    /// Tells whether rows differ that nobody has changed. What is new or gone at the same position, the policy has taken in or out; what
    /// is altered, another version of the server or of bkp may only show otherwise.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        self.is_unmoved == Some(true) && !self.changed.is_empty()
    }
}

/// A source, and how it compared.
#[derive(Debug)]
pub struct Compared {
    pub source: String,
    pub result: Result<Report, AgainstError>,
}

#[derive(Debug, thiserror::Error)]
pub enum AgainstError {
    #[error(transparent)]
    Choose(#[from] RestoreError),
    #[error("compare with the source")]
    Read(#[from] MysqlSourceError),
    #[error(transparent)]
    Source(BackupError),
    #[error("compare with the source: policy `{0}` has no database")]
    NoDatabase(String),
    #[error("compare with the source: `{0}` is a tree of files, which is compared by each backup")]
    NotDatabase(String),
}

impl From<BackupError> for AgainstError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Mysql(error) => Self::Read(error),
            other => Self::Source(other),
        }
    }
}

impl AgainstError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Choose(error) => error.hint(),
            Self::Read(error) => error.hint(),
            Self::Source(error) => error.hint(),
            Self::NoDatabase(_) | Self::NotDatabase(_) => None,
        }
    }
}

/// Compares the newest snapshots of a policy's databases, or the one that is named, with their sources. One that cannot be reached
/// does not keep the next from being compared.
///
/// # Errors
/// [`AgainstError`] where no snapshot fits.
pub async fn compare(
    policy: &Policy,
    repository: &Arc<Repository>,
    request: &Request,
    run: &Run,
) -> Result<Vec<Compared>, AgainstError> {
    let snapshots = repository.snapshots().await.map_err(RestoreError::from)?;
    repository.load_index(run).await.map_err(RestoreError::from)?;
    let wanted = wanted(policy, request)?;
    let chosen = choose::choose(&snapshots, &policy.name, &wanted, &request.moment, run.now())?;
    let mut compared = Vec::new();
    for chosen in chosen {
        run.check().map_err(RestoreError::from)?;
        let result = compare_one(policy, repository, &chosen, run).await;
        compared.push(Compared { source: chosen.source, result });
    }
    Ok(compared)
}

fn wanted(policy: &Policy, request: &Request) -> Result<Vec<String>, AgainstError> {
    if !request.sources.is_empty() || matches!(request.moment, Moment::Snapshot(_)) {
        return Ok(request.sources.clone());
    }
    let databases: Vec<String> = policy.mysql.keys().cloned().collect();
    if databases.is_empty() { Err(AgainstError::NoDatabase(policy.name.clone())) } else { Ok(databases) }
}

async fn compare_one(
    policy: &Policy,
    repository: &Repository,
    chosen: &Chosen,
    run: &Run,
) -> Result<Report, AgainstError> {
    let name = &chosen.source;
    if chosen.kind != "mysql" {
        return Err(AgainstError::NotDatabase(name.clone()));
    }
    let place = policy.mysql.get(name).ok_or_else(|| BackupError::NoSource(name.clone()))?.clone();
    let manifest = crate::backup::mysql::manifest(repository, &chosen.stored, name).await?;
    let server = Server::of(&place, &policy.network).map_err(BackupError::from)?;
    let hearing = run.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut window = Snapshot::open(&server, &place, Unheld::Refuse, &hearing)?;
        check_way_back(&mut window, &server)?;
        let (moment, id) = (window.moment().clone(), window.server_id());
        let is_unmoved = is_unmoved(&manifest, &id, &moment);
        let standing = window.hash(&manifest, &hearing)?;
        Ok::<_, BackupError>((manifest, moment, is_unmoved, standing))
    });
    let (manifest, moment, is_unmoved, standing) = joined(read, STOP_GRACE, run).await?;
    let (equal, changed) = judge(&manifest, &standing);
    Ok(Report {
        source: name.clone(),
        snapshot: chosen.id(),
        snapshot_time: chosen.stored.snapshot.time,
        compared_at: moment.taken_at,
        is_unmoved,
        equal,
        changed,
        altered: titles(&standing.altered),
        gone: titles(&standing.gone),
        new: titles(&standing.new),
    })
}

fn titles(names: &[(String, String)]) -> Vec<String> {
    names.iter().map(|(schema, table)| format!("{schema}.{table}")).collect()
}

/// Tells whether a server has written nothing since a dump. The GTIDs tell, because a restart begins a new binlog; the position does
/// where there are none.
fn is_unmoved(manifest: &Manifest, server: &str, now: &ServerMoment) -> Option<bool> {
    let (then_at, now_at) = (manifest.position.as_ref()?, now.position.as_ref()?);
    if !now.binlog_tells_all {
        return None;
    }
    let stands = match (&manifest.gtid, &now.gtid) {
        (None, None) => then_at == now_at,
        (then, now) => then == now,
    };
    Some(stands && manifest.server == server && manifest.gtid_slave_pos == now.gtid_slave_pos)
}

/// Counts the tables that are equal, and names the stretches of the others that are not.
fn judge(manifest: &Manifest, standing: &Standing) -> (usize, Vec<Changed>) {
    let mut found: BTreeMap<(&str, &str), Vec<&ChunkHash>> = BTreeMap::new();
    for hash in &standing.hashes {
        found.entry((&hash.schema, &hash.table)).or_default().push(hash);
    }
    let (mut equal, mut all) = (0, Vec::new());
    for table in &manifest.tables {
        let place = (table.schema.as_str(), table.name.as_str());
        // A table without rows then and now has no hash.
        let hashes = found.remove(&place).unwrap_or_default();
        let changed = changes(table, &hashes);
        let is_compared =
            !standing.altered.iter().chain(&standing.gone).any(|(s, t)| (s.as_str(), t.as_str()) == place);
        equal += usize::from(changed.is_empty() && is_compared);
        all.extend(changed);
    }
    (equal, all)
}

fn changes(table: &TableEntry, hashes: &[&ChunkHash]) -> Vec<Changed> {
    let differs = |(chunk, hash): &(&Chunk, &&ChunkHash)| chunk.sha256 != hash.sha256 || chunk.rows != hash.rows;
    let pairs = table.chunks.iter().zip(hashes);
    let now: u64 = hashes.iter().map(|hash| hash.rows).sum();
    if table.chunks.len() == hashes.len() && !table.key.is_empty() {
        let changed =
            |(chunk, hash): (&Chunk, &&ChunkHash)| Changed { rows: Rows::of(table, chunk), rows_now: hash.rows };
        return pairs.filter(differs).map(changed).collect();
    }
    // Without a key a row that goes or comes moves all behind it, and a table that was empty has no stretch to name.
    let is_equal = table.chunks.len() == hashes.len() && !pairs.clone().any(|pair| differs(&pair));
    if is_equal || hashes.is_empty() { Vec::new() } else { vec![Changed { rows: Rows::all(table), rows_now: now }] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::manifest::{Consistency, Extent, FORMAT, Position, Product};

    fn chunk(path: &str, rows: u64) -> Chunk {
        let upper = (path == "0").then(|| vec!["5".to_owned()]);
        let lower = (path != "0").then(|| vec!["5".to_owned()]);
        Chunk { path: path.to_owned(), lower, upper, rows, bytes: 1, sha256: format!("hash of {path}") }
    }

    fn table(name: &str, key: &[&str], chunks: Vec<Chunk>) -> TableEntry {
        TableEntry {
            schema: "shop".to_owned(),
            name: name.to_owned(),
            create: String::new(),
            engine: "InnoDB".to_owned(),
            history_lost: false,
            columns: Vec::new(),
            key: key.iter().map(|&column| column.to_owned()).collect(),
            rows: chunks.iter().map(|chunk| chunk.rows).sum(),
            bytes: 0,
            chunks,
        }
    }

    fn manifest(tables: Vec<TableEntry>) -> Manifest {
        Manifest {
            format: FORMAT,
            product: Product::MySql,
            version: String::new(),
            server: "one".to_owned(),
            taken_at: DateTime::UNIX_EPOCH,
            consistency: Consistency::LockFree,
            position: Some(Position { file: "binlog.000001".to_owned(), offset: 4 }),
            gtid: Some("a:1-7".to_owned()),
            gtid_slave_pos: None,
            extent: Extent::default(),
            write_stall_ms: 0.0,
            variables: BTreeMap::new(),
            schemas: Vec::new(),
            tables,
            objects: Vec::new(),
        }
    }

    fn hash(table: &str, path: &str, rows: u64, sha256: &str) -> ChunkHash {
        let of = |text: &str| text.to_owned();
        ChunkHash { schema: of("shop"), table: of(table), path: of(path), rows, sha256: of(sha256) }
    }

    fn told(standing: &Standing) -> (usize, Vec<String>) {
        let manifest = manifest(vec![
            table("keyed", &["id"], vec![chunk("0", 5), chunk("1", 7)]),
            table("loose", &[], vec![chunk("0", 5), chunk("1", 7)]),
            table("empty", &["id"], Vec::new()),
        ]);
        let (equal, changed) = judge(&manifest, standing);
        (equal, changed.iter().map(|it| format!("{}, now {}", it.rows, it.rows_now)).collect())
    }

    #[test]
    fn what_differs_is_named_by_its_range_or_by_its_table() {
        let as_dumped = |table: &str| [hash(table, "0", 5, "hash of 0"), hash(table, "1", 7, "hash of 1")];
        let mut standing =
            Standing { hashes: [as_dumped("keyed"), as_dumped("loose")].concat(), ..Standing::default() };
        assert_eq!(told(&standing), (3, Vec::new()));

        standing.hashes[1].sha256 = "another".to_owned();
        standing.hashes[3].rows = 8;
        standing.hashes.push(hash("empty", "2", 2, "rows"));
        let changed =
            ["7 rows of shop.keyed after id=5, now 7", "12 rows of shop.loose, now 13", "0 rows of shop.empty, now 2"];
        assert_eq!(told(&standing), (0, changed.map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_table_that_is_gone_or_altered_is_not_equal() {
        let place = |table: &str| ("shop".to_owned(), table.to_owned());
        let standing = Standing { altered: vec![place("keyed")], gone: vec![place("loose")], ..Standing::default() };
        assert_eq!(told(&standing), (1, Vec::new()));
    }

    #[test]
    fn a_source_has_moved_when_its_binlog_says_so() {
        let manifest = manifest(Vec::new());
        let now = |file: &str, gtid: Option<&str>| ServerMoment {
            taken_at: DateTime::UNIX_EPOCH,
            consistency: Consistency::LockFree,
            position: Some(Position { file: file.to_owned(), offset: 4 }),
            gtid: gtid.map(str::to_owned),
            gtid_slave_pos: None,
            binlog_tells_all: true,
            write_stall_ms: 0.0,
        };
        let same = || now("binlog.000001", Some("a:1-7"));
        assert_eq!(is_unmoved(&manifest, "one", &same()), Some(true));
        assert_eq!(is_unmoved(&manifest, "other", &same()), Some(false));
        assert_eq!(is_unmoved(&manifest, "one", &now("binlog.000002", Some("a:1-7"))), Some(true), "after a restart");
        assert_eq!(is_unmoved(&manifest, "one", &now("binlog.000001", Some("a:1-8"))), Some(false), "a replica's");
        assert_eq!(is_unmoved(&manifest, "one", &now("binlog.000001", None)), Some(false));
        let replica = ServerMoment { gtid_slave_pos: Some("0-1-9".to_owned()), ..same() };
        assert_eq!(is_unmoved(&manifest, "one", &replica), Some(false));
        let silent = ServerMoment { binlog_tells_all: false, ..same() };
        assert_eq!(is_unmoved(&manifest, "one", &silent), None, "something may write past the binlog");
        let blind = ServerMoment { position: None, ..now("", None) };
        assert_eq!(is_unmoved(&manifest, "one", &blind), None);
        let plain = Manifest { gtid: None, ..manifest };
        assert_eq!(is_unmoved(&plain, "one", &now("binlog.000001", None)), Some(true));
        assert_eq!(is_unmoved(&plain, "one", &now("binlog.000002", None)), Some(false));
    }
}
