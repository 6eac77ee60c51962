//! What stands on a target in the way of a plan.

use std::collections::BTreeSet;

use crate::mysql::manifest::ObjectKind;
use crate::mysql::sql;
use crate::target::mysql::plan::{Drop, Making, ObjectStep, Stage, TableStep};
use crate::target::mysql::state::{Holding, TargetState};

/// Returns what stands on the target under names that the plan needs and that are not its own.
pub(super) fn conflicts(tables: &[TableStep], objects: &[ObjectStep], state: &TargetState) -> Vec<Drop> {
    let of_tables = tables
        .iter()
        .filter(|step| step.stage == Stage::Untouched)
        .map(|step| (Some(Holding::Table), step.table.schema.as_str(), step.table.name.as_str()));
    let of_objects = objects.iter().filter(|step| step.making == Making::Creates).filter_map(|step| {
        let schema = step.object.schema.as_deref()?;
        Some((wanted(step.object.kind), schema, step.object.name.as_str()))
    });
    let needed: BTreeSet<(Space, String)> = of_tables
        .chain(of_objects)
        .filter_map(|(holding, schema, name)| Some((Space::of(holding?), state.fold(schema, name))))
        .collect();
    let stands = state
        .holdings
        .iter()
        .filter(|(schema, name, holding)| needed.contains(&(Space::of(*holding), state.fold(schema, name))));
    stands
        .map(|(schema, name, holding)| Drop { schema: schema.clone(), name: name.clone(), holding: *holding })
        .collect()
}

fn wanted(kind: ObjectKind) -> Option<Holding> {
    match kind {
        ObjectKind::Sequence => Some(Holding::Sequence),
        ObjectKind::View => Some(Holding::View),
        ObjectKind::Function => Some(Holding::Function),
        ObjectKind::Procedure => Some(Holding::Procedure),
        ObjectKind::Package => Some(Holding::Package),
        ObjectKind::Event => Some(Holding::Event),
        ObjectKind::Trigger | ObjectKind::Role | ObjectKind::User | ObjectKind::Grant => None,
    }
}

/// Things in different spaces may share a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Relations,
    Functions,
    Procedures,
    Packages,
    Events,
}

impl Space {
    fn of(holding: Holding) -> Self {
        match holding {
            Holding::Table | Holding::View | Holding::Sequence => Self::Relations,
            Holding::Function => Self::Functions,
            Holding::Procedure => Self::Procedures,
            Holding::Package => Self::Packages,
            Holding::Event => Self::Events,
        }
    }
}

impl TargetState {
    /// Brings a name into the form in which this target compares it.
    fn fold(&self, schema: &str, name: &str) -> String {
        let name = sql::qualified(schema, name);
        if self.lower_case_table_names == 0 { name } else { name.to_lowercase() }
    }

    pub(super) fn has_schema(&self, name: &str) -> bool {
        let is_it = |other: &String| {
            if self.lower_case_table_names == 0 { other == name } else { other.eq_ignore_ascii_case(name) }
        };
        self.schemas.iter().any(is_it)
    }
}
