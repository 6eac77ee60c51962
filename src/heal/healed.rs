//! What a heal found and did, as a plain value.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use serde::Serialize;

use crate::heal::plan::{LOCK_STAYS, Left};
use crate::repository::RepositoryError;
use crate::store::{FileKind, Key, StoreError};
use crate::verify::{Finding, Object, Report};

/// Something that is whole again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mended {
    /// The object, by its path; of an index made anew how many packs it names.
    pub what: String,
    pub how: How,
    pub bytes: u64,
}

impl fmt::Display for Mended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::From(store) => write!(f, "{} from {store}", self.what),
            How::Gathered { blobs, lost, from } => {
                let from = Vec::from_iter(from.clone()).join(" and ");
                write!(f, "{blobs} of {lost} lost blobs of {} from other packs of {from}", self.what)
            }
            How::Rebuilt => write!(f, "{} made from their headers", self.what),
            How::Removed => write!(f, "{} removed: it was worth nothing any more", self.what),
            How::Replaced => write!(f, "{} replaced: all that is needed of it is whole in other packs", self.what),
            How::Salvaged { blobs, lost } => {
                write!(f, "{} given up: {} of its {blobs} blobs are kept", self.what, blobs - lost)
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Its bytes came from this store.
    From(String),
    /// So many of the blobs that were lost with it came from other packs of these stores, and are in new ones.
    Gathered { blobs: u64, lost: u64, from: BTreeSet<String> },
    /// An index was made from the headers of packs.
    Rebuilt,
    /// It was worth nothing any more, and is gone.
    Removed,
    /// No index names it any more: what snapshots need of it is whole in other packs.
    Replaced,
    /// So many of its blobs still read and are in new packs; it is gone, and the rest with it.
    Salvaged { blobs: u64, lost: u64 },
}

/// What a heal found, what it mended and what is left.
#[derive(Debug, Clone, Serialize)]
pub struct Healed {
    pub store: String,
    /// Objects that the first look found damaged or missing.
    pub found: u64,
    pub mended: Vec<Mended>,
    /// What is damaged or missing now, with what it costs; the counts are of all looks together.
    pub report: Report,
    /// Why it could not be mended.
    pub left: Vec<Left>,
    /// Why nobody has looked at what was mended last.
    pub unseen: Option<String>,
    /// Stores that did not answer: they may hold what is left.
    pub away: BTreeSet<String>,
    /// What the store did not delete, and why.
    #[serde(skip)]
    pub kept: BTreeMap<Key, StoreError>,
}

impl Healed {
    pub(super) fn new(store: &str, report: Report) -> Self {
        Self {
            store: store.to_owned(),
            found: report.findings().count() as u64,
            mended: Vec::new(),
            report,
            left: Vec::new(),
            unseen: None,
            away: BTreeSet::new(),
            kept: BTreeMap::new(),
        }
    }

    /// Tells whether all that was looked at is whole now, and somebody has looked.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.report.is_sound() && self.unseen.is_none()
    }

    /// Tells whether every snapshot that was looked at comes back whole, whatever is left.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        self.report.is_harmless() && self.unseen.is_none()
    }

    /// Tells whether all that is left is worth nothing, and stays because the store's own lock protects it.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        let is_protected = |finding: &Finding| match &finding.object {
            Object::Stored(key) => matches!(self.kept.get(key), Some(StoreError::Protected { .. })),
            Object::Blob(..) => false,
        };
        let is_spare = |finding: &Finding| finding.is_superfluous && is_protected(finding);
        !self.is_sound() && self.unseen.is_none() && self.report.findings().all(is_spare)
    }

    /// Tells whether nothing but somebody's lock stands in the way: another heal may end it.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        !self.is_sound() && self.left.iter().all(|left| left.is_locked)
    }

    /// Returns the bytes that were put back.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.mended.iter().map(|mended| mended.bytes).sum()
    }

    /// Takes back what was said of objects that were put back and are faulty again, and returns them: their bytes are what their name
    /// says, so they are never put twice.
    pub(super) fn disown(&mut self) -> Vec<String> {
        let faulty: HashSet<String> = self.report.findings().map(|finding| finding.object.to_string()).collect();
        let mut disowned = Vec::new();
        for mended in std::mem::take(&mut self.mended) {
            match &mended.how {
                How::From(store) if faulty.contains(&mended.what) => {
                    let why = format!(
                        "put back from {store} and faulty again: the other stores hold the same bad bytes, or nothing lasts here"
                    );
                    disowned.push(mended.what.clone());
                    self.left.push(Left { object: mended.what, why, is_locked: false });
                }
                _ => self.mended.push(mended),
            }
        }
        disowned
    }

    /// Notes that nobody could look once more: what was put, and has been read back, is mended; the rest is left.
    pub(super) fn leave_unseen(&mut self, error: &RepositoryError) {
        let mended = |finding: &Finding| {
            let object = finding.object.to_string();
            self.mended.iter().any(|mended| match &mended.how {
                How::From(_) | How::Removed | How::Replaced => mended.what == object,
                How::Gathered { .. } | How::Rebuilt | How::Salvaged { .. } => false,
            })
        };
        let report = &self.report;
        let keep = |findings: &[Finding]| findings.iter().filter(|finding| !mended(finding)).cloned().collect();
        let (damaged, missing) = (keep(&report.damaged), keep(&report.missing));
        (self.report.damaged, self.report.missing) = (damaged, missing);
        self.unseen = Some(error.to_string());
        let told = self.told();
        self.leave_locked(&format!("not looked at again: {error}"), |object| !told.contains(&object.to_string()));
    }

    /// Returns what is known to be left for another reason than a lock: that it will be free changes nothing.
    pub(super) fn told(&self) -> HashSet<String> {
        self.left.iter().filter(|left| !left.is_locked).map(|left| left.object.clone()).collect()
    }

    pub(super) fn leave_all(&mut self, why: &str) {
        self.left.extend(self.report.findings().map(|finding| Left::new(&finding.object, why)));
    }

    /// Notes of some objects that a lock stands in their way.
    pub(super) fn leave_locked(&mut self, why: &str, is_meant: impl Fn(&Object) -> bool) {
        let is_lock = |object: &Object| matches!(object, Object::Stored(key) if key.kind == FileKind::Lock);
        let meant = self.report.findings().map(|finding| &finding.object).filter(|object| is_meant(object));
        let left = meant.map(|object| {
            let why = if is_lock(object) { LOCK_STAYS } else { why };
            Left { is_locked: true, ..Left::new(object, why) }
        });
        self.left.extend(left.collect::<Vec<_>>());
    }

    /// Keeps one reason for each finding that is left.
    pub(super) fn explain(&mut self) {
        let mut told = std::mem::take(&mut self.left);
        for finding in self.report.findings() {
            let object = finding.object.to_string();
            let last = told.iter_mut().rfind(|left| left.object == object);
            let last = last.map(|left| (std::mem::take(&mut left.why), left.is_locked));
            let kept = match &finding.object {
                Object::Stored(key) => self.kept.get(key).map(|error| (error.to_string(), false)),
                Object::Blob(..) => None,
            };
            let nobody = || ("nothing here or in another store holds it".to_owned(), false);
            let (why, is_locked) = last.or(kept).unwrap_or_else(nobody);
            self.left.push(Left { object, why, is_locked });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::verify::{Checked, Level};

    fn pack(number: u8) -> Key {
        Key::new(FileKind::Pack, format!("{number:02x}").repeat(32))
    }

    fn finding(object: Key) -> Finding {
        let what = "its bytes hash to another".to_owned();
        Finding { object: Object::Stored(object), what, costs: Vec::new(), costs_more: 1, is_superfluous: false }
    }

    fn healed(damaged: &[Key]) -> Healed {
        let damaged = damaged.iter().cloned().map(finding).collect();
        let (subset, checked) = (None, Checked::default());
        let report = Report { level: Level::Data, subset, checked, damaged, missing: Vec::new(), orphans: Vec::new() };
        Healed::new("repository", report)
    }

    fn locked() -> RepositoryError {
        RepositoryError::Locked { holder: "process 7 of root on shop".to_owned(), exclusive: true }
    }

    fn put_back(healed: &mut Healed, key: &Key) {
        let how = How::From("usb".to_owned());
        healed.mended.push(Mended { what: key.to_string(), how, bytes: 9 });
    }

    #[test]
    fn what_was_put_back_is_not_left_although_nobody_could_look_again() {
        let mut healed = healed(&[pack(1), pack(2)]);
        put_back(&mut healed, &pack(1));
        healed.leave_unseen(&locked());
        healed.explain();
        let left: Vec<_> = healed.left.iter().map(|left| (left.object.clone(), left.is_locked)).collect();
        assert_eq!(left, [(pack(2).to_string(), true)]);
        assert!(healed.left[0].why.contains("not looked at again: lock repository: process 7"), "{healed:#?}");
        assert!(healed.is_locked() && !healed.is_sound() && !healed.is_harmless());
    }

    #[test]
    fn what_no_store_has_is_no_matter_of_a_lock() {
        let mut healed = healed(&[pack(1), pack(2)]);
        put_back(&mut healed, &pack(1));
        healed.left.push(Left::new(&Object::Stored(pack(2)), "no other store has it"));
        healed.leave_unseen(&locked());
        healed.explain();
        assert_eq!(healed.left.len(), 1, "{healed:#?}");
        assert_eq!((healed.left[0].why.as_str(), healed.left[0].is_locked), ("no other store has it", false));
        assert!(!healed.is_locked());
    }

    #[test]
    fn all_that_was_put_back_and_not_seen_is_neither_left_nor_sound() {
        let mut healed = healed(&[pack(1)]);
        put_back(&mut healed, &pack(1));
        healed.leave_unseen(&locked());
        healed.explain();
        assert!(healed.left.is_empty() && healed.report.is_sound(), "{healed:#?}");
        assert!(healed.is_locked() && !healed.is_sound() && !healed.is_harmless() && !healed.is_protected());
    }

    #[test]
    fn what_nobody_has_is_not_left_for_a_lock_alone() {
        let mut healed = healed(&[pack(1), pack(2)]);
        healed.leave_locked("a lock", |object| *object == Object::Stored(pack(1)));
        healed.explain();
        assert_eq!(healed.left.iter().filter(|left| left.is_locked).count(), 1);
        assert!(!healed.is_locked());
    }
}
