//! Users, roles and grants as statements that make them again where they lack.

use crate::event::Events;
use crate::mysql::manifest::ObjectKind;
use crate::mysql::sql::{account, ident};
use crate::mysql::wire::Wire;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::inventory::{Inventory, SYSTEM_SCHEMAS};
use crate::source::mysql::objects::Object;
use crate::source::mysql::session::{Capabilities, rows, text_rows};

/// Accounts that a server makes for itself.
const OWN: [&str; 4] = ["mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys"];

/// The server's error for an account that is in its table and not in its memory.
const NO_SUCH_ACCOUNT: u16 = 1133;

/// An account, or a role of MariaDB's, which has no host.
struct Account {
    user: String,
    host: String,
    is_role: bool,
}

pub(crate) struct AccountReader<'a> {
    pub(crate) wire: &'a mut Wire,
    pub(crate) inventory: &'a Inventory,
    /// Those of the dump so far: what may be granted on, beside tables.
    pub(crate) objects: &'a [Object],
    pub(crate) capabilities: &'a Capabilities,
    pub(crate) events: &'a Events,
}

impl AccountReader<'_> {
    /// Returns roles, then users, then what both are granted.
    pub(crate) fn read(&mut self) -> Result<Vec<Object>, MysqlSourceError> {
        let accounts = self.list()?;
        let (mut made, mut granted) = (Vec::new(), Vec::new());
        for account in accounts.iter().filter(|account| account.is_role) {
            made.extend(self.role(account, &mut granted)?);
        }
        for account in accounts.iter().filter(|account| !account.is_role) {
            made.extend(self.user(account, ObjectKind::User, &mut granted)?);
        }
        made.extend(granted);
        Ok(made)
    }

    fn list(&mut self) -> Result<Vec<Account>, MysqlSourceError> {
        let statement = if self.capabilities.is_mariadb() {
            "SELECT User, Host, is_role = 'Y' FROM mysql.user ORDER BY User, Host"
        } else {
            "SELECT User, Host, EXISTS (SELECT 1 FROM mysql.role_edges WHERE FROM_USER = User AND FROM_HOST = Host) \
             FROM mysql.user ORDER BY User, Host"
        };
        let found = rows(self.wire, "list the accounts", statement)?;
        let is_theirs = |account: &Account| !OWN.contains(&account.user.as_str());
        let account = |row: &crate::source::mysql::session::TextRow| Account {
            user: row.text(0).to_owned(),
            host: row.text(1).to_owned(),
            is_role: row.text(2) == "1",
        };
        Ok(found.iter().map(account).filter(is_theirs).collect())
    }

    fn role(&mut self, role: &Account, granted: &mut Vec<Object>) -> Result<Option<Object>, MysqlSourceError> {
        if !self.capabilities.is_mariadb() {
            return self.user(role, ObjectKind::Role, granted);
        }
        let name = ident(&role.user);
        granted.extend(self.grants(&name, &role.user, Vec::new())?);
        Ok(Some(Object {
            kind: ObjectKind::Role,
            schema: None,
            name: role.user.clone(),
            statements: vec![format!("CREATE ROLE IF NOT EXISTS {name}")],
            is_last: false,
            table: None,
        }))
    }

    fn user(
        &mut self,
        user: &Account,
        kind: ObjectKind,
        granted: &mut Vec<Object>,
    ) -> Result<Option<Object>, MysqlSourceError> {
        let quoted = account(&user.user, &user.host);
        let name = format!("{}@{}", user.user, user.host);
        let shown = self.wire.query(&format!("SHOW CREATE USER {quoted}"));
        let found = match shown {
            Ok(found) => text_rows(&format!("read the account `{name}`"), found)?,
            Err(error) if error.code() == Some(NO_SUCH_ACCOUNT) => {
                // A host's name, where the server does not resolve names: nobody can log in by it.
                self.events.warn(format!("the server does not know its own account `{name}`: it is not in the dump"));
                return Ok(None);
            }
            Err(error) => {
                return Err(MysqlSourceError::query(format!("read the account `{name}`"))(error));
            }
        };
        let create = found.first().map_or("", |row| row.text(0));
        let (create, default_roles) = without_default_roles(create);
        let default = default_roles.map(|roles| format!("ALTER USER {quoted} DEFAULT ROLE {roles}"));
        granted.extend(self.grants(&quoted, &name, default.into_iter().collect())?);
        Ok(Some(Object {
            kind,
            schema: None,
            name,
            statements: vec![create.replacen("CREATE USER ", "CREATE USER IF NOT EXISTS ", 1)],
            is_last: false,
            table: None,
        }))
    }

    fn grants(&mut self, quoted: &str, name: &str, more: Vec<String>) -> Result<Option<Object>, MysqlSourceError> {
        let found = rows(self.wire, &format!("read the grants of `{name}`"), &format!("SHOW GRANTS FOR {quoted}"))?;
        let lines = found.iter().map(|row| without_password(row.text(0)));
        let (mut statements, left_out): (Vec<String>, Vec<String>) = lines.partition(|line| self.is_dumped(line));
        for (schema, object) in left_out.iter().filter_map(|line| granted_on(line)) {
            self.events.warn(format!(
                "`{name}` holds a grant on `{schema}.{object}`, which is not in the dump: the grant is left out, too"
            ));
        }
        statements.extend(more);
        Ok((!statements.is_empty()).then(|| Object {
            kind: ObjectKind::Grant,
            schema: None,
            name: name.to_owned(),
            statements,
            is_last: false,
            table: None,
        }))
    }

    /// Tells whether what is granted on exists after a restore: a grant on a table that is not there is refused. (MySQL keeps
    /// the grants of a table that is dropped.)
    fn is_dumped(&self, line: &str) -> bool {
        let Some((schema, object)) = granted_on(line) else {
            return true;
        };
        let is_routine = |other: &Object| {
            let is_in = other.schema.as_ref().is_some_and(|other| other.eq_ignore_ascii_case(&schema));
            matches!(other.kind, ObjectKind::Function | ObjectKind::Procedure | ObjectKind::Package)
                && is_in
                && other.name.eq_ignore_ascii_case(&object)
        };
        object == "*"
            || SYSTEM_SCHEMAS.contains(&schema.to_ascii_lowercase().as_str())
            || self.inventory.has(&schema, &object)
            || self.objects.iter().any(is_routine)
    }

    /// Says what a server has beside schemas and accounts, and no dump holds.
    pub(crate) fn warn_of_losses(&mut self) -> Result<(), MysqlSourceError> {
        let lists = [
            ("functions of a shared library (CREATE FUNCTION … SONAME)", "SELECT name FROM mysql.func"),
            ("servers (CREATE SERVER)", "SELECT Server_name FROM mysql.servers"),
            (
                "general tablespaces",
                "SELECT NAME FROM information_schema.INNODB_TABLESPACES WHERE SPACE_TYPE = 'General' AND NAME <> 'mysql'",
            ),
        ];
        let count = if self.capabilities.is_mariadb() { 2 } else { 3 };
        for (what, statement) in lists.into_iter().take(count) {
            let found = match rows(self.wire, "look for what is left out", statement) {
                // Where the account may not look, nothing can be said.
                Err(MysqlSourceError::Query { error, .. }) if error.is_denied() => continue,
                found => found?,
            };
            if !found.is_empty() {
                let names: Vec<&str> = found.iter().map(|row| row.text(0)).collect();
                self.events
                    .warn(format!("not in the dump, to be made by hand after a restore: {what}: {}", names.join(", ")));
            }
        }
        Ok(())
    }
}

/// Returns schema and object of `GRANT … ON [kind] scope TO …`; `None` for roles and proxies.
fn granted_on(line: &str) -> Option<(String, String)> {
    let rest = line.strip_prefix("GRANT ")?.split_once(" ON ")?.1;
    let start = rest.find('`')?;
    if start > 0 && !matches!(&rest[..start], "TABLE " | "FUNCTION " | "PROCEDURE " | "PACKAGE " | "PACKAGE BODY ") {
        return None;
    }
    let (schema, rest) = unquote(&rest[start..])?;
    let rest = rest.strip_prefix('.')?;
    match unquote(rest) {
        Some((object, _)) => Some((schema, object)),
        None => rest.starts_with('*').then(|| (schema, "*".to_owned())),
    }
}

/// Reads a quoted name, and returns what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let body = text.strip_prefix('`')?;
    let mut end = 0;
    loop {
        end += body[end..].find('`')?;
        if body[end + 1..].starts_with('`') {
            end += 2;
        } else {
            return Some((body[..end].replace("``", "`"), &body[end + 1..]));
        }
    }
}

/// Takes the default roles out of a CREATE USER statement: the roles are not granted yet when it runs.
fn without_default_roles(create: &str) -> (String, Option<String>) {
    let (Some(start), Some(end)) = (create.find(" DEFAULT ROLE "), create.find(" REQUIRE ")) else {
        return (create.to_owned(), None);
    };
    if start > end {
        return (create.to_owned(), None);
    }
    let roles = create[start..end].trim_start_matches(" DEFAULT ROLE ").to_owned();
    (format!("{}{}", &create[..start], &create[end..]), Some(roles))
}

/// Takes the password out of MariaDB's GRANT: the user has it already, and one who was there before keeps his.
fn without_password(line: &str) -> String {
    let Some(start) = line.find(" IDENTIFIED ") else {
        return line.to_owned();
    };
    let option = if line.ends_with(" WITH GRANT OPTION") { " WITH GRANT OPTION" } else { "" };
    format!("{}{option}", &line[..start])
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_on_is_found() {
        let on = |line| granted_on(line).map(|(schema, object)| format!("{schema}/{object}"));
        assert_eq!(on("GRANT SELECT (`a`) ON `s``1`.`t` TO `u`@`%`").as_deref(), Some("s`1/t"));
        assert_eq!(on("GRANT SELECT ON `s`.* TO `u`@`%`").as_deref(), Some("s/*"));
        assert_eq!(on("GRANT EXECUTE ON FUNCTION `s`.`f` TO `u`@`%`").as_deref(), Some("s/f"));
        assert_eq!(on("GRANT ALL PRIVILEGES ON *.* TO `u`@`%`"), None);
        assert_eq!(on("GRANT `role`@`%` TO `u`@`%`"), None);
    }

    #[test]
    fn a_grant_does_not_change_a_password() {
        let line = "GRANT ALL PRIVILEGES ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*00' WITH GRANT OPTION";
        assert_eq!(without_password(line), "GRANT ALL PRIVILEGES ON *.* TO `u`@`%` WITH GRANT OPTION");
    }

    #[test]
    fn default_roles_wait_until_they_are_granted() {
        let create = "CREATE USER `u`@`%` IDENTIFIED WITH 'x' AS 0x00 DEFAULT ROLE `r`@`%`,`q`@`%` REQUIRE NONE";
        let (create, roles) = without_default_roles(create);
        assert_eq!(create, "CREATE USER `u`@`%` IDENTIFIED WITH 'x' AS 0x00 REQUIRE NONE");
        assert_eq!(roles.as_deref(), Some("`r`@`%`,`q`@`%`"));
    }
}
