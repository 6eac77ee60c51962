//! What a statement does, and to which tables, told from the beginning of its text: enough to find it again, not to run it.
//!
//! Triggers, views and routines change tables that the text does not name; rows events name them. What foreign keys change has rows
//! events on MySQL from 9.6 on, and elsewhere none.

use std::fmt;
use std::iter::Peekable;

use crate::mysql::binlog::TableName;

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

/// Tells what a statement does and which tables it names as changed. A table that only lends rows may be among those of an UPDATE
/// or DELETE over several; a temporary table is not. One that is replaced is created and dropped.
#[must_use]
pub fn read(text: &str, schema: &str) -> (Vec<Verb>, Vec<TableName>) {
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
    tokens: Peekable<Tokens<'a>>,
    /// What a name without a schema means.
    schema: &'a str,
    tables: Vec<TableName>,
    /// `CREATE OR REPLACE` of what holds rows: MariaDB drops what was there.
    is_replaced: bool,
    /// `ALTER TABLE … RENAME TO …`.
    is_renamed: bool,
}

impl<'a> Statement<'a> {
    fn new(text: &'a str, schema: &'a str) -> Self {
        Self { tokens: Tokens::new(text).peekable(), schema, tables: Vec::new(), is_replaced: false, is_renamed: false }
    }
}

impl Statement<'_> {
    fn read(mut self) -> (Vec<Verb>, Vec<TableName>) {
        let mut verbs = vec![self.verb()];
        if self.is_renamed {
            verbs.push(Verb::Rename);
        }
        if self.is_replaced {
            verbs.push(Verb::Drop);
        }
        (verbs, self.tables)
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
                self.is_replaced = is_replaced && !is_temporary && !token.is("VIEW");
                if verb == Verb::Alter && token.is("TABLE") {
                    self.other_tables();
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
            self.tables.clear();
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

    /// Reads, behind `ALTER TABLE t`, the name that it goes by then, and tables that it trades rows with: `EXCHANGE PARTITION p WITH
    /// TABLE u`, MariaDB's `CONVERT TABLE u TO PARTITION p` and `CONVERT PARTITION p TO TABLE u`.
    fn other_tables(&mut self) {
        let mut depth = 0_u32;
        while let Some(token) = self.tokens.next() {
            match &token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth = depth.saturating_sub(1),
                token if depth == 0 && token.is("TABLE") => self.join(),
                token if depth == 0 && token.is("RENAME") && !self.skip(&["COLUMN", "INDEX", "KEY"]) => {
                    self.skip(&["TO", "AS"]);
                    self.tokens.next_if(|token| *token == Token::Symbol('='));
                    self.join();
                    self.is_renamed = true;
                }
                _ => {}
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

    fn rename(&mut self) -> Verb {
        if !self.skip(&["TABLE", "TABLES"]) {
            return Verb::Other;
        }
        self.skip_all(&["IF", "EXISTS"]);
        loop {
            let name = self.name();
            self.note(name);
            let is_more = self.skip(&["TO"]) || self.tokens.next_if(|token| *token == Token::Symbol(',')).is_some();
            if !is_more {
                return Verb::Rename;
            }
        }
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
mod tests {
    use super::*;

    #[test]
    fn a_call_of_a_routine_is_told_from_what_only_names_one() {
        for text in ["SELECT `mall`.`close_shop`(7)", "SET STATEMENT sql_mode='' FOR DO f()", "/* app */ call p()"] {
            assert!(calls(text), "{text}");
        }
        for text in
            ["CREATE FUNCTION f() RETURNS INT RETURN 1", "SET PASSWORD = 'x'", "FLUSH TABLES", "GRANT SELECT ON a TO b"]
        {
            assert!(!calls(text), "{text}");
        }
    }

    #[test]
    fn a_statement_tells_what_it_does_and_to_which_tables() {
        for (text, expected) in [
            ("DROP TABLE `mall`.`orders`,`order_items` /* generated by server */", "drop mall.orders s.order_items"),
            ("drop table if exists orders", "drop s.orders"),
            ("DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `t`", "drop"),
            ("/* app: shop */ -- note\n DROP DATABASE mall", "drop mall."),
            ("DROP TRIGGER t.x", "drop"),
            ("DROP INDEX `i` ON `a``b`.`c.d`", "alter a`b.c.d"),
            ("TRUNCATE orders", "truncate s.orders"),
            ("TRUNCATE TABLE mall . orders", "truncate mall.orders"),
            ("ALTER ONLINE IGNORE TABLE IF EXISTS orders ADD x INT", "alter s.orders"),
            ("RENAME TABLE a TO b, x.c TO d", "rename s.a s.b x.c s.d"),
            ("ALTER TABLE a ADD b INT DEFAULT (1), RENAME TO x.c", "alter rename s.a x.c"),
            ("ALTER TABLE a RENAME = `c`, COMMENT 'RENAME TO d'", "alter rename s.a s.c"),
            ("ALTER TABLE a RENAME c", "alter rename s.a s.c"),
            ("ALTER TABLE a RENAME COLUMN b TO c, RENAME INDEX i TO j, ADD `rename` INT", "alter s.a"),
            ("ALTER TABLE a EXCHANGE PARTITION p WITH TABLE x.b WITHOUT VALIDATION", "alter s.a x.b"),
            ("ALTER TABLE a CONVERT TABLE b TO PARTITION p VALUES LESS THAN (9)", "alter s.a s.b"),
            ("RENAME USER a TO b", "other"),
            ("CREATE OR REPLACE TABLE 주문 (a INT)", "create drop s.주문"),
            ("CREATE OR REPLACE TEMPORARY TABLE t (a INT)", "create"),
            ("CREATE OR REPLACE VIEW v AS SELECT 1", "create s.v"),
            ("SET STATEMENT max_statement_time=1, lock_wait_timeout=2 FOR TRUNCATE TABLE orders", "truncate s.orders"),
            ("SET STATEMENT sql_mode='' FOR ALTER TABLE orders DROP x", "alter s.orders"),
            ("ANALYZE FORMAT=JSON DELETE FROM orders", "delete s.orders"),
            ("ANALYZE UPDATE orders SET a = 1", "update s.orders"),
            ("ANALYZE TABLE orders", "other"),
            ("SET PASSWORD = 'x'", "other"),
            ("CREATE TEMPORARY TABLE t (a INT)", "create"),
            ("CREATE DEFINER=`root`@`localhost` VIEW v AS SELECT 1", "create s.v"),
            ("CREATE DEFINER=`r`@`%` TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1", "create"),
            ("CREATE UNIQUE INDEX i ON t (a)", "alter s.t"),
            ("INSERT IGNORE INTO orders SELECT * FROM other", "insert s.orders"),
            ("REPLACE `mall`.orders VALUES ('it''s; DROP TABLE x')", "insert mall.orders"),
            ("LOAD DATA LOCAL INFILE 'x' REPLACE INTO TABLE `t` FIELDS TERMINATED BY ','", "insert s.t"),
            ("UPDATE LOW_PRIORITY orders SET a = (SELECT 1 FROM x)", "update s.orders"),
            ("UPDATE a, b.c AS x JOIN (SELECT 1 FROM no) y SET a.x = 1", "update s.a b.c"),
            ("DELETE FROM orders WHERE id IN (SELECT id FROM x)", "delete s.orders"),
            ("DELETE a.* FROM a JOIN b USING (id) WHERE 1", "delete s.a s.a s.b"),
            ("WITH w AS (SELECT 1 FROM no) UPDATE t JOIN w SET t.a = 1", "update s.t s.w"),
            ("GRANT ALL ON *.* TO x", "other"),
            ("", "other"),
            ("`", "other"),
            ("DROP TABLE 'x", "drop"),
        ] {
            let (verbs, tables) = read(text, "s");
            let mut told: Vec<_> = verbs.iter().map(Verb::to_string).collect();
            told.extend(tables.iter().map(|name| format!("{}.{}", name.schema, name.table)));
            assert_eq!(told.join(" "), expected, "{text}");
        }
    }
}
