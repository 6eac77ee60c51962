//! The phases of a drill along its time, beside the RTO.

use maud::{Markup, html};

use crate::drill::outcome::{DrillOutcome, Phase};
use crate::human;
use crate::report::chart::{percent, tick_text, ticks};

const ROW: u64 = 44;
const BAR: u64 = 14;
const AXIS: u64 = 26;
/// One line of labels for moments above the rows.
const LABEL: u64 = 20;

/// SVG text does not wrap; a longer name would leave a phone's screen.
const NAME_WIDTH_MAX: usize = 24;

/// A moment that is drawn as a line through all rows.
struct Mark {
    class: &'static str,
    at_ms: u64,
    text: String,
}

/// Draws the phases; an RTO far beyond the drill's end is told and not drawn, or the bars would vanish.
pub(in crate::report) fn gantt(outcome: &DrillOutcome) -> Markup {
    let end = outcome.phases.iter().map(Phase::end_ms).max().unwrap_or(0);
    let end = end.max(outcome.rta_ms.unwrap_or(0)).max(1);
    let rto = outcome.objectives.rto_ms.filter(|rto| *rto <= end.saturating_mul(2));
    let longest = end.max(rto.unwrap_or(0));
    let scale = longest.saturating_add(longest / 40);
    let marks = marks(outcome.rta_ms, rto);
    let top = LABEL * marks.len() as u64 + 4;
    let bottom = top + ROW * outcome.phases.len() as u64;
    html! {
        svg.chart.gantt width="100%" height=(bottom + AXIS) role="img" aria-labelledby="gantt-title gantt-desc" {
            title #gantt-title { "Phases of the drill" }
            desc #gantt-desc { (description(outcome)) }
            @for tick in ticks(scale) { (tick_at(tick, scale, top, bottom)) }
            @for (row, phase) in (0_u64..).zip(&outcome.phases) {
                (phase_row(phase, scale, top + row * ROW, is_longest(phase, &outcome.phases)))
            }
            @for (row, mark) in (0_u64..).zip(&marks) { (mark_at(mark, scale, LABEL * row, bottom)) }
        }
    }
}

fn description(outcome: &DrillOutcome) -> String {
    let phases: Vec<String> = outcome
        .phases
        .iter()
        .map(|phase| {
            let start = human::millis(phase.start_ms);
            format!("{} from {start} for {}", phase.name, human::millis(phase.duration_ms))
        })
        .collect();
    phases.join("; ")
}

fn marks(rta: Option<u64>, rto: Option<u64>) -> Vec<Mark> {
    let rta =
        rta.map(|at_ms| Mark { class: "rta", at_ms, text: format!("RTA {}: first check green", human::millis(at_ms)) });
    let rto = rto.map(|at_ms| Mark { class: "rto", at_ms, text: format!("RTO {}", human::millis(at_ms)) });
    [rta, rto].into_iter().flatten().collect()
}

fn is_longest(phase: &Phase, phases: &[Phase]) -> bool {
    phases.iter().all(|other| other.duration_ms <= phase.duration_ms)
}

fn tick_at(tick: u64, scale: u64, top: u64, bottom: u64) -> Markup {
    let x = percent(tick, scale);
    // The first label would otherwise stand half outside.
    let anchor = if tick == 0 { "start" } else { "middle" };
    html! {
        line.grid x1=(x) x2=(x) y1=(top) y2=(bottom) {}
        text.tick x=(x) y=(bottom + 18) text-anchor=(anchor) { (tick_text(tick)) }
    }
}

fn phase_row(phase: &Phase, scale: u64, y: u64, longest: bool) -> Markup {
    let class = if longest { "bar longest" } else { "bar" };
    html! {
        text x="0" y=(y + 16) {
            tspan.name { (human::cut(&human::printable(&phase.name), NAME_WIDTH_MAX)) }
            tspan.value dx="8" { (human::millis(phase.duration_ms)) }
        }
        rect.track x="0" y=(y + 22) width="100%" height=(BAR) rx="3" {}
        // A phase of a millisecond still shows.
        rect class=(class) x=(percent(phase.start_ms, scale)) y=(y + 22) height=(BAR) rx="3"
            width=(percent(phase.duration_ms.max(scale / 250), scale)) {}
    }
}

fn mark_at(mark: &Mark, scale: u64, y: u64, bottom: u64) -> Markup {
    let x = percent(mark.at_ms, scale);
    let is_right = mark.at_ms > scale / 2;
    let (anchor, dx) = if is_right { ("end", "-6") } else { ("start", "6") };
    html! {
        line.mark.(mark.class) x1=(x) x2=(x) y1=(y + 3) y2=(bottom) {}
        text.mark.(mark.class) x=(x) y=(y + 14) dx=(dx) text-anchor=(anchor) { (mark.text) }
    }
}
