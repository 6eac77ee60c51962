//! The command that follows binlogs until it is told to stop.

use serde_json::json;

use crate::cli::args::{DaemonArgs, Global};
use crate::cli::envelope::{Answer, Answered, wait_for};
use crate::cli::policies;
use crate::daemon;

pub(super) fn daemon(global: &Global, args: &DaemonArgs) -> Answered {
    let loaded = policies::all(global, &args.policies)?;
    if let Some(failure) = loaded.bad.into_iter().next() {
        return Err(failure);
    }
    wait_for(global, |run| async move { daemon::run(&loaded.good, &run).await })?;
    // A signal is how it is meant to end.
    Ok(Answer::new(String::new(), json!({ "stopped": true })))
}
