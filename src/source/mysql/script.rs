//! `restore.sql` and `README.txt`: the whole load with the plain client, for the day on which there is no bkp.

use std::io::{self, Write};

use crate::mysql::manifest::{Manifest, ObjectKind, TableEntry};
use crate::mysql::sql::{ident, qualified};
use crate::source::mysql::objects::{Object, SQL_MODE};
use crate::source::mysql::session::Capabilities;

/// Delimiters to choose from; MySQL 9 reads `$$` as a quote.
const DELIMITERS: [&str; 4] = [";;", "//", "$$", "@@bkp@@"];

/// A definition of a table and its entry in the manifest.
pub(crate) struct TableScript<'a> {
    pub(crate) entry: &'a TableEntry,
    pub(crate) create: &'a str,
}

/// Writes the script that restores the whole dump.
pub(crate) fn write_restore(
    out: &mut dyn Write,
    manifest: &Manifest,
    tables: &[TableScript<'_>],
    objects: &[Object],
    capabilities: &Capabilities,
) -> io::Result<()> {
    writeln!(
        out,
        "-- Restores this dump with the plain client, run in this directory: mysql --local-infile=1 < restore.sql\n\
         -- README.txt says more.\n"
    )?;
    for statement in prologue(capabilities) {
        write_statement(out, &statement)?;
    }
    for schema in &manifest.schemas {
        write_statement(out, &schema.create)?;
    }
    let (first, last): (Vec<_>, Vec<_>) = objects.iter().partition(|object| object.kind == ObjectKind::Sequence);
    write_objects(out, &first)?;
    for table in tables {
        write_statement(out, &format!("USE {}", ident(&table.entry.schema)))?;
        write_statement(out, table.create)?;
    }
    for table in tables {
        for chunk in &table.entry.chunks {
            let place = qualified(&table.entry.schema, &table.entry.name);
            write_statement(out, &load_data(table.entry, &place, &chunk.path))?;
        }
    }
    write_objects(out, &last)?;
    writeln!(out, "SET SESSION foreign_key_checks = 1, unique_checks = 1;\nSELECT 'restored' AS bkp;")
}

fn write_objects(out: &mut dyn Write, objects: &[&Object]) -> io::Result<()> {
    objects.iter().flat_map(|object| &object.statements).try_for_each(|statement| write_statement(out, statement))
}

/// Returns the settings under which rows come back as they were.
fn prologue(capabilities: &Capabilities) -> Vec<String> {
    let mut statements = vec![
        "SET NAMES utf8mb4".to_owned(),
        format!("SET SESSION sql_mode = '{SQL_MODE}'"),
        "SET SESSION time_zone = '+00:00'".to_owned(),
        // With "off" MariaDB 10.6 and newer sort rows that come sorted, which costs more than it spares.
        format!("SET SESSION foreign_key_checks = 0, unique_checks = {}", u8::from(capabilities.is_mariadb())),
    ];
    for (name, value) in [
        ("check_constraint_checks", "0"),
        ("system_versioning_insert_history", "1"),
        ("sql_require_primary_key", "0"),
        ("sql_generate_invisible_primary_key", "0"),
    ] {
        let is_already = capabilities.variable(name).is_some_and(|now| now == "OFF" && value == "0");
        if capabilities.has(name) && !is_already {
            statements.push(format!("SET SESSION {name} = {value}"));
        }
    }
    if capabilities.is_mariadb() {
        // A newer server would give a character set another default collation, which an older one leaves out.
        statements.push("/*M!110201 SET SESSION character_set_collations = '' */".to_owned());
    }
    statements
}

/// Returns the statement that loads one row file into the table that is quoted as `place`.
pub(crate) fn load_data(table: &TableEntry, place: &str, path: &str) -> String {
    let mut fields = Vec::new();
    let mut values = Vec::new();
    for (at, column) in table.columns.iter().enumerate() {
        match &column.load {
            None => fields.push(ident(&column.name)),
            Some(expression) => {
                let variable = format!("@v{at}");
                values.push(format!("{} = {}", ident(&column.name), expression.replace("@v", &variable)));
                fields.push(variable);
            }
        }
    }
    let set = if values.is_empty() { String::new() } else { format!(" SET {}", values.join(", ")) };
    // A path has no character that needs an escape.
    format!(
        "LOAD DATA LOCAL INFILE '{path}' INTO TABLE {place} CHARACTER SET binary FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' \
         LINES TERMINATED BY '\\n' ({}){set}",
        fields.join(", ")
    )
}

/// Writes an object's statements as a script.
pub(crate) fn write_script(out: &mut dyn Write, statements: &[String]) -> io::Result<()> {
    statements.iter().try_for_each(|statement| write_statement(out, statement))
}

/// Writes a statement for the plain client, under a delimiter that it does not contain.
pub(crate) fn write_statement(out: &mut dyn Write, statement: &str) -> io::Result<()> {
    if !statement.contains(';') {
        return writeln!(out, "{statement};");
    }
    let free = DELIMITERS.into_iter().find(|delimiter| !statement.contains(delimiter));
    let delimiter = free.unwrap_or("@@bkp@@bkp@@");
    writeln!(out, "DELIMITER {delimiter}\n{statement}\n{delimiter}\nDELIMITER ;")
}

/// Writes what a person needs to know who has this directory and no bkp.
pub(crate) fn write_readme(out: &mut dyn Write, manifest: &Manifest) -> io::Result<()> {
    let position = manifest.position.as_ref().map_or_else(
        || "none (no binlog, or no right to see it)".to_owned(),
        |position| format!("{}:{}", position.file, position.offset),
    );
    writeln!(
        out,
        "A dump of a {} {} server, true of {} (UTC).\n\
         {} tables, {} rows, {} bytes.\n\
         Binlog position: {position}\n\
         GTID set: {}\n\n\
         To restore it without bkp, into an empty server of the same product and a version as new or newer:\n\n    \
         cd <this directory>\n    mysql --local-infile=1 < restore.sql\n\n\
         The server must allow it (SET GLOBAL local_infile = 1), and the account must be an administrator.\n\
         Give the client --comments to keep comments in routines, --show-warnings to see what did not fit, and\n\
         --binary-mode where routines hold carriage returns.\n\n\
         <schema>/<table>/schema.sql   the table's definition\n\
         <schema>/<table>/*.tsv        its rows: LOAD DATA text in the columns' own character sets, times in UTC\n\
         <schema>/@views ...           views, functions, procedures, packages, triggers, events, sequences\n\
         @users @roles @grants         accounts (existing ones are left alone)\n\
         manifest.json                 columns, key bounds, row counts and SHA-256 of every row file",
        crate::mysql::product::name(manifest.product),
        manifest.version,
        manifest.taken_at.format("%Y-%m-%d %H:%M:%S%.6f"),
        manifest.tables.len(),
        manifest.rows(),
        manifest.bytes(),
        manifest.gtid.as_deref().unwrap_or("none"),
    )
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn script(statement: &str) -> String {
        let mut out = Vec::new();
        write_statement(&mut out, statement).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_statement_gets_a_delimiter_that_it_does_not_contain() {
        assert_eq!(script("SELECT 1"), "SELECT 1;\n");
        assert_eq!(script("BEGIN a; END"), "DELIMITER ;;\nBEGIN a; END\n;;\nDELIMITER ;\n");
        assert_eq!(script("BEGIN a;; END"), "DELIMITER //\nBEGIN a;; END\n//\nDELIMITER ;\n");
    }
}
