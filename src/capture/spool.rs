//! The spool of a source: a directory of segments, the chain that they are of, and how far the capture has come.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::capture::chain::{Chain, FORMAT};
use crate::capture::scan::Scan;
use crate::capture::tail::failed;
use crate::capture::{Capture, CaptureError, CommitsWait};
use crate::mysql::gtid::Executed;

const CHAIN: &str = "chain.json";
const PROGRESS: &str = "progress.json";
const LOCK: &str = "lock";

/// A spool that is ours alone as long as the value lives.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    chain: Mutex<Chain>,
    progress: Mutex<Progress>,
    /// The newest segment as far as its file was written or read by us.
    newest: Mutex<Option<Newest>>,
    /// The kernel drops it when the process ends, however it ends.
    _lock: File,
}

/// What is known of a segment's file, which nobody else writes.
#[derive(Debug)]
struct Newest {
    epoch: u32,
    file: String,
    scan: Scan,
}

/// How far a capture has come: for `bkp status`, beside a capture that goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// All that the server had committed by then is in the spool.
    pub as_of: Option<DateTime<Utc>>,
    pub file: String,
    pub offset: u64,
    /// All that the server had committed by then is in the repository, too.
    pub sealed: Option<DateTime<Utc>>,
    /// Whether the server's commits wait for the spool, where the policy wants that.
    pub commits_wait: Option<CommitsWait>,
    /// What keeps the capture from going on.
    pub error: Option<String>,
}

impl Spool {
    /// Opens a source's spool, and makes it where there is none.
    ///
    /// # Errors
    /// [`CaptureError::Held`] where another capture has it, [`CaptureError::Foreign`] where it is of another policy or source.
    pub fn open(capture: &Capture) -> Result<Self, CaptureError> {
        let dir = dir_of(capture);
        refuse_missing(&capture.plan.spool)?;
        make_dir(&dir)?;
        let lock = dir.join(LOCK);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock);
        let file = opened.map_err(|error| failed("open", &lock, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CaptureError::Held(dir)),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &lock, error)),
        }
        let mut chain = read_chain(&dir)?.unwrap_or_else(|| Chain::new(&capture.source));
        claim(&mut chain, capture, &dir)?;
        // The chain is written at a file's begin and end: after an unclean death the file itself tells of what came since.
        let newest = read_newest(&dir, &mut chain)?;
        if let Some(Newest { epoch, file, .. }) = &newest {
            let path = segment_path(&dir, *epoch, file);
            let synced = File::open(&path).and_then(|file| file.sync_data());
            synced.map_err(|error| failed("sync", &path, error))?;
            write_json(&dir.join(CHAIN), &chain, Durable::Yes)?;
        }
        // What an earlier run told of itself; where it is unreadable, this one tells anew.
        let progress = read_json(&dir.join(PROGRESS)).ok().flatten().unwrap_or_default();
        let (chain, progress, newest) = (Mutex::new(chain), Mutex::new(progress), Mutex::new(newest));
        Ok(Self { dir, chain, progress, newest, _lock: file })
    }

    /// Reads the chain of a source's spool beside whoever captures; `None` where nothing was captured. What came into the newest
    /// segment since the chain was written, its file tells.
    ///
    /// # Errors
    /// Where the files cannot be read, or are of a newer format.
    pub fn look(spool: &Path, source: &str) -> Result<Option<Chain>, CaptureError> {
        let Some(mut chain) = Self::chain_at(spool, source)? else { return Ok(None) };
        read_newest(&spool.join(source), &mut chain)?;
        Ok(Some(chain))
    }

    /// Reads the chain of a source's spool as it was last written: at each file's begin and end.
    ///
    /// # Errors
    /// Where the file cannot be read, or is of a newer format.
    pub fn chain_at(spool: &Path, source: &str) -> Result<Option<Chain>, CaptureError> {
        let progress = Self::progress(spool, source)?.unwrap_or_default();
        let chain = read_chain(&spool.join(source))?;
        Ok(chain.map(|chain| Chain { as_of: chain.as_of.max(progress.as_of), ..chain }))
    }

    /// Reads how far a source's capture has come; `None` where it never began.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn progress(spool: &Path, source: &str) -> Result<Option<Progress>, CaptureError> {
        match read_json(&spool.join(source).join(PROGRESS)) {
            // It is not made durable: one that a crash tore tells nothing, and the next is whole again.
            Err(CaptureError::Chain { .. }) => Ok(None),
            read => read,
        }
    }

    /// Returns the chain as far as it is durable.
    #[must_use]
    pub fn chain(&self) -> Chain {
        self.lock_chain().clone()
    }

    /// Returns where a segment of a source lies, beside whoever captures.
    #[must_use]
    pub fn segment(spool: &Path, source: &str, epoch: u32, name: &str) -> PathBuf {
        segment_path(&spool.join(source), epoch, name)
    }

    /// Returns where a segment lies.
    #[must_use]
    pub fn file(&self, epoch: u32, name: &str) -> PathBuf {
        segment_path(&self.dir, epoch, name)
    }

    /// Takes up a chain that the repository has: the spool is new, or was lost.
    ///
    /// # Errors
    /// Where the chain cannot be written.
    pub fn adopt(&self, chain: Chain) -> Result<(), CaptureError> {
        self.change(|own| *own = chain)
    }

    /// Changes the chain, durably.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Chain) -> T) -> Result<T, CaptureError> {
        let mut chain = self.lock_chain();
        let mut changed = chain.clone();
        let answer = change(&mut changed);
        write_json(&self.dir.join(CHAIN), &changed, Durable::Yes)?;
        *chain = changed;
        Ok(answer)
    }

    /// Changes what is known of the segment at hand: a crash reads it from the segment itself again.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Chain)) {
        note(&mut self.lock_chain());
    }

    /// Remembers the newest segment as it was written, so that whoever goes on with it need not read it again.
    pub(crate) fn remember(&self, file: &str, scan: Scan) {
        let epoch = self.lock_chain().epochs.last().map(|epoch| epoch.number);
        *self.lock_newest() = epoch.map(|epoch| Newest { epoch, file: file.to_owned(), scan });
    }

    /// Returns the state of a segment's file after its last whole event: as it is remembered, if nothing has happened to the file, or
    /// as the file tells.
    pub(crate) fn scan(&self, epoch: u32, file: &str, carried: Executed) -> Result<Scan, CaptureError> {
        let path = self.file(epoch, file);
        let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let newest = self.lock_newest().take();
        match newest.filter(|newest| newest.epoch == epoch && newest.file == file && newest.scan.bytes == bytes) {
            Some(newest) => Ok(newest.scan),
            None => scan(&path, file, carried),
        }
    }

    /// Tells whoever looks how far the capture has come.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn tell(&self, change: impl FnOnce(&mut Progress)) -> Result<(), CaptureError> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut progress);
        let path = self.dir.join(PROGRESS);
        match write_json(&path, &*progress, Durable::No) {
            Err(error) if error.is_spool_full() => write_in_place(&path, &*progress),
            written => written,
        }
    }

    pub(crate) fn make_epoch(&self, number: u32) -> Result<(), CaptureError> {
        make_dir(&self.dir.join(number.to_string()))
    }

    /// Makes the names of new files durable.
    pub(crate) fn sync_names(&self, epoch: u32) -> Result<(), CaptureError> {
        sync_dir(&self.dir.join(epoch.to_string()))
    }

    /// Removes a segment's file, where it is.
    pub(crate) fn remove(&self, epoch: u32, name: &str) -> Result<(), CaptureError> {
        let path = self.file(epoch, name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path, error)),
            _ => Ok(()),
        }
    }

    fn lock_chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_newest(&self) -> MutexGuard<'_, Option<Newest>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the newest segment's file again, where it is open and holds more than the chain says. Returns what it tells if it
/// does.
fn read_newest(dir: &Path, chain: &mut Chain) -> Result<Option<Newest>, CaptureError> {
    let Some(epoch) = chain.epochs.last_mut() else { return Ok(None) };
    let (number, product) = (epoch.number, epoch.server.product);
    let before = epoch.segments.iter().rev().nth(1).map(|before| before.executed(product)).transpose()?;
    let Some(last) = epoch.segments.last_mut().filter(|last| !last.is_closed) else { return Ok(None) };
    let path = segment_path(dir, number, &last.file);
    if fs::metadata(&path).map_or(0, |metadata| metadata.len()) <= last.bytes {
        return Ok(None);
    }
    let scan = scan(&path, &last.file, before.unwrap_or_else(|| Executed::new(product)))?;
    if scan.bytes <= last.bytes {
        return Ok(None);
    }
    *last = scan.segment(&last.file, false);
    Ok(Some(Newest { epoch: number, file: last.file.clone(), scan }))
}

fn scan(path: &Path, file: &str, carried: Executed) -> Result<Scan, CaptureError> {
    Scan::again(path, carried).map_err(|error| CaptureError::Event { file: file.to_owned(), error })
}

/// Makes a chain ours, if it is nobody else's: what is of two databases must not become one history.
fn claim(chain: &mut Chain, capture: &Capture, dir: &Path) -> Result<(), CaptureError> {
    let is_ours = chain.policy.is_empty() || chain.policy == capture.policy;
    if !is_ours || chain.source != capture.source {
        let owner = format!("{}/{}", chain.policy, chain.source);
        return Err(CaptureError::Foreign { dir: dir.to_owned(), owner: owner.trim_start_matches('/').to_owned() });
    }
    chain.policy.clone_from(&capture.policy);
    Ok(())
}

fn segment_path(dir: &Path, epoch: u32, name: &str) -> PathBuf {
    dir.join(epoch.to_string()).join(name)
}

fn dir_of(capture: &Capture) -> PathBuf {
    capture.plan.spool.join(&capture.source)
}

/// Refuses a spool whose directory is not there. Its own we make below it: where its disk is not mounted, segments would fill the one
/// below.
fn refuse_missing(spool: &Path) -> Result<(), CaptureError> {
    match spool.parent() {
        Some(above) if !above.is_dir() => Err(CaptureError::NoDir(above.to_owned())),
        _ => Ok(()),
    }
}

fn make_dir(dir: &Path) -> Result<(), CaptureError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| failed("make", dir, error))?;
    dir.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> Result<(), CaptureError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| failed("sync", dir, error))
}

fn read_chain(dir: &Path) -> Result<Option<Chain>, CaptureError> {
    let path = dir.join(CHAIN);
    let chain: Option<Chain> = read_json(&path)?;
    match chain {
        Some(chain) if chain.format > FORMAT => Err(CaptureError::Chain {
            place: path.display().to_string(),
            reason: format!("its format {} is newer than this program", chain.format),
        }),
        chain => Ok(chain),
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, CaptureError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path, error)),
    };
    let wrong =
        |error: serde_json::Error| CaptureError::Chain { place: path.display().to_string(), reason: error.to_string() };
    serde_json::from_slice(&text).map(Some).map_err(wrong)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durable {
    Yes,
    /// A reader sees the old text or the new; after a crash it may be either, or none.
    No,
}

/// Writes beside the file's place, and renames.
fn write_json(path: &Path, value: &impl Serialize, durable: Durable) -> Result<(), CaptureError> {
    let beside = path.with_extension("new");
    let fault = |error: io::Error| failed("write", path, error);
    let text = serde_json::to_vec(value).map_err(|error| fault(error.into()))?;
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
    let mut file = made.map_err(fault)?;
    file.write_all(&text).map_err(fault)?;
    if durable == Durable::Yes {
        file.sync_all().map_err(fault)?;
    }
    fs::rename(&beside, path).map_err(fault)?;
    match path.parent() {
        Some(dir) if durable == Durable::Yes => sync_dir(dir),
        _ => Ok(()),
    }
}

/// Writes over a file that is there, which takes no room: a full disk must be able to say that it is full. One that a crash tears
/// tells nothing.
fn write_in_place(path: &Path, value: &impl Serialize) -> Result<(), CaptureError> {
    let fault = |error: io::Error| failed("write", path, error);
    let text = serde_json::to_vec(value).map_err(|error| fault(error.into()))?;
    let mut file = OpenOptions::new().write(true).open(path).map_err(fault)?;
    file.write_all(&text).map_err(fault)?;
    file.set_len(text.len() as u64).map_err(fault)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::capture::chain::{Beginning, Epoch, Origin};
    use crate::capture::tail::Tail;
    use crate::capture::tail::tests::{event, format};
    use crate::mysql::binlog::{Kind, MAGIC};
    use crate::mysql::manifest::Product;
    use crate::mysql::server::Server;
    use crate::policy::{Ack, CapturePlan, MysqlAddress, Network, Tls};

    /// The capture of a server that nobody reaches.
    pub(crate) fn capture(dir: &Path) -> Capture {
        let server = Server {
            address: MysqlAddress::Socket("/run/none.sock".into()),
            user: String::new(),
            password: None,
            tls: Tls::default(),
            network: Network::default(),
        };
        let (window, interval) = (Duration::from_hours(24), Duration::from_mins(1));
        let plan = CapturePlan { window, interval, spool: dir.to_owned(), server_id: 7, ack: Ack::Off };
        Capture { policy: "mall".to_owned(), source: "db1".to_owned(), server, plan }
    }

    /// Begins a chain with a segment of which nothing came yet, and returns its file.
    fn begin(spool: &Spool) -> PathBuf {
        let server = Origin { product: Product::MySql, version: String::new(), server: "a".to_owned() };
        let mut epoch = Epoch::new(1, DateTime::UNIX_EPOCH, Beginning::FirstCapture, server);
        let path = spool.file(1, "b.000001");
        spool.make_epoch(1).unwrap();
        let begun = Tail::create(&path, "b.000001", Executed::new(Product::MySql)).unwrap();
        epoch.segments.push(begun.scan.segment("b.000001", false));
        spool.change(|chain| chain.epochs.push(epoch)).unwrap();
        path
    }

    #[test]
    fn where_the_disk_of_a_spool_is_not_mounted_nothing_is_made_below_it() {
        let dir = tempfile::tempdir().unwrap();
        // The policy's own directory in the one that it names.
        let of = capture(&dir.path().join("disk/mall"));
        let refused = Spool::open(&of).unwrap_err();
        assert!(matches!(&refused, CaptureError::NoDir(named) if *named == dir.path().join("disk")), "{refused:?}");
        assert!(refused.hint().is_some_and(|hint| hint.contains("mount its disk")));
        assert!(!dir.path().join("disk").exists());
        fs::create_dir(dir.path().join("disk")).unwrap();
        Spool::open(&of).unwrap();
    }

    #[test]
    fn what_we_know_of_the_newest_file_is_not_read_again_unless_the_file_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(&capture(dir.path())).unwrap();
        let path = begin(&spool);
        let whole = [&MAGIC[..], &format()].concat();
        fs::write(&path, &whole).unwrap();
        let scan = |file: &str| spool.scan(1, file, Executed::new(Product::MySql));
        let known = scan("b.000001").unwrap();
        assert_eq!(known.bytes, whole.len() as u64);
        spool.remember("b.000001", known.clone());
        // It would be no binlog.
        fs::write(&path, vec![7; whole.len()]).unwrap();
        assert_eq!(scan("b.000001").unwrap().bytes, known.bytes);
        for (file, bytes) in [("b.000002", whole.len()), ("b.000001", whole.len() - 1), ("b.000001", whole.len() + 1)] {
            spool.remember("b.000001", known.clone());
            fs::write(spool.file(1, file), vec![7; bytes]).unwrap();
            assert!(scan(file).is_err(), "{file} of {bytes} bytes");
        }
    }

    #[test]
    fn after_an_unclean_death_the_chain_knows_what_was_durable() {
        let dir = tempfile::tempdir().unwrap();
        let file = begin(&Spool::open(&capture(dir.path())).unwrap());
        let head = [&MAGIC[..], &format()].concat();
        let whole = [&head[..], &event(Kind::QUERY, b"durable", head.len() as u64)].concat();
        fs::write(file, [&whole[..], b"a piece of the next"].concat()).unwrap();
        let bytes = |chain: Chain| chain.epochs[0].segments[0].bytes;
        assert_eq!(bytes(Spool::open(&capture(dir.path())).unwrap().chain()), whole.len() as u64);
        assert_eq!(bytes(Spool::chain_at(dir.path(), "db1").unwrap().unwrap()), whole.len() as u64, "durably");
    }

    #[test]
    fn a_spool_of_another_policy_or_source_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let mall = capture(dir.path());
        let spool = Spool::open(&mall).unwrap();
        spool.change(|_| ()).unwrap();
        drop(spool);
        let refused = |capture: &Capture| Spool::open(capture).map(drop).unwrap_err();
        let other = Capture { policy: "shop".to_owned(), ..mall.clone() };
        assert!(refused(&other).to_string().ends_with("it holds the binlog of `mall/db1`"), "{}", refused(&other));
        assert!(refused(&other).hint().unwrap().contains("binlog.spool"));
        fs::rename(dir.path().join("db1"), dir.path().join("db2")).unwrap();
        let other = Capture { source: "db2".to_owned(), ..mall.clone() };
        assert!(matches!(refused(&other), CaptureError::Foreign { .. }));
        fs::rename(dir.path().join("db2"), dir.path().join("db1")).unwrap();
        // One that an older program began names no policy.
        let path = dir.path().join("db1").join(CHAIN);
        let text = fs::read_to_string(&path).unwrap().replace("\"policy\":\"mall\",", "");
        assert!(!text.contains("mall"), "{text}");
        fs::write(&path, text).unwrap();
        assert_eq!(Spool::open(&mall).unwrap().chain().policy, "mall");
    }

    #[test]
    fn a_progress_that_a_crash_tore_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(&capture(dir.path())).unwrap();
        spool.tell(|progress| progress.offset = 7).unwrap();
        assert_eq!(Spool::progress(dir.path(), "db1").unwrap().unwrap().offset, 7);
        fs::write(dir.path().join("db1").join(PROGRESS), [0; 40]).unwrap();
        assert_eq!(Spool::progress(dir.path(), "db1").unwrap(), None);
    }
}
