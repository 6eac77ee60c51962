//! What an event is.

use std::fmt;

/// The kind of an event: a byte, so that unknown ones pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u8);

macro_rules! kinds {
    ($($(#[$doc:meta])* $constant:ident = $number:literal, $name:literal;)+) => {
        impl Kind {
            $($(#[$doc])* pub const $constant: Self = Self($number);)+

            /// Returns the kind's name, as its server lists it (`SHOW BINLOG EVENTS`).
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$constant => Some($name),)+
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    QUERY = 2, "Query";
    STOP = 3, "Stop";
    ROTATE = 4, "Rotate";
    INTVAR = 5, "Intvar";
    APPEND_BLOCK = 9, "Append_block";
    DELETE_FILE = 11, "Delete_file";
    RAND = 13, "RAND";
    USER_VAR = 14, "User var";
    FORMAT_DESCRIPTION = 15, "Format_desc";
    XID = 16, "Xid";
    BEGIN_LOAD_QUERY = 17, "Begin_load_query";
    EXECUTE_LOAD_QUERY = 18, "Execute_load_query";
    TABLE_MAP = 19, "Table_map";
    WRITE_ROWS_V1 = 23, "Write_rows_v1";
    UPDATE_ROWS_V1 = 24, "Update_rows_v1";
    DELETE_ROWS_V1 = 25, "Delete_rows_v1";
    INCIDENT = 26, "Incident";
    HEARTBEAT = 27, "Heartbeat";
    /// The statement's text, before its rows (`binlog_rows_query_log_events`).
    ROWS_QUERY = 29, "Rows_query";
    WRITE_ROWS = 30, "Write_rows";
    UPDATE_ROWS = 31, "Update_rows";
    DELETE_ROWS = 32, "Delete_rows";
    GTID = 33, "Gtid";
    ANONYMOUS_GTID = 34, "Anonymous_Gtid";
    PREVIOUS_GTIDS = 35, "Previous_gtids";
    TRANSACTION_CONTEXT = 36, "Transaction_context";
    VIEW_CHANGE = 37, "View_change";
    XA_PREPARE = 38, "XA_prepare";
    PARTIAL_UPDATE_ROWS = 39, "Update_rows_partial";
    /// A whole transaction's events, compressed.
    TRANSACTION_PAYLOAD = 40, "Transaction_payload";
    HEARTBEAT_V2 = 41, "Heartbeat";
    /// A GTID with a tag.
    GTID_TAGGED = 42, "Gtid_tagged_log_event";
    /// MariaDB's: the statement's text, before its rows.
    ANNOTATE_ROWS = 160, "Annotate_rows";
    /// MariaDB's: up to which file the engines need the binlog.
    BINLOG_CHECKPOINT = 161, "Binlog_checkpoint";
    MARIADB_GTID = 162, "Gtid";
    MARIADB_GTID_LIST = 163, "Gtid_list";
    /// MariaDB's: in a server's own file, what follows is encrypted.
    START_ENCRYPTION = 164, "Start_encryption";
    QUERY_COMPRESSED = 165, "Query_compressed";
    WRITE_ROWS_COMPRESSED_V1 = 166, "Write_rows_compressed_v1";
    UPDATE_ROWS_COMPRESSED_V1 = 167, "Update_rows_compressed_v1";
    DELETE_ROWS_COMPRESSED_V1 = 168, "Delete_rows_compressed_v1";
    WRITE_ROWS_COMPRESSED = 169, "Write_rows_compressed";
    UPDATE_ROWS_COMPRESSED = 170, "Update_rows_compressed";
    DELETE_ROWS_COMPRESSED = 171, "Delete_rows_compressed";
    /// MariaDB's, from 12.3 on: rows of one event that was too large, in pieces.
    PARTIAL_ROWS = 172, "Partial_rows";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "event of kind {}", self.0),
        }
    }
}
