//! Row files as INSERT statements.
//!
//! Values go the way that they go in `LOAD DATA … CHARACTER SET binary`: as texts without a character set (`SET NAMES binary`), so
//! that a column takes its own bytes as they are. Only whole numbers and decimals stand without quotes: a FLOAT or DOUBLE without
//! them would be read as a DECIMAL of 65 digits first.

use crate::mysql::manifest::TableEntry;
use crate::mysql::sql::{idents, qualified};

/// A statement ends after the row that fills it: far below a packet, and large enough for the parser to cost little.
const STATEMENT_BYTES: usize = 1 << 20;

/// How a column's values are written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Number,
    Text,
    /// The expression that makes the value of the text `@v`.
    Made(String),
}

impl Value {
    fn of(sql_type: &str, load: Option<&String>) -> Self {
        const NUMBERS: [&str; 7] = ["tinyint", "smallint", "mediumint", "int", "bigint", "integer", "decimal"];
        let word = sql_type.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        match load {
            Some(expression) => Self::Made(expression.clone()),
            None if NUMBERS.contains(&word) => Self::Number,
            None => Self::Text,
        }
    }
}

/// Turns the text of row files into statements, however it is cut into pieces.
pub(super) struct Inserts {
    head: String,
    columns: Vec<Value>,
    /// The statements so far that have not been taken.
    sql: Vec<u8>,
    /// Bytes of the open statement; zero where none is open.
    statement_bytes: usize,
    /// The value that is being read, as it was before it was escaped.
    value: Vec<u8>,
    is_null: bool,
    is_escaped: bool,
    column: usize,
}

impl Inserts {
    pub(super) fn into_table(table: &TableEntry) -> Self {
        let columns = table.columns.iter();
        let names = idents(columns.clone().map(|column| column.name.as_str()));
        Self {
            head: format!("INSERT INTO {} ({names}) VALUES\n", qualified(&table.schema, &table.name)),
            columns: columns.map(|column| Value::of(&column.sql_type, column.load.as_ref())).collect(),
            sql: Vec::new(),
            statement_bytes: 0,
            value: Vec::new(),
            is_null: false,
            is_escaped: false,
            column: 0,
        }
    }

    /// Reads a piece of a row file.
    pub(super) fn push(&mut self, mut text: &[u8]) {
        while let Some((&first, rest)) = text.split_first() {
            if std::mem::take(&mut self.is_escaped) {
                self.unescape(first);
                text = rest;
                continue;
            }
            let plain = text.iter().position(|byte| matches!(byte, b'\\' | b'\t' | b'\n')).unwrap_or(text.len());
            self.value.extend_from_slice(&text[..plain]);
            match text.get(plain) {
                Some(b'\\') => self.is_escaped = true,
                Some(b'\t') => self.end_value(),
                Some(_) => self.end_row(),
                None => return,
            }
            text = &text[plain + 1..];
        }
    }

    fn unescape(&mut self, byte: u8) {
        match byte {
            b'N' => self.is_null = true,
            b'0' => self.value.push(0),
            b't' => self.value.push(b'\t'),
            b'n' => self.value.push(b'\n'),
            other => self.value.push(other),
        }
    }

    fn end_value(&mut self) {
        let before = self.sql.len();
        if self.column == 0 {
            let opening = if self.statement_bytes == 0 { self.head.as_str() } else { ",\n" };
            self.sql.extend_from_slice(opening.as_bytes());
        }
        self.sql.push(if self.column == 0 { b'(' } else { b',' });
        match self.columns.get(self.column) {
            _ if self.is_null => self.sql.extend_from_slice(b"NULL"),
            Some(Value::Number) => self.sql.extend_from_slice(&self.value),
            Some(Value::Text) => push_text(&mut self.sql, &self.value),
            Some(Value::Made(expression)) => push_made(&mut self.sql, expression, &self.value),
            // A table of generated columns alone: its rows have no value.
            None => {}
        }
        self.statement_bytes += self.sql.len() - before;
        self.value.clear();
        self.is_null = false;
        self.column += 1;
    }

    fn end_row(&mut self) {
        self.end_value();
        self.column = 0;
        self.sql.push(b')');
        if self.statement_bytes >= STATEMENT_BYTES {
            self.end_statement();
        }
    }

    fn end_statement(&mut self) {
        if self.statement_bytes > 0 {
            self.sql.extend_from_slice(b";\n");
            self.statement_bytes = 0;
        }
    }

    /// Returns how many bytes wait to be taken.
    pub(super) fn len(&self) -> usize {
        self.sql.len()
    }

    /// Returns the statements since the last time, the last of them perhaps unfinished.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sql)
    }

    /// Ends the open statement and returns what is left.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.end_statement();
        self.sql
    }
}

fn push_made(sql: &mut Vec<u8>, expression: &str, value: &[u8]) {
    let (before, after) = expression.split_once("@v").unwrap_or((expression, ""));
    sql.extend_from_slice(before.as_bytes());
    push_text(sql, value);
    sql.extend_from_slice(after.as_bytes());
}

/// Writes a value for whoever reads the file, or in digits where it is no text.
fn push_text(sql: &mut Vec<u8>, value: &[u8]) {
    if std::str::from_utf8(value).is_err() || value.iter().any(|byte| is_odd(*byte)) {
        sql.extend_from_slice(crate::mysql::sql::bytes(value).as_bytes());
        return;
    }
    sql.push(b'\'');
    for byte in value {
        match byte {
            b'\\' => sql.extend_from_slice(b"\\\\"),
            b'\'' => sql.extend_from_slice(b"\\'"),
            b'\n' => sql.extend_from_slice(b"\\n"),
            b'\r' => sql.extend_from_slice(b"\\r"),
            other => sql.push(*other),
        }
    }
    sql.push(b'\'');
}

/// Tells signs that steer a terminal, or that clients take for the end.
fn is_odd(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::manifest::Column;

    fn table(columns: &[(&str, &str, Option<&str>)]) -> TableEntry {
        let column = |(name, sql_type, load): &(&str, &str, Option<&str>)| Column {
            name: (*name).to_owned(),
            sql_type: (*sql_type).to_owned(),
            load: load.map(str::to_owned),
        };
        TableEntry {
            schema: "shop".to_owned(),
            name: "t".to_owned(),
            create: String::new(),
            engine: "InnoDB".to_owned(),
            history_lost: false,
            columns: columns.iter().map(column).collect(),
            key: Vec::new(),
            rows: 0,
            bytes: 0,
            chunks: Vec::new(),
        }
    }

    fn inserted(table: &TableEntry, text: &[u8], pieces: usize) -> String {
        let mut inserts = Inserts::into_table(table);
        let mut sql = Vec::new();
        for piece in text.chunks(pieces) {
            inserts.push(piece);
            sql.extend(inserts.take());
        }
        sql.extend(inserts.finish());
        String::from_utf8_lossy(&sql).into_owned()
    }

    #[test]
    fn values_are_numbers_texts_or_digits_wherever_the_text_is_cut() {
        let table = table(&[
            ("id", "int(11)", None),
            ("price", "decimal(65,30) unsigned", None),
            ("ratio", "double", None),
            ("note", "varchar(40)", None),
            ("j", "json", Some("CONVERT(@v USING utf8mb4)")),
        ]);
        let text =
            b"1\t-0.5\t1e-300\tit's \\\\ a\\tb\\nc\t{\"a\": \"@v\"}\n2\t\\N\t\\N\t\\\\N\t\\N\n3\t7\t0\t\xE9\\0\t\n";
        let expected = concat!(
            "INSERT INTO `shop`.`t` (`id`, `price`, `ratio`, `note`, `j`) VALUES\n",
            r#"(1,-0.5,'1e-300','it\'s \\ a"#,
            "\t",
            r#"b\nc',CONVERT('{"a": "@v"}' USING utf8mb4)),"#,
            "\n",
            r"(2,NULL,NULL,'\\N',NULL),",
            "\n(3,7,'0',X'E900',CONVERT('' USING utf8mb4));\n",
        );
        for pieces in 1..=text.len() {
            assert_eq!(inserted(&table, text, pieces), expected, "{pieces}");
        }
    }

    #[test]
    fn a_statement_ends_after_the_row_that_fills_it() {
        let table = table(&[("b", "longtext", None)]);
        let row = [vec![b'x'; STATEMENT_BYTES / 2], vec![b'\n']].concat();
        let sql = inserted(&table, &row.repeat(3), 100_000);
        assert_eq!(sql.matches("INSERT INTO").count(), 2);
        assert_eq!(sql.matches(";\n").count(), 2);
    }

    #[test]
    fn a_table_of_generated_columns_alone_has_rows_without_values_and_an_empty_one_no_statement() {
        assert_eq!(inserted(&table(&[]), b"\n\n", 1), "INSERT INTO `shop`.`t` () VALUES\n(),\n();\n");
        assert_eq!(inserted(&table(&[]), b"", 1), "");
    }
}
