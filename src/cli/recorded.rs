//! Work that the catalog is to know of, and that does not hang on it.

use crate::cli::envelope::Answered;
use crate::cycle::journal::Journal;
use crate::exit::Failure;
use crate::policy::Policy;
use crate::run::Run;

/// Does some work and lets the catalog know how it ended. No state of the catalog stands between an operator in need and that work.
pub(super) async fn recorded(policy: &Policy, verb: &str, run: &Run, work: impl Future<Output = Answered>) -> Answered {
    let unrecorded =
        |failure: Failure| run.events.warn(format!("the catalog will not know of it: {}", failure.message));
    let journal = Journal::begin(policy, verb, Vec::new(), run).map_err(unrecorded);
    let result = work.await;
    let (exit, error) = match &result {
        Ok(answer) => (answer.exit, None),
        Err(failure) => (failure.exit, Some(failure.message.clone())),
    };
    if let Ok(journal) = journal {
        journal.end(exit, error).unwrap_or_else(unrecorded);
    }
    result
}
