//! What was captured: epochs of one server's history, their segments in order, and the gaps between them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::mysql::gtid::{Executed, GtidError};
use crate::mysql::manifest::Product;

/// The version of the file's form; a field may be added under the same number.
pub const FORMAT: u32 = 1;

/// All that is known of a source's segments, as `chain.json` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub format: u32,
    /// Empty where an older program began it.
    #[serde(default)]
    pub policy: String,
    pub source: String,
    /// All that the server had committed by then is in the segments.
    #[serde(default)]
    pub as_of: Option<DateTime<Utc>>,
    /// The oldest first.
    pub epochs: Vec<Epoch>,
}

/// An unbroken history of one server: its files follow each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1 on; also the directory of its segments.
    pub number: u32,
    pub began: DateTime<Utc>,
    pub why: Beginning,
    pub server: Origin,
    /// In the order of the server's files.
    pub segments: Vec<Segment>,
    pub gaps: Vec<Gap>,
}

/// Why an epoch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Beginning {
    FirstCapture,
    /// Another server answers at the source's address: a failover, or a new machine.
    OtherServer,
    /// The server has less than was captured: its binlogs were reset, or a crash took their end.
    WentBack,
}

/// The server of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub product: Product,
    pub version: String,
    /// MySQL's UUID, or MariaDB's number: as a dump's manifest names it.
    pub server: String,
}

/// One binlog file, as far as it was captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The server's name of it.
    pub file: String,
    pub bytes: u64,
    /// Of these bytes.
    pub sha256: String,
    /// When the server began the file, in seconds since 1970.
    pub created: u32,
    /// Commit times, those of the transactions that have one.
    pub first: Option<DateTime<Utc>>,
    pub last: Option<DateTime<Utc>>,
    pub transactions: u64,
    /// What the server had executed before the file, as the file says; `None` where it does not.
    pub before: Option<String>,
    /// What it had executed at the segment's end.
    pub after: String,
    /// The server writes no more to it.
    pub is_closed: bool,
}

/// What no segment holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The last file before it.
    pub after: String,
    /// The first file behind it.
    pub before: String,
    /// The transactions, where GTIDs tell them.
    pub missing: Option<String>,
}

/// Segments of one epoch without a gap between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch<'a> {
    pub epoch: &'a Epoch,
    pub segments: &'a [Segment],
}

impl Chain {
    #[must_use]
    pub fn new(source: &str) -> Self {
        Self { format: FORMAT, policy: String::new(), source: source.to_owned(), as_of: None, epochs: Vec::new() }
    }

    /// Returns all segments with the number of their epoch, the oldest first.
    pub fn segments(&self) -> impl Iterator<Item = (u32, &Segment)> {
        self.epochs.iter().flat_map(|epoch| epoch.segments.iter().map(|segment| (epoch.number, segment)))
    }

    /// Returns the runs of segments without a gap, the oldest first.
    #[must_use]
    pub fn stretches(&self) -> Vec<Stretch<'_>> {
        self.epochs.iter().flat_map(Epoch::stretches).collect()
    }

    /// Returns the moments that can be recovered with one of these dumps, by the newest segments that follow each other: from the
    /// first dump that they go on from, to what they hold.
    #[must_use]
    pub fn window(&self, dumps: &[DateTime<Utc>]) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let stretch = *self.stretches().last()?;
        let from = dumps.iter().filter(|dump| **dump >= stretch.serves_from()).min()?;
        Some((*from, self.as_of?.max(*from)))
    }

    /// Notes that all is here that the server had committed by a moment. What lies after `now` came of a clock that went wrong.
    pub(crate) fn note_as_of(&mut self, moment: DateTime<Utc>, now: DateTime<Utc>) {
        self.as_of = self.as_of.filter(|as_of| *as_of <= now).max(Some(moment.min(now)));
    }

    /// Returns a segment of an epoch.
    pub(crate) fn segment(&self, epoch: u32, file: &str) -> Option<&Segment> {
        let epoch = self.epochs.iter().find(|other| other.number == epoch)?;
        epoch.segments.iter().find(|segment| segment.file == file)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.segments().map(|(_, segment)| segment.bytes).sum()
    }
}

impl Epoch {
    pub(crate) fn stretches(&self) -> Vec<Stretch<'_>> {
        let is_gap_before = |segment: &Segment| self.gaps.iter().any(|gap| gap.before == segment.file);
        let runs = self.segments.chunk_by(|_, next| !is_gap_before(next));
        runs.map(|segments| Stretch { epoch: self, segments }).collect()
    }

    pub(crate) fn new(number: u32, began: DateTime<Utc>, why: Beginning, server: Origin) -> Self {
        Self { number, began, why, server, segments: Vec::new(), gaps: Vec::new() }
    }
}

impl Stretch<'_> {
    /// Returns when the server began the first of the files.
    #[must_use]
    pub fn began(&self) -> DateTime<Utc> {
        let created = self.segments.first().map_or(0, |segment| segment.created);
        DateTime::from_timestamp(created.into(), 0).unwrap_or_default()
    }

    /// Returns from when on a dump is one that the segments go on from: what another server dumped before is not of this history.
    fn serves_from(&self) -> DateTime<Utc> {
        match self.epoch.why {
            Beginning::OtherServer => self.began().max(self.epoch.began),
            Beginning::FirstCapture | Beginning::WentBack => self.began(),
        }
    }
}

impl Segment {
    /// Returns what the server had executed at the segment's end.
    ///
    /// # Errors
    /// A text that is no set of GTIDs.
    pub fn executed(&self, product: Product) -> Result<Executed, GtidError> {
        Executed::parse(product, &self.after)
    }
}

impl Beginning {
    /// Says it in words that follow "began, because".
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::FirstCapture => "nothing was captured before",
            Self::OtherServer => "another server answered",
            Self::WentBack => "the server's binlogs went back: reset, or cut by a crash",
        }
    }
}

/// Splits `binlog.000042` into its base and its number.
pub(crate) fn number_of(file: &str) -> Option<(&str, u64)> {
    let (base, number) = file.rsplit_once('.')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Some((base, number.parse().ok()?))).flatten()
}

/// Tells whether one file is the next of the same server's after another.
pub(crate) fn is_next(file: &str, next: &str) -> bool {
    match (number_of(file), number_of(next)) {
        (Some((base, number)), Some((next_base, next))) => base == next_base && next == number + 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_gap_a_window_begins_with_the_next_dump() {
        let at = |second: i64| DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(second);
        let segment = |number: u32| Segment {
            file: format!("b.{number:06}"),
            bytes: 4,
            sha256: String::new(),
            created: number * 10,
            first: None,
            last: None,
            transactions: 0,
            before: None,
            after: String::new(),
            is_closed: true,
        };
        let server = Origin { product: Product::MySql, version: String::new(), server: "a".to_owned() };
        let mut epoch = Epoch::new(1, at(0), Beginning::FirstCapture, server);
        epoch.segments = vec![segment(1), segment(2), segment(5)];
        let mut chain = Chain { as_of: Some(at(60)), epochs: vec![epoch], ..Chain::new("db1") };
        assert_eq!(chain.window(&[at(15), at(55)]), Some((at(15), at(60))));
        chain.epochs[0].gaps.push(Gap { after: "b.000002".to_owned(), before: "b.000005".to_owned(), missing: None });
        assert_eq!(chain.window(&[at(15), at(49)]), None, "these dumps lie before the gap, or in it");
        assert_eq!(chain.window(&[at(15), at(55)]), Some((at(55), at(60))));
        assert_eq!(chain.stretches().len(), 2);
    }
}
