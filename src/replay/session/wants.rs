//! What a statement of the binlog wants of the session that runs it again, as assignments of `SET`. Pure.

use std::collections::BTreeMap;

use crate::mysql::binlog::Context;
use crate::mysql::manifest::Product;
use crate::mysql::sql;
use crate::replay::session::dialect::Dialect;

/// Bits of a statement's flags. Both products number them alike, and MariaDB has more of them.
mod flag {
    pub(super) const AUTO_IS_NULL: u32 = 1 << 14;
    pub(super) const NO_CONSTRAINT_CHECKS: u32 = 1 << 15;
    pub(super) const EXPLICIT_TIMESTAMP: u32 = 1 << 24;
    pub(super) const NO_FOREIGN_KEY_CHECKS: u32 = 1 << 26;
    pub(super) const NO_UNIQUE_CHECKS: u32 = 1 << 27;
    pub(super) const IF_EXISTS: u32 = 1 << 28;
}

/// Bits of `sql_mode` that MySQL has taken out with 8.0, and refuses to be set: names of other products, `NO_KEY_OPTIONS` and
/// their like, `NO_AUTO_CREATE_USER`.
const MODES_GONE: u64 = 1 << 4 | 0x3_FF00 | 1 << 28;

/// What the session was last given.
#[derive(Debug, Default)]
pub(super) struct Wants(BTreeMap<&'static str, String>);

impl Wants {
    /// Forgets it: something else may have changed it.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Forgets what comes with a schema.
    pub(super) fn forget_schema(&mut self) {
        self.0.remove("collation_database");
    }

    /// Notes what is wanted, and returns the assignments of what the session has otherwise.
    pub(super) fn changes(&mut self, wanted: Vec<(&'static str, String)>) -> Vec<String> {
        let mut changes = Vec::new();
        for (name, value) in wanted {
            if self.0.get(name) != Some(&value) {
                changes.push(format!("@@session.{name} = {value}"));
                self.0.insert(name, value);
            }
        }
        changes
    }
}

/// Returns the variables that a statement was written for, and their values.
///
/// # Errors
/// What the target cannot be told.
pub(super) fn wanted(context: &Context, dialect: &Dialect) -> Result<Vec<(&'static str, String)>, String> {
    let bit = |is_set: bool| u8::from(is_set).to_string();
    let is_mysql = dialect.product == Product::MySql;
    let mut wanted = vec![
        ("timestamp", format!("{}.{:06}", context.seconds, context.micros)),
        ("pseudo_thread_id", context.thread.to_string()),
    ];
    if let Some(flags) = context.flags {
        let has = |flag: u32| flags & flag != 0;
        wanted.push(("sql_auto_is_null", bit(has(flag::AUTO_IS_NULL))));
        wanted.push(("foreign_key_checks", bit(!has(flag::NO_FOREIGN_KEY_CHECKS))));
        wanted.push(("unique_checks", bit(!has(flag::NO_UNIQUE_CHECKS))));
        if !is_mysql {
            wanted.push(("check_constraint_checks", bit(!has(flag::NO_CONSTRAINT_CHECKS))));
            wanted.extend(dialect.has_if_exists.then(|| ("sql_if_exists", bit(has(flag::IF_EXISTS)))));
            let explicit = ("explicit_defaults_for_timestamp", bit(has(flag::EXPLICIT_TIMESTAMP)));
            wanted.extend(dialect.has_explicit_timestamp.then_some(explicit));
        }
    }
    if let Some(mode) = context.sql_mode {
        let mode = if is_mysql { mode & !MODES_GONE } else { mode };
        wanted.push(("sql_mode", mode.to_string()));
    }
    let (by, from) = context.auto_increment.unwrap_or((1, 1));
    wanted.push(("auto_increment_increment", by.to_string()));
    wanted.push(("auto_increment_offset", from.to_string()));
    if let Some([client, connection, server]) = context.charset {
        // MariaDB takes no number of a collation that is not its character set's first.
        wanted.push(("character_set_client", dialect.collation(client.into())?.0.clone()));
        wanted.push(("collation_connection", connection.to_string()));
        wanted.push(("collation_server", server.to_string()));
    }
    if let Some(collations) = &context.collations {
        wanted.push(("character_set_collations", default_collations(collations, dialect)?));
    }
    wanted.extend(context.time_zone.as_ref().map(|zone| ("time_zone", sql::string(zone))));
    wanted.push(("lc_time_names", context.lc_time_names.unwrap_or_default().to_string()));
    let of_schema = context.collation_database.map_or_else(|| "DEFAULT".to_owned(), |number| number.to_string());
    wanted.push(("collation_database", of_schema));
    wanted.extend(context.explicit_timestamp.map(|is_on| ("explicit_defaults_for_timestamp", bit(is_on))));
    wanted.extend(context.utf8mb4_collation.map(|number| ("default_collation_for_utf8mb4", number.to_string())));
    wanted.extend(context.requires_key.map(|is_on| ("sql_require_primary_key", bit(is_on))));
    match (context.encrypts, dialect.encrypts) {
        (Some(is_on), None) => wanted.push(("default_table_encryption", bit(is_on))),
        (Some(is_on), Some(encrypts)) if is_on != encrypts => {
            return Err(
                "wants another `default_table_encryption` than the target's, which the account may not set".to_owned()
            );
        }
        _ => {}
    }
    Ok(wanted)
}

fn default_collations(collations: &[(u16, u16)], dialect: &Dialect) -> Result<String, String> {
    let pairs = collations.iter().map(|(_, number)| {
        let (charset, collation) = dialect.collation(u32::from(*number))?;
        Ok(format!("{charset}={collation}"))
    });
    Ok(sql::string(&pairs.collect::<Result<Vec<_>, String>>()?.join(",")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            thread: 7,
            seconds: 1_700_000_000,
            micros: 42,
            flags: Some(flag::NO_FOREIGN_KEY_CHECKS | flag::NO_CONSTRAINT_CHECKS),
            sql_mode: Some(1 << 28 | 1 << 22 | 1 << 8),
            charset: Some([224, 46, 8]),
            time_zone: Some("+09:00".to_owned()),
            ..Context::default()
        }
    }

    fn told(context: &Context, product: Product) -> String {
        let dialect = Dialect { has_if_exists: true, ..Dialect::plain(product) };
        let mut wants = Wants::default();
        wants.changes(wanted(context, &dialect).unwrap()).join(", ").replace("@@session.", "")
    }

    #[test]
    fn a_mysql_is_given_what_its_statement_says_and_no_mode_that_it_has_no_longer() {
        let expected = "timestamp = 1700000000.000042, pseudo_thread_id = 7, sql_auto_is_null = 0, foreign_key_checks = 0, \
            unique_checks = 1, sql_mode = 4194304, auto_increment_increment = 1, auto_increment_offset = 1, \
            character_set_client = utf8mb4, collation_connection = 46, collation_server = 8, time_zone = '+09:00', \
            lc_time_names = 0, collation_database = DEFAULT, sql_require_primary_key = 1";
        let context = Context { requires_key: Some(true), ..context() };
        assert_eq!(told(&context, Product::MySql), expected);
    }

    #[test]
    fn a_mariadb_has_checks_and_modes_of_its_own() {
        let mut context = Context { collations: Some(vec![(45, 224)]), ..context() };
        let told = told(&context, Product::MariaDb);
        assert!(told.contains("check_constraint_checks = 0, sql_if_exists = 0, sql_mode = 272630016"), "{told}");
        assert!(told.contains("character_set_collations = 'utf8mb4=utf8mb4_unicode_ci'"), "{told}");
        context.collations = Some(vec![(45, 9999)]);
        assert!(wanted(&context, &Dialect::plain(Product::MariaDb)).is_err());
    }

    #[test]
    fn what_the_session_has_is_not_set_again() {
        let dialect = Dialect::plain(Product::MySql);
        let mut wants = Wants::default();
        wants.changes(wanted(&context(), &dialect).unwrap());
        let later = Context { seconds: 1_700_000_001, time_zone: None, ..context() };
        assert_eq!(wants.changes(wanted(&later, &dialect).unwrap()), ["@@session.timestamp = 1700000001.000042"]);
        wants.forget_schema();
        assert_eq!(wants.changes(wanted(&later, &dialect).unwrap()), ["@@session.collation_database = DEFAULT"]);
        wants.forget();
        assert!(wants.changes(wanted(&later, &dialect).unwrap()).len() > 9);
    }
}
