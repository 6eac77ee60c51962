//! What a server tells of its schemas, a line for each fact, in words that both products share.

use std::collections::BTreeSet;

use crate::servers::{Product, Server};

/// Of each kind of thing: what is asked of whom, and its columns. The first is the schema, the second what it belongs to.
const KINDS: [(&str, &str, &str); 12] = [
    ("schema", "SCHEMATA", "SCHEMA_NAME, '', DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME"),
    (
        "table",
        "TABLES",
        "TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, ROW_FORMAT, TABLE_COLLATION, AUTO_INCREMENT, TABLE_COMMENT",
    ),
    (
        "column",
        "COLUMNS",
        "TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION, COLUMN_NAME, COLUMN_TYPE, COLLATION_NAME, IS_NULLABLE, COLUMN_DEFAULT, EXTRA, \
         COLUMN_COMMENT, IF(GENERATION_EXPRESSION > '', 'generated', '-')",
    ),
    (
        "index",
        "STATISTICS",
        "TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX, NON_UNIQUE, COLUMN_NAME, COLLATION, SUB_PART, INDEX_TYPE, INDEX_COMMENT, {visible}",
    ),
    (
        "foreign key",
        "REFERENTIAL_CONSTRAINTS AS rule JOIN information_schema.KEY_COLUMN_USAGE AS used \
         USING (CONSTRAINT_SCHEMA, CONSTRAINT_NAME, TABLE_NAME)",
        "CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, used.ORDINAL_POSITION, used.COLUMN_NAME, used.REFERENCED_TABLE_SCHEMA, \
         used.REFERENCED_TABLE_NAME, used.REFERENCED_COLUMN_NAME, rule.UPDATE_RULE, rule.DELETE_RULE",
    ),
    (
        "partition",
        "PARTITIONS",
        "TABLE_SCHEMA, TABLE_NAME, PARTITION_NAME, SUBPARTITION_NAME, PARTITION_METHOD, SUBPARTITION_METHOD, \
         NULLIF(REPLACE(PARTITION_EXPRESSION, '`', ''), ''), REPLACE(SUBPARTITION_EXPRESSION, '`', ''), PARTITION_DESCRIPTION",
    ),
    ("constraint", "TABLE_CONSTRAINTS", "TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_TYPE, CONSTRAINT_NAME"),
    (
        "view",
        "VIEWS",
        "TABLE_SCHEMA, TABLE_NAME, CHECK_OPTION, IS_UPDATABLE, DEFINER, SECURITY_TYPE, CHARACTER_SET_CLIENT",
    ),
    (
        "routine",
        "ROUTINES",
        "ROUTINE_SCHEMA, '', ROUTINE_NAME, ROUTINE_TYPE, DTD_IDENTIFIER, ROUTINE_DEFINITION, IS_DETERMINISTIC, SQL_DATA_ACCESS, \
         SECURITY_TYPE, SQL_MODE, ROUTINE_COMMENT, DEFINER, CHARACTER_SET_CLIENT",
    ),
    (
        "parameter",
        "PARAMETERS",
        "SPECIFIC_SCHEMA, '', SPECIFIC_NAME, ORDINAL_POSITION, PARAMETER_MODE, PARAMETER_NAME, DTD_IDENTIFIER",
    ),
    (
        "trigger",
        "TRIGGERS",
        "TRIGGER_SCHEMA, EVENT_OBJECT_TABLE, TRIGGER_NAME, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER, ACTION_STATEMENT, SQL_MODE, \
         DEFINER, CHARACTER_SET_CLIENT",
    ),
    (
        "event",
        "EVENTS",
        "EVENT_SCHEMA, '', EVENT_NAME, EVENT_DEFINITION, EVENT_TYPE, EXECUTE_AT, INTERVAL_VALUE, INTERVAL_FIELD, STARTS, ENDS, TIME_ZONE, \
         STATUS, ON_COMPLETION, EVENT_COMMENT, SQL_MODE, DEFINER, CHARACTER_SET_CLIENT",
    ),
];

/// What an index is called whose values a query may use.
fn visible(product: Product) -> &'static str {
    match product {
        Product::MariaDb => "IF(IGNORED = 'NO', 'visible', 'hidden')",
        Product::MySql => "IF(IS_VISIBLE = 'YES', 'visible', 'hidden')",
    }
}

/// Returns the facts of all that is not the server's own, but for some tables.
pub(super) fn of(server: &Server, without: &[&str]) -> BTreeSet<String> {
    // MySQL tells for a day what it has told before.
    if server.product() == Product::MySql {
        server.execute("SET GLOBAL information_schema_stats_expiry = 0");
    }
    server.execute("SET GLOBAL time_zone = '+00:00'");
    let mut facts = BTreeSet::new();
    for (kind, from, columns) in KINDS {
        let columns = columns.replace("{visible}", visible(server.product()));
        let schema = columns.split(',').next().unwrap();
        let rows = server.query(&format!(
            "SELECT {columns} FROM information_schema.{from} \
             WHERE {schema} NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema', 'bkp_restore')"
        ));
        let is_told = |row: &Vec<Option<String>>| !row[1].as_deref().is_some_and(|table| without.contains(&table));
        // Of a table that is in one piece, MariaDB tells as of one partition; and MySQL of a view.
        let is_part = |row: &Vec<Option<String>>| kind != "partition" || row[2].is_some();
        let rows = rows.into_iter().filter(|row| is_told(row) && is_part(row));
        facts.extend(rows.map(|row| fact(kind, row)));
    }
    facts
}

/// Expressions are each product's own spelling, and are not told.
fn fact(kind: &str, row: Vec<Option<String>>) -> String {
    let mut words: Vec<String> = row.into_iter().map(|value| value.unwrap_or_else(|| "-".to_owned())).collect();
    match kind {
        "column" => {
            words[4] = sql_type(&words[4]);
            words[7] = default(&words[7], words[8].contains("DEFAULT_GENERATED"));
            words[8] = words[8].replace("DEFAULT_GENERATED", "").replace(',', "").trim().to_lowercase();
        }
        // The same thing: InnoDB checks at once.
        "foreign key" => words[8..].iter_mut().for_each(|rule| *rule = rule.replace("NO ACTION", "RESTRICT")),
        "routine" => {
            words[4] = sql_type(&words[4]);
            words[9] = words[9].replace("ALLOW_INVALID_DATES", "INVALID_DATES");
        }
        "parameter" => words[6] = sql_type(&words[6]),
        _ => {}
    }
    format!("{kind} {}", words.join(" | ")).replace('\n', "\\n")
}

/// Without the widths that MySQL does not tell any more.
fn sql_type(told: &str) -> String {
    let told = told.replace("geomcollection", "geometrycollection");
    let numbers = ["tinyint(", "smallint(", "mediumint(", "int(", "bigint(", "year("];
    match (numbers.iter().any(|name| told.starts_with(name)), told.split_once('('), told.split_once(')')) {
        (true, Some((name, _)), Some((_, rest))) => format!("{name}{rest}"),
        _ => told,
    }
}

/// MariaDB tells what is to be written; MySQL the value, and of an expression elsewhere that it is one.
fn default(told: &str, is_expression: bool) -> String {
    let value = told.strip_prefix('\'').and_then(|told| told.strip_suffix('\''));
    match value {
        Some(value) => value.replace("''", "'"),
        None if told == "NULL" => "-".to_owned(),
        None if is_expression || told.ends_with(')') => {
            told.to_lowercase().replace("current_timestamp()", "current_timestamp")
        }
        None => told.to_owned(),
    }
}
