//! Everything but tables and rows: sequences before them; accounts, routines, views, triggers, events and rights after.

use std::collections::{BTreeSet, VecDeque};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use crate::event::Unit;
use crate::mysql::manifest::{ObjectEntry, ObjectKind};
use crate::mysql::sql;
use crate::target::mysql::account;
use crate::target::mysql::dump::{DumpReadError, DumpReader};
use crate::target::mysql::fault;
use crate::target::mysql::plan::{Making, ObjectStep, describe};
use crate::target::mysql::progress;
use crate::target::mysql::progress::Step;
use crate::target::mysql::{Failed, Load, LoadError};

/// What was made, and what the target refused.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) done: usize,
    pub(super) failed: Vec<Failed>,
}

impl Made {
    pub(super) fn extend(&mut self, other: Self) {
        self.done += other.done;
        self.failed.extend(other.failed);
    }
}

/// Creates the sequences, which columns take their defaults from.
pub(super) async fn create_sequences(conn: &mut Conn, load: &Load) -> Result<Made, LoadError> {
    create(conn, load, |kind| kind == ObjectKind::Sequence).await
}

/// Creates all other objects, in the order of the plan.
pub(super) async fn create_others(conn: &mut Conn, load: &Load) -> Result<Made, LoadError> {
    create(conn, load, |kind| kind != ObjectKind::Sequence).await
}

/// Creates objects. One that is refused is tried again after the others, as long as any comes through: views and functions
/// need each other in an order that no list tells. What never comes through is returned.
async fn create(conn: &mut Conn, load: &Load, is_wanted: impl Fn(ObjectKind) -> bool) -> Result<Made, LoadError> {
    let mut waiting: VecDeque<&ObjectStep> =
        load.plan.objects.iter().filter(|step| is_wanted(step.object.kind)).collect();
    let task = load.run.events.task("create objects", Unit::Objects, waiting.len() as u64);
    let mut made = Made::default();
    loop {
        let before = waiting.len();
        let mut refused = Vec::new();
        for step in std::mem::take(&mut waiting) {
            match create_one(conn, load, step).await {
                Ok(()) => task.add(1),
                Err(error) if error.is_refusal() => refused.push((step, error)),
                Err(error) => return Err(error),
            }
        }
        made.done += before - refused.len();
        if refused.is_empty() || refused.len() == before {
            let failed = refused.into_iter();
            made.failed =
                failed.map(|(step, error)| Failed { what: describe(&step.object), table: None, error }).collect();
            return Ok(made);
        }
        waiting.extend(refused.into_iter().map(|(step, _)| step));
    }
}

async fn create_one(conn: &mut Conn, load: &Load, step: &ObjectStep) -> Result<(), LoadError> {
    let object = &step.object;
    let schema = object.schema.as_deref().unwrap_or_default();
    let at = || LoadError::at(format!("create {}", describe(object)));
    // The statements of the object before may have changed anything about the session.
    load.opener.prepare(conn).await?;
    if !schema.is_empty() {
        conn.query_drop(format!("USE {}", sql::ident(schema))).await.map_err(at())?;
    }
    if step.making == Making::Recreates
        && let Some(drop) = drop_statement(object)
    {
        conn.query_drop(drop).await.map_err(at())?;
    }
    progress::note(conn, Step::Making(&object.statements)).await?;
    let statements = statements(load, object).await?;
    match object.kind {
        ObjectKind::Role | ObjectKind::User | ObjectKind::Grant => make_account(conn, object, &statements).await?,
        _ => {
            for statement in &statements {
                conn.query_drop(statement).await.map_err(at())?;
            }
        }
    }
    load.opener.prepare(conn).await?;
    progress::note(conn, Step::Made(&object.statements)).await
}

/// Runs every statement of an account: a right that the target does not know must not cost the others.
async fn make_account(conn: &mut Conn, object: &ObjectEntry, statements: &[String]) -> Result<(), LoadError> {
    let act = format!("create {}", describe(object));
    let mut codes = Vec::new();
    for statement in statements {
        match conn.query_drop(statement).await {
            Err(Error::Server(error)) if !fault::is_passing_code(error.code) => codes.push(error.code),
            made => made.map_err(LoadError::at(&act))?,
        }
    }
    match codes.first() {
        None => Ok(()),
        Some(&code) => Err(LoadError::Account { act, refused: codes.len(), statements: statements.len(), code }),
    }
}

/// Reads the statements that make an object, in the words of the dump.
pub(super) async fn dumped(dump: &dyn DumpReader, path: String) -> Result<Vec<String>, LoadError> {
    let text = dump.read(&path).await?;
    let statements = serde_json::from_slice(&text);
    Ok(statements.map_err(|source| DumpReadError::Malformed { path, source: source.into() })?)
}

async fn statements(load: &Load, object: &ObjectEntry) -> Result<Vec<String>, LoadError> {
    let statements = dumped(load.dump.as_ref(), object.statements.clone()).await?;
    Ok(match &load.plan.dialect {
        Some(dialect) => {
            let lost: BTreeSet<&str> = statements.iter().flat_map(|statement| dialect.lost_modes(statement)).collect();
            for mode in lost {
                load.run.events.warn(format!("{} was written under {mode}, which the target lacks", describe(object)));
            }
            statements.iter().map(|statement| dialect.statement(object.kind, statement)).collect()
        }
        None => statements,
    })
}

/// Returns what removes an object that an interrupted load may have made.
fn drop_statement(object: &ObjectEntry) -> Option<String> {
    let name = if let Some(schema) = &object.schema {
        sql::qualified(schema, &object.name)
    } else {
        let plain = account::plain(&object.name);
        plain.rsplit_once('@').map_or_else(|| sql::ident(&plain), |(user, host)| sql::account(user, host))
    };
    let keyword = match object.kind {
        ObjectKind::Sequence => "SEQUENCE",
        ObjectKind::View => "VIEW",
        ObjectKind::Function => "FUNCTION",
        ObjectKind::Procedure => "PROCEDURE",
        ObjectKind::Package => "PACKAGE",
        ObjectKind::Trigger => "TRIGGER",
        ObjectKind::Event => "EVENT",
        ObjectKind::Role => "ROLE",
        ObjectKind::User => "USER",
        ObjectKind::Grant => return None,
    };
    Some(format!("DROP {keyword} IF EXISTS {name}"))
}
