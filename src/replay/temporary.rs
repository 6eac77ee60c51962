//! TEMPORARY until events6's transactions are there.

use chrono::DateTime;

use crate::mysql::binlog::{BinlogError, Event, Kind};
use crate::mysql::gtid::{Gtid, MariaDbGtid, MySqlGtid, Tsid, Uuid};
use crate::mysql::manifest::Position;
use crate::mysql::wire::cursor::Cursor;
use crate::replay::plan::Mark;

pub(super) fn gtid_of(event: &Event<'_>) -> Result<Option<Gtid>, BinlogError> {
    let bad = |_| BinlogError::Malformed { offset: event.offset, what: "gtid" };
    let mut cursor = Cursor::new(event.body());
    Ok(match event.header.kind {
        Kind::GTID => {
            cursor.u8().map_err(bad)?;
            let uuid = Uuid::from_bytes(cursor.array().map_err(bad)?);
            let number = cursor.u64().map_err(bad)?;
            Some(Gtid::MySql(MySqlGtid { tsid: Tsid::new(uuid, "").unwrap_or_else(|_| unreachable!()), number }))
        }
        Kind::MARIADB_GTID => {
            let sequence = cursor.u64().map_err(bad)?;
            let domain = cursor.u32().map_err(bad)?;
            Some(Gtid::MariaDb(MariaDbGtid { domain, server: event.header.server_id, sequence }))
        }
        _ => None,
    })
}

#[derive(Default)]
pub(super) struct Groups {
    open: Option<(Mark, bool)>,
}

impl Groups {
    pub(super) fn see(&mut self, event: &Event<'_>, file: &str) -> Result<Option<Mark>, BinlogError> {
        let place = |offset| Position { file: file.to_owned(), offset };
        let kind = event.header.kind;
        if matches!(kind, Kind::GTID | Kind::ANONYMOUS_GTID | Kind::MARIADB_GTID) {
            let mut time = DateTime::from_timestamp(i64::from(event.header.timestamp), 0);
            let mut standalone = false;
            if kind == Kind::MARIADB_GTID {
                standalone = event.body().get(12).is_some_and(|flags| flags & 1 != 0);
            } else if let Some(bytes) = event.body().get(42..49) {
                let mut eight = [0; 8];
                eight[..7].copy_from_slice(bytes);
                let micros = u64::from_le_bytes(eight) & !(1 << 55);
                time = DateTime::from_timestamp_micros(micros as i64);
            }
            self.open = Some((
                Mark { gtid: gtid_of(event)?, time, begin: place(event.offset), end: place(event.end()) },
                !standalone && kind == Kind::MARIADB_GTID,
            ));
            return Ok(None);
        }
        let Some((mark, in_trx)) = &mut self.open else { return Ok(None) };
        let ends = match kind {
            Kind::XID | Kind::XA_PREPARE | Kind::TRANSACTION_PAYLOAD => true,
            Kind::QUERY | Kind::QUERY_COMPRESSED => {
                let text = event.body();
                if text.ends_with(b"BEGIN") {
                    *in_trx = true;
                    false
                } else {
                    !*in_trx || text.ends_with(b"COMMIT") || text.ends_with(b"ROLLBACK")
                }
            }
            _ => false,
        };
        mark.end = place(event.end());
        Ok(if ends { self.open.take().map(|(mark, _)| mark) } else { None })
    }
}
