//! What an error of the server means for a load.

use mysql_async::{DriverError, Error};

/// Tells whether the same chunk may well succeed on a new connection: a deadlock, a lock not given in time, a lost connection.
pub(super) fn is_passing(error: &Error) -> bool {
    match error {
        Error::Server(error) => is_passing_code(error.code),
        Error::Driver(DriverError::ConnectionClosed | DriverError::PacketOutOfOrder) | Error::Io(_) => true,
        _ => false,
    }
}

const LOCK_WAIT: u16 = 1205;
const DEADLOCK: u16 = 1213;

/// Tells whether another session was in the way.
pub(super) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Server(error) if matches!(error.code, LOCK_WAIT | DEADLOCK))
}

/// Tells whether the server refuses this very statement and may well take one on another table: it still answers, and what it
/// complains of is not itself (no disk, no memory, read-only) nor the account.
pub(super) fn is_of_statement(error: &Error) -> bool {
    let is_of_server =
        |code| matches!(code, 1021 | 1037 | 1038 | 1041 | 1044 | 1045 | 1114 | 1142 | 1227 | 1290 | 1836);
    matches!(error, Error::Server(error) if !is_of_server(error.code)) && (!is_passing(error) || is_conflict(error))
}

pub(super) fn is_passing_code(code: u16) -> bool {
    const TOO_MANY_CONNECTIONS: u16 = 1040;
    const SHUTDOWN: u16 = 1053;
    const NETWORK: std::ops::RangeInclusive<u16> = 1153..=1161;
    const QUERY_INTERRUPTED: u16 = 1317;
    const KILLED: u16 = 1927;
    const GONE_AWAY: u16 = 2006;
    const LOST: u16 = 2013;
    const IDLE_TOO_LONG: u16 = 4031;
    matches!(
        code,
        TOO_MANY_CONNECTIONS
            | SHUTDOWN
            | LOCK_WAIT
            | DEADLOCK
            | QUERY_INTERRUPTED
            | KILLED
            | GONE_AWAY
            | LOST
            | IDLE_TOO_LONG
    ) || (NETWORK.contains(&code) && code != PACKET_TOO_LARGE)
}

/// Tells whether a value is larger than the server's `max_allowed_packet`.
pub(super) fn is_too_large(error: &Error) -> bool {
    matches!(error, Error::Server(error) if matches!(error.code, PACKET_TOO_LARGE | 1301))
}

const PACKET_TOO_LARGE: u16 = 1153;

/// Tells whether a table of this name is there already.
pub(super) fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Server(error) if error.code == 1050)
}

/// Tells whether a table or schema is simply not there (1046, 1049, 1146), or hidden from us, which comes to the same.
pub(super) fn is_absent(code: u16) -> bool {
    matches!(code, 1044 | 1046 | 1049 | 1142 | 1146)
}

/// Tells whether a row with this key exists already.
pub(super) fn is_duplicate(error: &Error) -> bool {
    matches!(error, Error::Server(error) if matches!(error.code, 1062 | 1586))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16) -> Error {
        Error::Server(mysql_async::ServerError { code, message: String::new(), state: String::new() })
    }

    #[test]
    fn a_refused_value_is_the_tables_own_fault_and_a_full_disk_or_a_lost_connection_is_not() {
        for code in [1062, 1273, 1366, 1205] {
            assert!(is_of_statement(&server(code)), "{code}");
        }
        for code in [1021, 1114, 1290, 1142, 2013, 1053] {
            assert!(!is_of_statement(&server(code)), "{code}");
        }
        assert!(!is_of_statement(&Error::Driver(DriverError::ConnectionClosed)));
    }

    #[test]
    fn deadlocks_and_lost_connections_pass_and_faults_of_the_data_do_not() {
        for code in [1213, 1205, 2006, 2013, 1158, 1927, 1053] {
            assert!(is_passing(&server(code)), "{code}");
        }
        for code in [1062, 1114, 1146, 1153, 1366, 1406] {
            assert!(!is_passing(&server(code)), "{code}");
        }
    }
}
