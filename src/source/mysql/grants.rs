//! Whether the account may see all that the dump must hold: servers hide what an account may not see without a word, and a
//! dump without its triggers looks like any other.

use std::collections::BTreeSet;

use crate::mysql::manifest::Product;
use crate::mysql::wire::Wire;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::session::rows;

/// What a schema must show.
const NEEDED: [&str; 4] = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];

/// The privileges of our account.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grants {
    account: String,
    all: BTreeSet<String>,
    /// By a pattern of schema names as GRANT knows it (`shop\_%`).
    schemas: Vec<(String, BTreeSet<String>)>,
}

impl Grants {
    pub(crate) fn read(wire: &mut Wire) -> Result<Self, MysqlSourceError> {
        let act = "ask for our privileges";
        let account = rows(wire, act, "SELECT CURRENT_USER()")?;
        let mut grants =
            Self { account: quote_account(account.first().map_or("", |row| row.text(0))), ..Self::default() };
        for row in rows(wire, act, "SHOW GRANTS")? {
            grants.add(row.text(0));
        }
        Ok(grants)
    }

    /// Takes in one line: `GRANT a, b ON scope TO …`.
    fn add(&mut self, line: &str) {
        let Some((privileges, rest)) = line.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON ")) else {
            return;
        };
        let Some((scope, _)) = rest.split_once(" TO ") else {
            return;
        };
        let privileges = privileges.split(", ").map(str::to_ascii_uppercase);
        if scope == "*.*" {
            self.all.extend(privileges);
        } else if let Some(pattern) = scope.strip_prefix('`').and_then(|scope| scope.strip_suffix("`.*")) {
            self.schemas.push((pattern.replace("``", "`"), privileges.collect()));
        }
    }

    /// Tells whether the account holds a privilege on the whole server.
    pub(crate) fn has(&self, privilege: &str) -> bool {
        self.all.contains(privilege) || self.all.contains("ALL PRIVILEGES")
    }

    fn has_in(&self, privilege: &str, schema: &str) -> bool {
        let in_schema = |(pattern, privileges): &(String, BTreeSet<String>)| {
            (privileges.contains(privilege) || privileges.contains("ALL PRIVILEGES"))
                && matches(pattern.as_bytes(), schema.as_bytes())
        };
        self.has(privilege) || self.schemas.iter().any(in_schema)
    }

    /// Refuses an account that would not see all of these schemas.
    pub(crate) fn check<'a>(&self, schemas: impl IntoIterator<Item = &'a str>) -> Result<(), MysqlSourceError> {
        for schema in schemas {
            let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !self.has_in(name, schema)).collect();
            if !missing.is_empty() {
                return Err(self.lacks(&format!("{} on `{schema}`", missing.join(", ")), &missing.join(", ")));
            }
        }
        Ok(())
    }

    /// Makes the error that names the missing privileges and the statement that gives them.
    pub(crate) fn lacks(&self, what: &str, privileges: &str) -> MysqlSourceError {
        MysqlSourceError::Privilege {
            what: what.to_owned(),
            grant: format!("GRANT {privileges} ON *.* TO {}", self.account),
        }
    }

    /// Tells whether the account may read the binlog's position.
    pub(crate) fn sees_position(&self, product: Product) -> bool {
        self.has("REPLICATION CLIENT")
            || self.has("SUPER")
            || (product == Product::MariaDb && self.has("BINLOG MONITOR"))
    }

    /// Tells whether the account may read the accounts.
    pub(crate) fn sees_accounts(&self) -> bool {
        self.has_in("SELECT", "mysql")
    }
}

fn quote_account(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((user, host)) => crate::mysql::sql::account(user, host),
        None => text.to_owned(),
    }
}

/// Matches a name against `%`, `_` and backslash escapes.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'%', rest @ ..], _) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        ([b'_', rest @ ..], [_, name @ ..]) => matches(rest, name),
        ([b'\\', byte, rest @ ..] | [byte, rest @ ..], [first, name @ ..]) => byte == first && matches(rest, name),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn grants(lines: &[&str]) -> Grants {
        let mut grants = Grants { account: quote_account("bkp@%"), ..Grants::default() };
        for line in lines {
            grants.add(line);
        }
        grants
    }

    #[test]
    fn an_account_that_would_not_see_the_triggers_is_refused_with_the_grant_to_run() {
        let grants = grants(&["GRANT SELECT, SHOW VIEW, EVENT ON *.* TO `bkp`@`%`"]);
        let error = grants.check(["mall"]).expect_err("refused");
        assert_eq!(error.to_string(), "dump the server: the account lacks TRIGGER on `mall`");
        assert_eq!(
            error.hint().as_deref(),
            Some("run `GRANT TRIGGER ON *.* TO `bkp`@`%`` on the server as an administrator")
        );
    }

    #[test]
    fn privileges_of_a_schema_do_for_this_schema() {
        let grants = grants(&[
            "GRANT USAGE ON *.* TO `bkp`@`%`",
            "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `mall\\_%`.* TO `bkp`@`%`",
        ]);
        assert!(grants.check(["mall_kr"]).is_ok());
        assert!(grants.check(["mallXkr"]).is_err());
        assert!(!grants.has("RELOAD"));
    }

    #[test]
    fn all_privileges_are_all() {
        let grants = grants(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"]);
        assert!(grants.check(["x"]).is_ok() && grants.has("RELOAD") && grants.sees_accounts());
    }
}
