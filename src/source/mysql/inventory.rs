//! What there is to dump: schemas, tables, their columns, and the key that each is read by.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Events;
use crate::mysql::manifest::Column;
use crate::mysql::wire::Wire;
use crate::policy;
use crate::source::mysql::error::MysqlSourceError;
use crate::source::mysql::key::{Direction, IndexPart, Key};
use crate::source::mysql::session::{Capabilities, TextRow, each_row, in_list, rows};

/// Schemas that belong to the server, and one of ours: `bkp_standby` tells a server what it is, and would tell so whatever it is restored to.
pub(crate) const SYSTEM_SCHEMAS: [&str; 5] =
    ["information_schema", "mysql", "performance_schema", "sys", "bkp_standby"];

/// Engines with read views that a consistent snapshot opens.
pub(crate) const TRANSACTIONAL: [&str; 3] = ["INNODB", "ROCKSDB", "TOKUDB"];

/// Engines whose rows are not theirs: only the definition is dumped.
pub(crate) const HOLLOW: [&str; 6] = ["MRG_MYISAM", "FEDERATED", "BLACKHOLE", "CONNECT", "SPIDER", "SEQUENCE"];

/// A column as the server describes it.
#[derive(Debug, Clone)]
pub(crate) struct ColumnInfo {
    pub(crate) name: String,
    pub(crate) data_type: String,
    pub(crate) sql_type: String,
    pub(crate) charset: Option<String>,
    pub(crate) collation: Option<String>,
    /// Empty for a column that holds a value of its own.
    pub(crate) generated: String,
}

impl ColumnInfo {
    /// Returns how the row file's text becomes the value, where the text alone does not do: these types take a binary text
    /// for something else (raw UUID bytes) or refuse it (JSON).
    fn load(&self, capabilities: &Capabilities) -> Option<String> {
        let takes_text = match self.data_type.as_str() {
            "json" => !capabilities.is_mariadb(),
            "uuid" | "inet6" | "inet4" => true,
            _ => false,
        };
        takes_text.then(|| "CONVERT(@v USING utf8mb4)".to_owned())
    }
}

/// A table to dump.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) engine: String,
    /// The row's history is dumped with it (MariaDB's system versioning).
    pub(crate) has_history: bool,
    /// It has a history that cannot be loaded again, and the dump holds the rows of today only.
    pub(crate) history_lost: bool,
    pub(crate) columns: Vec<Column>,
    pub(crate) key: Option<Key>,
    /// What the server believes the table to hold, in bytes.
    pub(crate) bytes_estimate: u64,
    pub(crate) row_bytes_estimate: u64,
}

impl Table {
    /// Returns the name for people.
    pub(crate) fn title(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    pub(crate) fn place(&self) -> (&str, &str) {
        (&self.schema, &self.name)
    }

    /// Tells whether both are read and loaded alike; how large they are may differ.
    fn is_shaped_as(&self, other: &Self) -> bool {
        self.place() == other.place()
            && self.engine == other.engine
            && self.has_history == other.has_history
            && self.columns == other.columns
            && self.key == other.key
    }

    pub(crate) fn is_transactional(&self) -> bool {
        TRANSACTIONAL.contains(&self.engine.to_ascii_uppercase().as_str())
    }

    pub(crate) fn is_hollow(&self) -> bool {
        is_hollow(&self.engine)
    }
}

/// Tells whether tables of an engine keep their rows elsewhere, or none.
pub(crate) fn is_hollow(engine: &str) -> bool {
    HOLLOW.contains(&engine.to_ascii_uppercase().as_str())
}

/// A schema to dump.
#[derive(Debug, Clone)]
pub(crate) struct Schema {
    pub(crate) name: String,
    pub(crate) collation: String,
}

/// What a table that was not there before means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum New {
    /// The read views may see it and the dump would lack it.
    Refused,
    /// It came after the read views.
    Fine,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Inventory {
    pub(crate) schemas: Vec<Schema>,
    /// Largest first.
    pub(crate) tables: Vec<Table>,
    /// Schema and name.
    pub(crate) sequences: Vec<(String, String)>,
    pub(crate) views: Vec<(String, String)>,
    /// Views that the server itself cannot read, and what it says of each.
    pub(crate) invalid_views: Vec<(String, String)>,
    /// The first table without a column, and what the server says of it: its engine is not loaded, its definition is damaged, or
    /// the account may not see it.
    pub(crate) unreadable: Option<(String, String)>,
}

impl Inventory {
    /// Lists what the policy wants of the server.
    pub(crate) fn list(
        wire: &mut Wire,
        capabilities: &Capabilities,
        schemas: &[String],
        exclude: &[String],
    ) -> Result<Self, MysqlSourceError> {
        let schemas = list_schemas(wire, schemas)?;
        let mut inventory = Self { schemas, ..Self::default() };
        if inventory.schemas.is_empty() {
            return Ok(inventory);
        }
        let list = in_list(inventory.schemas.iter().map(|schema| schema.name.as_str()));
        let mut described = inventory.list_tables(wire, &list, &Exclude(exclude))?;
        let mut indexes = read_indexes(wire, &list)?;
        let tables = &mut inventory.tables;
        each_table(wire, &list, |place, columns| {
            if let Some(row) = described.remove(&place) {
                let indexes = indexes.remove(&place).unwrap_or_default();
                tables.push(table(&row, place, &columns, &indexes, capabilities));
            }
        })?;
        inventory.unreadable =
            described.pop_first().map(|((schema, name), row)| (format!("{schema}.{name}"), row.text(6).to_owned()));
        inventory.tables.sort_by(|a, b| {
            let size = b.bytes_estimate.cmp(&a.bytes_estimate);
            size.then_with(|| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)))
        });
        Ok(inventory)
    }

    /// Refuses a table that the server lists and cannot open: nobody would miss it until it is to be restored.
    pub(crate) fn check_readable(&self) -> Result<(), MysqlSourceError> {
        match self.unreadable.clone() {
            Some((table, comment)) => Err(MysqlSourceError::Unreadable { table, comment }),
            None => Ok(()),
        }
    }

    /// Lists views and sequences, and returns how the server describes the tables.
    fn list_tables(
        &mut self,
        wire: &mut Wire,
        list: &str,
        exclude: &Exclude<'_>,
    ) -> Result<BTreeMap<Place, TextRow>, MysqlSourceError> {
        let statement = format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, DATA_LENGTH, AVG_ROW_LENGTH, TABLE_COMMENT \
             FROM information_schema.TABLES WHERE TABLE_SCHEMA {list} ORDER BY TABLE_SCHEMA, TABLE_NAME"
        );
        let mut tables = BTreeMap::new();
        each_row(wire, "list the tables", &statement, |row| {
            let place = (row.text(0).to_owned(), row.text(1).to_owned());
            match row.text(2) {
                _ if exclude.holds(&place.0, &place.1) => {}
                "VIEW" | "SYSTEM VIEW" => self.add_view(place, row.text(6)),
                "SEQUENCE" => self.sequences.push(place),
                _ => {
                    tables.insert(place, row);
                }
            }
        })?;
        Ok(tables)
    }

    fn add_view(&mut self, place: Place, comment: &str) {
        // The server's word about a view that it cannot open; one about our own rights to run it is no fault of the view.
        if comment.contains("references invalid") {
            self.invalid_views.push((format!("{}.{}", place.0, place.1), comment.to_owned()));
        }
        self.views.push(place);
    }

    /// Says what of the tables no dump holds.
    pub(crate) fn warn_of_losses(&self, events: &Events) {
        for table in self.tables.iter().filter(|table| table.history_lost) {
            events.warn(format!(
                "`{}` is versioned by transactions: its history cannot be loaded again and is not in the dump",
                table.title()
            ));
        }
        for (view, problem) in &self.invalid_views {
            events.warn(format!("the view `{view}` is broken on the server and will be after a restore: {problem}"));
        }
        for table in self.tables.iter().filter(|table| table.is_hollow()) {
            events.warn(format!(
                "`{}` keeps its rows elsewhere ({}): only its definition is in the dump",
                table.title(),
                table.engine
            ));
        }
    }

    /// Tells whether the dump holds a table, view or sequence of this name, whatever its case.
    pub(crate) fn has(&self, schema: &str, name: &str) -> bool {
        let is_it = |place: (&str, &str)| place.0.eq_ignore_ascii_case(schema) && place.1.eq_ignore_ascii_case(name);
        let others = self.views.iter().chain(&self.sequences).map(|(schema, name)| (schema.as_str(), name.as_str()));
        self.tables.iter().map(Table::place).chain(others).any(is_it)
    }

    /// Returns the tables that no read view holds still.
    pub(crate) fn unprotected(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|table| !table.is_transactional() && !table.is_hollow())
    }

    /// Returns the first table that is not as it was, or has gone, or has come where that counts.
    pub(crate) fn changed(&self, now: &Self, new: New) -> Option<String> {
        let shapes: BTreeMap<_, &Table> = now.tables.iter().map(|table| (table.place(), table)).collect();
        let is_other = |table: &&Table| shapes.get(&table.place()).is_none_or(|now| !now.is_shaped_as(table));
        let known: BTreeSet<_> = self.tables.iter().map(Table::place).collect();
        let is_new = |table: &&Table| new == New::Refused && !known.contains(&table.place());
        let changed = self.tables.iter().find(is_other).or_else(|| now.tables.iter().find(is_new));
        changed.map(Table::title)
    }

    pub(crate) fn schema_names(&self) -> impl Iterator<Item = &str> {
        self.schemas.iter().map(|schema| schema.name.as_str())
    }
}

fn list_schemas(wire: &mut Wire, wanted: &[String]) -> Result<Vec<Schema>, MysqlSourceError> {
    let statement = "SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA ORDER BY SCHEMA_NAME";
    let found = rows(wire, "list the schemas", statement)?;
    if let Some(schema) = wanted.iter().find(|name| !found.iter().any(|row| row.text(0) == name.as_str())) {
        return Err(MysqlSourceError::UnknownSchema { schema: schema.clone() });
    }
    let is_wanted = |row: &&TextRow| {
        if wanted.is_empty() {
            !SYSTEM_SCHEMAS.contains(&row.text(0).to_ascii_lowercase().as_str())
        } else {
            wanted.iter().any(|name| name == row.text(0))
        }
    };
    let schema = |row: &TextRow| Schema { name: row.text(0).to_owned(), collation: row.text(1).to_owned() };
    Ok(found.iter().filter(is_wanted).map(schema).collect())
}

/// The policy's `schema.table` and `schema.*`.
pub(crate) struct Exclude<'a>(pub(crate) &'a [String]);

impl Exclude<'_> {
    pub(crate) fn holds(&self, schema: &str, name: &str) -> bool {
        self.0.iter().any(|pattern| policy::names_table(pattern, schema, name))
    }
}

/// A schema and a name in it.
type Place = (String, String);

/// The unique indexes of a table, by name.
type Indexes = BTreeMap<String, Vec<IndexPart>>;

/// Hands on the columns of each table, one table after the other: of a hundred thousand tables, nobody wants to hold all.
fn each_table(
    wire: &mut Wire,
    list: &str,
    mut take: impl FnMut(Place, Vec<ColumnInfo>),
) -> Result<(), MysqlSourceError> {
    // As bytes: by its collation the server takes names that differ in case alone for one.
    let statement = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, \
         GENERATION_EXPRESSION FROM information_schema.COLUMNS WHERE TABLE_SCHEMA {list} \
         ORDER BY CAST(TABLE_SCHEMA AS BINARY), CAST(TABLE_NAME AS BINARY), ORDINAL_POSITION"
    );
    let mut open: Option<(Place, Vec<ColumnInfo>)> = None;
    each_row(wire, "list the columns", &statement, |row| {
        if let Some((place, columns)) =
            open.take_if(|(place, _)| (place.0.as_str(), place.1.as_str()) != (row.text(0), row.text(1)))
        {
            take(place, columns);
        }
        let place = || (row.text(0).to_owned(), row.text(1).to_owned());
        open.get_or_insert_with(|| (place(), Vec::new())).1.push(ColumnInfo {
            name: row.text(2).to_owned(),
            data_type: row.text(3).to_ascii_lowercase(),
            sql_type: row.text(4).to_owned(),
            charset: row.option(5).map(str::to_owned),
            collation: row.option(6).map(str::to_owned),
            generated: row.text(7).to_owned(),
        });
    })?;
    if let Some((place, columns)) = open {
        take(place, columns);
    }
    Ok(())
}

fn read_indexes(wire: &mut Wire, list: &str) -> Result<BTreeMap<Place, Indexes>, MysqlSourceError> {
    let statement = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, NULLABLE, COLLATION, {} \
         FROM information_schema.STATISTICS WHERE TABLE_SCHEMA {list} AND NON_UNIQUE = 0 \
         ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX",
        usable_index(wire)?
    );
    let mut indexes: BTreeMap<Place, Indexes> = BTreeMap::new();
    each_row(wire, "list the indexes", &statement, |row| {
        let of_table = indexes.entry((row.text(0).to_owned(), row.text(1).to_owned())).or_default();
        of_table.entry(row.text(2).to_owned()).or_default().push(IndexPart {
            column: row.option(3).map(str::to_owned),
            is_whole: row.option(4).is_none(),
            is_nullable: row.text(5) == "YES",
            direction: match row.text(6) {
                "A" => Some(Direction::Up),
                "D" => Some(Direction::Down),
                _ => None,
            },
            is_usable: row.text(7) == "1",
        });
    })?;
    Ok(indexes)
}

fn table(row: &TextRow, place: Place, columns: &[ColumnInfo], indexes: &Indexes, capabilities: &Capabilities) -> Table {
    let is_versioned = row.text(2) == "SYSTEM VERSIONED";
    let history = is_versioned.then(|| history_columns(columns)).flatten();
    let is_dumped = |column: &&ColumnInfo| column.generated.is_empty() || (history.is_some() && is_row_time(column));
    let mut dumped: Vec<ColumnInfo> = columns.iter().filter(is_dumped).cloned().collect();
    if history == Some(Implicit::Yes) {
        dumped.extend(["row_start", "row_end"].map(row_time));
    }
    let key = Key::choose(indexes, &dumped, columns);
    let row_end = dumped.iter().find(|column| column.generated == "ROW END").map(|column| column.name.clone());
    Table {
        engine: row.text(3).to_owned(),
        has_history: history.is_some(),
        history_lost: is_versioned && history.is_none(),
        key: key.and_then(|key| key.with_history(row_end.as_deref())),
        columns: dumped.iter().map(|column| manifest_column(column, capabilities)).collect(),
        bytes_estimate: row.number(4),
        row_bytes_estimate: row.number(5),
        schema: place.0,
        name: place.1,
    }
}

fn manifest_column(column: &ColumnInfo, capabilities: &Capabilities) -> Column {
    Column { name: column.name.clone(), sql_type: column.sql_type.clone(), load: column.load(capabilities) }
}

/// Returns the expression that is 1 for an index that a statement may be forced to use.
fn usable_index(wire: &mut Wire) -> Result<&'static str, MysqlSourceError> {
    let statement = "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'information_schema' \
                     AND TABLE_NAME = 'STATISTICS' AND COLUMN_NAME IN ('IS_VISIBLE', 'IGNORED')";
    let found: BTreeSet<String> =
        rows(wire, "list the indexes", statement)?.iter().map(|row| row.text(0).to_ascii_uppercase()).collect();
    Ok(if found.contains("IS_VISIBLE") {
        "IS_VISIBLE = 'YES'"
    } else if found.contains("IGNORED") {
        "IGNORED = 'NO'"
    } else {
        "1"
    })
}

/// Whether the two columns of a row's life are only there when named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Implicit {
    Yes,
    No,
}

/// Tells how a versioned table's history is dumped; `None` where it cannot be loaded again, because transactions and not
/// times say when a row lived.
fn history_columns(columns: &[ColumnInfo]) -> Option<Implicit> {
    let mut times = columns.iter().filter(|column| is_row_time(column)).peekable();
    if times.peek().is_none() {
        return Some(Implicit::Yes);
    }
    times.all(|column| column.data_type == "timestamp").then_some(Implicit::No)
}

fn is_row_time(column: &ColumnInfo) -> bool {
    matches!(column.generated.as_str(), "ROW START" | "ROW END")
}

fn row_time(name: &str) -> ColumnInfo {
    ColumnInfo {
        name: name.to_owned(),
        data_type: "timestamp".to_owned(),
        sql_type: "timestamp(6)".to_owned(),
        charset: None,
        collation: None,
        generated: name.replace('_', " ").to_ascii_uppercase(),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn excluded_names_are_whole_names() {
        let patterns = ["mall.logs".to_owned(), "tmp.*".to_owned()];
        let exclude = Exclude(&patterns);
        assert!(exclude.holds("mall", "logs") && exclude.holds("tmp", "anything"));
        assert!(!exclude.holds("mall", "logs2") && !exclude.holds("mall2", "logs") && !exclude.holds("tmp2", "x"));
    }
}
