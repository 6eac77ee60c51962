use std::io::Write;

use super::*;
use crate::event::{Events, Unit};

/// What was written, shared with whoever writes.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn lines(&self) -> Lines {
        Lines::new(Box::new(self.clone()), Ink::plain())
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut paper = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paper.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const LOUD: Options = Options { quiet: false, verbose: false, bars: false, colored: false };

/// Returns the events of a run whose progress goes to the paper.
fn events(paper: &Paper, options: Options) -> Events {
    let view = View::Lines(paper.lines());
    Events::new(Arc::new(Progress::start(view, options)))
}

#[test]
fn a_long_step_tells_how_far_it_is_every_ten_seconds() {
    let paper = Paper::default();
    let mut lines = paper.lines();
    let task = Events::silent().task("load", Unit::Bytes, 100 << 20);
    let start = Instant::now();
    lines.begin(&task, start);
    for second in 1..=25 {
        task.add(2 << 20);
        lines.redraw(start + Duration::from_secs(second));
    }
    task.add(50 << 20);
    lines.end(&task, start + Duration::from_secs(40));
    assert_eq!(
        paper.text(),
        "load: started (100 MiB)\n\
         load: 20.0 MiB of 100 MiB (20 %), 2.0 MiB/s, 40 s left\n\
         load: 40.0 MiB of 100 MiB (40 %), 2.0 MiB/s, 30 s left\n\
         load: 100 MiB in 40 s, 2.5 MiB/s\n"
    );
}

#[test]
fn a_step_that_ends_early_says_how_far_it_came() {
    let paper = Paper::default();
    let mut lines = paper.lines();
    let task = Events::silent().task("files", Unit::Files, 60_000);
    let start = Instant::now();
    lines.begin(&task, start);
    task.add(1_200);
    lines.end(&task, start + Duration::from_secs(3));
    let last = "files: ended after 3.0 s at 1,200 of 60,000 files (2 %)";
    assert_eq!(paper.text().lines().last(), Some(last));
}

#[test]
fn a_total_that_comes_late_and_a_count_that_goes_back_do_no_harm() {
    let paper = Paper::default();
    let mut lines = paper.lines();
    let task = Events::silent().task("dump", Unit::Rows, 0);
    let start = Instant::now();
    lines.begin(&task, start);
    task.add(500);
    lines.redraw(start + Duration::from_secs(10));
    task.set_total(1_000);
    task.take_back(400);
    lines.redraw(start + Duration::from_secs(21));
    let text = paper.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, ["dump: started", "dump: 500 rows, 50/s", "dump: 100 of 1,000 rows (10 %)"]);
}

#[test]
fn a_step_that_stands_still_says_why_and_promises_no_end() {
    let paper = Paper::default();
    let mut lines = paper.lines();
    let task = Events::silent().task("dump rows", Unit::Bytes, 100 << 20);
    let start = Instant::now();
    lines.begin(&task, start);
    task.add(20 << 20);
    task.pause(Some("45 threads running on the server, 30 are allowed".to_owned()));
    lines.redraw(start + Duration::from_secs(10));
    task.pause(None);
    lines.redraw(start + Duration::from_secs(20));
    let text = paper.text();
    let told: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(
        told,
        [
            "dump rows: 20.0 MiB of 100 MiB (20 %), paused: 45 threads running on the server, 30 are allowed",
            "dump rows: 20.0 MiB of 100 MiB (20 %)"
        ]
    );
    let mut meter = super::meter::Meter::new(task.clone(), start);
    task.pause(Some("busy".to_owned()));
    meter.sample(start + Duration::from_secs(1));
    assert_eq!(meter.short_state(), " 20 %, paused: busy, 20.0 MiB of 100 MiB");
}

#[test]
fn quiet_leaves_only_warnings() {
    let paper = Paper::default();
    let events = events(&paper, Options { quiet: true, verbose: true, ..LOUD });
    events.note("a note");
    events.detail("a detail");
    drop(events.task("load", Unit::Bytes, 1));
    events.warn("the copy failed");
    drop(events);
    assert_eq!(paper.text(), "warning: the copy failed\n");
}

#[test]
fn details_come_only_when_asked_for() {
    for verbose in [false, true] {
        let paper = Paper::default();
        let events = events(&paper, Options { verbose, ..LOUD });
        events.note("a note");
        events.detail("a detail");
        drop(events);
        assert_eq!(paper.text().contains("a detail"), verbose);
        assert!(paper.text().contains("a note"));
    }
}

#[test]
fn what_a_name_holds_cannot_steer_the_terminal() {
    let paper = Paper::default();
    let events = events(&paper, LOUD);
    events.warn("table `a\u{1b}[2Jb` is odd");
    drop(events.task("\u{7}bell", Unit::Tables, 0));
    drop(events);
    assert!(!paper.text().contains(['\u{1b}', '\u{7}']), "{:?}", paper.text());
}

#[test]
fn steps_from_many_threads_all_begin_and_end() {
    let paper = Paper::default();
    let events = events(&paper, LOUD);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..20).for_each(|_| drop(events.task("read", Unit::Objects, 0))));
        }
    });
    drop(events);
    assert_eq!(paper.text().matches("read: started\n").count(), 160);
    assert_eq!(paper.text().matches("read: 0 objects in ").count(), 160);
}

#[test]
fn bars_come_and_go_with_their_tasks() {
    let mut bars = Bars::new(indicatif::ProgressDrawTarget::hidden(), true);
    let start = Instant::now();
    let tasks = ["load", "files"].map(|name| Events::silent().task(name, Unit::Bytes, 0));
    for task in &tasks {
        bars.begin(task, start);
    }
    tasks[0].set_total(10);
    tasks[0].add(11);
    bars.redraw(start + Duration::from_secs(1));
    bars.end(&tasks[0], start + Duration::from_secs(2));
    assert!(!bars.is_empty());
    bars.end(&tasks[1], start + Duration::from_secs(2));
    bars.end(&tasks[1], start + Duration::from_secs(2));
    assert!(bars.is_empty());
}

#[test]
fn colors_need_a_terminal_and_no_objection() {
    let table = [
        (true, None, Some("xterm"), true),
        (true, Some(""), None, true),
        (false, None, Some("xterm"), false),
        (true, Some("1"), Some("xterm"), false),
        (true, None, Some("dumb"), false),
    ];
    for (is_terminal, no_color, term, wanted) in table {
        let fits = colors_fit(is_terminal, no_color.map(OsStr::new), term.map(OsStr::new));
        assert_eq!(fits, wanted, "{is_terminal} {no_color:?} {term:?}");
    }
}
