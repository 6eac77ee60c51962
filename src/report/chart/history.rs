//! The recovery time of each drill so far, beside the RTO.

use maud::{Markup, html};

use chrono_tz::Tz;

use crate::drill::outcome::Judgement;
use crate::human;
use crate::report::PastDrill;
use crate::report::chart::{percent, pixels};

const TOP: u64 = 30;
const PLOT: u64 = 150;
const AXIS: u64 = 26;
const BASE: u64 = TOP + PLOT;
/// With fewer drills than this the bars would be as wide as doors.
const SLOTS_MIN: usize = 8;

/// Draws a bar for each drill; an RTO far above all of them is told and not drawn.
pub(in crate::report) fn history(drills: &[PastDrill], zone: Tz) -> Markup {
    let tallest = drills.iter().filter_map(|drill| drill.rta_ms).max().unwrap_or(0).max(1);
    let rto = drills.last().and_then(|drill| drill.rto_ms);
    let rto = rto.filter(|rto| *rto <= tallest.saturating_mul(4));
    let highest = tallest.max(rto.unwrap_or(0));
    let chart = Chart {
        scale: highest.saturating_add(highest / 12).max(1),
        // The last slots stay empty: the RTO's name stands there.
        slots: drills.len().max(SLOTS_MIN) as u64 * 7 / 6 + 1,
        zone,
    };
    html! {
        svg.chart.history width="100%" height=(BASE + AXIS) role="img" aria-labelledby="history-title history-desc" {
            title #history-title { "Recovery time of each drill" }
            desc #history-desc { (chart.description(drills)) }
            defs {
                // Stripes tell a breach apart without colour.
                pattern #stripes width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect.stripe-ground width="6" height="6" {}
                    rect.stripe width="2" height="6" {}
                }
            }
            line.base x1="0" x2="100%" y1=(BASE) y2=(BASE) {}
            @for (slot, drill) in (0_u64..).zip(drills) { (chart.bar(slot, drill)) }
            @if let Some(rto) = rto { (chart.rto(rto)) }
            @for (slot, drill) in (0_u64..).zip(drills) { (chart.labels(slot, drill)) }
        }
    }
}

struct Chart {
    scale: u64,
    slots: u64,
    zone: Tz,
}

impl Chart {
    fn description(&self, drills: &[PastDrill]) -> String {
        let drills: Vec<String> = drills
            .iter()
            .map(|drill| {
                let rta = drill.rta_ms.map_or_else(|| "not measured".to_owned(), human::millis);
                format!("{}: {rta}", human::time(drill.started, self.zone))
            })
            .collect();
        drills.join("; ")
    }

    fn bar(&self, slot: u64, drill: &PastDrill) -> Markup {
        let Some(rta) = drill.rta_ms else {
            return html! {};
        };
        let height = self.height(rta);
        let class = match (drill.verdict.rto, drill.passed) {
            (Judgement::Breached, _) => "bar breached",
            (_, true) => "bar passed",
            (_, false) => "bar failed",
        };
        html! {
            rect class=(class) x=(percent(slot * 4 + 1, self.slots * 4)) y=(BASE - height) rx="3"
                width=(percent(1, self.slots * 2)) height=(height) {}
        }
    }

    fn labels(&self, slot: u64, drill: &PastDrill) -> Markup {
        let middle = percent(slot * 2 + 1, self.slots * 2);
        let date = drill.started.with_timezone(&self.zone).format("%m-%d").to_string();
        let alternate = if slot.is_multiple_of(2) { "tick" } else { "tick alternate" };
        html! {
            @match drill.rta_ms {
                Some(rta) => text.value x=(middle) y=(BASE - self.height(rta) - 7) text-anchor="middle" { (short(rta)) },
                None => text.cross x=(middle) y=(BASE - 8) text-anchor="middle" { "✕" },
            }
            text class=(alternate) x=(middle) y=(BASE + 18) text-anchor="middle" { (date) }
        }
    }

    /// A recovery of no time still shows.
    fn height(&self, rta: u64) -> u64 {
        pixels(rta, self.scale, PLOT).max(2)
    }

    fn rto(&self, rto: u64) -> Markup {
        let y = BASE - pixels(rto, self.scale, PLOT);
        html! {
            line.mark.rto x1="0" x2="100%" y1=(y) y2=(y) {}
            text.mark.rto x="100%" y=(y - 6) text-anchor="end" { "RTO " (human::millis(rto)) }
        }
    }
}

/// Writes a span with one unit: there is no room for two above a bar.
fn short(span: u64) -> String {
    let text = human::millis(span);
    let words: Vec<&str> = text.split(' ').take(2).collect();
    words.join(" ")
}
