//! What a verify found, and what a heal would do, and did.

use std::fmt::Write as _;

use crate::cli::render::{LINES_MAX, Told, more, shown};
use crate::cycle::done::ProofDone;
use crate::drill::outcome::CheckState;
use crate::heal::{HealPlan, Healed};
use crate::human;
use crate::policy::Policy;
use crate::store::{FileKind, Key};
use crate::verify;
use crate::verify::Object;

pub(super) fn verified(text: &mut String, what: &str, report: &verify::Report) {
    let verdict = if report.is_sound() { "sound" } else { "DAMAGED" };
    let checked = report.checked;
    line!(
        text,
        "{what:<10} {verdict}: {} snapshots, {} packs named, {} of them and {} blobs read ({})",
        checked.snapshots,
        checked.packs,
        checked.packs_read,
        checked.blobs_read,
        human::bytes(checked.bytes_read)
    );
    for finding in report.damaged.iter().chain(&report.missing).take(LINES_MAX) {
        line!(text, "           {}: {}", shown(&finding.object), shown(&finding.what));
        for cost in finding.costs.iter().take(LINES_MAX) {
            line!(text, "             costs {} of snapshot {}", shown(cost.path.display()), cost.snapshot.short());
            for rows in cost.rows.iter().take(LINES_MAX) {
                line!(text, "             which is {rows}");
            }
        }
        if finding.costs_more > 0 {
            line!(text, "             and {} more", finding.costs_more);
        }
    }
    more(text, report.damaged.len() + report.missing.len());
}

/// Tells what a restore into a sandbox brought back, and how it compared.
pub(super) fn proof(told: &mut Told, policy: &Policy, done: &ProofDone) {
    verified(&mut told.text, "verify", &done.report);
    offer_heal(&mut told.text, policy, &done.report);
    for check in &done.outcome.checks {
        let state = match check.result {
            CheckState::Pass => "pass",
            CheckState::Fail => "FAILED",
            CheckState::NotRun => "NOT RUN",
        };
        let found = check.found.as_deref().map(|found| format!(": {found}")).unwrap_or_default();
        line!(told.text, "{:<10} {state}: {}{}", "restored", shown(&check.name), shown(found));
        if let Some(detail) = check.detail.as_ref().filter(|_| check.result != CheckState::Pass) {
            line!(told.text, "           {}", shown(detail));
        }
    }
    if let Some(failure) = &done.failure {
        told.fail("verify: ", failure);
    }
}

pub(super) fn offer_heal(text: &mut String, policy: &Policy, report: &verify::Report) {
    if !report.is_sound() {
        let level = match report.level {
            verify::Level::Structure | verify::Level::Restore => "",
            verify::Level::Data => " --level data",
        };
        line!(text, "{:<10} `bkp verify {}{level} --heal` puts back what another store holds whole", "", policy.name);
    }
}

/// Tells what a verify that heals found, what is whole again, and why the rest is not.
pub(super) fn heal(text: &mut String, healed: &Healed) {
    verified(text, &healed.store, &healed.report);
    for left in healed.left.iter().take(LINES_MAX) {
        line!(text, "           not healed: {}: {}", shown(&left.object), shown(&left.why));
    }
    more(text, healed.left.len());
    if let Some(why) = &healed.unseen {
        line!(text, "           not looked at again: {}", shown(why));
    }
    if healed.is_locked() {
        line!(
            text,
            "           a lock stands in the way: run it again once its holder is done; what nobody holds `restic unlock` removes"
        );
    }
    if healed.mended.is_empty() {
        return;
    }
    let objects = human::counted(healed.mended.len() as u64, "object", "objects");
    line!(text, "{:<10} healed {objects}, {} put back", healed.store, human::bytes(healed.bytes()));
    for mended in healed.mended.iter().take(LINES_MAX) {
        line!(text, "           {}", shown(mended));
    }
    more(text, healed.mended.len());
}

pub(in crate::cli) fn heal_plan(store: &str, report: &verify::Report, plan: &HealPlan) -> String {
    let mut text = String::new();
    verified(&mut text, store, report);
    for one in plan.put_back.iter().take(LINES_MAX) {
        let from = one.from.join(" or ");
        line!(text, "           would put back {}, {}, from {from}", shown(&one.object), human::bytes(one.bytes));
    }
    more(&mut text, plan.put_back.len());
    for one in plan.gathered.iter().take(LINES_MAX) {
        let (object, from) = (shown(&one.object), Vec::from_iter(one.from.clone()).join(" and "));
        let (blobs, bytes) = (one.blobs.len(), human::bytes(one.bytes));
        line!(
            text,
            "           would gather {blobs} of {} lost blobs of {object}, {bytes}, from other packs of {from}",
            one.lost
        );
    }
    more(&mut text, plan.gathered.len());
    for key in plan.replaced.iter().take(LINES_MAX) {
        line!(text, "           would replace {}: no snapshot needs what is lost with it", shown(key));
    }
    more(&mut text, plan.replaced.len());
    if plan.rebuilds_index {
        line!(text, "           would make an index from the headers of packs that have none");
        let is_put_back = |key: &Key| plan.put_back.iter().any(|one| one.object == *key);
        for finding in report.findings() {
            if let Object::Stored(key) = &finding.object
                && key.kind == FileKind::Index
                && !is_put_back(key)
            {
                line!(text, "           would then remove {}, once all packs are named", shown(key));
            }
        }
    }
    for key in plan.removed.iter().take(LINES_MAX) {
        line!(text, "           would remove {}: it is worth nothing any more", shown(key));
    }
    for left in plan.left.iter().take(LINES_MAX) {
        line!(text, "           cannot heal {}: {}", shown(&left.object), shown(&left.why));
    }
    more(&mut text, plan.left.len());
    if !plan.is_empty() {
        let objects = human::counted((plan.put_back.len() + plan.gathered.len()) as u64, "object", "objects");
        line!(
            text,
            "{store:<10} {objects}, {} in all; more may come to light once they are back",
            human::bytes(plan.bytes())
        );
    }
    text
}
