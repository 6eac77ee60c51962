//! What the products' own tools find in a binlog.

use std::path::Path;
use std::process::Command;

use bkp::mysql::binlog::{Header, Kind};

use crate::servers::{Product, Server, program};

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    offset: u64,
    timestamp: u32,
    kind: u8,
    server_id: u32,
    length: u32,
    end: u32,
    flags: u16,
}

impl From<(u64, Header)> for Event {
    /// MariaDB's tool shows rows without their compression.
    fn from((offset, header): (u64, Header)) -> Self {
        let Header { timestamp, kind, server_id, length, end, flags } = header;
        let kind = match kind.0 {
            compressed @ 166..=168 => compressed - 143,
            kind => kind,
        };
        Self { offset, timestamp, kind, server_id, length, end, flags }
    }
}

#[derive(Debug)]
pub(super) struct Told {
    pub(super) events: Vec<Event>,
    /// Of each transaction; none is anonymous.
    pub(super) gtids: Vec<Option<String>>,
    /// Of each transaction, from MySQL.
    pub(super) committed_micros: Vec<i64>,
}

/// Reads a file with the product's own tool, which checks the checksums, too.
pub(super) fn ask(product: Product, file: &Path) -> Told {
    let tool = if product == Product::MariaDb { "MARIADB_BINLOG" } else { "MYSQLBINLOG" };
    let output = Command::new(program(tool))
        .args(["--no-defaults", "--hexdump", "--verify-binlog-checksum", "-vv"])
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    let heads = lines.iter().enumerate().filter(|(_, line)| line.starts_with("# Position"));
    // MariaDB has the heading on a line of its own.
    let heads = heads.flat_map(|(at, _)| &lines[at + 1..lines.len().min(at + 3)]);
    // Events within a compressed transaction have no position.
    let mut events: Vec<Event> = heads.filter_map(|line| event(line)).filter(|event| event.end > 0).collect();
    // What belongs to a statement is printed with it.
    events.sort_by_key(|event| event.end);
    let gtids = match product {
        Product::MySql => lines.iter().filter_map(|line| mysql_gtid(line)).collect(),
        Product::MariaDb => lines.iter().filter_map(|line| mariadb_gtid(line)).collect(),
    };
    let committed_micros = lines.iter().filter_map(|line| committed(line)).collect();
    Told { events, gtids, committed_micros }
}

/// Reads `# 00000116 e1 fd 07 6b   02   bb 6c 00 00   4d 00 00 00   63 01 00 00   08 00`, and MariaDB's form with bars.
fn event(line: &str) -> Option<Event> {
    let line = line.strip_prefix('#')?.replace('|', " ");
    let tokens: Vec<&str> = line.split_whitespace().collect();
    let [offset, bytes @ ..] = tokens.as_slice() else { return None };
    let bytes: Vec<u8> = bytes.iter().map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>().ok()?;
    let int = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    if bytes.len() != 19 {
        return None;
    }
    let (mut offset, end) = (u64::from_str_radix(offset, 16).unwrap(), int(13));
    let is_annotation = bytes[4] == Kind::ANNOTATE_ROWS.0;
    if is_annotation {
        // MariaDB's tool prints it later, with the offset where it then is.
        offset = u64::from(end.saturating_sub(int(9)));
    }
    let length = u32::try_from(u64::from(end).saturating_sub(offset)).unwrap();
    let flags = u16::from_le_bytes([bytes[17], bytes[18]]);
    Some(Event { offset, timestamp: int(0), kind: bytes[4], server_id: int(5), length, end, flags })
}

/// Returns what MariaDB itself lists of a file: where each event begins, its kind and where it ends.
pub(super) fn listed(server: &Server, file: &Path) -> Vec<(u64, String, u64)> {
    let name = file.file_name().unwrap().to_str().unwrap();
    let rows = server.query(&format!("SHOW BINLOG EVENTS IN '{name}'"));
    let text = |row: &[Option<String>], column: usize| row[column].clone().unwrap();
    rows.iter().map(|row| (text(row, 1).parse().unwrap(), text(row, 2), text(row, 4).parse().unwrap())).collect()
}

#[expect(clippy::option_option, reason = "not every transaction has one, and not every line is of one")]
fn mysql_gtid(line: &str) -> Option<Option<String>> {
    let (gtid, _) = line.strip_prefix("SET @@SESSION.GTID_NEXT= '")?.split_once('\'')?;
    match gtid {
        // At the file's end.
        "AUTOMATIC" => None,
        "ANONYMOUS" => Some(None),
        _ => Some(Some(gtid.to_owned())),
    }
}

#[expect(clippy::option_option, reason = "not every transaction has one, and not every line is of one")]
fn mariadb_gtid(line: &str) -> Option<Option<String>> {
    let (_, gtid) = line.strip_prefix('#')?.split_once("\tGTID ")?;
    Some(gtid.split_whitespace().next().map(str::to_owned))
}

fn committed(line: &str) -> Option<i64> {
    let (_, micros) = line.split_once("\timmediate_commit_timestamp=")?;
    micros.split_whitespace().next()?.parse().ok()
}
