//! The statements of a view, a routine, a trigger or an event.
//!
//! Their bodies are code, which is not translated; the session that each was made in is, and the collations that a view names.

use crate::mysql::manifest::ObjectKind;
use crate::mysql::sql;
use crate::target::mysql::dialect::{Dialect, Findings, SET_MODE, modes, token};

impl Dialect {
    /// Translates a statement of an object.
    pub(in crate::target::mysql) fn statement(&self, kind: ObjectKind, statement: &str) -> String {
        if let Some(modes) = statement.strip_prefix(SET_MODE).and_then(|rest| rest.strip_suffix('\'')) {
            return format!("SET SESSION sql_mode = {}", sql::string(&modes::carried(modes, self.from, self.to)));
        }
        let collation = "SET collation_connection = ";
        if let Some(name) = statement.strip_prefix(collation) {
            return format!("{collation}{}", self.nearest(name));
        }
        if kind == ObjectKind::View || statement.starts_with("ALTER DATABASE ") {
            return self.collated(statement);
        }
        statement.to_owned()
    }

    fn nearest(&self, name: &str) -> String {
        super::collation::nearest(name, &self.abilities.collations).unwrap_or_else(|| name.to_owned())
    }

    /// Returns a statement with the collations that the target has; in the server's own words where it has all.
    fn collated(&self, statement: &str) -> String {
        let mut found = Findings::default();
        let mut tokens = token::tokens(statement, false);
        self.collations(&mut tokens.iter_mut().collect::<Vec<_>>(), &mut found);
        if found.notes.is_empty() { statement.to_owned() } else { token::join(&tokens) }
    }
}
