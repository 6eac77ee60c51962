//! Whose rows are meant, where it is not all of a table.

use std::collections::BTreeMap;

use crate::mysql::manifest::Manifest;
use crate::mysql::sql;
use crate::policy::MysqlSource;
use crate::restore::part::PartError;
use crate::target::mysql::plan::TableName;

/// `COLUMN=VALUE`, as an operator writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Of {
    pub column: String,
    pub value: String,
}

/// Whose rows are meant, in the words of each table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub value: String,
    /// Per table the column that tells.
    columns: Vec<(TableName, String)>,
}

impl Tenant {
    /// Finds the column of each table. Only the one that the policy names will do: by another, rows of others could be meant.
    ///
    /// # Errors
    /// [`PartError`] where the policy names none or another, a table has no such column, or the value cannot be one of its.
    pub(super) fn of(
        source: Option<&MysqlSource>,
        manifest: &Manifest,
        tables: &[TableName],
        of: &Of,
    ) -> Result<Self, PartError> {
        let policy = source.and_then(|source| source.tenant.as_ref()).ok_or(PartError::NoTenant)?;
        if policy.column != of.column {
            return Err(PartError::OtherColumn { asked: of.column.clone(), wanted: policy.column.clone() });
        }
        let mut columns = Vec::new();
        for (schema, table) in tables {
            let column = policy.column_of(schema, table);
            let entry = manifest.tables.iter().find(|entry| (&entry.schema, &entry.name) == (schema, table));
            let found =
                entry.and_then(|entry| entry.columns.iter().find(|found| found.name.eq_ignore_ascii_case(column)));
            let no_column = || PartError::NoColumn { table: format!("{schema}.{table}"), column: column.to_owned() };
            let found = found.ok_or_else(no_column)?;
            check_value(schema, table, column, &found.sql_type, &of.value)?;
            columns.push(((schema.clone(), table.clone()), found.name.clone()));
        }
        Ok(Self { value: of.value.clone(), columns })
    }

    /// Checks the columns as they are by now: one may have become another since the dump.
    ///
    /// # Errors
    /// [`PartError`] where a column is gone, or the value cannot be one of its.
    pub(super) fn check_now(&self, types: &BTreeMap<(String, String, String), String>) -> Result<(), PartError> {
        for ((schema, table), column) in &self.columns {
            let found = types.get(&(schema.clone(), table.clone(), column.to_lowercase()));
            let no_column = || PartError::NoColumn { table: format!("{schema}.{table}"), column: column.clone() };
            check_value(schema, table, column, found.ok_or_else(no_column)?, &self.value)?;
        }
        Ok(())
    }

    /// Returns the condition that a row of a table is meant: by its index, and by the very characters, because a collation may take
    /// `shop042` for `SHOP042` or `shop042 `, which are others. A row without a value is nobody's.
    pub(crate) fn condition(&self, (schema, table): &TableName) -> Option<String> {
        let (_, column) = self.columns.iter().find(|((s, t), _)| s == schema && t == table)?;
        let (column, value) = (sql::ident(column), sql::string(&self.value));
        let bytes = hex::encode_upper(&self.value);
        Some(format!("{column} = {value} AND CAST(CONVERT({column} USING utf8mb4) AS BINARY) = X'{bytes}'"))
    }
}

/// Refuses a value that a column cannot hold, or of which it would print another text.
fn check_value(schema: &str, table: &str, column: &str, sql_type: &str, value: &str) -> Result<(), PartError> {
    if may_hold(sql_type, value) {
        return Ok(());
    }
    let (column, kind) = (format!("{schema}.{table}.{column}"), sql_type.to_owned());
    Err(PartError::Value { value: value.to_owned(), column, kind })
}

/// Tells whether a column may hold a value under this very text; not where it is of a type whose values are written in more than
/// one way.
fn may_hold(sql_type: &str, value: &str) -> bool {
    let sql_type = sql_type.to_ascii_lowercase();
    match sql_type.split(['(', ' ']).next().unwrap_or_default() {
        "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" => {
            let number = value.parse::<i128>();
            !sql_type.contains("zerofill") && number.is_ok_and(|number| number.to_string() == value)
        }
        "char" | "varchar" => true,
        "uuid" => is_uuid(value),
        _ => false,
    }
}

/// Tells whether a text is a UUID as MariaDB prints it.
fn is_uuid(text: &str) -> bool {
    let is_right = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    text.len() == 36 && text.bytes().enumerate().all(is_right)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn tenant(value: &str) -> Tenant {
        let table = ("mall".to_owned(), "orders".to_owned());
        Tenant { value: value.to_owned(), columns: vec![(table, "shop`id".to_owned())] }
    }

    #[test]
    fn a_value_is_one_that_the_column_prints_so() {
        for (sql_type, value) in [
            ("int(11) unsigned", "42"),
            ("bigint", "-7"),
            ("varchar(20)", "x' OR '1'='1"),
            ("uuid", "3e11fa47-71ca-11e1-9e33-c80aa9429562"),
        ] {
            assert!(may_hold(sql_type, value), "{sql_type} {value}");
        }
        for (sql_type, value) in [
            ("int", ""),
            ("int", "-"),
            ("int", "42 OR 1=1"),
            ("int", "0x2A"),
            ("int", "4e2"),
            ("int", "042"),
            ("int", "-0"),
            ("int", "+42"),
            ("int(4) unsigned zerofill", "42"),
            ("binary(16)", "x"),
            ("decimal(10,2)", "42"),
            ("uuid", "3E11FA47-71CA-11E1-9E33-C80AA9429562"),
            ("uuid", "3e11fa4771ca11e19e33c80aa9429562"),
        ] {
            assert!(!may_hold(sql_type, value), "{sql_type} {value}");
        }
    }

    #[test]
    fn rows_are_meant_by_the_very_characters_and_a_value_is_never_sql() {
        let table = ("mall".to_owned(), "orders".to_owned());
        assert_eq!(
            tenant("x' OR '1'='1").condition(&table).unwrap(),
            "`shop``id` = 'x'' OR ''1''=''1' AND CAST(CONVERT(`shop``id` USING utf8mb4) AS BINARY) = \
             X'7827204F52202731273D2731'"
        );
        assert_eq!(tenant("a").condition(&("mall".to_owned(), "carts".to_owned())), None);
    }

    #[test]
    fn a_column_that_became_another_since_the_dump_is_refused() {
        let types = |sql_type: &str| {
            [(("mall".to_owned(), "orders".to_owned(), "shop`id".to_owned()), sql_type.to_owned())].into()
        };
        tenant("42").check_now(&types("varchar(20)")).unwrap();
        let refused = tenant("42").check_now(&types("decimal(10,2)")).unwrap_err().to_string();
        assert!(refused.contains("decimal(10,2)"), "{refused}");
        let refused = tenant("42").check_now(&BTreeMap::new()).unwrap_err().to_string();
        assert!(refused.contains("has no column"), "{refused}");
    }
}
