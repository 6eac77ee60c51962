//! What retention would do, and did.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::render::{LINES_MAX, Told, more, shown};
use crate::exit::Failure;
use crate::forget::{ForgetPlan, Forgotten, Judgement};
use crate::human;
use crate::policy::Policy;
use crate::repository::RepositoryError;
use crate::store::StoreError;

pub(in crate::cli) fn forget_plan(policy: &Policy, plan: &ForgetPlan) -> String {
    let mut text = String::new();
    if let Some(freeze) = &plan.frozen {
        line!(text, "retention rests, nothing is forgotten: {freeze}");
    }
    for verdict in &plan.judgements {
        let (mark, why) = if verdict.keep {
            ("keep  ", verdict.reasons.join(", "))
        } else {
            ("forget", "no rule holds it".to_owned())
        };
        let time = human::time(verdict.time, policy.timezone);
        line!(text, "{mark} {} {:<12} {time}  {why}", verdict.id.short(), shown(&verdict.source));
    }
    text
}

pub(in crate::cli) fn forget_plan_json(plan: &ForgetPlan) -> Value {
    let of = |one: &Judgement| json!({ "id": one.id, "source": one.source, "time": one.time, "keep": one.keep, "reasons": one.reasons });
    let snapshots: Vec<Value> = plan.judgements.iter().map(of).collect();
    json!({ "frozen": plan.frozen.as_ref().map(ToString::to_string), "snapshots": snapshots, "others": plan.others })
}

pub(in crate::cli) fn forgotten(told: &mut Told, forgotten: &Forgotten) {
    line!(told.text, "{} snapshots forgotten", forgotten.done.len());
    not_forgotten(told, forgotten);
}

pub(in crate::cli) fn forgotten_json(forgotten: &Forgotten) -> Value {
    let failed: Vec<Value> =
        forgotten.failed.iter().map(|(id, error)| json!({ "id": id, "error": human::chain(error) })).collect();
    json!({ "done": forgotten.done, "failed": failed })
}

pub(super) fn not_forgotten(told: &mut Told, forgotten: &Forgotten) {
    for (id, error) in forgotten.failed.iter().take(LINES_MAX) {
        if let RepositoryError::Store(StoreError::Protected { until, .. }) = error {
            let until =
                until.map_or_else(String::new, |until| format!(" until {}", human::time(until, chrono_tz::UTC)));
            line!(told.text, "protected  snapshot {}: the store keeps it{until}", id.short());
            continue;
        }
        told.fail(&format!("forget {}: ", id.short()), &Failure::from(error));
    }
    more(&mut told.errors, forgotten.failed.len());
}
