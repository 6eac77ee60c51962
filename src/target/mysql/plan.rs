//! What a load will do, as a value: computed before anything is changed, and shown by a dry run.

mod conflicts;
mod first;
mod fit;
mod names;
mod objects;
mod zones;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::human;
use crate::mysql::manifest::{Consistency, Manifest, ObjectEntry, ObjectKind, Product, SchemaEntry, TableEntry};
use crate::mysql::product;
use crate::mysql::sql;
use crate::target::mysql::LoadError;
use crate::target::mysql::dialect::{self, Dialect, Edition};
use crate::target::mysql::plan::conflicts::conflicts;
use crate::target::mysql::plan::objects::objects;
use crate::target::mysql::progress::{Progress, Step};
use crate::target::mysql::session::Session;
use crate::target::mysql::state::{Holding, TargetState};

pub use fit::{Change, Refused};
pub use names::{Names, TableName};
pub(super) use objects::describe;
pub(crate) use objects::is_selected;

/// What of a dump is to be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// `(schema, table)`; `None`: all tables, and every other object with them.
    pub tables: Option<Vec<(String, String)>>,
    /// Users, roles and grants too (never with a selection of tables).
    pub accounts: bool,
    /// What comes under another name. `tables` are names of the dump.
    #[serde(skip_serializing_if = "Names::is_empty")]
    pub names: Names,
}

impl Selection {
    #[must_use]
    pub fn everything() -> Self {
        Self { tables: None, accounts: true, names: Names::default() }
    }

    /// Returns the selection in the names of the target.
    fn renamed(&self) -> Self {
        let tables = self.tables.iter().flatten().map(|(schema, table)| self.names.of(schema, table));
        Self { tables: self.tables.as_ref().map(|_| tables.collect()), ..self.clone() }
    }

    /// Tells whether a table is to be loaded.
    pub(crate) fn has(&self, schema: &str, table: &str) -> bool {
        let is_it = |(s, t): &(String, String)| s == schema && t == table;
        self.tables.as_ref().is_none_or(|tables| tables.iter().any(is_it))
    }
}

/// The plan of a load.
#[derive(Debug, Clone, Serialize)]
pub struct LoadPlan {
    /// Names manifest and selection; a load that was interrupted goes on under the same token only.
    pub token: String,
    /// The snapshot that the dump lies in, where the caller says so; kept on the target for who must go on with the load.
    pub snapshot: Option<String>,
    /// The target holds the beginning of this very load.
    pub resumes: bool,
    /// Product and version, for people.
    pub target: String,
    pub schemas: Vec<SchemaStep>,
    pub tables: Vec<TableStep>,
    /// In the order in which they are made.
    pub objects: Vec<ObjectStep>,
    /// What is dropped first, because its name is needed and overwriting was asked for.
    pub drops: Vec<Drop>,
    /// What the dump holds and the target will not get, with the reason.
    pub omitted: Vec<Omitted>,
    /// Tables that the target cannot hold: the restore is incomplete without them.
    pub refused: Vec<Refused>,
    /// What is not on the target as it was in the source.
    pub changes: Vec<Change>,
    /// What an operator should know before saying yes.
    pub notes: Vec<String>,
    /// How the statements of objects are said on the target; `None`: as the dump says them.
    #[serde(skip)]
    pub(super) dialect: Option<Dialect>,
    #[serde(skip)]
    pub(super) dumped_mode: String,
    #[serde(skip)]
    pub(super) session: Session,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaStep {
    pub name: String,
    pub create: String,
    /// It is there already, and only its defaults may change.
    pub exists: bool,
    /// It is there and holds things of its own: its defaults stay.
    pub is_used: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct TableStep {
    pub table: TableEntry,
    /// A chunk is a transaction. Without, the table is loaded in one go and starts over after an interruption.
    pub is_transactional: bool,
    pub stage: Stage,
    /// It stands beside the tables that are there, and nothing binds it to them: no foreign key comes with it.
    pub is_beside: bool,
    /// Its schema bears another name: its foreign keys into other schemas, which may be live ones, stay behind.
    pub is_moved: bool,
    /// Its place among the tables that come before all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// Its definition in the words of the target, where the dump's own do not do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// Its rows can be read in the order in which they were dumped, and so be compared with the snapshot.
    pub is_comparable: bool,
    /// Indexes of the chunks that are still to load.
    pub pending: Vec<usize>,
}

/// How far an interrupted load has come with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Untouched,
    /// It was about to be created, or is half full without transactions: what bears its name is ours and starts over.
    Begun,
    Created,
    /// Rows and indexes are there.
    Finished,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectStep {
    pub object: ObjectEntry,
    pub making: Making,
}

/// What the statements of an object do to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Making {
    Creates,
    /// An interrupted load was about to create it: what bears its name is dropped first.
    Recreates,
    /// They finish what another object of the dump has created: they enable an event.
    Alters,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Drop {
    pub schema: String,
    pub name: String,
    pub holding: Holding,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Omitted {
    pub what: String,
    pub why: String,
}

impl LoadPlan {
    /// Plans the load of a dump into a target as it was found.
    ///
    /// # Errors
    /// When the target cannot take it: it holds some of it already (and `overwrite` was not asked for), is in the middle of another
    /// load, refuses `LOAD DATA LOCAL`, or cannot tell two of its names apart; or when a selected table or a schema with another
    /// name is not in the dump.
    pub fn new(
        manifest: &Manifest,
        selection: &Selection,
        state: &TargetState,
        overwrite: bool,
    ) -> Result<Self, LoadError> {
        check_selection(manifest, selection)?;
        let token = token(manifest, selection);
        let (manifest, selection) = (&*renamed(manifest, &selection.names)?, &selection.renamed());
        check_target(manifest, selection, state)?;
        let progress = own_progress(&token, state, overwrite)?;
        let tables = tables(manifest, selection, progress);
        let (objects, omitted) = objects(manifest, selection, state, progress);
        let drops = conflicts(&tables, &objects, state);
        if !drops.is_empty() && !overwrite {
            return Err(LoadError::NotEmpty { holdings: drops });
        }
        Ok(Self {
            token,
            snapshot: None,
            resumes: progress.is_some(),
            target: format!("{} {}", product::name(state.product), state.version),
            schemas: schemas(manifest, &tables, &objects, state),
            notes: notes(manifest, selection, state),
            refused: Vec::new(),
            changes: Vec::new(),
            dialect: None,
            tables,
            objects,
            drops,
            omitted,
            dumped_mode: dialect::carried(
                manifest.variables.get("sql_mode").map_or("", String::as_str),
                edition(manifest.product, &manifest.version),
                edition(state.product, &state.version),
            ),
            session: state.session.clone(),
        })
    }

    /// Returns the plain bytes of the row files that are still to load.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pending(|table, chunk| table.chunks[chunk].bytes)
    }

    /// Returns the rows that are still to load.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.pending(|table, chunk| table.chunks[chunk].rows)
    }

    /// Returns the tables whose rows can be read in the order in which they were dumped.
    pub fn comparable(&self) -> impl Iterator<Item = &TableStep> {
        self.tables.iter().filter(|step| step.is_comparable)
    }

    /// Names the tables of the dump whose rows cannot be set beside it, however well they come, each with the reason.
    #[must_use]
    pub fn uncompared(&self) -> Vec<(String, &'static str)> {
        let others = self.tables.iter().filter(|step| !step.is_comparable);
        let others =
            others.map(|TableStep { table, .. }| (&table.schema, &table.name, "its key sorts otherwise on the target"));
        let refused = self.refused.iter().map(|refused| (&refused.schema, &refused.table, "it was left out"));
        others.chain(refused).map(|(schema, name, why)| (sql::qualified(schema, name), why)).collect()
    }

    fn pending(&self, count: impl Fn(&TableEntry, usize) -> u64) -> u64 {
        let steps = self.tables.iter();
        steps.flat_map(|step| step.pending.iter().map(|chunk| count(&step.table, *chunk))).sum()
    }
}

/// Returns the manifest in the names of the target.
fn renamed<'a>(manifest: &'a Manifest, names: &Names) -> Result<Cow<'a, Manifest>, LoadError> {
    if names.is_empty() { Ok(Cow::Borrowed(manifest)) } else { names.apply(manifest).map(Cow::Owned) }
}

fn check_selection(manifest: &Manifest, selection: &Selection) -> Result<(), LoadError> {
    for (schema, table) in selection.tables.iter().flatten() {
        let is_it = |entry: &TableEntry| entry.schema == *schema && entry.name == *table;
        if !manifest.tables.iter().any(is_it) {
            return Err(LoadError::NotInDump { table: sql::qualified(schema, table) });
        }
    }
    Ok(())
}

fn check_target(manifest: &Manifest, selection: &Selection, state: &TargetState) -> Result<(), LoadError> {
    if !state.local_infile {
        return Err(LoadError::LocalInfileOff);
    }
    if state.lower_case_table_names == 0 {
        return Ok(());
    }
    let mut seen = BTreeMap::new();
    for table in manifest.tables.iter().filter(|table| selection.has(&table.schema, &table.name)) {
        let name = sql::qualified(&table.schema, &table.name);
        if let Some(other) = seen.insert(name.to_lowercase(), name.clone()) {
            return Err(LoadError::NamesCollide { one: other, other: name });
        }
    }
    Ok(())
}

fn token(manifest: &Manifest, selection: &Selection) -> String {
    let mut hash = Sha256::new();
    // Plain structs of text and numbers: they serialize.
    hash.update(serde_json::to_vec(manifest).unwrap_or_default());
    hash.update(serde_json::to_vec(selection).unwrap_or_default());
    hex::encode(hash.finalize())
}

fn own_progress<'a>(token: &str, state: &'a TargetState, overwrite: bool) -> Result<Option<&'a Progress>, LoadError> {
    match &state.progress {
        Some(progress) if progress.token == token => Ok(Some(progress)),
        Some(progress) if !overwrite => Err(LoadError::OtherLoad { snapshot: progress.snapshot.clone() }),
        _ => Ok(None),
    }
}

/// Engines whose transactions cover rows and progress alike.
const TRANSACTIONAL: [&str; 4] = ["innodb", "rocksdb", "tokudb", "ndbcluster"];

fn tables(manifest: &Manifest, selection: &Selection, progress: Option<&Progress>) -> Vec<TableStep> {
    let selected = manifest.tables.iter().filter(|table| selection.has(&table.schema, &table.name));
    selected.map(|table| table_step(table, &selection.names, progress)).collect()
}

fn table_step(table: &TableEntry, names: &Names, progress: Option<&Progress>) -> TableStep {
    let is_transactional = TRANSACTIONAL.contains(&table.engine.to_lowercase().as_str());
    let stage = stage(table, is_transactional, progress);
    let has = |step| progress.is_some_and(|progress| progress.has(step));
    let is_loaded = |chunk: usize| match stage {
        Stage::Untouched | Stage::Begun => false,
        Stage::Created => has(Step::Chunk(&table.chunks[chunk].path)),
        Stage::Finished => true,
    };
    TableStep {
        table: table.clone(),
        is_transactional,
        stage,
        is_beside: names.is_beside(&table.schema, &table.name),
        is_moved: !names.schemas.is_empty(),
        rank: None,
        definition: None,
        is_comparable: true,
        pending: (0..table.chunks.len()).filter(|chunk| !is_loaded(*chunk)).collect(),
    }
}

fn stage(table: &TableEntry, is_transactional: bool, progress: Option<&Progress>) -> Stage {
    let (schema, name) = (table.schema.as_str(), table.name.as_str());
    let has = |step| progress.is_some_and(|progress| progress.has(step));
    if has(Step::Finished { schema, name }) {
        Stage::Finished
    } else if has(Step::Created { schema, name }) && is_transactional {
        Stage::Created
    } else if has(Step::Begun { schema, name }) {
        Stage::Begun
    } else {
        Stage::Untouched
    }
}

fn schemas(manifest: &Manifest, tables: &[TableStep], objects: &[ObjectStep], state: &TargetState) -> Vec<SchemaStep> {
    let mut needed: BTreeSet<&str> = tables.iter().map(|step| step.table.schema.as_str()).collect();
    needed.extend(objects.iter().filter_map(|step| step.object.schema.as_deref()));
    let is_whole = tables.len() == manifest.tables.len();
    let entries = manifest.schemas.iter().filter(|entry| is_whole || needed.contains(entry.name.as_str()));
    // After an interruption too: what it has left in a schema came after the defaults.
    let is_used = |name: &str| state.holdings.iter().any(|(schema, _, _)| schema == name);
    entries
        .map(|SchemaEntry { name, create }| SchemaStep {
            name: name.clone(),
            create: create.clone(),
            exists: state.has_schema(name),
            is_used: is_used(name),
        })
        .collect()
}

fn notes(manifest: &Manifest, selection: &Selection, state: &TargetState) -> Vec<String> {
    let mut notes = Vec::new();
    let dumped = format!("{} {}", product::name(manifest.product), manifest.version);
    let target = format!("{} {}", product::name(state.product), state.version);
    if manifest.product != state.product {
        notes.push(format!(
            "the dump is of {dumped} and the target is {target}: definitions are translated, the code of views, routines, triggers and events is not"
        ));
    } else if series(&manifest.version) > series(&state.version) {
        notes.push(format!("the dump is of {dumped} and the target is the older {target}"));
    }
    if manifest.consistency == Consistency::Inconsistent {
        notes.push(
            "the dump was made without a lock, as --allow-inconsistent allows: its tables are of different moments"
                .to_owned(),
        );
    }
    for table in manifest.tables.iter().filter(|table| table.history_lost && selection.has(&table.schema, &table.name))
    {
        let name = sql::qualified(&table.schema, &table.name);
        notes.push(format!("the dump holds no history of {name}: it was versioned by transactions"));
    }
    notes.extend(selection.names.notes());
    if selection.tables.is_some() && selection.names.is_empty() {
        notes.push(
            "selected tables come with their triggers; views, routines, events and accounts stay behind".to_owned(),
        );
    }
    if state.event_scheduler && manifest.objects.iter().any(|object| object.kind == ObjectKind::Event) {
        notes.push("the target's event scheduler is on: restored events run at once".to_owned());
    }
    notes
}

fn edition(product: Product, version: &str) -> Edition {
    Edition { product, series: series(version) }
}

/// Returns the first two numbers of a version.
#[must_use]
pub fn series(version: &str) -> (u32, u32) {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

impl fmt::Display for LoadPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.resumes { "continue to load" } else { "load" };
        let pending = self.tables.iter().filter(|step| step.stage != Stage::Finished).count();
        writeln!(f, "{verb} into {}", self.target)?;
        writeln!(f, "  tables   {pending}, {} rows, {}", self.rows(), human::bytes(self.bytes()))?;
        writeln!(f, "  objects  {}", self.objects.len())?;
        for drop in &self.drops {
            let name = sql::qualified(&drop.schema, &drop.name);
            writeln!(f, "  drop     {} {name}", drop.holding.keyword().to_lowercase())?;
        }
        for omitted in &self.omitted {
            writeln!(f, "  omit     {}: {}", omitted.what, omitted.why)?;
        }
        for refused in &self.refused {
            writeln!(f, "  refuse   table {}: {}", sql::qualified(&refused.schema, &refused.table), refused.why)?;
        }
        for change in &self.changes {
            writeln!(f, "  change   {}: {}", change.of.join(", "), change.what)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  note     {note}"))
    }
}

#[cfg(test)]
mod tests;
