//! What a verb tells while it works. The edge listens and draws; nothing here prints.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a task counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Rows,
    Files,
    Objects,
    Tables,
}

/// Something worth telling.
#[derive(Debug)]
pub enum Event {
    /// A long step has begun.
    TaskStarted(Task),
    /// A long step has ended, well or not.
    TaskEnded(Task),
    /// A fact that an operator wants to read.
    Note(String),
    /// A detail for `-v`.
    Detail(String),
    /// Something is wrong, and the run goes on.
    Warning(String),
}

/// Hears events. Progress bars, plain lines, JSON and tests listen.
pub trait Listener: Send + Sync {
    fn hear(&self, event: &Event);
}

/// Tells events to whoever listens.
#[derive(Clone)]
pub struct Events {
    listener: Arc<dyn Listener>,
}

impl Events {
    pub fn new(listener: Arc<dyn Listener>) -> Self {
        Self { listener }
    }

    /// Returns events that nobody hears.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(Arc::new(Silent))
    }

    pub fn note(&self, text: impl Into<String>) {
        self.listener.hear(&Event::Note(text.into()));
    }

    pub fn detail(&self, text: impl Into<String>) {
        self.listener.hear(&Event::Detail(text.into()));
    }

    pub fn warn(&self, text: impl Into<String>) {
        self.listener.hear(&Event::Warning(text.into()));
    }

    /// Starts a long step. The total may be zero (unknown) and may be set later.
    #[must_use]
    pub fn task(&self, name: impl Into<String>, unit: Unit, total: u64) -> TaskGuard {
        let (done, total) = (AtomicU64::new(0), AtomicU64::new(total));
        let counts = Counts { name: name.into(), unit, done, total, paused: Mutex::new(None) };
        let task = Task(Arc::new(counts));
        self.listener.hear(&Event::TaskStarted(task.clone()));
        TaskGuard { task, events: self.clone() }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

struct Silent;

impl Listener for Silent {
    fn hear(&self, _: &Event) {}
}

#[derive(Debug)]
struct Counts {
    name: String,
    unit: Unit,
    done: AtomicU64,
    total: AtomicU64,
    paused: Mutex<Option<String>>,
}

/// A long step's counters: cheap to add to from any thread, read by the edge at its own pace.
#[derive(Debug, Clone)]
pub struct Task(Arc<Counts>);

impl Task {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    #[must_use]
    pub fn unit(&self) -> Unit {
        self.0.unit
    }

    pub fn add(&self, count: u64) {
        self.0.done.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes back what did not last: a chunk that is to be loaded again.
    pub fn take_back(&self, count: u64) {
        self.0.done.fetch_sub(count, Ordering::Relaxed);
    }

    pub fn set_total(&self, total: u64) {
        self.0.total.store(total, Ordering::Relaxed);
    }

    #[must_use]
    pub fn done(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }

    /// Returns the total, zero while it is unknown.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Says why the step stands still, or that it does not.
    pub fn pause(&self, why: Option<String>) {
        *self.0.paused.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Returns why the step stands still; `None` while it goes on.
    #[must_use]
    pub fn paused(&self) -> Option<String> {
        self.0.paused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells whether two handles count the same step.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Ends its task when dropped, so that no bar stays behind an error.
#[derive(Debug)]
pub struct TaskGuard {
    task: Task,
    events: Events,
}

impl std::ops::Deref for TaskGuard {
    type Target = Task;

    fn deref(&self) -> &Task {
        &self.task
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.events.listener.hear(&Event::TaskEnded(self.task.clone()));
    }
}
