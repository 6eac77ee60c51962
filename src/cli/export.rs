//! The command that exports: the request from the arguments, the work, and what to load it with.

use serde_json::json;

use crate::cli::args::{ExportArgs, FormArg, Global};
use crate::cli::envelope::{Answer, Answered, wait};
use crate::cli::recorded::recorded;
use crate::cli::{policies, render, restore};
use crate::exit::Failure;
use crate::export;
use crate::export::{Form, Request};
use crate::place;
use crate::policy::Policy;
use crate::restore::choose::Moment;
use crate::run::Run;

pub(super) fn export(global: &Global, args: &ExportArgs) -> Answered {
    let policy = policies::one(global, &args.policy.policy)?;
    let request = request(&policy, args)?;
    wait(global, |run| async move {
        recorded(&policy, "export", &run, work(&policy, args.from.as_deref(), &request, &run)).await
    })
}

fn request(policy: &Policy, args: &ExportArgs) -> Result<Request, Failure> {
    let moment = match (&args.snapshot, &args.point_in_time) {
        (Some(id), _) => Moment::Snapshot(id.clone()),
        (None, Some(text)) => restore::moment(text, policy.timezone)?,
        (None, None) => Moment::Latest,
    };
    Ok(Request {
        moment,
        source: args.source.clone(),
        tables: args.tables.iter().map(|name| restore::table(name)).collect::<Result<_, _>>()?,
        users: !args.no_users,
        form: match args.format {
            FormArg::Mydumper => Form::Mydumper,
            FormArg::Sql => Form::Sql,
        },
        dir: restore::absolute(&args.dir)?,
    })
}

/// Exports. The catalog is to know that rows left the repository in plaintext.
async fn work(policy: &Policy, from: Option<&str>, request: &Request, run: &Run) -> Answered {
    let repository = place::repository_in(policy, from, run).await?;
    let lock = place::lock_to_read(&repository, run).await?;
    let exported = async {
        let plan = export::plan(policy, &repository, request, run).await?;
        run.events.detail(format!("exporting {} as plaintext", plan.label));
        export::apply(&plan, run).await
    };
    let exported = exported.await;
    place::unlock(lock, run).await;
    let exported = exported?;
    Ok(Answer::new(render::exported(&exported), json!({ "exported": exported })))
}
