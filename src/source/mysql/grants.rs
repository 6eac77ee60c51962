//! Whether the account may see all that the dump must hold: servers hide what an account may not see without a word, and a
//! dump without its triggers looks like any other.

use std::collections::BTreeSet;

use crate::mysql::manifest::Product;
use crate::mysql::sql::ident;
use crate::mysql::wire::Wire;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::inventory::Inventory;
use crate::source::mysql::session::{Capabilities, rows};

/// What a schema must show.
const NEEDED: [&str; 4] = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];

/// What shows all that binds tables to each other.
const SHOW_TIES: [&str; 2] = ["SELECT", "TRIGGER"];

/// The table in which MariaDB keeps its routines: whoever may read it, sees them all.
const ROUTINES: &str = "`mysql`.`proc`";

type Privileges = BTreeSet<String>;

/// The privileges of our account, with those of its active roles.
#[derive(Debug, Clone)]
pub(crate) struct Grants {
    product: Product,
    account: String,
    all: Privileges,
    /// By a pattern of schema names as GRANT knows it (`shop\_%`).
    schemas: Vec<(String, Privileges)>,
    /// What MySQL has taken away again from one schema.
    revoked: Vec<(String, Privileges)>,
    reads_routines: bool,
}

impl Grants {
    pub(crate) fn read(wire: &mut Wire, product: Product) -> Result<Self, MysqlSourceError> {
        let act = "ask for our privileges";
        let account = rows(wire, act, "SELECT CURRENT_USER()")?;
        let mut grants = Self::of(account.first().map_or("", |row| row.text(0)), product);
        // Without USING, MySQL shows a role and not what it gives.
        let roles = match product {
            Product::MySql => rows(wire, act, "SELECT CURRENT_ROLE()")?,
            Product::MariaDb => Vec::new(),
        };
        let roles = roles.first().map(|row| row.text(0)).filter(|roles| !roles.is_empty() && *roles != "NONE");
        let statement =
            roles.map_or("SHOW GRANTS".to_owned(), |roles| format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}"));
        for row in rows(wire, act, &statement)? {
            grants.add(row.text(0));
        }
        Ok(grants)
    }

    fn of(account: &str, product: Product) -> Self {
        Self {
            product,
            account: quote_account(account),
            all: Privileges::new(),
            schemas: Vec::new(),
            revoked: Vec::new(),
            reads_routines: false,
        }
    }

    /// Takes in one line: `GRANT a, b ON scope TO …` or `REVOKE a, b ON scope FROM …`.
    fn add(&mut self, line: &str) {
        let (is_given, rest) = match (line.strip_prefix("GRANT "), line.strip_prefix("REVOKE ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return,
        };
        let Some((privileges, rest)) = rest.split_once(" ON ") else {
            return;
        };
        let Some((scope, _)) = rest.split_once(if is_given { " TO " } else { " FROM " }) else {
            return;
        };
        // MySQL writes its dynamic privileges without a space between.
        let privileges: Privileges = privileges.split(',').map(|name| name.trim().to_ascii_uppercase()).collect();
        let schema =
            scope.strip_prefix('`').and_then(|scope| scope.strip_suffix("`.*")).map(|name| name.replace("``", "`"));
        match (schema, is_given) {
            (None, true) if scope == "*.*" => self.all.extend(privileges),
            (None, true) if scope == ROUTINES => self.reads_routines |= holds(&privileges, "SELECT"),
            (Some(pattern), true) => self.schemas.push((pattern, privileges)),
            (Some(name), false) => self.revoked.push((name, privileges)),
            (None, _) => {}
        }
    }

    /// Tells whether the account holds a privilege on the whole server.
    pub(crate) fn has(&self, privilege: &str) -> bool {
        holds(&self.all, privilege)
    }

    fn has_in(&self, privilege: &str, schema: &str) -> bool {
        let in_schema = |(pattern, privileges): &(String, Privileges)| {
            holds(privileges, privilege) && matches(pattern.as_bytes(), schema.as_bytes())
        };
        let is_revoked = self.revoked.iter().any(|(name, taken)| name == schema && holds(taken, privilege));
        (self.has(privilege) && !is_revoked) || self.schemas.iter().any(in_schema)
    }

    /// Refuses an account that would not see all that the dump must hold. Where the policy names no schemas (`wanted`), only
    /// privileges on all schemas prove that none is hidden.
    pub(crate) fn check(&self, inventory: &Inventory, wanted: &[String]) -> Result<(), MysqlSourceError> {
        if wanted.is_empty() {
            self.refuse(NEEDED.into_iter().filter(|name| !self.has(name)), "all schemas", "*.*")?;
        }
        for schema in inventory.schema_names() {
            let missing = NEEDED.into_iter().filter(|name| !self.has_in(name, schema));
            self.refuse(missing, &format!("`{schema}`"), &format!("{}.*", ident(schema)))?;
        }
        match self.product {
            Product::MySql if !self.has("SELECT") => {
                self.refuse(["SHOW_ROUTINE"].into_iter().filter(|name| !self.has(name)), "routines", "*.*")
            }
            Product::MariaDb if !self.reads_routines && !self.has("SHOW CREATE ROUTINE") => {
                self.refuse(["SELECT"].into_iter().filter(|name| !self.has_in(name, "mysql")), "routines", "`mysql`.*")
            }
            _ => Ok(()),
        }
    }

    /// Refuses an account that does not see all triggers and foreign keys that there are, in whatever schema.
    pub(crate) fn check_sees_ties(&self) -> Result<(), MysqlSourceError> {
        let missing: Vec<&str> = SHOW_TIES.into_iter().filter(|name| !self.has(name)).collect();
        let what = missing.join(", ");
        if !missing.is_empty() {
            return Err(MysqlSourceError::Blind { grant: format!("GRANT {what} ON *.* TO {}", self.account), what });
        }
        // The servers' own schemas bind no tables of others.
        let is_hidden = |(schema, taken): &&(String, Privileges)| {
            !["mysql", "sys"].contains(&schema.as_str()) && SHOW_TIES.iter().any(|name| holds(taken, name))
        };
        let Some((schema, taken)) = self.revoked.iter().find(is_hidden) else { return Ok(()) };
        let taken = SHOW_TIES.into_iter().filter(|name| holds(taken, name)).collect::<Vec<_>>().join(", ");
        let what = format!("{taken} on `{schema}`");
        Err(MysqlSourceError::Blind {
            grant: format!("GRANT {taken} ON {}.* TO {}", ident(schema), self.account),
            what,
        })
    }

    fn refuse<'a>(
        &self,
        missing: impl Iterator<Item = &'a str>,
        on: &str,
        scope: &str,
    ) -> Result<(), MysqlSourceError> {
        let missing = missing.collect::<Vec<_>>().join(", ");
        if missing.is_empty() {
            return Ok(());
        }
        let grant = format!("GRANT {missing} ON {scope} TO {}", self.account);
        Err(MysqlSourceError::Privilege { what: format!("{missing} on {on}"), grant })
    }

    /// Makes the error of an account that may stop nobody.
    pub(crate) fn may_not_lock(&self) -> MysqlSourceError {
        MysqlSourceError::MayNotLock { grant: format!("GRANT RELOAD ON *.* TO {}", self.account) }
    }

    /// Tells whether the account may stop writers for a moment, all of them or those of these schemas.
    pub(crate) fn may_lock<'a>(&self, mut schemas: impl Iterator<Item = &'a str>) -> bool {
        self.has("RELOAD") || self.has("FLUSH_TABLES") || schemas.all(|schema| self.has_in("LOCK TABLES", schema))
    }

    /// Tells whether the account may hold definitions still.
    pub(crate) fn may_lock_definitions(&self) -> bool {
        match self.product {
            Product::MySql => self.has("BACKUP_ADMIN"),
            Product::MariaDb => self.has("RELOAD"),
        }
    }

    /// Returns what the privileges leave out where a dump is good without, for people.
    pub(crate) fn gaps(&self, has_definitions: bool, capabilities: &Capabilities) -> Vec<String> {
        let mut gaps = Vec::new();
        if !has_definitions {
            let lacks = if self.product == Product::MySql { "BACKUP_ADMIN" } else { "RELOAD" };
            gaps.push(format!("the account lacks {lacks}: a table altered during the dump makes it fail"));
        }
        if capabilities.has_binlog() && !self.sees_position() {
            let lacks = if self.product == Product::MySql { "REPLICATION CLIENT" } else { "BINLOG MONITOR" };
            gaps.push(format!("the account lacks {lacks}: the dump may not know its binlog position"));
        }
        if !self.has("PROCESS") {
            let dumps = match self.product {
                Product::MySql => "",
                Product::MariaDb => ", and the dump takes the global read lock where it could do without",
            };
            gaps.push(format!("the account lacks PROCESS: whose statement keeps a lock from us is not seen{dumps}"));
        }
        if !self.sees_accounts() {
            gaps.push("the account lacks SELECT on mysql.*: users, roles and grants are not in the dump".to_owned());
        }
        gaps
    }

    /// Tells whether the account may read the binlog's position.
    pub(crate) fn sees_position(&self) -> bool {
        let by_name = self.product == Product::MariaDb && self.has("BINLOG MONITOR");
        self.has("REPLICATION CLIENT") || self.has("SUPER") || by_name
    }

    /// Tells whether the account may read the accounts.
    pub(crate) fn sees_accounts(&self) -> bool {
        self.has_in("SELECT", "mysql")
    }
}

fn holds(privileges: &Privileges, privilege: &str) -> bool {
    privileges.contains(privilege) || privileges.contains("ALL PRIVILEGES")
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
    use crate::source::mysql::inventory::Schema;

    fn grants(product: Product, lines: &[&str]) -> Grants {
        let mut grants = Grants::of("bkp@%", product);
        for line in lines {
            grants.add(line);
        }
        grants
    }

    /// Asks for the schemas `mall_kr` and, where the policy names it, no other.
    fn check(grants: &Grants, is_named: bool) -> Result<(), (String, Option<String>)> {
        let schema = Schema { name: "mall_kr".to_owned(), collation: String::new() };
        let inventory = Inventory { schemas: vec![schema], ..Inventory::default() };
        let wanted = is_named.then(|| "mall_kr".to_owned());
        grants.check(&inventory, wanted.as_slice()).map_err(|error| (error.to_string(), error.hint()))
    }

    #[track_caller]
    fn refused(grants: &Grants, is_named: bool, lacks: &str, grant: &str) {
        let (error, hint) = check(grants, is_named).expect_err("refused");
        assert_eq!(error, format!("dump the server: the account lacks {lacks}"));
        assert_eq!(hint, Some(format!("run `{grant} TO `bkp`@`%`` on the server as an administrator")));
    }

    #[test]
    fn an_account_that_would_not_see_the_triggers_is_refused_with_the_grant_to_run() {
        let grants = grants(Product::MariaDb, &["GRANT SELECT, SHOW VIEW, EVENT ON *.* TO `bkp`@`%`"]);
        refused(&grants, false, "TRIGGER on all schemas", "GRANT TRIGGER ON *.*");
        refused(&grants, true, "TRIGGER on `mall_kr`", "GRANT TRIGGER ON `mall_kr`.*");
    }

    #[test]
    fn privileges_of_a_schema_do_where_the_policy_names_it_and_routines_are_seen() {
        let of_schema = "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `mall\\_%`.* TO `bkp`@`%`";
        let of_others = "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `mall`.* TO `bkp`@`%`";
        let routines = [
            (Product::MySql, "GRANT BACKUP_ADMIN,SHOW_ROUTINE ON *.* TO `bkp`@`%`"),
            (Product::MariaDb, "GRANT SELECT ON `mysql`.`proc` TO `bkp`@`%`"),
            (Product::MariaDb, "GRANT SELECT ON `mysql`.* TO `bkp`@`%`"),
        ];
        for (product, routines) in routines {
            let grants = |lines: &[&str]| grants(product, lines);
            assert_eq!(check(&grants(&[of_schema, routines]), true), Ok(()), "{routines}");
            assert!(check(&grants(&[of_schema, routines]), false).is_err(), "others may be hidden");
            assert!(check(&grants(&[of_others, routines]), true).is_err());
        }
        refused(&grants(Product::MySql, &[of_schema]), true, "SHOW_ROUTINE on routines", "GRANT SHOW_ROUTINE ON *.*");
        refused(&grants(Product::MariaDb, &[of_schema]), true, "SELECT on routines", "GRANT SELECT ON `mysql`.*");
    }

    #[test]
    fn all_privileges_are_all_but_those_revoked() {
        let all = "GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION";
        let all = grants(Product::MariaDb, &[all]);
        assert!(check(&all, false).is_ok() && all.has("RELOAD") && all.sees_accounts());
        let some = [
            "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON *.* TO `bkp`@`%`",
            "REVOKE SELECT ON `mysql`.* FROM `bkp`@`%`",
        ];
        let some = grants(Product::MySql, &some);
        assert!(check(&some, false).is_ok() && !some.sees_accounts());
    }

    #[test]
    fn an_account_from_which_a_schema_is_hidden_does_not_see_what_binds_the_tables() {
        let all = "GRANT SELECT, TRIGGER ON *.* TO `bkp`@`%`";
        let look = |more: &[&str]| {
            let lines: Vec<&str> = [all].iter().chain(more).copied().collect();
            grants(Product::MySql, &lines).check_sees_ties().map_err(|error| (error.to_string(), error.hint()))
        };
        assert_eq!(look(&[]), Ok(()));
        assert_eq!(
            look(&["REVOKE SELECT ON `mysql`.* FROM `bkp`@`%`", "REVOKE INSERT ON `audit`.* FROM `bkp`@`%`"]),
            Ok(())
        );
        let (error, hint) = look(&["REVOKE SELECT, TRIGGER ON `audit`.* FROM `bkp`@`%`"]).expect_err("refused");
        assert!(error.contains("SELECT, TRIGGER on `audit`"), "{error}");
        assert_eq!(
            hint.as_deref(),
            Some("run `GRANT SELECT, TRIGGER ON `audit`.* TO `bkp`@`%`` on the server as an administrator")
        );
        assert!(grants(Product::MySql, &["GRANT SELECT ON *.* TO `bkp`@`%`"]).check_sees_ties().is_err());
    }
}
