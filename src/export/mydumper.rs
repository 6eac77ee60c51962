//! A directory as `mydumper --load-data` writes it, for `myloader`.
//!
//! `myloader` reads what a file is from its name, and statements up to a semicolon at the end of a line. Names that are not plain
//! letters become `mydumper_N`; the real ones stand in the files and in `metadata`. Views are all in one file, because it takes
//! files in any order, and they stand on each other.

use std::collections::BTreeMap;

use crate::export::rows::Desk;
use crate::export::{ExportError, Job, Plan, session};
use crate::mysql::manifest::{Chunk, Manifest, ObjectEntry, ObjectKind, Product, TableEntry};
use crate::mysql::sql::ident;
use crate::source::mysql::load_data;

/// Without it `myloader` takes the directory for none of its own.
pub(super) const LAST: &str = "metadata";

/// What `myloader` reads for a newline in a name.
const NEWLINE: &str = "\u{1000}0";

pub(super) fn jobs(plan: &Plan) -> Vec<Job> {
    let names = Names::of(plan);
    let mut jobs: Vec<Job> = Vec::new();
    for (schema, create) in plan.schemas() {
        let file = names.schema(schema);
        jobs.push(definition(format!("{file}-schema-create.sql"), create.to_owned()));
        jobs.extend(objects(plan, schema, format!("{file}-schema-post.sql"), is_post));
    }
    let product = plan.dump.manifest().product;
    for table in plan.tables() {
        let file = names.table(&table.schema, &table.name);
        jobs.push(table_definition(format!("{file}-schema.sql"), table.create.clone(), product));
        jobs.extend(triggers(plan, table, format!("{file}-schema-triggers.sql")));
        let own = session::of_rows(product);
        jobs.extend(table.chunks.iter().enumerate().map(|(number, chunk)| rows(table, chunk, own, &file, number)));
    }
    for sequence in plan.objects().filter(|object| object.kind == ObjectKind::Sequence) {
        let schema = sequence.schema.as_deref().unwrap_or_default();
        let file = format!("{}-schema-sequence.sql", names.table(schema, &sequence.name));
        let paths = vec![sequence.statements.clone()];
        jobs.push(Box::new(move |desk| write_objects(desk, &file, &paths, None)));
    }
    jobs.extend(views(plan, &names));
    let metadata = metadata(plan, &names);
    jobs.push(Box::new(move |desk| write_file(desk, LAST, &[&metadata])));
    jobs
}

/// What the files call schemas and tables.
struct Names {
    schemas: BTreeMap<String, String>,
    tables: BTreeMap<(String, String), String>,
}

impl Names {
    fn of(plan: &Plan) -> Self {
        let mut next = 0..;
        let mut name = |real: &str| {
            if is_plain(real) { real.to_owned() } else { format!("mydumper_{}", next.next().unwrap_or_default()) }
        };
        let schemas: BTreeMap<_, _> = plan.schemas().map(|(schema, _)| (schema.to_owned(), name(schema))).collect();
        let tables = plan.tables().map(|table| (table.schema.clone(), table.name.clone()));
        let others = plan.objects().filter(|object| matches!(object.kind, ObjectKind::Sequence | ObjectKind::View));
        let others = others.map(|object| (object.schema.clone().unwrap_or_default(), object.name.clone()));
        let tables = tables.chain(others).map(|place| {
            let file = name(&place.1);
            (place, file)
        });
        Self { tables: tables.collect(), schemas }
    }

    fn schema(&self, name: &str) -> &str {
        self.schemas.get(name).map_or("", String::as_str)
    }

    /// Returns the beginning of a table's files.
    fn table(&self, schema: &str, name: &str) -> String {
        format!("{}.{}", self.schema(schema), self.table_part(schema, name))
    }

    fn table_part(&self, schema: &str, name: &str) -> &str {
        self.tables.get(&(schema.to_owned(), name.to_owned())).map_or("", String::as_str)
    }
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !name.starts_with("mydumper_")
}

/// Routines and events, the latter with what enables them.
fn is_post(kind: ObjectKind) -> bool {
    matches!(kind, ObjectKind::Function | ObjectKind::Procedure | ObjectKind::Package | ObjectKind::Event)
}

fn definition(file: String, create: String) -> Job {
    Box::new(move |desk| write_file(desk, &file, &[&session::common(), &create, ";\n"]))
}

fn table_definition(file: String, path: String, product: Product) -> Job {
    Box::new(move |desk| {
        let create = desk.text(&path)?;
        let own = session::of_tables(product);
        write_file(desk, &file, &[&session::common(), own, create.trim_end_matches('\n'), ";\n"])
    })
}

fn objects(plan: &Plan, schema: &str, file: String, is_wanted: fn(ObjectKind) -> bool) -> Option<Job> {
    let is_it = |object: &&ObjectEntry| object.schema.as_deref() == Some(schema) && is_wanted(object.kind);
    statements(file, plan.objects().filter(is_it), None)
}

fn triggers(plan: &Plan, table: &TableEntry, file: String) -> Option<Job> {
    let is_it = |object: &&ObjectEntry| {
        object.kind == ObjectKind::Trigger
            && object.schema.as_ref() == Some(&table.schema)
            && object.table.as_ref() == Some(&table.name)
    };
    statements(file, plan.objects().filter(is_it), None)
}

fn views(plan: &Plan, names: &Names) -> Option<Job> {
    let views = || plan.objects().filter(|object| object.kind == ObjectKind::View);
    let first = views().next()?;
    let schema = first.schema.clone().unwrap_or_default();
    let file = format!("{}-schema-view.sql", names.table(&schema, &first.name));
    statements(file, views(), Some(schema))
}

fn statements<'a>(file: String, objects: impl Iterator<Item = &'a ObjectEntry>, home: Option<String>) -> Option<Job> {
    let paths: Vec<String> = objects.map(|object| object.statements.clone()).collect();
    (!paths.is_empty()).then(|| -> Job { Box::new(move |desk| write_objects(desk, &file, &paths, home.as_deref())) })
}

fn write_objects(desk: &Desk, file: &str, paths: &[String], home: Option<&str>) -> Result<(), ExportError> {
    let mut out = desk.file(file)?;
    out.text(&session::common())?;
    for path in paths {
        for statement in desk.statements(path)? {
            // `myloader` is in the schema that the file's name says; only a file that is of several leaves it.
            if home.is_some() || !statement.starts_with("USE ") {
                out.text(&whole(&statement))?;
            }
        }
    }
    if let Some(home) = home {
        out.text(&whole(&format!("USE {}", ident(home))))?;
    }
    out.finish()
}

/// Writes a statement so that it ends where it ends: a semicolon before the end of a line is followed by a space, as `mydumper`
/// does.
fn whole(statement: &str) -> String {
    format!("{};\n", statement.replace(";\n", "; \n"))
}

/// The text of a chunk as it is, and the statement that loads it.
fn rows(table: &TableEntry, chunk: &Chunk, own: &'static str, file: &str, number: usize) -> Job {
    let (data, statement) = (format!("{file}.{number:05}.dat"), format!("{file}.{number:05}.sql"));
    let load = load_data(table, &ident(&table.name), &data);
    let chunk = chunk.clone();
    Box::new(move |desk| {
        let mut out = desk.file(&data)?;
        desk.rows(&chunk, |text| out.bytes(text))?;
        out.finish()?;
        write_file(desk, &statement, &[&session::common(), own, &load, ";\n"])
    })
}

fn write_file(desk: &Desk, name: &str, parts: &[&str]) -> Result<(), ExportError> {
    let mut out = desk.file(name)?;
    parts.iter().try_for_each(|part| out.text(part))?;
    out.finish()
}

/// Returns the file that `myloader` begins with.
fn metadata(plan: &Plan, names: &Names) -> String {
    let manifest = plan.dump.manifest();
    let time = manifest.taken_at.format("%Y-%m-%d %H:%M:%S");
    let mut text = format!(
        "# Started dump at: {time}\n# {}\n[config]\nquote-character = BACKTICK\nlocal-infile = 1\n\n\
         [myloader_session_variables]\nSQL_MODE='{}' /*!40101\n",
        plan.label,
        session::SQL_MODE,
    );
    push_source(&mut text, manifest);
    for table in plan.tables() {
        push_group(&mut text, names, &table.schema, &table.name, &format!("rows = {}", table.rows));
    }
    for sequence in plan.objects().filter(|object| object.kind == ObjectKind::Sequence) {
        let schema = sequence.schema.as_deref().unwrap_or_default();
        push_group(&mut text, names, schema, &sequence.name, "rows = 0\nis_sequence = 1");
    }
    text.push_str(&format!("# Finished dump at: {time}\n"));
    text
}

/// Where to go on following the source; in comments, as nobody has asked `myloader` to.
fn push_source(text: &mut String, manifest: &Manifest) {
    let Some(position) = &manifest.position else { return };
    text.push_str("\n[source]\n");
    if let Some(gtid) = &manifest.gtid {
        text.push_str(&format!("# executed_gtid_set = \"{}\"\n", gtid.replace('\n', "")));
    }
    let (file, offset) = (&position.file, position.offset);
    text.push_str(&format!("# SOURCE_LOG_FILE = \"{file}\"\n# SOURCE_LOG_POS = {offset}\n"));
}

fn push_group(text: &mut String, names: &Names, schema: &str, name: &str, rest: &str) {
    let (of, file) = (names.schema(schema), names.table_part(schema, name));
    let real = name.replace('\n', NEWLINE);
    text.push_str(&format!("\n[`{of}`.`{file}`]\nreal_table_name={real}\n{rest}\n"));
}
