//! MariaDB's GTIDs: `domain-server-sequence`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::mysql::gtid::GtidError;

/// The name of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MariaDbGtid {
    pub domain: u32,
    pub server: u32,
    pub sequence: u64,
}

impl fmt::Display for MariaDbGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl FromStr for MariaDbGtid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let error = || GtidError::new(text, "GTID of MariaDB");
        let fields: Vec<_> = text.trim().split('-').collect();
        let [domain, server, sequence] = fields[..] else { return Err(error()) };
        let is_number = |field: &str| field.bytes().all(|byte| byte.is_ascii_digit());
        if ![domain, server, sequence].into_iter().all(is_number) {
            return Err(error());
        }
        Ok(Self {
            domain: domain.parse().map_err(|_| error())?,
            server: server.parse().map_err(|_| error())?,
            sequence: sequence.parse().map_err(|_| error())?,
        })
    }
}

fn gtids_of(text: &str) -> impl Iterator<Item = Result<MariaDbGtid, GtidError>> {
    text.split(',').map(str::trim).filter(|gtid| !gtid.is_empty()).map(str::parse)
}

fn write_list(f: &mut fmt::Formatter<'_>, gtids: impl Iterator<Item = MariaDbGtid>) -> fmt::Result {
    for (index, gtid) in gtids.enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(f, "{comma}{gtid}")?;
    }
    Ok(())
}

/// The servers that have written into a domain, each with its last number, and which of them was the last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Domain {
    servers: BTreeMap<u32, u64>,
    last: u32,
}

/// What a server's binlogs hold: the last GTID of each server in each domain (`@@gtid_binlog_state`, and the list at the head of
/// each file).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BinlogState(BTreeMap<u32, Domain>);

impl BinlogState {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a transaction, as the last one of its domain.
    pub fn add(&mut self, gtid: MariaDbGtid) {
        let fresh = || Domain { servers: BTreeMap::new(), last: gtid.server };
        let domain = self.0.entry(gtid.domain).or_insert_with(fresh);
        domain.last = gtid.server;
        // A lower number than before (`@@gtid_seq_no`, without strict mode) counts as the last, too: so the server keeps it.
        domain.servers.insert(gtid.server, gtid.sequence);
    }

    #[must_use]
    pub fn contains(&self, gtid: MariaDbGtid) -> bool {
        let last = self.0.get(&gtid.domain).and_then(|domain| domain.servers.get(&gtid.server));
        last.is_some_and(|last| gtid.sequence <= *last)
    }

    /// Tells whether the other holds every transaction of this, too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter().all(|gtid| other.contains(gtid))
    }

    /// Returns the GTIDs by domain, and in each domain the last one last: the order in which a server lists them.
    pub fn iter(&self) -> impl Iterator<Item = MariaDbGtid> + '_ {
        self.0.iter().flat_map(|(id, domain)| {
            let gtid =
                |(server, sequence): (&u32, &u64)| MariaDbGtid { domain: *id, server: *server, sequence: *sequence };
            let others = domain.servers.iter().filter(|(server, _)| **server != domain.last).map(gtid);
            let last = domain.servers.get_key_value(&domain.last).map(gtid);
            others.chain(last).collect::<Vec<_>>()
        })
    }

    /// Returns where a replica that has all of this goes on.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.iter().map(|gtid| (gtid.domain, gtid)).collect())
    }
}

impl FromIterator<MariaDbGtid> for BinlogState {
    /// Takes GTIDs in their order: the last of a domain is its last.
    fn from_iter<I: IntoIterator<Item = MariaDbGtid>>(gtids: I) -> Self {
        let mut state = Self::default();
        gtids.into_iter().for_each(|gtid| state.add(gtid));
        state
    }
}

impl fmt::Display for BinlogState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, self.iter())
    }
}

impl FromStr for BinlogState {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        gtids_of(text).collect()
    }
}

/// Where a replica goes on: the last GTID of each domain (`@@gtid_slave_pos`, `@@gtid_binlog_pos`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position(BTreeMap<u32, MariaDbGtid>);

impl Position {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the GTIDs, by domain.
    pub fn iter(&self) -> impl Iterator<Item = MariaDbGtid> + '_ {
        self.0.values().copied()
    }

    /// Returns the last GTID of a domain.
    #[must_use]
    pub fn get(&self, domain: u32) -> Option<MariaDbGtid> {
        self.0.get(&domain).copied()
    }

    /// Moves on to a transaction: the last of its domain, whatever number it has.
    pub fn add(&mut self, gtid: MariaDbGtid) {
        self.0.insert(gtid.domain, gtid);
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, self.iter())
    }
}

impl FromStr for Position {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut position = Self::default();
        for gtid in gtids_of(text) {
            let gtid = gtid?;
            if position.0.insert(gtid.domain, gtid).is_some() {
                return Err(GtidError::new(text, "position of MariaDB: a domain stands in it twice"));
            }
        }
        Ok(position)
    }
}
