//! What a target understands of a definition that another product or version wrote, and how to say the same there.
//!
//! Pure: a definition and what the target says of itself give a definition that the target takes, with a note for each thing that
//! is not as it was, or the reason why the target cannot hold the table. Rows come first: a table is left out only where its rows
//! cannot come whole, and what else is lost is told before anything is written.

mod collation;
mod column;
mod key;
mod modes;
mod object;
mod options;
mod token;

use std::collections::BTreeSet;

use crate::mysql::manifest::Product;
use crate::target::mysql::dialect::token::{Definition, Token};

pub(super) use column::without_sequences;
pub(super) use modes::carried;

/// What a target can hold, as it says itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Collations by their full names (`utf8mb4_uca1400_ai_ci`).
    pub collations: BTreeSet<String>,
    /// Engines that work, in small letters.
    pub engines: BTreeSet<String>,
    /// Of the types that not every server has, those that it has, in small letters.
    pub types: BTreeSet<String>,
    /// Time zones that it knows by name, in small letters; `None` where we may not look.
    pub zones: Option<BTreeSet<String>>,
}

/// Types that not every server has.
pub(super) const RARE_TYPES: [&str; 4] = ["uuid", "inet4", "inet6", "vector"];

/// A product and the first two numbers of its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edition {
    pub(super) product: Product,
    pub(super) series: (u32, u32),
}

/// How a statement begins that says under which modes the code after it was written.
const SET_MODE: &str = "SET SESSION sql_mode = '";

/// Reads the definitions of one product and writes them for one target.
#[derive(Debug, Clone)]
pub(super) struct Dialect {
    from: Edition,
    to: Edition,
    abilities: Abilities,
}

/// What becomes of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fit {
    /// It holds on the target as well, in these words, and differs by what the notes say.
    Holds { create: String, notes: BTreeSet<String>, sorts_otherwise: bool },
    /// The target cannot hold it.
    Refused { why: String },
}

/// What the next word names.
#[derive(Debug, Clone, Copy)]
enum Named {
    Collation,
    Charset,
}

/// What a translation has come upon.
#[derive(Debug, Default)]
struct Findings {
    notes: BTreeSet<String>,
    refusal: Option<String>,
    /// Engine that stands in for the definition's own.
    engine: Option<String>,
    /// A column has another type or collation, or a key is left out: what is ordered by it may come in another order.
    sorts_otherwise: bool,
    /// A collation is written out that went without saying.
    is_explicit: bool,
}

impl Findings {
    fn note(&mut self, text: impl Into<String>) {
        self.notes.insert(text.into());
    }

    fn refuse(&mut self, why: impl Into<String>) {
        self.refusal.get_or_insert(why.into());
    }

    fn unchanged(self, create: &str) -> Fit {
        Fit::Holds { create: create.to_owned(), notes: self.notes, sorts_otherwise: false }
    }
}

impl Dialect {
    pub(super) fn new(from: Edition, to: Edition, abilities: Abilities) -> Self {
        Self { from, to, abilities }
    }

    /// Tells whether the target has an engine, as far as it says which it has.
    pub(super) fn has_engine(&self, engine: &str) -> bool {
        let engines = &self.abilities.engines;
        engines.is_empty() || engine.is_empty() || engines.contains(&engine.to_ascii_lowercase())
    }

    fn is_foreign(&self) -> bool {
        self.from.product != self.to.product
    }

    /// Tells whether definitions of MariaDB go to MySQL.
    fn is_to_mysql(&self) -> bool {
        self.is_foreign() && self.to.product == Product::MySql
    }

    /// Tells whether definitions of MySQL go to MariaDB.
    fn is_to_mariadb(&self) -> bool {
        self.is_foreign() && self.to.product == Product::MariaDb
    }

    /// Translates a `CREATE TABLE` statement as the server prints it. One that this reader does not understand stays as it is, and
    /// the target decides. `checks` holds the names of checks that the schema's tables have taken.
    pub(super) fn table(&self, create: &str, checks: &mut BTreeSet<String>) -> Fit {
        let mut found = Findings::default();
        let Some(mut definition) = Definition::parse(create, self.is_foreign()) else {
            return found.unchanged(create);
        };
        self.options(&mut definition, &mut found);
        definition.items.retain_mut(|item| self.item(item, &mut found));
        if self.is_to_mysql() {
            key::no_name_twice(&mut definition.items, checks, &mut found);
        }
        self.large_keys(&mut definition.items, &mut found);
        if found.engine.is_some() {
            key::refuse_grouped_numbers(&definition.items, &mut found);
        }
        let all =
            definition.items.iter_mut().flatten().chain(&mut definition.options).chain(&mut definition.partitions);
        self.collations(&mut all.collect::<Vec<_>>(), &mut found);
        match found.refusal {
            Some(why) => Fit::Refused { why },
            // Untouched where nothing had to change: the server's own words are the best ones.
            None if found.notes.is_empty() && !found.is_explicit && !self.is_foreign() => found.unchanged(create),
            None => Fit::Holds {
                create: definition.to_string(),
                sorts_otherwise: found.sorts_otherwise,
                notes: found.notes,
            },
        }
    }

    /// Translates a `CREATE DATABASE` statement.
    pub(super) fn schema(&self, create: &str) -> (String, BTreeSet<String>) {
        let mut found = Findings::default();
        let mut tokens = token::tokens(create, true);
        self.collations(&mut tokens.iter_mut().collect::<Vec<_>>(), &mut found);
        if self.is_to_mariadb()
            && let Some(at) = tokens.iter().position(|token| token.is("ENCRYPTION"))
        {
            // `DEFAULT ENCRYPTION = 'N'`
            let end = (at + 3).min(tokens.len());
            tokens.drain(at.saturating_sub(1)..end);
        }
        let is_changed = self.is_foreign() || found.is_explicit || !found.notes.is_empty();
        (if is_changed { token::join(&tokens) } else { create.to_owned() }, found.notes)
    }

    /// Writes each collation that the target lacks as the one nearest to it, and out what goes without saying in the source alone.
    fn collations(&self, tokens: &mut [&mut Token], found: &mut Findings) {
        if self.abilities.collations.is_empty() {
            return;
        }
        let (mut awaited, mut was_character, mut depth) = (None, false, 0_usize);
        for at in 0..tokens.len() {
            let is_said = tokens.get(at + 1).is_some_and(|next| next.is("COLLATE"));
            let token = &mut *tokens[at];
            match token.text.as_str() {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ => {}
            }
            match awaited {
                Some(_) if token.is("=") => continue,
                Some(Named::Collation) => self.collation(token, found),
                Some(Named::Charset) if token.is_word() => {
                    self.charset(token, found);
                    // In parentheses it is part of an expression, in which no column gets a collation.
                    if !is_said && depth == 0 {
                        self.default_collation(token, found);
                    }
                }
                _ => {}
            }
            awaited = match () {
                () if token.is("COLLATE") => Some(Named::Collation),
                () if token.is("CHARSET") || (was_character && token.is("SET")) => Some(Named::Charset),
                () => None,
            };
            was_character = token.is("CHARACTER");
        }
    }

    fn charset(&self, token: &Token, found: &mut Findings) {
        let name = token.text.to_ascii_lowercase();
        let of_it = format!("{}_", if name == "utf8" { "utf8mb3" } else { &name });
        let is_known = |other: &String| *other == name || other.starts_with(&of_it);
        if !self.abilities.collations.iter().any(is_known) {
            found.refuse(format!("the target lacks the character set {name}"));
        }
    }

    /// Servers leave a character set's default collation out. Of one character set the default is not the same everywhere.
    fn default_collation(&self, token: &mut Token, found: &mut Findings) {
        if !token.is("utf8mb4") {
            return;
        }
        let is_newer_mysql = self.from.product == Product::MySql && self.from.series >= (8, 0);
        let mut collation = Token::apart(if is_newer_mysql { "utf8mb4_0900_ai_ci" } else { "utf8mb4_general_ci" });
        self.collation(&mut collation, found);
        token.text = format!("{} COLLATE {}", token.text, collation.text);
        found.is_explicit = true;
    }

    fn collation(&self, token: &mut Token, found: &mut Findings) {
        let name = token.text.to_ascii_lowercase();
        match collation::nearest(&name, &self.abilities.collations) {
            Some(nearest) if nearest == name => {}
            Some(nearest) => {
                let blind = collation::pads(&nearest) && !collation::pads(&name);
                let blind = if blind { ", for which spaces at the end do not count" } else { "" };
                found.note(format!("collation {name} comes as {nearest}{blind}"));
                token.text = nearest;
                found.sorts_otherwise = true;
            }
            None => found.refuse(format!("the target has no collation like {name}")),
        }
    }
}

#[cfg(test)]
mod tests;
