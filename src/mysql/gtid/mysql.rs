//! MySQL's GTIDs: `uuid:number`, or `uuid:tag:number`; a set is `uuid:1-77:79,uuid:1-5:tag:1-3`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::mysql::gtid::{GtidError, Intervals};

const TAG_LENGTH_MAX: usize = 32;

/// Numbers are 1 to 2^63 - 2: the server's own bounds.
pub(crate) const NUMBER_END: u64 = i64::MAX as u64;

/// A server's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid([u8; 16]);

impl Uuid {
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = hex::encode(self.0);
        let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
        write!(f, "{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
    }
}

impl FromStr for Uuid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let error = || GtidError::new(text, "UUID");
        let is_dashed = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-');
        if !is_dashed && text.len() != 32 {
            return Err(error());
        }
        let mut bytes = [0; 16];
        hex::decode_to_slice(text.replace('-', ""), &mut bytes).map_err(|_| error())?;
        Ok(Self(bytes))
    }
}

/// Who numbers transactions: a server's UUID, with a tag (from MySQL 8.3 on) or the empty one. The server calls it so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tsid {
    uuid: Uuid,
    tag: String,
}

impl Tsid {
    /// Takes a UUID and a tag, which may be empty.
    ///
    /// # Errors
    /// A tag that no server takes.
    pub fn new(uuid: Uuid, tag: &str) -> Result<Self, GtidError> {
        if !tag.is_empty() && !is_tag(tag) {
            return Err(GtidError::new(tag, "tag of a GTID"));
        }
        Ok(Self { uuid, tag: tag.to_ascii_lowercase() })
    }

    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl fmt::Display for Tsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.fmt(f)?;
        if self.tag.is_empty() { Ok(()) } else { write!(f, ":{}", self.tag) }
    }
}

/// Tells whether a text is a tag: a letter or underscore, then those and digits.
fn is_tag(text: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= TAG_LENGTH_MAX
        && bytes.first().is_some_and(|first| is_first(*first))
        && bytes.iter().all(|byte| is_first(*byte) || byte.is_ascii_digit())
}

/// The name of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MySqlGtid {
    pub tsid: Tsid,
    pub number: u64,
}

impl fmt::Display for MySqlGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.tsid, self.number)
    }
}

impl FromStr for MySqlGtid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let error = || GtidError::new(text, "GTID of MySQL");
        let (tsid, number) = text.trim().rsplit_once(':').ok_or_else(error)?;
        let (uuid, tag) = tsid.split_once(':').unwrap_or((tsid, ""));
        let tsid = Tsid::new(uuid.trim().parse().map_err(|_| error())?, tag.trim()).map_err(|_| error())?;
        Ok(Self { tsid, number: number_of(number).ok_or_else(error)? })
    }
}

/// Reads digits, without the sign that `u64::from_str` would take.
fn number_of(text: &str) -> Option<u64> {
    let text = text.trim();
    let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()?;
    (1..NUMBER_END).contains(&number).then_some(number)
}

/// A set of transactions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct GtidSet(BTreeMap<Tsid, Intervals>);

impl GtidSet {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many transactions are in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().fold(0, |sum, intervals| sum.saturating_add(intervals.count()))
    }

    /// Returns the origins and the intervals of each, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&Tsid, &Intervals)> {
        self.0.iter()
    }

    #[must_use]
    pub fn contains(&self, gtid: &MySqlGtid) -> bool {
        self.0.get(&gtid.tsid).is_some_and(|intervals| intervals.contains(gtid.number))
    }

    pub fn add(&mut self, gtid: &MySqlGtid) {
        match self.0.get_mut(&gtid.tsid) {
            Some(intervals) => intervals.add(gtid.number, gtid.number.saturating_add(1)),
            None => self.add_interval(gtid.tsid.clone(), gtid.number, gtid.number.saturating_add(1)),
        }
    }

    /// Adds the transactions of one origin from `start` up to, and without, `end`.
    pub fn add_interval(&mut self, tsid: Tsid, start: u64, end: u64) {
        if start < end {
            self.0.entry(tsid).or_default().add(start, end);
        }
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        for (tsid, intervals) in &other.0 {
            let own = union.0.entry(tsid.clone()).or_default();
            intervals.iter().for_each(|(start, end)| own.add(start, end));
        }
        union
    }

    /// Returns what is in this and not in the other.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        for (tsid, intervals) in &other.0 {
            if let Some(own) = rest.0.get_mut(tsid) {
                intervals.iter().for_each(|(start, end)| own.remove(start, end));
            }
        }
        rest.0.retain(|_, intervals| !intervals.is_empty());
        rest
    }

    /// Tells whether every transaction of this is in the other, too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.iter().all(|(tsid, own)| other.0.get(tsid).is_some_and(|other| own.is_subset(other)))
    }
}

impl fmt::Display for GtidSet {
    /// Writes the set as the server does, but on one line: `uuid:1-77:79:tag:1-5,uuid:1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last_uuid = None;
        for (tsid, intervals) in &self.0 {
            if last_uuid != Some(tsid.uuid) {
                let comma = if last_uuid.is_some() { "," } else { "" };
                write!(f, "{comma}{}", tsid.uuid)?;
                last_uuid = Some(tsid.uuid);
            }
            if !tsid.tag.is_empty() {
                write!(f, ":{}", tsid.tag)?;
            }
            for (start, end) in intervals.iter() {
                match end - start {
                    1 => write!(f, ":{start}")?,
                    _ => write!(f, ":{start}-{}", end - 1)?,
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            add_part(&mut set, part).ok_or_else(|| GtidError::new(part, "GTID set of MySQL (`uuid:1-77:79`)"))?;
        }
        Ok(set)
    }
}

/// Adds `uuid:1-77:79:tag:1-5`: a tag holds for the intervals after it.
fn add_part(set: &mut GtidSet, part: &str) -> Option<()> {
    let mut fields = part.split(':').map(str::trim);
    let mut tsid = Tsid::new(fields.next()?.parse().ok()?, "").ok()?;
    let mut is_interval_due = true;
    for field in fields {
        if field.starts_with(|first: char| first.is_ascii_digit()) {
            let (first, last) = field.split_once('-').unwrap_or((field, field));
            // A server takes `5-3`, too, for nothing.
            set.add_interval(tsid.clone(), number_of(first)?, number_of(last)? + 1);
            is_interval_due = false;
        } else {
            tsid = Tsid::new(tsid.uuid, field).ok().filter(|tsid| !tsid.tag.is_empty())?;
            is_interval_due = true;
        }
    }
    (!is_interval_due).then_some(())
}
