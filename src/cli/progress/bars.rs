//! Progress as bars at the foot of a terminal; notes, warnings and finished steps scroll above them.

use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::progress::meter::Meter;
use crate::event::Task;
use crate::human;
use crate::human::Ink;

/// Names are cut to this, so that the bars of several tasks stand in line.
const NAME_WIDTH: usize = 20;

pub(super) struct Bars {
    all: MultiProgress,
    ink: Ink,
    shown: Vec<Shown>,
}

struct Shown {
    meter: Meter,
    bar: ProgressBar,
    has_total: bool,
}

impl Bars {
    pub(super) fn new(target: ProgressDrawTarget, colored: bool) -> Self {
        Self { all: MultiProgress::with_draw_target(target), ink: Ink::new(colored), shown: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    pub(super) fn say(&mut self, text: &str) {
        // Nobody can be told that the terminal is gone.
        _ = self.all.println(text);
    }

    pub(super) fn begin(&mut self, task: &Task, now: Instant) {
        let bar = self.all.add(ProgressBar::no_length());
        let name = human::fit(&human::printable(task.name()), NAME_WIDTH);
        bar.set_style(unknown_style());
        bar.set_prefix(self.ink.bold(&name));
        self.shown.push(Shown { meter: Meter::new(task.clone(), now), bar, has_total: false });
        self.redraw(now);
    }

    pub(super) fn end(&mut self, task: &Task, now: Instant) {
        let place = self.shown.iter().position(|shown| shown.meter.task.is(task));
        if let Some(place) = place {
            let shown = self.shown.remove(place);
            shown.bar.finish_and_clear();
            self.all.remove(&shown.bar);
            let name = human::fit(&human::printable(task.name()), NAME_WIDTH);
            self.say(&format!("{} {}", self.ink.bold(&name), shown.meter.end(now)));
        }
    }

    pub(super) fn redraw(&mut self, now: Instant) {
        for shown in &mut self.shown {
            shown.redraw(now);
        }
    }
}

impl Shown {
    fn redraw(&mut self, now: Instant) {
        self.meter.sample(now);
        let total = self.meter.task.total();
        if total > 0 && !self.has_total {
            self.has_total = true;
            self.bar.set_style(known_style());
        }
        if self.has_total {
            self.bar.set_length(total);
        }
        self.bar.set_position(self.meter.task.done());
        self.bar.set_message(self.meter.short_state());
        self.bar.tick();
    }
}

fn known_style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{prefix} {bar:16} {wide_msg}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏░")
}

fn unknown_style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{prefix} {spinner:16} {wide_msg}");
    style.unwrap_or_else(|_| ProgressStyle::default_spinner())
}
