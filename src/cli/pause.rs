//! The commands that make running dumps stand still and go on.

use serde_json::json;

use crate::cli::args::{Global, PolicyArg};
use crate::cli::envelope::{Answer, Answered};
use crate::cli::policies;
use crate::cycle;

pub(super) fn pause(global: &Global, args: &PolicyArg) -> Answered {
    let policy = policies::one(global, &args.policy)?;
    cycle::pause(&policy)?;
    let file = policy.pause_file();
    let text = format!(
        "dumps of {} pause within a second: `{}` is there; `bkp resume {}` removes it\n",
        policy.name,
        file.display(),
        policy.name
    );
    Ok(Answer::new(text, json!({ "policy": policy.name, "paused": true, "file": file })))
}

pub(super) fn resume(global: &Global, args: &PolicyArg) -> Answered {
    let policy = policies::one(global, &args.policy)?;
    let was_paused = cycle::resume(&policy)?;
    let what = if was_paused { "dumps go on within a second" } else { "nothing paused them" };
    let text = format!("{}: {what}\n", policy.name);
    Ok(Answer::new(text, json!({ "policy": policy.name, "paused": false, "was_paused": was_paused })))
}
