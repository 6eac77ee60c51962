//! Columns of a table.

use crate::target::mysql::dialect::key::{key_for_mariadb, key_for_mysql, without_parser};
use crate::target::mysql::dialect::token::{Definition, Token, closing};
use crate::target::mysql::dialect::{Dialect, Findings};

/// Types whose defaults MySQL wants in parentheses.
const LARGE: [&str; 8] = ["tinytext", "text", "mediumtext", "longtext", "tinyblob", "blob", "mediumblob", "longblob"];

impl Dialect {
    /// Translates a column, key or check; `false` where it is left out.
    pub(super) fn item(&self, item: &mut Vec<Token>, found: &mut Findings) -> bool {
        match item.first() {
            Some(first) if first.is_name() => {
                self.column(item, found);
                true
            }
            _ if self.is_foreign() => {
                without_parser(item, found);
                if self.is_to_mysql() { key_for_mysql(item, found) } else { key_for_mariadb(item, found) }
            }
            _ => true,
        }
    }

    fn column(&self, item: &mut Vec<Token>, found: &mut Findings) {
        self.rare_type(item, found);
        if self.is_foreign() && find(item, "GENERATED").is_some() {
            found.note(
                "generated columns are computed by the target and not compared: rounding and functions may differ",
            );
        }
        if self.is_to_mysql() {
            column_for_mysql(item, found);
        } else if self.is_to_mariadb() {
            column_for_mariadb(item, found);
        }
    }

    /// Gives a column of a type that the target lacks one that holds the same text or bytes.
    fn rare_type(&self, item: &mut Vec<Token>, found: &mut Findings) {
        let Some(kind) = item.get(1).map(|token| token.text.to_ascii_lowercase()) else { return };
        if !super::RARE_TYPES.contains(&kind.as_str()) || self.abilities.types.contains(&kind) {
            return;
        }
        let length = item.get(3).and_then(|token| token.text.parse::<u64>().ok()).unwrap_or(0);
        let (stand_in, end) = match kind.as_str() {
            "uuid" => ("char(36) CHARACTER SET ascii COLLATE ascii_general_ci".to_owned(), 2),
            "inet4" => ("varchar(15) CHARACTER SET ascii COLLATE ascii_general_ci".to_owned(), 2),
            "inet6" => ("varchar(39) CHARACTER SET ascii COLLATE ascii_general_ci".to_owned(), 2),
            _ => (format!("varbinary({})", length * VECTOR_ELEMENT_BYTES), 5),
        };
        let words = super::token::tokens(&format!(" {stand_in}"), false);
        let name = stand_in.split(' ').next().unwrap_or_default().to_owned();
        item.splice(1..end.min(item.len()), words);
        found.note(format!("type {kind} comes as {name}: the target has none such"));
        found.sorts_otherwise = true;
    }
}

/// A vector's elements are floats of four bytes.
const VECTOR_ELEMENT_BYTES: u64 = 4;

fn column_for_mysql(item: &mut Vec<Token>, found: &mut Findings) {
    if find(item, "ROW").is_some() && find(item, "GENERATED").is_some() {
        found.refuse("MySQL keeps no history of rows (SYSTEM VERSIONING)");
    }
    if let Some(at) = find(item, "COMPRESSED") {
        let end = if item.get(at + 1).is_some_and(|next| next.is("=")) { at + 3 } else { at + 1 };
        item.drain(at..end.min(item.len()));
        found.note("columns that are COMPRESSED come uncompressed: MySQL has none such");
    }
    if let Some(at) = find(item, "REF_SYSTEM_ID") {
        item.drain(at..(at + 3).min(item.len()));
    }
    default_for_mysql(item, found);
}

/// MySQL takes an expression as a default only in parentheses, and for a large column anything but NULL is one.
fn default_for_mysql(item: &mut Vec<Token>, found: &mut Findings) {
    if drop_sequence(item) {
        found.note(format!("column {} has no default any more: MySQL has no sequences", item[0].text));
    }
    let Some(at) = find(item, "DEFAULT").filter(|at| at + 1 < item.len()) else { return };
    let value = &item[at + 1];
    let is_call = value.is_word() && item.get(at + 2).is_some_and(|next| next.is("(") && !next.is_apart);
    let is_moment = value.is("current_timestamp") || value.is("now");
    let is_large = is_large(item);
    // A sign, or a character set before its text.
    let has_prefix = value.is("-") || item.get(at + 2).is_some_and(|next| next.is_text() && !next.is_apart);
    let end = match () {
        () if is_call && (is_large || !is_moment) => closing(item, at + 2),
        () if !is_large || value.is("NULL") || value.is("(") => None,
        () if has_prefix => Some((at + 2).min(item.len() - 1)),
        () => Some(at + 1),
    };
    if let Some(end) = end {
        item.insert(end + 1, Token { text: ")".to_owned(), is_apart: false });
        item.insert(at + 1, Token::apart("("));
        item[at + 2].is_apart = false;
    }
}

/// Tells whether an item is a column of texts or bytes of any length.
pub(super) fn is_large(item: &[Token]) -> bool {
    let is_column = item.first().is_some_and(Token::is_name);
    is_column && item.get(1).is_some_and(|kind| LARGE.iter().any(|large| kind.is(large)))
}

/// Returns a `CREATE TABLE` statement without the defaults that come from sequences, which may be a live schema's.
pub(in crate::target::mysql) fn without_sequences(create: &str) -> String {
    let Some(mut definition) = Definition::parse(create, false) else { return create.to_owned() };
    let columns = definition.items.iter_mut().filter(|item| item.first().is_some_and(Token::is_name));
    let dropped = columns.filter_map(|item| drop_sequence(item).then_some(())).count();
    if dropped == 0 { create.to_owned() } else { definition.to_string() }
}

/// How MariaDB prints what draws from a sequence, looks at it or sets it.
const OF_SEQUENCES: [&str; 3] = ["nextval", "lastval", "setval"];

/// Takes a default that has to do with a sequence out of a column, wherever in the expression it stands.
fn drop_sequence(item: &mut Vec<Token>) -> bool {
    let Some(at) = find(item, "DEFAULT").filter(|at| at + 1 < item.len()) else { return false };
    let open = if item[at + 1].is("(") { at + 1 } else { at + 2 };
    let Some(end) = item.get(open).filter(|token| token.is("(")).and_then(|_| closing(item, open)) else {
        return false;
    };
    let is_call = |pair: &[Token]| OF_SEQUENCES.iter().any(|name| pair[0].is(name)) && pair[1].is("(");
    let draws = item[at..=end].windows(2).any(is_call);
    if draws {
        item.drain(at..=end);
    }
    draws
}

fn column_for_mariadb(item: &mut Vec<Token>, found: &mut Findings) {
    if let Some(kind) = item.get_mut(1).filter(|kind| kind.is("geomcollection")) {
        "geometrycollection".clone_into(&mut kind.text);
    }
    if item.get(1).is_some_and(|kind| kind.is("json")) {
        found.note("type json comes as MariaDB's: a text that is checked");
    }
    if let Some(at) = find(item, "SRID") {
        item.drain(at..(at + 2).min(item.len()));
        found.note("columns with an SRID take values of any: MariaDB has no such rule");
    }
    for word in ["COLUMN_FORMAT", "STORAGE"] {
        if let Some(at) = find(item, word) {
            item.drain(at..(at + 2).min(item.len()));
        }
    }
    let is_generated = find(item, "GENERATED").is_some();
    if let Some(at) = find(item, "NOT").filter(|_| is_generated) {
        item.drain(at..(at + 2).min(item.len()));
        found.note("generated columns that are NOT NULL may be NULL: MariaDB has no such rule for them");
    }
}

/// Returns the place of a word that stands in no parentheses.
pub(super) fn find(item: &[Token], word: &str) -> Option<usize> {
    let mut depth = 0_usize;
    item.iter().position(|token| {
        match token.text.as_str() {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && token.is(word)
    })
}
