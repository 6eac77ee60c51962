//! Which events and statements can be brought in a session, and how. Pure.

use crate::mysql::binlog::{Kind, Said, Verb, statement};

/// Tells whether an event is of rows.
pub(super) fn is_rows(kind: Kind) -> bool {
    let plain = Kind::WRITE_ROWS_V1..=Kind::DELETE_ROWS_V1;
    let second = Kind::WRITE_ROWS..=Kind::DELETE_ROWS;
    let compressed = Kind::WRITE_ROWS_COMPRESSED_V1..=Kind::DELETE_ROWS_COMPRESSED;
    plain.contains(&kind) || second.contains(&kind) || compressed.contains(&kind) || kind == Kind::PARTIAL_UPDATE_ROWS
}

/// Returns why events of a kind cannot be brought in a session, of kinds that are known.
pub(super) fn reason(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::BEGIN_LOAD_QUERY | Kind::APPEND_BLOCK | Kind::EXECUTE_LOAD_QUERY | Kind::DELETE_FILE => {
            "is a LOAD DATA that the binlog has as a statement (`binlog_format` other than ROW)"
        }
        Kind::XA_PREPARE => "prepares an XA transaction, which would keep the session from all that follows",
        Kind::INCIDENT => "says that the source lost what it should have written here",
        Kind::PARTIAL_ROWS => "holds a row in pieces, which no BINLOG statement takes",
        _ => return None,
    })
}

/// Tells whether a statement is a definition, which commits by itself: one of a temporary table does not.
pub(super) fn defines(text: &str, schema: &str) -> bool {
    let reading = statement::read(text, schema);
    let is_definition =
        |verb: &Verb| matches!(verb, Verb::Create | Verb::Alter | Verb::Rename | Verb::Drop | Verb::Truncate);
    reading.temporary.is_empty() && reading.verbs.iter().any(is_definition)
}

/// Returns what keeps a statement from being said again as it was.
pub(super) fn unfit(said: &Said, text: &str) -> Option<String> {
    let Said { context, .. } = said;
    let has = |word: &str| text.to_ascii_lowercase().contains(word);
    if context.error != 0 {
        return Some(format!(
            "is a statement that failed on the source (error {}) when a part of it had been done",
            context.error
        ));
    }
    if let Some(code) = context.unknown {
        return Some(format!("wants of its session what bkp does not know (code {code})"));
    }
    if context.is_part {
        return Some("is a part of an ALTER in two phases (`binlog_alter_two_phase`)".to_owned());
    }
    if context.has_invoker && (has("current_user") || has("current_role")) && !has("definer") {
        return Some("is of the account that said it on the source (CURRENT_USER)".to_owned());
    }
    None
}
