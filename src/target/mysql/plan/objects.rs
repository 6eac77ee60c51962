//! Which objects of a dump a target gets, in which order, and why some it does not.

use std::collections::BTreeSet;

use crate::mysql::manifest::{Manifest, ObjectEntry, ObjectKind, Product};
use crate::mysql::sql;
use crate::target::mysql::account;
use crate::target::mysql::plan::{Making, ObjectStep, Omitted, Selection};
use crate::target::mysql::progress::{Progress, Step};
use crate::target::mysql::state::TargetState;

/// Returns the rank in which an object is made. Accounts come before what names them as its definer; their rights come
/// last, and events begin to run when all is there.
fn rank(step: &ObjectStep) -> u8 {
    match step.object.kind {
        _ if step.making == Making::Alters => 7,
        ObjectKind::Sequence => 0,
        ObjectKind::Role => 1,
        ObjectKind::User => 2,
        ObjectKind::Function | ObjectKind::Procedure | ObjectKind::Package | ObjectKind::View => 3,
        ObjectKind::Trigger => 4,
        ObjectKind::Event => 5,
        ObjectKind::Grant => 6,
    }
}

pub(super) fn word(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Sequence => "sequence",
        ObjectKind::Role => "role",
        ObjectKind::User => "user",
        ObjectKind::Function => "function",
        ObjectKind::Procedure => "procedure",
        ObjectKind::Package => "package",
        ObjectKind::View => "view",
        ObjectKind::Trigger => "trigger",
        ObjectKind::Event => "event",
        ObjectKind::Grant => "grants of",
    }
}

/// Names an object for people: ``view `shop`.`sales` ``.
pub(in crate::target::mysql) fn describe(object: &ObjectEntry) -> String {
    let name = match &object.schema {
        Some(schema) => sql::qualified(schema, &object.name),
        None => object.name.clone(),
    };
    format!("{} {name}", word(object.kind))
}

pub(super) fn objects(
    manifest: &Manifest,
    selection: &Selection,
    state: &TargetState,
    progress: Option<&Progress>,
) -> (Vec<ObjectStep>, Vec<Omitted>) {
    let (mut steps, mut omitted) = (Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for object in &manifest.objects {
        let is_first = names.insert((object.kind, &object.schema, &object.name));
        let has = |step| progress.is_some_and(|progress| progress.has(step));
        if has(Step::Made(&object.statements)) {
            continue;
        }
        let making = match is_first {
            false => Making::Alters,
            true if has(Step::Making(&object.statements)) => Making::Recreates,
            true => Making::Creates,
        };
        match reason_to_omit(object, manifest, selection, state, progress) {
            Some(Reason::NotSelected) => {}
            Some(Reason::Because(why)) => omitted.push(Omitted { what: describe(object), why }),
            None => steps.push(ObjectStep { object: object.clone(), making }),
        }
    }
    steps.sort_by_key(rank);
    (steps, omitted)
}

enum Reason {
    NotSelected,
    Because(String),
}

fn reason_to_omit(
    object: &ObjectEntry,
    manifest: &Manifest,
    selection: &Selection,
    state: &TargetState,
    progress: Option<&Progress>,
) -> Option<Reason> {
    let because = |why: &str| Some(Reason::Because(why.to_owned()));
    let is_account = matches!(object.kind, ObjectKind::Role | ObjectKind::User | ObjectKind::Grant);
    match object.kind {
        _ if !is_selected(object, is_account, selection) => Some(Reason::NotSelected),
        ObjectKind::Sequence | ObjectKind::Package if state.product == Product::MySql => because("MySQL has none"),
        _ if is_account && manifest.product != state.product => {
            because("accounts of one product do not fit the other: make it anew")
        }
        _ if is_account && account::is_servers_own(&object.name) => {
            because("it is the server's own and stays as it is")
        }
        _ if is_account && is_standing(object, manifest, state, progress) => {
            because("it exists on the target and is left alone")
        }
        _ => None,
    }
}

/// Some tables bring their triggers, and the sequences of their schemas; everything else comes with the whole only.
pub(crate) fn is_selected(object: &ObjectEntry, is_account: bool, selection: &Selection) -> bool {
    let schema = object.schema.as_deref().unwrap_or_default();
    match &selection.tables {
        None => !is_account || selection.accounts,
        Some(tables) if object.kind == ObjectKind::Sequence => tables.iter().any(|(other, _)| other == schema),
        Some(_) if object.kind == ObjectKind::Trigger => {
            object.table.as_ref().is_some_and(|table| selection.has(schema, table))
        }
        Some(_) => false,
    }
}

/// Tells whether an account was there before this load.
fn is_standing(object: &ObjectEntry, manifest: &Manifest, state: &TargetState, progress: Option<&Progress>) -> bool {
    let makes_it =
        |other: &&ObjectEntry| matches!(other.kind, ObjectKind::User | ObjectKind::Role) && other.name == object.name;
    let is_ours = |maker: &ObjectEntry| progress.is_some_and(|progress| progress.has(Step::Making(&maker.statements)));
    let is_made_by_us = manifest.objects.iter().filter(makes_it).any(is_ours);
    !is_made_by_us && state.accounts.contains(&account::plain(&object.name))
}
