//! The columns of a row that is compared and written back: how a value is written, and how it is compared to the last bit.

use crate::mysql::row::KeyKind;
use crate::mysql::sql::{self, ident};
use crate::mysql::wire::Wire;
use crate::source::mysql::changes::{Wanted, uncomparable};
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::session::rows;

/// How a column's value is proved to be the very one, where `=` takes two for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exact {
    /// `=` tells.
    Plain,
    /// By its bytes: a collation takes `a` for `A`.
    Bytes,
    /// As a document.
    Json,
    /// By its bytes as digits: no cast makes a geometry bytes.
    Digits,
}

/// A column that holds a value of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    /// As the server describes it, with its character set and collation.
    pub definition: String,
    pub kind: KeyKind,
    pub exact: Exact,
}

impl Field {
    /// Returns the condition that a row has this very value.
    #[must_use]
    pub fn is(&self, value: Option<&String>) -> String {
        let name = ident(&self.name);
        let Some(value) = value else { return format!("{name} IS NULL") };
        // A text is written with its character set before it, bytes are not.
        let bytes = value.rsplit(' ').next().unwrap_or(value);
        match self.exact {
            Exact::Plain => format!("{name} = {value}"),
            Exact::Bytes => format!("CAST({name} AS BINARY) = {bytes}"),
            // `=` takes 12.30 for 12.3, which print otherwise.
            Exact::Json => {
                let value = format!("CAST({value} AS JSON)");
                format!("{name} = {value} AND CAST({name} AS CHAR) = CAST({value} AS CHAR)")
            }
            Exact::Digits => format!("HEX({name}) = {}", bytes.trim_start_matches('X')),
        }
    }
}

impl Field {
    /// Tells whether a value is the mark of one that was refused: an ENUM's empty text, unless it is one of its texts.
    #[must_use]
    pub fn is_invalid(&self, value: Option<&str>) -> bool {
        let is_listed = ["enum(''", ",''"].iter().any(|listed| self.definition.contains(listed));
        self.definition.starts_with("enum(") && !is_listed && value.is_some_and(|value| value.ends_with("''"))
    }
}

/// Reads the columns of a table that are no generated ones.
pub(super) fn read(wire: &mut Wire, table: &Wanted) -> Result<Vec<Field>, MysqlSourceError> {
    let statement = format!(
        "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, CHARACTER_SET_NAME, COLLATION_NAME \
         FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} \
         AND (GENERATION_EXPRESSION IS NULL OR GENERATION_EXPRESSION = '') ORDER BY ORDINAL_POSITION",
        sql::string(&table.schema),
        sql::string(&table.name)
    );
    let mut fields = Vec::new();
    for row in rows(wire, &format!("list the columns of `{}.{}`", table.schema, table.name), &statement)? {
        let (name, data_type) = (row.text(0).to_owned(), row.text(1).to_ascii_lowercase());
        let Some((kind, exact)) = kind(&data_type, row.option(4)) else {
            let problem = format!("its column `{name}` is {data_type}, which is not written back");
            return Err(uncomparable(table, problem));
        };
        let definition = [2, 3, 4, 5].map(|column| row.text(column)).join(" ");
        fields.push(Field { name, definition, kind, exact });
    }
    Ok(fields)
}

fn kind(data_type: &str, charset: Option<&str>) -> Option<(KeyKind, Exact)> {
    Some(match data_type {
        "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" | "decimal" | "numeric" | "year" => {
            (KeyKind::Number, Exact::Plain)
        }
        "float" | "double" | "real" => (KeyKind::Double, Exact::Plain),
        "bit" => (KeyKind::Bit, Exact::Plain),
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set" => {
            (KeyKind::Text { charset: charset?.to_owned() }, Exact::Bytes)
        }
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => (KeyKind::Binary, Exact::Bytes),
        "json" => (KeyKind::Text { charset: "utf8mb4".to_owned() }, Exact::Json),
        "date" | "time" | "datetime" | "timestamp" | "uuid" | "inet4" | "inet6" => (KeyKind::Quoted, Exact::Plain),
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection" => (KeyKind::Binary, Exact::Digits),
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_proved_to_be_the_very_one() {
        let is = |data_type: &str, value: Option<&str>| {
            let (kind, exact) = kind(data_type, Some("latin1")).unwrap();
            Field { name: "a`b".to_owned(), definition: String::new(), kind, exact }
                .is(value.map(str::to_owned).as_ref())
        };
        assert_eq!(is("int", Some("7")), "`a``b` = 7");
        assert_eq!(is("varchar", Some("_latin1 X'41'")), "CAST(`a``b` AS BINARY) = X'41'");
        assert_eq!(is("blob", Some("X'00'")), "CAST(`a``b` AS BINARY) = X'00'");
        assert_eq!(
            is("json", Some("_utf8mb4 X'7B7D'")),
            "`a``b` = CAST(_utf8mb4 X'7B7D' AS JSON) AND CAST(`a``b` AS CHAR) = CAST(CAST(_utf8mb4 X'7B7D' AS JSON) AS CHAR)"
        );
        assert_eq!(is("point", Some("X'0001'")), "HEX(`a``b`) = '0001'");
        assert_eq!(is("datetime", Some("'2026-05-01 10:00:00'")), "`a``b` = '2026-05-01 10:00:00'");
        assert_eq!(is("int", None), "`a``b` IS NULL");
        let (kind_of, exact) = kind("enum", Some("latin1")).unwrap();
        let size = |definition: &str| {
            let (name, definition) = ("size".to_owned(), definition.to_owned());
            Field { name, definition, kind: kind_of.clone(), exact }
        };
        assert!(size("enum('S','L') YES").is_invalid(Some("_latin1 X''")));
        assert!(!size("enum('S','L') YES").is_invalid(Some("_latin1 X'53'")));
        assert!(!size("enum('S','') YES").is_invalid(Some("_latin1 X''")));
        assert!(!size("varchar(9) YES").is_invalid(Some("_latin1 X''")));
        assert!(kind("vector", None).is_none() && kind("text", None).is_none());
    }
}
