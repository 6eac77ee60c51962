//! Views, routines, triggers, events and sequences as statements that make them again, in an order that works.

use crate::mysql::manifest::ObjectKind;
use crate::mysql::sql::{ident, qualified, string};
use crate::mysql::wire::Wire;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::inventory::{Exclude, Inventory, Schema};
use crate::source::mysql::layout;
use crate::source::mysql::session::{Capabilities, TextRow, in_list, rows};

/// What a restore's session returns to after each object.
pub(crate) const SQL_MODE: &str = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES";

/// An object and the statements that make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: ObjectKind,
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
    pub(crate) statements: Vec<String>,
    /// It comes after all else: it enables an event that another object has made.
    pub(crate) is_last: bool,
    /// The table of a trigger.
    pub(crate) table: Option<String>,
}

impl Object {
    /// Returns the path of its files without their ending.
    pub(crate) fn path(&self) -> String {
        let kind = match self.kind {
            ObjectKind::Sequence => "sequences",
            ObjectKind::View => "views",
            ObjectKind::Function => "functions",
            ObjectKind::Procedure => "procedures",
            ObjectKind::Package => "packages",
            ObjectKind::Trigger => "triggers",
            ObjectKind::Event if self.is_last => "enable",
            ObjectKind::Event => "events",
            ObjectKind::Role => "roles",
            ObjectKind::User => "users",
            ObjectKind::Grant => "grants",
        };
        layout::object(self.schema.as_deref(), kind, &self.name)
    }
}

/// The session that an object was made in: its text means what it meant there.
#[derive(Debug, Clone, Default)]
struct Setting<'a> {
    sql_mode: Option<&'a str>,
    time_zone: Option<&'a str>,
    collation_connection: &'a str,
    /// The schema's default collation at that time, where it has changed since.
    schema_collation: Option<&'a str>,
}

/// Reads the objects of the schemas, each kind in its turn.
pub(crate) struct ObjectReader<'a> {
    pub(crate) wire: &'a mut Wire,
    pub(crate) inventory: &'a Inventory,
    pub(crate) capabilities: &'a Capabilities,
    pub(crate) exclude: Exclude<'a>,
}

impl ObjectReader<'_> {
    /// Returns the objects in the order in which they can be made: functions before the views that call them, views before the
    /// views that read them. Events are made disabled; those to enable come last.
    pub(crate) fn read(&mut self) -> Result<Vec<Object>, MysqlSourceError> {
        let mut objects = self.sequences()?;
        if self.inventory.schemas.is_empty() {
            return Ok(objects);
        }
        objects.extend(self.routines()?);
        objects.extend(self.views()?);
        objects.extend(self.triggers()?);
        objects.extend(self.events()?);
        Ok(objects)
    }

    fn in_schemas(&self) -> String {
        in_list(self.inventory.schema_names())
    }

    fn schema(&self, name: &str) -> Option<&Schema> {
        self.inventory.schemas.iter().find(|schema| schema.name == name)
    }

    fn show(&mut self, what: &str, schema: &str, name: &str) -> Result<TextRow, MysqlSourceError> {
        let act = format!("read the definition of `{schema}.{name}`");
        let found = rows(self.wire, &act, &format!("SHOW CREATE {what} {}", qualified(schema, name)))?;
        found.into_iter().next().ok_or_else(|| MysqlSourceError::no_definition(&format!("{schema}.{name}")))
    }

    fn sequences(&mut self) -> Result<Vec<Object>, MysqlSourceError> {
        let mut objects = Vec::new();
        for (schema, name) in &self.inventory.sequences {
            let create = self.show("SEQUENCE", schema, name)?.text(1).to_owned();
            let place = qualified(schema, name);
            let act = format!("read the sequence `{schema}.{name}`");
            let statement = format!("SELECT next_not_cached_value, cycle_count FROM {place}");
            let state = rows(self.wire, &act, &statement)?;
            let mut statements = vec![format!("USE {}", ident(schema)), create];
            if let Some(row) = state.first() {
                statements.push(format!("DO SETVAL({place}, {}, 0, {})", row.text(0), row.text(1)));
            }
            objects.push(Object {
                kind: ObjectKind::Sequence,
                schema: Some(schema.clone()),
                name: name.clone(),
                statements,
                is_last: false,
                table: None,
            });
        }
        Ok(objects)
    }

    fn routines(&mut self) -> Result<Vec<Object>, MysqlSourceError> {
        let statement = format!(
            "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES \
             WHERE ROUTINE_SCHEMA {} ORDER BY ROUTINE_SCHEMA, ROUTINE_TYPE, ROUTINE_NAME",
            self.in_schemas()
        );
        let mut objects: Vec<Object> = Vec::new();
        for row in rows(self.wire, "list the routines", &statement)? {
            let (schema, name, what) = (row.text(0), row.text(1), row.text(2));
            if self.exclude.holds(schema, name) {
                continue;
            }
            let found = self.show(what, schema, name)?;
            let create = self.visible(&found, 2, schema, name)?;
            let setting = Setting {
                sql_mode: Some(found.text(1)),
                collation_connection: found.text(4),
                schema_collation: Some(found.text(5)),
                ..Setting::default()
            };
            let statements = self.wrap(schema, &setting, &create);
            let kind = match what {
                "FUNCTION" => ObjectKind::Function,
                "PROCEDURE" => ObjectKind::Procedure,
                _ => ObjectKind::Package,
            };
            // A package's body goes with it.
            let is_body = |object: &&mut Object| {
                what == "PACKAGE BODY" && object.name == name && object.schema.as_deref() == Some(schema)
            };
            match objects.iter_mut().find(is_body).filter(|object| object.kind == ObjectKind::Package) {
                Some(package) => package.statements.extend(statements),
                None => objects.push(Object {
                    kind,
                    schema: Some(schema.to_owned()),
                    name: name.to_owned(),
                    statements,
                    is_last: false,
                    table: None,
                }),
            }
        }
        Ok(objects)
    }

    /// Returns a definition, which is NULL for an account that may not see it.
    fn visible(&self, row: &TextRow, column: usize, schema: &str, name: &str) -> Result<String, MysqlSourceError> {
        let privilege = if self.capabilities.is_mariadb() { "SELECT" } else { "SHOW_ROUTINE" };
        row.option(column).map(str::to_owned).ok_or_else(|| MysqlSourceError::Privilege {
            what: format!("the right to see the definition of `{schema}.{name}`"),
            grant: format!("GRANT {privilege} ON *.* TO <the account of bkp>"),
        })
    }

    fn views(&mut self) -> Result<Vec<Object>, MysqlSourceError> {
        let mut views = Vec::new();
        for (schema, name) in &self.inventory.views {
            let found = self.show("VIEW", schema, name)?;
            let setting = Setting { collation_connection: found.text(3), ..Setting::default() };
            views.push(Object {
                kind: ObjectKind::View,
                schema: Some(schema.clone()),
                name: name.clone(),
                statements: self.wrap(schema, &setting, found.text(1)),
                is_last: false,
                table: None,
            });
        }
        Ok(by_dependency(views))
    }

    fn triggers(&mut self) -> Result<Vec<Object>, MysqlSourceError> {
        let statement = format!(
            "SELECT TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS \
             WHERE TRIGGER_SCHEMA {} ORDER BY TRIGGER_SCHEMA, EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER",
            self.in_schemas()
        );
        let mut objects = Vec::new();
        for row in rows(self.wire, "list the triggers", &statement)? {
            let (schema, name) = (row.text(0), row.text(1));
            if self.exclude.holds(schema, row.text(2)) {
                continue;
            }
            let found = self.show("TRIGGER", schema, name)?;
            let setting = Setting {
                sql_mode: Some(found.text(1)),
                collation_connection: found.text(4),
                schema_collation: Some(found.text(5)),
                ..Setting::default()
            };
            objects.push(Object {
                kind: ObjectKind::Trigger,
                schema: Some(schema.to_owned()),
                name: name.to_owned(),
                statements: self.wrap(schema, &setting, &self.visible(&found, 2, schema, name)?),
                is_last: false,
                table: Some(row.text(2).to_owned()),
            });
        }
        Ok(objects)
    }

    fn events(&mut self) -> Result<Vec<Object>, MysqlSourceError> {
        let statement = format!(
            "SELECT EVENT_SCHEMA, EVENT_NAME, STATUS, DEFINER FROM information_schema.EVENTS \
             WHERE EVENT_SCHEMA {} ORDER BY EVENT_SCHEMA, EVENT_NAME",
            self.in_schemas()
        );
        let (mut made, mut enabled) = (Vec::new(), Vec::new());
        for row in rows(self.wire, "list the events", &statement)? {
            let (schema, name) = (row.text(0), row.text(1));
            if self.exclude.holds(schema, name) {
                continue;
            }
            let found = self.show("EVENT", schema, name)?;
            let setting = Setting {
                sql_mode: Some(found.text(1)),
                time_zone: Some(found.text(2)),
                collation_connection: found.text(5),
                schema_collation: Some(found.text(6)),
            };
            let create = disabled(&self.visible(&found, 3, schema, name)?, name);
            let event = |is_last, statements| Object {
                kind: ObjectKind::Event,
                schema: Some(schema.to_owned()),
                name: name.to_owned(),
                statements,
                is_last,
                table: None,
            };
            made.push(event(false, self.wrap(schema, &setting, &create)));
            if row.text(2) == "ENABLED" {
                let definer = row.text(3).rsplit_once('@').unwrap_or((row.text(3), "%"));
                let definer = crate::mysql::sql::account(definer.0, definer.1);
                let enable = format!("ALTER DEFINER={definer} EVENT {} ENABLE", qualified(schema, name));
                enabled.push(event(true, self.wrap(schema, &setting, &enable)));
            }
        }
        made.extend(enabled);
        Ok(made)
    }

    /// Puts a definition into the session that it was made in.
    fn wrap(&self, schema: &str, setting: &Setting<'_>, create: &str) -> Vec<String> {
        let now = self.schema(schema).map_or("", |schema| schema.collation.as_str());
        let other = setting.schema_collation.filter(|then| !then.is_empty() && *then != now);
        let mut statements = vec![format!("USE {}", ident(schema))];
        let collate = |collation: &str| format!("ALTER DATABASE {} COLLATE {collation}", ident(schema));
        statements.extend(other.map(collate));
        statements.extend(setting.enter());
        statements.push(create.to_owned());
        statements.extend(setting.leave());
        statements.extend(other.map(|_| collate(now)));
        statements
    }
}

impl Setting<'_> {
    fn enter(&self) -> Vec<String> {
        let mut statements = vec!["SET NAMES utf8mb4".to_owned()];
        if !self.collation_connection.is_empty() {
            statements.push(format!("SET collation_connection = {}", self.collation_connection));
        }
        statements.extend(self.sql_mode.map(|mode| format!("SET SESSION sql_mode = {}", string(mode))));
        statements.extend(self.time_zone.map(|zone| format!("SET SESSION time_zone = {}", string(zone))));
        statements
    }

    fn leave(&self) -> Vec<String> {
        let mut statements = vec!["SET NAMES utf8mb4".to_owned()];
        statements.extend(self.sql_mode.map(|_| format!("SET SESSION sql_mode = {}", string(SQL_MODE))));
        statements.extend(self.time_zone.map(|_| "SET SESSION time_zone = '+00:00'".to_owned()));
        statements
    }
}

/// Puts views behind those that they name. A cycle, which only a name in a text can make, stays as it is.
fn by_dependency(views: Vec<Object>) -> Vec<Object> {
    let names: Vec<String> =
        views.iter().map(|view| qualified(view.schema.as_deref().unwrap_or_default(), &view.name)).collect();
    let needs = |at: usize| {
        let text = views[at].statements.join("\n");
        (0..names.len()).filter(|other| *other != at && text.contains(&names[*other])).collect::<Vec<_>>()
    };
    let mut order = Vec::new();
    let mut seen = vec![false; views.len()];
    // A stack of its own: views may stand on views a thousand deep.
    for root in 0..views.len() {
        let mut stack = vec![(root, false)];
        while let Some((at, is_left)) = stack.pop() {
            if is_left {
                order.push(at);
            } else if !std::mem::replace(&mut seen[at], true) {
                stack.push((at, true));
                stack.extend(needs(at).into_iter().rev().map(|other| (other, false)));
            }
        }
    }
    let mut views: Vec<Option<Object>> = views.into_iter().map(Some).collect();
    order.into_iter().filter_map(|at| views[at].take()).collect()
}

/// Returns an event's definition with DISABLE for ENABLE. The words stand after the schedule, behind the name.
fn disabled(create: &str, name: &str) -> String {
    let after_name = create.find(&ident(name)).map_or(0, |at| at + ident(name).len());
    let (head, tail) = create.split_at(after_name);
    for completion in [" ON COMPLETION NOT PRESERVE", " ON COMPLETION PRESERVE"] {
        if let Some(at) = tail.find(completion) {
            let (schedule, rest) = tail.split_at(at + completion.len());
            if let Some(rest) = rest.strip_prefix(" ENABLE") {
                return format!("{head}{schedule} DISABLE{rest}");
            }
            return create.to_owned();
        }
    }
    create.to_owned()
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn view(name: &str, body: &str) -> Object {
        Object {
            kind: ObjectKind::View,
            schema: Some("s".to_owned()),
            name: name.to_owned(),
            statements: vec![format!("CREATE VIEW `s`.`{name}` AS {body}")],
            is_last: false,
            table: None,
        }
    }

    #[test]
    fn views_come_after_the_views_that_they_read() {
        let views = vec![
            view("a", "select 1 from `s`.`c`"),
            view("b", "select 1 from `s`.`a` join `s`.`c`"),
            view("c", "select 's' from `s`.`t`"),
            view("d", "select '`s`.`e`'"),
            view("e", "select '`s`.`d`'"),
        ];
        let names: Vec<String> = by_dependency(views).into_iter().map(|view| view.name).collect();
        assert_eq!(names, ["c", "a", "b", "e", "d"]);
    }

    #[test]
    fn an_event_is_made_disabled() {
        let create = "CREATE DEFINER=`root`@`%` EVENT ` ENABLE` ON SCHEDULE EVERY 1 DAY STARTS '2026-01-01 00:00:00' \
                      ON COMPLETION NOT PRESERVE ENABLE COMMENT 'ON COMPLETION PRESERVE ENABLE' DO SELECT 1";
        let expected = "CREATE DEFINER=`root`@`%` EVENT ` ENABLE` ON SCHEDULE EVERY 1 DAY STARTS '2026-01-01 00:00:00' \
                        ON COMPLETION NOT PRESERVE DISABLE COMMENT 'ON COMPLETION PRESERVE ENABLE' DO SELECT 1";
        assert_eq!(disabled(create, " ENABLE"), expected);
        let on_replica = create.replace("PRESERVE ENABLE C", "PRESERVE DISABLE ON SLAVE C");
        assert_eq!(disabled(&on_replica, " ENABLE"), on_replica);
    }
}
