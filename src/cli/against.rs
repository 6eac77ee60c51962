//! The command that sets a snapshot beside its living source.

use serde_json::{Value, json};

use crate::against;
use crate::against::{Compared, Request};
use crate::cli::args::{Global, VerifyArgs};
use crate::cli::envelope::{Answer, Answered, wait};
use crate::cli::recorded::recorded;
use crate::cli::render;
use crate::cli::render::Told;
use crate::exit::{Exit, Failure};
use crate::place;
use crate::policy::Policy;
use crate::restore::choose::Moment;
use crate::run::Run;
use crate::status::COMPARE;

pub(super) fn against_source(global: &Global, policy: &Policy, args: &VerifyArgs) -> Answered {
    let request = Request {
        moment: args.snapshot.clone().map_or(Moment::Latest, Moment::Snapshot),
        sources: args.sources.clone(),
    };
    wait(global, |run| async move {
        recorded(policy, COMPARE, &run, work(policy, args.copy.as_deref(), &request, &run)).await
    })
}

async fn work(policy: &Policy, copy: Option<&str>, request: &Request, run: &Run) -> Answered {
    let repository = place::repository_in(policy, copy, run).await?;
    let lock = place::lock_to_read(&repository, run).await?;
    let compared = against::compare(policy, &repository, request, run).await;
    place::unlock(lock, run).await;
    let compared = compared?;
    run.check()?;
    let (mut told, mut exit) = (Told::default(), Exit::Ok);
    for one in &compared {
        exit = exit.max(exit_of(one));
        render::compared(&mut told, policy, one);
    }
    let json = json!({ "compared": compared.iter().map(json_of).collect::<Vec<Value>>(), "exit": exit.code() });
    Ok(Answer::new(told.text, json).telling(told.errors).with(exit))
}

/// What has changed since is no fault, and not nothing either.
fn exit_of(compared: &Compared) -> Exit {
    match &compared.result {
        Err(error) => error.into(),
        Ok(report) if report.is_damage() => Exit::Damaged,
        Ok(report) if report.is_equal() => Exit::Ok,
        Ok(_) => Exit::Incomplete,
    }
}

fn json_of(compared: &Compared) -> Value {
    match &compared.result {
        Ok(report) => json!({ "equal": report.is_equal(), "damaged": report.is_damage(), "report": report }),
        Err(error) => json!({ "source": compared.source, "failure": Failure::from(error) }),
    }
}
