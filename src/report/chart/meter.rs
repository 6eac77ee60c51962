//! An actual beside its objective, as a small bar with a mark.

use maud::{Markup, html};

use crate::drill::outcome::Judgement;
use crate::report::chart::percent;

/// Draws how much of the objective the actual takes up. It decorates figures that stand in text beside it.
pub(in crate::report) fn meter(actual: Option<u64>, objective: Option<u64>, judgement: Judgement) -> Markup {
    let (Some(actual), Some(objective)) = (actual, objective) else {
        return html! {};
    };
    let scale = actual.max(objective).max(1);
    let class = if judgement == Judgement::Breached { "bar breached" } else { "bar passed" };
    let mark = percent(objective, scale);
    html! {
        svg.chart.meter width="100%" height="14" aria-hidden="true" {
            rect.track x="0" y="4" width="100%" height="6" rx="3" {}
            rect class=(class) x="0" y="4" width=(percent(actual.max(scale / 100), scale)) height="6" rx="3" {}
            @if actual > objective { line.mark.rto x1=(mark) x2=(mark) y1="0" y2="14" {} }
        }
    }
}
