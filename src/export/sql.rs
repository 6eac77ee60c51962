//! SQL for the plain client: a file for what tables stand on, one for each table, one for what stands on tables, one for accounts.
//!
//! Each file loads in a session of its own, and in the order of their names (`cat DIR/*.sql | mysql`) they are the whole.

use std::sync::Arc;

use crate::export::insert::Inserts;
use crate::export::rows::Desk;
use crate::export::{ExportError, Job, Plan, is_account, session};
use crate::mysql::manifest::{ObjectEntry, ObjectKind, TableEntry};
use crate::mysql::sql::ident;
use crate::source::mysql::write_statement;

/// Without it there is no schema to load into.
pub(super) const FIRST: &str = "1-begin.sql";
const OBJECTS: &str = "3-objects.sql";
const ACCOUNTS: &str = "4-accounts.sql";

/// Bytes of a table's name that its file's name shows; its number tells it apart.
const NAME_BYTES_MAX: usize = 180;

/// Statements are handed to the file when so many bytes of them have come together.
const HANDED_BYTES: usize = 256 * 1024;

pub(super) fn jobs(plan: &Plan) -> Vec<Job> {
    let manifest = plan.dump.manifest();
    let head: Arc<str> = [session::comment(manifest, &plan.label), session::common()].concat().into();
    let mut jobs = vec![begin(plan, head.clone())];
    let table_head: Arc<str> =
        [&head, session::of_tables(manifest.product), session::of_rows(manifest.product)].concat().into();
    for (number, table) in plan.tables().enumerate() {
        let (table, head) = (table.clone(), table_head.clone());
        jobs.push(Box::new(move |desk| write_table(desk, &table, &file_of(number, &table), &head)));
    }
    let of = |is_wanted: fn(&ObjectEntry) -> bool| -> Vec<ObjectEntry> {
        plan.objects().filter(|object| is_wanted(object)).cloned().collect()
    };
    let others = of(|object| object.kind != ObjectKind::Sequence && !is_account(object));
    for (name, objects) in [(OBJECTS, others), (ACCOUNTS, of(is_account))] {
        if !objects.is_empty() {
            let head = head.clone();
            jobs.push(Box::new(move |desk| write_objects(desk, name, &head, &[], &objects)));
        }
    }
    jobs
}

/// Schemas, and the sequences that columns take their defaults from.
fn begin(plan: &Plan, head: Arc<str>) -> Job {
    let creates: Vec<String> = plan.schemas().map(|(_, create)| create.to_owned()).collect();
    let sequences: Vec<ObjectEntry> =
        plan.objects().filter(|object| object.kind == ObjectKind::Sequence).cloned().collect();
    Box::new(move |desk| write_objects(desk, FIRST, &head, &creates, &sequences))
}

fn write_objects(
    desk: &Desk,
    name: &str,
    head: &str,
    statements: &[String],
    objects: &[ObjectEntry],
) -> Result<(), ExportError> {
    let mut out = desk.file(name)?;
    out.text(head)?;
    for statement in statements {
        out.write(|file| write_statement(file, statement))?;
    }
    for object in objects {
        out.text(&desk.text(&object.script)?)?;
    }
    out.finish()
}

fn write_table(desk: &Desk, table: &TableEntry, name: &str, head: &str) -> Result<(), ExportError> {
    let create = desk.text(&table.create)?;
    let mut out = desk.file(name)?;
    out.text(head)?;
    out.write(|file| write_statement(file, &format!("USE {}", ident(&table.schema))))?;
    out.write(|file| write_statement(file, create.trim_end_matches('\n')))?;
    out.text("/*!40101 SET NAMES binary */;\n")?;
    let mut inserts = Inserts::into_table(table);
    for chunk in &table.chunks {
        desk.rows(chunk, |text| {
            inserts.push(text);
            if inserts.len() >= HANDED_BYTES { out.bytes(&inserts.take()) } else { Ok(()) }
        })?;
    }
    out.bytes(&inserts.finish())?;
    out.text("/*!40101 SET NAMES utf8mb4 */;\n")?;
    out.finish()
}

/// Returns a name that sorts before those of objects: the table's, as far as it fits, behind its number.
fn file_of(number: usize, table: &TableEntry) -> String {
    // The dump's own path is safe whatever the table is called.
    let mut name = table.create.trim_end_matches("/schema.sql").replace('/', ".");
    let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    name.truncate(end);
    format!("2-{number:06}-{name}.sql")
}
