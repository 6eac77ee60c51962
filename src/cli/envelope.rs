//! The envelope round every verb: the runtime, the signals, and the one place that prints a result.

use std::future::Future;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::{Value, json};

use crate::clock::SystemClock;
use crate::event::Events;
use crate::exit::{Exit, Failure};
use crate::run::Run;

use crate::cli::args::Global;
use crate::cli::progress::{Options, Progress};
use crate::cli::render;

/// What a command has to say in the end.
pub(super) struct Answer {
    pub(super) text: String,
    /// What went wrong on the way, as lines for standard error.
    pub(super) errors: String,
    pub(super) json: Value,
    pub(super) exit: Exit,
}

impl Answer {
    pub(super) fn new(text: impl Into<String>, json: Value) -> Self {
        Self { text: text.into(), errors: String::new(), json, exit: Exit::Ok }
    }

    pub(super) fn with(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    pub(super) fn telling(self, errors: String) -> Self {
        Self { errors, ..self }
    }

    /// Gives what a signal broke off in the midst the signal's own code.
    fn signalled(mut self, exit: Exit) -> Self {
        if self.exit == Exit::Interrupted {
            self.exit = exit;
            self.json["exit"] = exit.code().into();
        }
        self
    }
}

pub(super) type Answered = Result<Answer, Failure>;

/// Runs an asynchronous command: SIGINT and SIGTERM cancel it, and it stops at a safe point.
pub(super) fn wait<F>(global: &Global, work: impl FnOnce(Run) -> F) -> Answered
where
    F: Future<Output = Answered>,
{
    let (answer, signal) = under_signals(global, work)?;
    Ok(match signal {
        Some(exit) => answer.signalled(exit),
        None => answer,
    })
}

/// Like [`wait`], for what a command goes on with.
pub(super) fn wait_for<F, T>(global: &Global, work: impl FnOnce(Run) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    under_signals(global, work).map(|(done, _)| done)
}

/// Returns what a command came to and the code of the signal that it has heard; a failure has that code already.
fn under_signals<F, T>(global: &Global, work: impl FnOnce(Run) -> F) -> Result<(T, Option<Exit>), Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, format!("start the runtime: {error}")))?;
    let run = Run::new(
        Arc::new(SystemClock),
        Events::new(Progress::new(Options::of_stderr(global.quiet, global.verbose > 0, global.json))),
    );
    let heard = Arc::new(AtomicU8::new(0));
    let result = runtime.block_on(async {
        listen(&run, &heard)?;
        work(run.clone()).await
    });
    // What still runs in the background has nothing to say any more.
    runtime.shutdown_background();
    let signal = match heard.load(Ordering::SeqCst) {
        130 => Some(Exit::Interrupted),
        143 => Some(Exit::Terminated),
        _ => None,
    };
    match (result, signal) {
        (Ok(done), signal) => Ok((done, signal)),
        (Err(failure), Some(exit)) => Err(failure.signalled(exit)),
        (Err(failure), None) => Err(failure),
    }
}

/// Cancels the run at the first signal; a second one ends the process at once, which is as safe as a power cut.
fn listen(run: &Run, heard: &Arc<AtomicU8>) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let refusal = |error: std::io::Error| Failure::new(Exit::Failed, format!("listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refusal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(refusal)?;
    let (run, heard) = (run.clone(), heard.clone());
    tokio::spawn(async move {
        loop {
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            if heard.swap(code, Ordering::SeqCst) != 0 {
                std::process::exit(i32::from(code));
            }
            run.events.warn("stopping at a safe point; a second signal stops at once");
            run.cancel.cancel();
        }
    });
    Ok(())
}

/// Prints an answer or a failure, and returns the exit code.
pub(super) fn print(global: &Global, answered: Answered) -> Exit {
    match answered {
        Ok(answer) => {
            let text = if global.json { pretty(&answer.json) } else { answer.text };
            print_to_stdout(text.trim_end());
            print_to_stderr(&answer.errors);
            answer.exit
        }
        Err(failure) => {
            if global.json {
                let value = json!({ "error": failure.message, "hint": failure.hint, "exit": failure.exit.code() });
                print_to_stdout(&pretty(&value));
            }
            print_to_stderr(&render::failure("", &failure));
            failure.exit
        }
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

/// Writes to standard output. A reader that is gone (`| head`) is no failure of the verb.
fn print_to_stdout(text: &str) {
    if !text.is_empty() {
        let mut out = std::io::stdout().lock();
        let _closed = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

fn print_to_stderr(text: &str) {
    let mut err = std::io::stderr().lock();
    let _closed = err.write_all(text.as_bytes());
}
