//! Definitions that make a table another one: by its name, by the rows of another table, by values that nobody can make again.
//!
//! Whoever follows a table by its name has to see each of these. What cannot be read for sure is told so.

use crate::mysql::binlog::statement::token::Token;
use crate::mysql::binlog::statement::{Statement, Verb};

/// Functions that give the same value again, where the same statement runs at the same time.
const CONSTANT: [&str; 11] = [
    "CURRENT_TIMESTAMP",
    "NOW",
    "LOCALTIME",
    "LOCALTIMESTAMP",
    "CURRENT_DATE",
    "CURDATE",
    "CURRENT_TIME",
    "CURTIME",
    "JSON_ARRAY",
    "JSON_OBJECT",
    "CAST",
];

/// Words that stand for another value in another session, or after another statement.
const VARYING: [&str; 6] = ["CURRENT_USER", "CURRENT_ROLE", "SESSION_USER", "NEXT", "NEXTVAL", "SYSDATE"];

impl Statement<'_> {
    /// Reads, behind `ALTER TABLE t`, the name that it goes by then, and tables that it trades rows with: `EXCHANGE PARTITION p WITH
    /// TABLE u`, MariaDB's `CONVERT TABLE u TO PARTITION p` and `CONVERT PARTITION p TO TABLE u`.
    pub(super) fn altered(&mut self) {
        let mut depth = 0_u32;
        while let Some(token) = self.tokens.next() {
            match &token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth = depth.saturating_sub(1),
                Token::Unclosed => self.is_unsure = true,
                token if token.is("DEFAULT") => self.default_value(),
                token if depth == 0 && token.is("TABLE") => self.join(),
                token if depth == 0 && token.is("RENAME") && !self.skip(&["COLUMN", "INDEX", "KEY"]) => {
                    self.skip(&["TO", "AS"]);
                    self.tokens.next_if(|token| *token == Token::Symbol('='));
                    self.join();
                    self.more.push(Verb::Rename);
                }
                _ => {}
            }
        }
        // Whether a backslash in a text hides the text's end, only the session's `sql_mode` tells.
        if self.text.contains('\\') {
            let text = self.text.to_ascii_uppercase();
            self.is_unsure |= ["RENAME", "EXCHANGE", "CONVERT"].iter().any(|word| text.contains(word));
            self.is_varying |= text.contains("DEFAULT");
        }
    }

    /// Reads, behind `CREATE TABLE t`, whether the statement brings rows of its own: `AS SELECT …`.
    pub(super) fn created(&mut self) {
        if self.tokens.any(|token| token.is("SELECT")) {
            self.more.push(Verb::Insert);
        }
    }

    /// Reads, behind `DEFAULT`, a value that rows get which are there already.
    fn default_value(&mut self) {
        let mut depth = 0_u32;
        while let Some(token) = self.tokens.next_if(|token| depth > 0 || *token != Token::Symbol(')')) {
            match &token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth = depth.saturating_sub(1),
                Token::Symbol('@') => self.is_varying = true,
                Token::Unclosed => self.is_unsure = true,
                // Of a schema's function: `DEFAULT mall.f()`.
                Token::Symbol('.') => continue,
                Token::Word(_) if VARYING.iter().any(|word| token.is(word)) => self.is_varying = true,
                Token::Word(_) | Token::Quoted(_) if self.tokens.peek() == Some(&Token::Symbol('(')) => {
                    self.is_varying |= !CONSTANT.iter().any(|word| token.is(word));
                    continue;
                }
                _ => {}
            }
            if depth == 0 && !matches!(self.tokens.peek(), Some(Token::Symbol('(' | '.' | '@'))) {
                return;
            }
        }
    }

    /// Reads `RENAME TABLE a TO b, c TO d`, and on MariaDB how long it waits before each `TO`.
    pub(super) fn rename(&mut self) -> Verb {
        if !self.skip(&["TABLE", "TABLES"]) {
            return Verb::Other;
        }
        self.skip_all(&["IF", "EXISTS"]);
        loop {
            let from = self.name();
            if self.skip(&["WAIT"]) {
                self.tokens.next();
            }
            self.skip(&["NOWAIT"]);
            let is_to = self.skip(&["TO"]);
            let to = self.name();
            self.is_unsure |= !is_to || from.is_none() || to.is_none();
            self.note(from);
            self.note(to);
            if self.tokens.next_if(|token| *token == Token::Symbol(',')).is_none() {
                self.tokens.next_if(|token| *token == Token::Symbol(';'));
                self.is_unsure |= self.tokens.next().is_some();
                return Verb::Rename;
            }
        }
    }
}
