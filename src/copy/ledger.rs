//! What was sent to a copy and acknowledged, kept here: for a copy that nobody here may look at, and to know which locks are still
//! long enough without asking for each.
//!
//! One line an object, appended once the server has confirmed it, so a kill loses at most what was not yet noted, and that is sent
//! or asked for again. It is safe to delete for the same reason. It belongs to one repository in one place, its server included: of
//! another it knows nothing, is set aside, and starts anew.
//!
//! Several may have it open at once (a copy, and a verify or a change of keys beside it), and each appends to it; what one does not
//! know of the others is sent or asked for again. Each holds the file, shared, for as long as it has it open, and the record is
//! written anew only while nobody else does: what others append to the old file would be lost.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

use crate::copy::plan::Listing;
use crate::id::ObjectId;
use crate::policy::{CopyPlace, Policy};
use crate::store::{FileKind, Key, Listed};

/// The first line's first words; another format gets another number.
const HEAD: &str = "bkp-sent 1";
/// Stands where an object was struck off.
const GONE: &str = "-";

#[derive(Debug, thiserror::Error)]
#[error("keep the record of what was sent, `{}`", path.display())]
pub struct LedgerError {
    path: PathBuf,
    #[source]
    error: io::Error,
}

impl LedgerError {
    /// Returns the next step for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some("check the state directory's rights and room; the file is safe to delete".to_owned())
    }
}

/// Where the record of a copy is kept, and of which place it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerFile {
    path: PathBuf,
    place: String,
}

impl LedgerFile {
    /// Says where the record of a policy's copy is kept; `None` where none is: a copy that can be read and that locks nothing.
    #[must_use]
    pub fn of(policy: &Policy, copy: &CopyPlace) -> Option<Self> {
        let is_kept = copy.is_write_only() || copy.object_lock().is_some();
        is_kept.then(|| Self {
            path: policy.state_dir.join("copies").join(format!("{}.sent", copy.name)),
            place: copy.place.to_string(),
        })
    }

    /// Opens the record; see [`Ledger::open`].
    ///
    /// # Errors
    /// [`LedgerError`] where it cannot be read or written.
    pub fn open(&self, repository: &str) -> Result<Ledger, LedgerError> {
        Ledger::open(&self.path, repository, &self.place)
    }

    /// Reads the record for a plan; see [`Ledger::look`].
    ///
    /// # Errors
    /// [`LedgerError`] where it cannot be read.
    pub fn look(&self, repository: &str) -> Result<Ledger, LedgerError> {
        Ledger::look(&self.path, repository, &self.place)
    }
}

/// What is known of an object in the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    size: u64,
    /// The end of its lock, where one was asked for.
    until: Option<DateTime<Utc>>,
}

/// The record of one copy.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sent: HashMap<Key, Sent>,
    /// `None`: it was opened to be looked at.
    out: Option<File>,
}

impl Ledger {
    /// Opens the record of a repository's copy at a place, empty where there is none. One of another repository or place is set aside.
    ///
    /// # Errors
    /// [`LedgerError`] where it cannot be read or written.
    pub fn open(path: &Path, repository: &str, place: &str) -> Result<Self, LedgerError> {
        let opened = open(path, &head(repository, place));
        let (sent, out) = opened.map_err(|error| LedgerError { path: path.to_owned(), error })?;
        Ok(Self { path: path.to_owned(), state: Mutex::new(State { sent, out: Some(out) }) })
    }

    /// Reads the record as [`Ledger::open`] does, and touches nothing: a plan may be made beside whoever writes it. It takes no notes.
    ///
    /// # Errors
    /// [`LedgerError`] where it cannot be read.
    pub fn look(path: &Path, repository: &str, place: &str) -> Result<Self, LedgerError> {
        let text = read(path).map_err(|error| LedgerError { path: path.to_owned(), error })?;
        let sent = parse(&text, &head(repository, place));
        Ok(Self { path: path.to_owned(), state: Mutex::new(State { sent, out: None }) })
    }

    /// Notes that an object is there with its whole size.
    ///
    /// # Errors
    /// [`LedgerError`] where the disk refuses.
    pub fn note(&self, key: &Key, size: u64, until: Option<DateTime<Utc>>) -> Result<(), LedgerError> {
        let sent = Sent { size, until };
        let mut state = self.state();
        // What could not be written down is not known: the next run would not know it either.
        self.append(&mut state, &line(key, sent))?;
        state.sent.insert(key.clone(), sent);
        Ok(())
    }

    /// Notes that objects are not there, or are about to go.
    ///
    /// # Errors
    /// [`LedgerError`] where the disk refuses.
    pub fn strike<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> Result<(), LedgerError> {
        let mut state = self.state();
        let mut lines = String::new();
        for key in keys {
            if state.sent.remove(key).is_some() {
                lines.push_str(&format!("{key}\t{GONE}\n"));
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        // What is to be deleted must be struck off before it is.
        self.append(&mut state, &lines)?.sync_data().map_err(|error| self.failed(error))
    }

    /// Strikes off what a listing of the copy does not show with its whole size, and returns how many objects that were.
    ///
    /// # Errors
    /// [`LedgerError`] where the disk refuses.
    pub fn strike_absent(&self, there: &Listing) -> Result<usize, LedgerError> {
        let absent = self.listing().missing_in(there);
        self.strike(&absent)?;
        Ok(absent.len())
    }

    /// Returns the objects of a kind.
    #[must_use]
    pub fn of_kind(&self, kind: FileKind) -> Vec<Listed> {
        let state = self.state();
        let of_kind = state.sent.iter().filter(|(key, _)| key.kind == kind);
        of_kind.map(|(key, sent)| Listed { name: key.name.clone(), size: sent.size }).collect()
    }

    /// Returns what a listing of the copy would show, as far as this record knows.
    #[must_use]
    pub fn listing(&self) -> Listing {
        Listing {
            config: self.of_kind(FileKind::Config),
            keys: self.of_kind(FileKind::Key),
            packs: self.of_kind(FileKind::Pack),
            indexes: self.of_kind(FileKind::Index),
            snapshots: self.of_kind(FileKind::Snapshot),
        }
    }

    /// Tells whether an object is there, as far as this record knows.
    #[must_use]
    pub fn has(&self, key: &Key) -> bool {
        self.state().sent.contains_key(key)
    }

    /// Returns the end of an object's lock, as far as this record knows.
    #[must_use]
    pub fn until(&self, key: &Key) -> Option<DateTime<Utc>> {
        self.state().sent.get(key).and_then(|sent| sent.until)
    }

    fn append<'s>(&self, state: &'s mut State, text: &str) -> Result<&'s File, LedgerError> {
        let out = state.out.as_mut();
        let out = out.ok_or_else(|| self.failed(io::Error::other("it was opened to be looked at only")))?;
        // A line is written at once: a kill leaves it whole, or torn at the very end of the file.
        out.write_all(text.as_bytes()).map_err(|error| self.failed(error))?;
        Ok(out)
    }

    fn failed(&self, error: io::Error) -> LedgerError {
        LedgerError { path: self.path.clone(), error }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves a map that knows too little or as much: either is safe.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn head(repository: &str, place: &str) -> String {
    format!("{HEAD} {repository} {place}")
}

/// Opens a record at its end, held shared; what is torn, is mostly past, or is of another is written anew first.
fn open(path: &Path, head: &str) -> io::Result<(HashMap<Key, Sent>, File)> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let turn = file_at(&path.with_extension("lock"))?;
    // For milliseconds: one opens it after the other.
    turn.lock()?;
    let mut text = read(path)?;
    let mut sent = parse(&text, head);
    let is_shared = !is_tidy(&text, head, sent.len()) && is_under(&text, head) && is_held(path)?;
    if !is_shared && !is_tidy(&text, head, sent.len()) {
        // A line that was being written looks torn. Nobody has it open any more: now all that was noted stands there.
        text = read(path)?;
        sent = parse(&text, head);
    }
    let out = if is_tidy(&text, head, sent.len()) {
        file_at(path)?
    } else if is_shared {
        let mut out = file_at(path)?;
        // Nothing may be glued to a line that a kill has torn.
        out.write_all(if text.ends_with('\n') { b"" } else { b"\n" })?;
        out
    } else {
        set_aside(path, &text, head)?;
        write_anew(path, head, &sent)?
    };
    out.lock_shared()?;
    Ok((sent, out))
}

/// Opens a file of ours at its end. It is opened to be read as well: over NFS a shared lock wants that.
fn file_at(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// Tells whether anybody has a record open.
fn is_held(path: &Path) -> io::Result<bool> {
    match file_at(path)?.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn read(path: &Path) -> io::Result<String> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        bytes => Ok(String::from_utf8_lossy(&bytes?).into_owned()),
    }
}

/// Moves the record of another repository or place aside: it holds again once the policy names that one again, and who has it open
/// goes on with it there.
fn set_aside(path: &Path, text: &str, head: &str) -> io::Result<()> {
    let theirs = text.lines().next().unwrap_or_default();
    if theirs.is_empty() || theirs == head {
        return Ok(());
    }
    let id = ObjectId::of(theirs.as_bytes()).to_string();
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", id.get(..8).unwrap_or_default()));
    fs::rename(path, aside)
}

/// Tells whether a record can be appended to: its last line is whole, and not most of it is of the past.
fn is_tidy(text: &str, head: &str, known: usize) -> bool {
    const LINES_PAST_MAX: usize = 1000;
    is_under(text, head) && text.ends_with('\n') && text.lines().count() <= 2 * known + LINES_PAST_MAX
}

fn is_under(text: &str, head: &str) -> bool {
    text.strip_prefix(head).is_some_and(|rest| rest.starts_with('\n'))
}

/// Writes the record whole beside its place and renames it: what was struck off or torn is left out. Returns it open at its end.
fn write_anew(path: &Path, head: &str, sent: &HashMap<Key, Sent>) -> io::Result<File> {
    let new = path.with_extension("new");
    let mut text = format!("{head}\n");
    text.extend(sent.iter().map(|(key, sent)| line(key, *sent)));
    let mut out = file_at(&new)?;
    // What a kill has left of one is of no use.
    out.set_len(0)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&new, path)?;
    Ok(out)
}

fn line(key: &Key, sent: Sent) -> String {
    let until = sent.until.map_or_else(|| GONE.to_owned(), |until| until.timestamp().to_string());
    format!("{key}\t{}\t{until}\n", sent.size)
}

/// Reads a record; what is under another head, or is no whole line, is left out.
fn parse(text: &str, head: &str) -> HashMap<Key, Sent> {
    let mut sent = HashMap::new();
    let Some(lines) = text.strip_prefix(head).and_then(|rest| rest.strip_prefix('\n')) else { return sent };
    for line in lines.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let mut words = line.split('\t');
        let Some(key) = words.next().and_then(Key::at) else { continue };
        match (words.next(), words.next()) {
            (Some(GONE), None) => {
                sent.remove(&key);
            }
            (Some(size), Some(until)) => {
                let Ok(size) = size.parse() else { continue };
                let until = until.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
                sent.insert(key, Sent { size, until });
            }
            _ => {}
        }
    }
    sent
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn pack(n: u8) -> Key {
        Key::new(FileKind::Pack, hex::encode([n; 32]))
    }

    fn open(dir: &Path, repository: &str) -> Ledger {
        Ledger::open(&dir.join("copies/offsite.sent"), repository, "s3://dr/bkp").unwrap()
    }

    #[test]
    fn what_was_noted_is_known_again_and_what_was_struck_off_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let until = DateTime::from_timestamp(2_000_000_000, 0);
        let ledger = open(dir.path(), "id");
        ledger.note(&Key::config(), 155, None).unwrap();
        ledger.note(&pack(1), 10, until).unwrap();
        ledger.note(&pack(2), 20, None).unwrap();
        ledger.strike([&pack(2), &pack(3)]).unwrap();
        for _ in 0..2 {
            let again = open(dir.path(), "id");
            assert_eq!(again.of_kind(FileKind::Pack), [Listed { name: pack(1).name, size: 10 }]);
            assert_eq!(again.of_kind(FileKind::Config).len(), 1);
            assert_eq!((again.until(&pack(1)), again.until(&Key::config())), (until, None));
        }
    }

    #[test]
    fn a_record_of_another_repository_or_place_knows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), "id").note(&pack(1), 10, None).unwrap();
        let path = dir.path().join("copies/offsite.sent");
        let before = fs::read(&path).unwrap();
        assert_eq!(open(dir.path(), "other").listing(), Listing::default());
        assert_eq!(open(dir.path(), "id").listing(), Listing::default(), "the other has taken its place");
        let elsewhere = Ledger::look(&path, "id", "s3://dr/bkp (https://other.example)").unwrap();
        assert_eq!(elsewhere.listing(), Listing::default());

        let entries = fs::read_dir(dir.path().join("copies")).unwrap().map(|entry| entry.unwrap().path());
        let aside: Vec<_> =
            entries.filter(|it| it.extension().is_none_or(|end| end != "sent" && end != "lock")).collect();
        assert_eq!(aside.len(), 2, "{aside:?}");
        let kept = aside.iter().find(|it| fs::read(it).unwrap() == before);
        fs::rename(kept.unwrap(), &path).unwrap();
        assert!(open(dir.path(), "id").has(&pack(1)), "put back, it holds again");
    }

    #[test]
    fn who_looks_leaves_a_record_as_it_is_and_notes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copies/offsite.sent");
        let nothing = Ledger::look(&path, "id", "s3://dr/bkp").unwrap();
        assert!(nothing.listing() == Listing::default() && !path.exists());
        open(dir.path(), "id").note(&pack(1), 10, None).unwrap();
        let before = fs::read(&path).unwrap();
        let entries = || fs::read_dir(dir.path().join("copies")).unwrap().count();
        let entries_before = entries();
        for (repository, knows) in [("id", true), ("other", false)] {
            let looked = Ledger::look(&path, repository, "s3://dr/bkp").unwrap();
            assert_eq!(looked.has(&pack(1)), knows);
            assert!(looked.note(&pack(2), 20, None).is_err());
            assert!(!looked.has(&pack(2)), "what is not written down is not known");
        }
        assert_eq!((fs::read(&path).unwrap(), entries()), (before, entries_before));
    }

    #[test]
    fn what_a_listing_lacks_or_shows_with_another_size_is_struck_off() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path(), "id");
        let snapshot = Key::new(FileKind::Snapshot, pack(4).name);
        for (key, size) in [(pack(1), 10), (pack(2), 20), (pack(3), 30), (snapshot, 40)] {
            ledger.note(&key, size, None).unwrap();
        }
        let listed = |key: &Key, size| Listed { name: key.name.clone(), size };
        let packs = vec![listed(&pack(1), 10), listed(&pack(2), 19), listed(&pack(9), 90)];
        let there = Listing { packs, ..Listing::default() };
        assert_eq!(ledger.strike_absent(&there).unwrap(), 3);
        let left = Listing { packs: vec![listed(&pack(1), 10)], ..Listing::default() };
        assert_eq!(open(dir.path(), "id").listing(), left);
        assert_eq!(ledger.strike_absent(&there).unwrap(), 0);
    }

    #[test]
    fn two_that_have_it_open_do_not_take_each_others_notes_away() {
        let dir = tempfile::tempdir().unwrap();
        let one = open(dir.path(), "id");
        one.note(&pack(1), 1, None).unwrap();
        let other = open(dir.path(), "id");
        one.note(&pack(2), 2, None).unwrap();
        other.strike([&pack(1)]).unwrap();
        one.note(&pack(3), 3, None).unwrap();
        let mut sizes: Vec<_> = open(dir.path(), "id").of_kind(FileKind::Pack).iter().map(|it| it.size).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [2, 3]);
    }

    #[test]
    fn a_record_of_which_most_is_past_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path(), "id");
        for size in 0..1500 {
            ledger.note(&pack(1), size, None).unwrap();
        }
        let lines = || fs::read_to_string(dir.path().join("copies/offsite.sent")).unwrap().lines().count();
        drop(ledger);
        assert_eq!(lines(), 1501);
        assert_eq!(open(dir.path(), "id").of_kind(FileKind::Pack)[0].size, 1499);
        assert_eq!(lines(), 2);
    }

    /// Opens a record that would be written anew, beside one that has it open; returns what of both is known afterwards.
    fn noted_beside(dir: &Path, past: impl FnOnce(&Ledger, &Path)) -> Vec<u64> {
        let one = open(dir, "id");
        one.note(&pack(1), 1, None).unwrap();
        past(&one, &dir.join("copies/offsite.sent"));
        let other = open(dir, "id");
        one.note(&pack(2), 2, None).unwrap();
        other.note(&pack(3), 3, None).unwrap();
        // The next does not take anything away either, whoever of the two has ended.
        drop(other);
        drop(open(dir, "id"));
        one.note(&pack(4), 4, None).unwrap();
        drop(one);
        let mut sizes: Vec<_> = open(dir, "id").of_kind(FileKind::Pack).iter().map(|it| it.size).collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn a_record_that_another_has_open_is_not_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mostly_past = |one: &Ledger, _: &Path| (0..1500).for_each(|size| one.note(&pack(5), size, None).unwrap());
        assert_eq!(noted_beside(dir.path(), mostly_past), [1, 2, 3, 4, 1499]);
        let dir = tempfile::tempdir().unwrap();
        let torn = |_: &Ledger, path: &Path| {
            let mut text = fs::read(path).unwrap();
            text.extend(line(&pack(5), Sent { size: 1234, until: None }).bytes().take(75));
            fs::write(path, text).unwrap();
        };
        assert_eq!(noted_beside(dir.path(), torn), [1, 2, 3, 4]);
    }

    #[test]
    fn many_that_open_it_at_once_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let dir = dir.path();
                scope.spawn(move || {
                    for n in 0..20 {
                        open(dir, "id").note(&pack(thread * 20 + n), u64::from(n), None).unwrap();
                    }
                });
            }
        });
        assert_eq!(open(dir.path(), "id").of_kind(FileKind::Pack).len(), 160);
    }

    #[test]
    fn a_line_that_a_kill_has_torn_is_left_out_wherever_it_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copies/offsite.sent");
        open(dir.path(), "id").note(&pack(1), 10, None).unwrap();
        let before = fs::read(&path).unwrap().len();
        open(dir.path(), "id").note(&pack(2), 1234, None).unwrap();
        let whole = fs::read(&path).unwrap();
        let last = line(&pack(2), Sent { size: 1234, until: None });
        assert!(String::from_utf8(whole).unwrap().contains(&last));
        for cut in 0..last.len() {
            let mut text = format!("{HEAD} id s3://dr/bkp\n{}", line(&pack(1), Sent { size: 10, until: None }));
            assert_eq!(text.len(), before);
            text.push_str(&last[..cut]);
            fs::write(&path, text).unwrap();
            let ledger = open(dir.path(), "id");
            assert_eq!(ledger.of_kind(FileKind::Pack).len(), 1, "cut at {cut}");
            // And nothing is glued to the torn line.
            ledger.note(&pack(3), 3, None).unwrap();
            assert_eq!(open(dir.path(), "id").of_kind(FileKind::Pack).len(), 2, "cut at {cut}");
        }
    }
}
