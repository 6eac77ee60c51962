//! Progress as plain lines: for logs, cron and whoever reads along without a terminal.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::cli::progress::meter::{Meter, amount};
use crate::event::Task;
use crate::human;
use crate::human::Ink;

/// A long step says how far it is this often.
const EVERY: Duration = Duration::from_secs(10);

pub(super) struct Lines {
    out: Box<dyn Write + Send>,
    ink: Ink,
    shown: Vec<Shown>,
}

struct Shown {
    meter: Meter,
    next: Instant,
}

impl Lines {
    pub(super) fn new(out: Box<dyn Write + Send>, ink: Ink) -> Self {
        Self { out, ink, shown: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    pub(super) fn say(&mut self, text: &str) {
        // Nobody can be told that standard error is gone.
        _ = writeln!(self.out, "{text}");
    }

    pub(super) fn begin(&mut self, task: &Task, now: Instant) {
        let total = task.total();
        let size = (total > 0).then(|| format!(" ({})", amount(task.unit(), total)));
        self.tell(task, &format!("started{}", size.unwrap_or_default()));
        self.shown.push(Shown { meter: Meter::new(task.clone(), now), next: now + EVERY });
    }

    pub(super) fn end(&mut self, task: &Task, now: Instant) {
        let place = self.shown.iter().position(|shown| shown.meter.task.is(task));
        if let Some(place) = place {
            let shown = self.shown.remove(place);
            self.tell(task, &shown.meter.end(now));
        }
    }

    pub(super) fn redraw(&mut self, now: Instant) {
        let mut due = Vec::new();
        for shown in &mut self.shown {
            shown.meter.sample(now);
            if now >= shown.next {
                shown.next = now + EVERY;
                due.push((shown.meter.task.clone(), shown.meter.state()));
            }
        }
        for (task, state) in due {
            self.tell(&task, &state);
        }
    }

    fn tell(&mut self, task: &Task, text: &str) {
        let name = self.ink.bold(&human::printable(task.name()));
        self.say(&format!("{name}: {text}"));
    }
}
