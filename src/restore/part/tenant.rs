//! Whose rows are meant, where it is not all of a table.

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
    /// Per table the column that tells, and whether it holds numbers.
    columns: Vec<(TableName, String, bool)>,
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
            let is_number = kind(&found.sql_type, &of.value).ok_or_else(|| PartError::Value {
                value: of.value.clone(),
                column: format!("{schema}.{table}.{column}"),
                kind: found.sql_type.clone(),
            })?;
            columns.push(((schema.clone(), table.clone()), found.name.clone(), is_number));
        }
        Ok(Self { value: of.value.clone(), columns })
    }

    /// Returns the condition that a row of a table is meant. A row without a value is nobody's.
    pub(crate) fn condition(&self, (schema, table): &TableName) -> Option<String> {
        let (_, column, is_number) = self.columns.iter().find(|((s, t), ..)| s == schema && t == table)?;
        let value = if *is_number { self.value.clone() } else { sql::string(&self.value) };
        Some(format!("{} = {value}", sql::ident(column)))
    }
}

/// Tells whether a column holds whole numbers, or texts; `None` where it cannot hold the value, or is of a type whose values are
/// written in more than one way.
fn kind(sql_type: &str, value: &str) -> Option<bool> {
    let word = sql_type.split(['(', ' ']).next().unwrap_or_default().to_ascii_lowercase();
    match word.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" => {
            let digits = value.strip_prefix('-').unwrap_or(value);
            (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(true)
        }
        "char" | "varchar" | "uuid" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_literal_and_never_sql() {
        assert_eq!(kind("int(11) unsigned", "42"), Some(true));
        assert_eq!(kind("bigint", "-7"), Some(true));
        for value in ["", "-", "42 OR 1=1", "0x2A", "4e2"] {
            assert_eq!(kind("int", value), None, "{value}");
        }
        assert_eq!(kind("varchar(20)", "x' OR '1'='1"), Some(false));
        assert_eq!(kind("binary(16)", "x"), None);
        let table = ("mall".to_owned(), "orders".to_owned());
        let tenant =
            Tenant { value: "x' OR '1'='1".to_owned(), columns: vec![(table.clone(), "shop`id".to_owned(), false)] };
        assert_eq!(tenant.condition(&table).unwrap(), "`shop``id` = 'x'' OR ''1''=''1'");
        assert_eq!(tenant.condition(&("mall".to_owned(), "carts".to_owned())), None);
    }
}
