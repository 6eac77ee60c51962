//! What a statement does, and to which tables, told from the beginning of its text: enough to find it again, not to run it.
//!
//! Triggers, views and routines change tables that the text does not name; rows events name them. What foreign keys change has rows
//! events on MySQL from 9.6 on, and elsewhere none.

use std::fmt;
use std::iter::Peekable;

use crate::mysql::binlog::TableName;

mod definition;
mod token;

use token::{Token, Tokens};

/// How a statement begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Create,
    Alter,
    Rename,
    Drop,
    Truncate,
    /// REPLACE and LOAD DATA, too.
    Insert,
    Update,
    Delete,
    Other,
}

impl Verb {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Alter => "alter",
            Self::Rename => "rename",
            Self::Drop => "drop",
            Self::Truncate => "truncate",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub verbs: Vec<Verb>,
    /// The tables that it names as changed.
    pub tables: Vec<TableName>,
    /// The temporary tables that it makes or drops by this name.
    pub temporary: Vec<TableName>,
    /// A definition may name more tables than these.
    pub is_unsure: bool,
    /// A definition may give rows values that are others each time (`DEFAULT uuid()`).
    pub is_varying: bool,
}

/// Tells what a statement does and which tables it names as changed. A table that only lends rows may be among those of an UPDATE
/// or DELETE over several; a temporary table is not. One that is replaced is created and dropped, one that is made of a query's rows
/// created and filled.
#[must_use]
pub fn read(text: &str, schema: &str) -> Reading {
    Statement::new(text, schema).read()
}

/// What is noted of one statement at most.
pub(super) const TABLES_MAX: usize = 1024;

/// Tells whether a statement runs a routine, which may change any table: where the log has statements, it has such calls.
#[must_use]
pub fn calls(text: &str) -> bool {
    matches!(Statement::new(text, "").first().as_str(), "SELECT" | "DO" | "CALL" | "WITH" | "VALUES" | "EXECUTE")
}

struct Statement<'a> {
    text: &'a str,
    tokens: Peekable<Tokens<'a>>,
    /// What a name without a schema means.
    schema: &'a str,
    tables: Vec<TableName>,
    temporary: Vec<TableName>,
    /// What it does beside its first verb.
    more: Vec<Verb>,
    is_unsure: bool,
    is_varying: bool,
}

impl<'a> Statement<'a> {
    fn new(text: &'a str, schema: &'a str) -> Self {
        let tokens = Tokens::new(text).peekable();
        let (tables, temporary, more) = (Vec::new(), Vec::new(), Vec::new());
        Self { text, tokens, schema, tables, temporary, more, is_unsure: false, is_varying: false }
    }
}

impl Statement<'_> {
    fn read(mut self) -> Reading {
        let mut verbs = vec![self.verb()];
        verbs.append(&mut self.more);
        let Self { tables, temporary, is_unsure, is_varying, .. } = self;
        Reading { verbs, tables, temporary, is_unsure, is_varying }
    }

    /// Takes the first word. MariaDB's `SET STATEMENT … FOR` stands before the statement that it is of.
    fn first(&mut self) -> String {
        let first = self.word();
        if first != "SET" || !self.skip(&["STATEMENT"]) {
            return first;
        }
        while self.tokens.next().is_some_and(|token| !token.is("FOR")) {}
        self.word()
    }

    fn verb(&mut self) -> Verb {
        let mut first = self.first();
        // So does `ANALYZE FORMAT=JSON`.
        if first == "ANALYZE" {
            if self.skip(&["FORMAT"]) {
                self.tokens.next_if(|token| *token == Token::Symbol('='));
                self.tokens.next();
            }
            first = self.word();
            if first != "UPDATE" && first != "DELETE" {
                return Verb::Other;
            }
        }
        match first.as_str() {
            "CREATE" => self.definition(Verb::Create),
            "ALTER" => self.definition(Verb::Alter),
            "DROP" => self.definition(Verb::Drop),
            "RENAME" => self.rename(),
            "TRUNCATE" => self.one(Verb::Truncate, &["TABLE"]),
            "INSERT" | "REPLACE" => {
                self.one(Verb::Insert, &["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"])
            }
            "LOAD" => self.load(),
            "UPDATE" => self.several(Verb::Update, "SET"),
            "DELETE" => self.several(Verb::Delete, "WHERE"),
            "WITH" => self.with(),
            _ => Verb::Other,
        }
    }

    /// Takes the next token if it is a word, in capitals.
    fn word(&mut self) -> String {
        let word = self.tokens.next_if(|token| matches!(token, Token::Word(_)));
        word.map_or_else(String::new, |token| token.text().to_ascii_uppercase())
    }

    /// Goes past the next token where it is one of these words.
    fn skip(&mut self, words: &[&str]) -> bool {
        self.tokens.next_if(|token| words.iter().any(|word| token.is(word))).is_some()
    }

    fn skip_all(&mut self, words: &[&str]) {
        while self.skip(words) {}
    }

    /// Takes a name: `table` or `schema.table`, quoted or not.
    fn name(&mut self) -> Option<TableName> {
        let is_name = |token: &Token<'_>| matches!(token, Token::Word(_) | Token::Quoted(_));
        let first = self.tokens.next_if(is_name)?.text().to_owned();
        if self.tokens.next_if(|token| *token == Token::Symbol('.')).is_none() {
            return Some(TableName { schema: self.schema.to_owned(), table: first });
        }
        // `DELETE t.* FROM …`
        match self.tokens.next_if(is_name) {
            Some(second) => Some(TableName { schema: first, table: second.text().to_owned() }),
            None => Some(TableName { schema: self.schema.to_owned(), table: first }),
        }
    }

    fn note(&mut self, name: Option<TableName>) {
        self.tables.extend(name.filter(|_| self.tables.len() < TABLES_MAX));
    }

    fn one(&mut self, verb: Verb, before: &[&str]) -> Verb {
        self.skip_all(before);
        let name = self.name();
        self.note(name);
        verb
    }

    /// Reads CREATE, ALTER and DROP: what stands before the kind of object, the kind, and names.
    fn definition(&mut self, verb: Verb) -> Verb {
        let (mut is_temporary, mut is_replaced) = (false, false);
        while let Some(token) = self.tokens.next() {
            if token.is("TEMPORARY") {
                is_temporary = true;
            } else if token.is("OR") && self.skip(&["REPLACE"]) {
                is_replaced = true;
            } else if ["TABLE", "TABLES", "VIEW", "SEQUENCE"].iter().any(|kind| token.is(kind)) {
                self.skip_all(&["IF", "NOT", "EXISTS"]);
                self.names(verb == Verb::Drop);
                // MariaDB drops what was there.
                if is_replaced && !is_temporary && !token.is("VIEW") {
                    self.more.push(Verb::Drop);
                }
                match verb {
                    Verb::Alter if token.is("TABLE") => self.altered(),
                    Verb::Create if token.is("TABLE") && !is_temporary => self.created(),
                    _ => {}
                }
                break;
            } else if token.is("DATABASE") || token.is("SCHEMA") {
                self.skip_all(&["IF", "NOT", "EXISTS"]);
                let name = self.name().map(|name| TableName { schema: name.table, table: String::new() });
                self.note(name);
                break;
            } else if token.is("INDEX") {
                return self.index();
            } else if ["PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "USER", "ROLE", "PACKAGE", "SERVER"]
                .iter()
                .any(|kind| token.is(kind))
            {
                break;
            }
        }
        if is_temporary {
            self.temporary = std::mem::take(&mut self.tables);
        }
        verb
    }

    /// Takes names, one or with commas between.
    fn names(&mut self, are_many: bool) {
        loop {
            let name = self.name();
            self.note(name);
            if !are_many || self.tokens.next_if(|token| *token == Token::Symbol(',')).is_none() {
                return;
            }
        }
    }

    /// An index is its table's: to make or drop one alters it.
    fn index(&mut self) -> Verb {
        while let Some(token) = self.tokens.next() {
            if token.is("ON") {
                let name = self.name();
                self.note(name);
                break;
            }
        }
        Verb::Alter
    }

    fn load(&mut self) -> Verb {
        while let Some(token) = self.tokens.next() {
            if token.is("INTO") && self.skip(&["TABLE"]) {
                let name = self.name();
                self.note(name);
                return Verb::Insert;
            }
        }
        Verb::Other
    }

    /// Reads a list of tables, joins and aliases, up to a word that ends it.
    fn several(&mut self, verb: Verb, end: &str) -> Verb {
        self.skip_all(&["LOW_PRIORITY", "QUICK", "IGNORE", "FROM"]);
        let name = self.name();
        self.note(name);
        let mut depth = 0_u32;
        while let Some(token) = self.tokens.next() {
            match &token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth = depth.saturating_sub(1),
                _ if depth > 0 => {}
                token if token.is(end) || token.is("ORDER") || token.is("LIMIT") => break,
                Token::Symbol(',') => self.join(),
                token if ["JOIN", "STRAIGHT_JOIN", "FROM", "USING"].iter().any(|word| token.is(word)) => self.join(),
                _ => {}
            }
        }
        verb
    }

    fn join(&mut self) {
        let name = self.name();
        self.note(name);
    }

    /// `WITH … UPDATE` and `WITH … DELETE`.
    fn with(&mut self) -> Verb {
        let mut depth = 0_u32;
        while let Some(token) = self.tokens.next() {
            match &token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth = depth.saturating_sub(1),
                token if depth == 0 && token.is("UPDATE") => return self.several(Verb::Update, "SET"),
                token if depth == 0 && token.is("DELETE") => return self.several(Verb::Delete, "WHERE"),
                _ => {}
            }
        }
        Verb::Other
    }
}

#[cfg(test)]
mod tests;
