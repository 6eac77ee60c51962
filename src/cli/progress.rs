//! Progress for a person: bars on a terminal, plain lines elsewhere, warnings alone when asked to be quiet.
//!
//! All of it goes to standard error. Standard output belongs to results: with `--json` it carries one JSON document and
//! nothing else, and progress goes to standard error as plain lines.

mod bars;
mod lines;
mod meter;

use std::ffi::OsStr;
use std::io;
use std::io::IsTerminal as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::event::{Event, Listener, Task};
use crate::human;
use crate::human::Ink;

use bars::Bars;
use lines::Lines;

/// What the operator asked for, and what standard error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent wishes, not states")]
pub(super) struct Options {
    pub(super) quiet: bool,
    pub(super) verbose: bool,
    /// Draw bars; otherwise write lines.
    pub(super) bars: bool,
    pub(super) colored: bool,
}

impl Options {
    /// Looks at standard error and at `NO_COLOR`. With `--json` no bars are drawn: a program may well hold both streams.
    #[must_use]
    pub(super) fn of_stderr(quiet: bool, verbose: bool, json: bool) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let is_smart = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { quiet, verbose, bars: is_terminal && is_smart && !json, colored: is_colored(is_terminal) }
    }
}

/// Tells whether colours are wanted on a stream: it is a terminal, and neither `NO_COLOR` nor a dumb terminal forbids them.
#[must_use]
pub(super) fn is_colored(is_terminal: bool) -> bool {
    let (no_color, term) = (std::env::var_os("NO_COLOR"), std::env::var_os("TERM"));
    colors_fit(is_terminal, no_color.as_deref(), term.as_deref())
}

fn colors_fit(is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

/// Draws the events of a run. What it shows of a task it reads from the task's counters, at its own pace.
pub(super) struct Progress {
    screen: Arc<Screen>,
    options: Options,
    ticker: Option<JoinHandle<()>>,
}

struct Screen {
    state: Mutex<State>,
    /// Wakes the ticker when a task begins and when the run is over.
    woken: Condvar,
}

struct State {
    view: View,
    closed: bool,
}

enum View {
    Bars(Bars),
    Lines(Lines),
}

impl Progress {
    #[must_use]
    pub(super) fn new(options: Options) -> Arc<Self> {
        let ink = Ink::new(options.colored);
        let view = if options.bars && !options.quiet {
            View::Bars(Bars::new(indicatif::ProgressDrawTarget::stderr_with_hz(10), options.colored))
        } else {
            View::Lines(Lines::new(Box::new(io::stderr()), ink))
        };
        Arc::new(Self::start(view, options))
    }

    fn start(view: View, options: Options) -> Self {
        let screen = Arc::new(Screen { state: Mutex::new(State { view, closed: false }), woken: Condvar::new() });
        let ticking = Arc::clone(&screen);
        // Without the thread the counters stand still between events, and nothing else is lost.
        let ticker = thread::Builder::new().name("progress".to_owned()).spawn(move || ticking.tick()).ok();
        Self { screen, options, ticker }
    }

    fn say(&self, text: &str) {
        match &mut self.screen.state().view {
            View::Bars(bars) => bars.say(text),
            View::Lines(lines) => lines.say(text),
        }
    }
}

impl Listener for Progress {
    fn hear(&self, event: &Event) {
        let ink = Ink::new(self.options.colored);
        let Options { quiet, verbose, .. } = self.options;
        match event {
            Event::TaskStarted(task) if !quiet => self.screen.begin(task),
            Event::TaskEnded(task) if !quiet => self.screen.end(task),
            Event::Note(text) if !quiet => self.say(&human::printable(text)),
            Event::Detail(text) if verbose && !quiet => self.say(&ink.dim(&human::printable(text))),
            Event::Warning(text) => {
                self.say(&format!("{} {}", ink.warning("warning:"), human::printable(text)));
            }
            Event::TaskStarted(_) | Event::TaskEnded(_) | Event::Note(_) | Event::Detail(_) => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.screen.state().closed = true;
        self.screen.woken.notify_all();
        if let Some(ticker) = self.ticker.take() {
            // A ticker that panicked has nothing left to draw.
            drop(ticker.join());
        }
    }
}

impl Screen {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, task: &Task) {
        match &mut self.state().view {
            View::Bars(bars) => bars.begin(task, Instant::now()),
            View::Lines(lines) => lines.begin(task, Instant::now()),
        }
        self.woken.notify_all();
    }

    fn end(&self, task: &Task) {
        match &mut self.state().view {
            View::Bars(bars) => bars.end(task, Instant::now()),
            View::Lines(lines) => lines.end(task, Instant::now()),
        }
    }

    /// Redraws while there are tasks, sleeps while there are none.
    fn tick(&self) {
        let mut state = self.state();
        while !state.closed {
            state = match state.view.pause() {
                None => self.woken.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(pause) => {
                    let woken = self.woken.wait_timeout(state, pause);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.view.redraw(Instant::now());
        }
    }
}

impl View {
    /// Returns how long the picture stays true; `None` while no task runs.
    fn pause(&self) -> Option<Duration> {
        match self {
            Self::Bars(bars) => (!bars.is_empty()).then_some(Duration::from_millis(100)),
            Self::Lines(lines) => (!lines.is_empty()).then_some(Duration::from_secs(1)),
        }
    }

    fn redraw(&mut self, now: Instant) {
        match self {
            Self::Bars(bars) => bars.redraw(now),
            Self::Lines(lines) => lines.redraw(now),
        }
    }
}

#[cfg(test)]
mod tests;
