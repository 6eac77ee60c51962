//! Keys and checks of a table.

use std::collections::{BTreeMap, BTreeSet};

use crate::target::mysql::dialect::column::{find, is_large};
use crate::target::mysql::dialect::token::{Token, closing};
use crate::target::mysql::dialect::{Dialect, Findings};

pub(super) fn key_for_mysql(item: &mut Vec<Token>, found: &mut Findings) -> bool {
    if item.first().is_some_and(|first| first.is("PERIOD")) {
        found.refuse("MySQL has no periods (PERIOD FOR)");
    }
    if item.first().is_some_and(|first| first.is("VECTOR")) {
        found.note("a vector index is left out: the target has none such");
        return false;
    }
    if let Some(ignored) = find(item, "IGNORED") {
        "INVISIBLE".clone_into(&mut item[ignored].text);
    }
    // MariaDB names the checks of each table CONSTRAINT_1, CONSTRAINT_2 …; MySQL wants no two of a name in a schema.
    let number = item.get(1).and_then(|name| name.text.strip_prefix("`CONSTRAINT_")?.strip_suffix('`'));
    if is_check(item) && number.is_some_and(|number| number.chars().all(|digit| digit.is_ascii_digit())) {
        item.drain(..2);
    }
    true
}

pub(super) fn key_for_mariadb(item: &mut [Token], found: &mut Findings) -> bool {
    if find(item, "ENFORCED").is_some() {
        found.note("a check that is NOT ENFORCED is left out: MariaDB would enforce it");
        return false;
    }
    let is_check = find(item, "CHECK").is_some();
    let is_on_expression = |pair: &[Token]| (pair[0].is("(") || pair[0].is(",")) && pair[1].is("(");
    if !is_check && item.windows(2).any(is_on_expression) {
        found.note(format!("the index {} on an expression is left out: MariaDB has none such", name(item)));
        return false;
    }
    if let Some(invisible) = find(item, "INVISIBLE") {
        "IGNORED".clone_into(&mut item[invisible].text);
    }
    true
}

/// Takes the parser out of a full-text key: each product has its own ones.
pub(super) fn without_parser(item: &mut Vec<Token>, found: &mut Findings) {
    let is_full_text = item.first().is_some_and(|first| first.is("FULLTEXT"));
    let Some(at) = find(item, "WITH").filter(|_| is_full_text) else { return };
    let end = (at + 3).min(item.len());
    let parser = item[at..end].last().map_or("", |name| name.text.as_str()).to_owned();
    item.drain(at..end);
    found.note(format!("the full-text index {} finds words by the target's own parser, not by {parser}", name(item)));
}

/// MySQL wants no two checks of a name in a schema: the later one gets a name from the server.
pub(super) fn no_name_twice(items: &mut [Vec<Token>], taken: &mut BTreeSet<String>, found: &mut Findings) {
    for item in items.iter_mut().filter(|item| is_check(item)) {
        if item[0].is("CONSTRAINT") && !taken.insert(item[1].text.to_lowercase()) {
            found.note(format!("the check {} gets another name: MySQL wants it once in a schema", item[1].text));
            item.drain(..2);
        }
    }
}

/// Refuses a table whose numbers count up within a group (`PRIMARY KEY (shop, number)`): InnoDB has a key begin with them.
pub(super) fn refuse_grouped_numbers(items: &[Vec<Token>], found: &mut Findings) {
    let is_counted = |item: &&Vec<Token>| is_column(item) && find(item, "AUTO_INCREMENT").is_some();
    let Some(column) = items.iter().find(is_counted).map(|item| item[0].text.as_str()) else { return };
    let leads = |item: &Vec<Token>| columns(item).first().is_some_and(|first| first.eq_ignore_ascii_case(column));
    if !items.iter().any(leads) {
        found.refuse(format!("no key begins with {column}, whose AUTO_INCREMENT InnoDB would refuse"));
    }
}

impl Dialect {
    /// Leaves out what MariaDB keeps unique by a hash and MySQL not at all: whole texts, and keys of more bytes than InnoDB takes.
    pub(super) fn large_keys(&self, items: &mut Vec<Vec<Token>>, found: &mut Findings) {
        if !self.is_to_mysql() {
            return;
        }
        let lengths: BTreeMap<String, u64> = items
            .iter()
            .filter(|item| is_column(item))
            .map(|item| (item[0].text.to_lowercase(), bytes(item)))
            .collect();
        let length = |column: &String| lengths.get(&column.to_lowercase()).copied().unwrap_or(0);
        items.retain(|item| {
            let is_unique = item.first().is_some_and(|first| first.is("UNIQUE"));
            let is_hashed = item.windows(2).any(|pair| pair[0].is("USING") && pair[1].is("HASH"));
            let lengths: Vec<u64> = columns(item).iter().map(length).collect();
            let is_long =
                is_hashed && lengths.iter().fold(0_u64, |sum, length| sum.saturating_add(*length)) > KEY_BYTES_MAX;
            let stays = !(is_unique && (is_long || lengths.contains(&u64::MAX)));
            if !stays {
                found
                    .note(format!("the unique key {} is left out: MySQL has none on texts of such length", name(item)));
                found.sorts_otherwise = true;
            }
            stays
        });
    }
}

/// InnoDB takes so many bytes of a key.
const KEY_BYTES_MAX: u64 = 3_072;

/// Letters have so many bytes at most.
const LETTER_BYTES_MAX: u64 = 4;

/// Returns how many bytes the texts of a column may have in a key; 0 for what is no text.
fn bytes(column: &[Token]) -> u64 {
    let is = |kind: &str| column.get(1).is_some_and(|token| token.is(kind));
    if is_large(column) {
        u64::MAX
    } else if is("varchar") || is("char") || is("varbinary") || is("binary") {
        let length = column.get(3).and_then(|length| length.text.parse().ok()).unwrap_or(0_u64);
        length.saturating_mul(LETTER_BYTES_MAX)
    } else {
        0
    }
}

fn is_column(item: &[Token]) -> bool {
    item.first().is_some_and(Token::is_name)
}

/// Returns the name of a key, quoted.
fn name(item: &[Token]) -> &str {
    item.iter().find(|token| token.is_name()).map_or("", |token| token.text.as_str())
}

fn is_check(item: &[Token]) -> bool {
    item.first().is_some_and(|first| first.is("CONSTRAINT")) && item.get(2).is_some_and(|third| third.is("CHECK"))
}

/// Returns the columns of a key that are in it whole, quoted; none where the item is no key.
fn columns(item: &[Token]) -> Vec<String> {
    let words = ["PRIMARY", "UNIQUE", "KEY"];
    let is_key = item.first().is_some_and(|first| words.iter().any(|word| first.is(word)));
    let Some(open) = item.iter().position(|token| token.is("(")).filter(|_| is_key) else { return Vec::new() };
    let end = closing(item, open).unwrap_or(item.len());
    let whole = item[open..end].windows(2).filter(|pair| pair[0].is_name() && !pair[1].is("("));
    let last = item[open..end].last().filter(|last| last.is_name());
    whole.map(|pair| pair[0].text.clone()).chain(last.map(|last| last.text.clone())).collect()
}
