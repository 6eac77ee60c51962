//! Names and values as SQL text.
//!
//! Everything that a server told us and that goes back into a statement passes through here, so that a table called
//! `` a`b `` or a value with a quote in it is a name and a value, and never a statement.

use std::fmt::Write;

/// Quotes an identifier by backticks; one inside is doubled.
#[must_use]
pub fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Quotes the name of a table or of another object of a schema: `` `shop`.`orders` ``.
#[must_use]
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// Quotes names for a column list: `` `a`, `b` ``.
#[must_use]
pub fn idents<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(ident).collect();
    quoted.join(", ")
}

/// Quotes a text: `'it''s'`. It holds under every `sql_mode`, `NO_BACKSLASH_ESCAPES` included, as long as the text has
/// no backslash; one with a backslash becomes a hexadecimal literal with its character set.
#[must_use]
pub fn string(text: &str) -> String {
    if text.contains(['\\', '\0']) {
        return format!("_utf8mb4 {}", bytes(text.as_bytes()));
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// Writes bytes as a hexadecimal literal: `X'00FF'`.
#[must_use]
pub fn bytes(value: &[u8]) -> String {
    let mut literal = String::with_capacity(value.len() * 2 + 3);
    literal.push_str("X'");
    for byte in value {
        // Writing into a String does not fail.
        let _infallible = write!(literal, "{byte:02X}");
    }
    literal.push('\'');
    literal
}

/// Quotes an account as `'user'@'host'`.
#[must_use]
pub fn account(user: &str, host: &str) -> String {
    format!("{}@{}", ident(user), ident(host))
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_name() {
        assert_eq!(ident("a`b"), "`a``b`");
        assert_eq!(qualified("s.1", "t"), "`s.1`.`t`");
        assert_eq!(idents(["a", "b c"]), "`a`, `b c`");
    }

    #[test]
    fn a_text_stays_one_text_under_every_sql_mode() {
        assert_eq!(string("it's"), "'it''s'");
        assert_eq!(string(r"a\'b"), "_utf8mb4 X'615C2762'");
        assert_eq!(bytes(b"\0\xff"), "X'00FF'");
    }
}
