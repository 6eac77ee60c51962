//! The command that follows binlogs until it is told to stop.

use serde_json::json;

use crate::cli::args::{DaemonArgs, Global};
use crate::cli::envelope::{Answer, Answered, wait_for};
use crate::cli::policies;
use crate::daemon;

pub(super) fn daemon(global: &Global, args: &DaemonArgs) -> Answered {
    let loaded = policies::all(global, &args.policies)?;
    let mut bad = loaded.bad.into_iter();
    if loaded.good.is_empty()
        && let Some(failure) = bad.next()
    {
        return Err(failure);
    }
    let bad: Vec<String> = bad.map(|failure| failure.message).collect();
    wait_for(global, |run| async move {
        // One that is wrong must not keep the others' binlogs from being captured.
        for message in bad {
            run.events.warn(message);
        }
        daemon::run(&loaded.good, &run).await
    })?;
    // A signal is how it is meant to end.
    Ok(Answer::new(String::new(), json!({ "stopped": true })))
}
