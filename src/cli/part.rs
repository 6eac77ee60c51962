//! The command that restores some tables, or one shop's rows of them, to a moment: a plan, the consent, a sandbox, and from there a
//! copy or a change set.

use std::path::Path;
use std::sync::Arc;

use chrono::SecondsFormat;
use serde_json::json;

use crate::cli::args::{ReplayBy, RestoreArgs};
use crate::cli::envelope::{Answer, Answered};
use crate::cli::restore::refuse_many_later;
use crate::cli::{ask, render};
use crate::exit::{Exit, Failure};
use crate::human;
use crate::mysql::server::Server;
use crate::policy::Policy;
use crate::repository::Repository;
use crate::restore::part::changes::{About, ChangeSet, check_place};
use crate::restore::part::{self, Copied, Of, PartPlan};
use crate::restore::{Request, RestoreError};
use crate::run::Run;

/// What an operator asks for when it is not all of a database that goes to a moment.
pub(super) struct Part<'a> {
    policy: &'a Policy,
    repository: &'a Arc<Repository>,
    request: &'a Request,
    of: Option<Of>,
    server: &'a Server,
    changes: Option<&'a Path>,
    is_dry: bool,
}

/// Refuses options that make no sense together, before anything is opened.
pub(super) fn check(args: &RestoreArgs) -> Result<(), Failure> {
    let usage = |message: &str, hint: &str| Err(Failure::new(Exit::Usage, message).hinting(hint));
    if args.changes.is_some() && !args.apply && (args.tables.is_empty() || args.point_in_time.is_none()) {
        return usage(
            "`--changes` wants tables and a moment to take them back to",
            "add `--tables` and `--point-in-time`; or `--apply`, if the file has been reviewed",
        );
    }
    let is_part = args.changes.is_some() || args.of.is_some();
    if is_part && (args.go_further || args.to_dir.is_some() || args.check_foreign_keys) {
        return usage(
            "`--where` and `--changes` go with neither `--to-dir`, `--go-further` nor `--check-foreign-keys`",
            "leave these out: a change set names foreign keys that would break",
        );
    }
    Ok(())
}

/// Returns what is asked for where it is some tables by way of the binlogs.
pub(super) async fn meant<'a>(
    policy: &'a Policy,
    repository: &'a Arc<Repository>,
    args: &'a RestoreArgs,
    request: &'a Request,
) -> Result<Option<Part<'a>>, Failure> {
    let is_asked = args.of.is_some() || args.changes.is_some();
    let Some(server) = request.to_mysql.as_ref() else { return Ok(None) };
    if !is_asked && !part::is_meant(policy, repository, request).await? {
        return Ok(None);
    }
    if args.go_further || args.to_dir.is_some() || args.check_foreign_keys {
        let message = "some tables go to a moment without `--to-dir`, `--go-further` and `--check-foreign-keys`";
        return Err(Failure::new(Exit::Usage, message).hinting("leave these out, or restore the whole database"));
    }
    if args.replay_by != ReplayBy::Auto {
        let message =
            "some tables go to a moment without `--replay-by`: they are replayed in a throwaway server of bkp's own";
        return Err(Failure::new(Exit::Usage, message).hinting("leave it out, or restore the whole database"));
    }
    if args.overwrite {
        let message = "some tables go to a moment without `--overwrite`: nothing that is there is dropped for them";
        return Err(Failure::new(Exit::Usage, message).hinting(
            "bring them back beside what is there (`--as`, `--rename-schema`), or as row changes (`--changes`)",
        ));
    }
    let (of, changes) = (args.of.as_deref().map(of).transpose()?, args.changes.as_deref());
    Ok(Some(Part { policy, repository, request, of, server, changes, is_dry: args.dry_run }))
}

fn of(text: &str) -> Result<Of, Failure> {
    let parts = text.split_once('=').filter(|(column, value)| !column.is_empty() && !value.is_empty());
    let (column, value) = parts.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("`--where {text}` names no column and value"))
            .hinting("write `--where shop_id=shop042`")
    })?;
    Ok(Of { column: column.to_owned(), value: value.to_owned() })
}

impl Part<'_> {
    pub(super) async fn restore(&self, run: &Run, asks: bool) -> Answered {
        if self.changes.is_none() {
            part::confirm_target(self.policy, self.request, run).await?;
        }
        let plan = part::plan(self.policy, self.repository, self.request, self.of.as_ref(), run).await?;
        refuse_short(self.changes, plan.replay.falls_short)?;
        let mut text = render::part_plan(self.policy, &plan, self.of.as_ref());
        let json = render::part_plan_json(&plan);
        let question = if let Some(file) = self.changes {
            check_place(file)?;
            plan.check_live(self.server, run).await?;
            format!("Recover them in a sandbox, compare with {} and write `{}`?", self.server.name(), file.display())
        } else {
            let load = plan.plan_copy(self.server, self.request, run).await?;
            text.push_str(&render::part_copy(&load, &self.server.name()));
            format!("Recover them in a sandbox and copy them into {}?", self.server.name())
        };
        if self.is_dry {
            return Ok(Answer::new(text, json!({ "dry_run": true, "plan": json })));
        }
        text.lines().for_each(|line| run.events.note(line));
        if asks {
            ask::consent("restore", question, run).await?;
        } else {
            refuse_many_later(plan.replay.later)?;
        }
        let recovered = plan.recover(run).await?;
        if let Some(file) = self.changes {
            return self.compare(&plan, &recovered, file, &json, run).await;
        }
        let copied = recovered.copy(&plan, self.server, self.request, run).await?;
        let text = render::part_copied(&copied, &recovered.replayed);
        let json = json!({ "plan": json, "copied": render::part_copied_json(&copied) });
        Ok(Answer::new(text, json).with(exit_of(&copied)))
    }

    async fn compare(
        &self,
        plan: &PartPlan,
        recovered: &part::Recovered,
        file: &Path,
        json: &serde_json::Value,
        run: &Run,
    ) -> Answered {
        let about = About {
            policy: self.policy.name.clone(),
            source: plan.chosen.source.clone(),
            server_name: self.server.name(),
            point: plan.point.to_string(),
            last: plan.replay.last.as_ref().map(|last| render::mark(self.policy, last)),
            of: self.of.as_ref().map(|of| format!("{} = {}", of.column, of.value)),
            made: run.now().to_rfc3339_opts(SecondsFormat::Secs, true),
        };
        let header = recovered.changes(plan, about, self.server, file, run).await?;
        let exit = if header.conflicting > 0 { Exit::Incomplete } else { Exit::Ok };
        let text = render::change_set(&header, file);
        Ok(Answer::new(text, json!({ "plan": json, "file": file.to_string_lossy(), "changes": header })).with(exit))
    }
}

/// Refuses to compare with another moment than the one that was asked for: what was written between would be taken back.
fn refuse_short(changes: Option<&Path>, falls_short: bool) -> Result<(), Failure> {
    if changes.is_none() || !falls_short {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, "write a change set: the binlogs end before the point")
        .hinting("name the last transaction that they hold as the point, or take a copy"))
}

/// Rows that are not those of the sandbox are damage; what did not come, or could not be compared, is missing.
fn exit_of(copied: &Copied) -> Exit {
    if !copied.differences.is_empty() {
        Exit::Damaged
    } else if copied.is_whole() {
        Exit::Ok
    } else {
        Exit::Incomplete
    }
}

/// Applies a change set that was reviewed.
pub(super) async fn apply(policy: &Policy, args: &RestoreArgs, request: &Request, asks: bool, run: &Run) -> Answered {
    let (Some(file), Some(server)) = (&args.changes, &request.to_mysql) else {
        return Err(RestoreError::Nothing(policy.name.clone()).into());
    };
    let path = file.clone();
    let opened = tokio::task::spawn_blocking(move || ChangeSet::open(&path)).await;
    let set = opened.map_err(|error| RestoreError::Thread(error.to_string()))??;
    part::confirm_apply(policy, request, server, &set.header.about)?;
    let text = render::change_set(&set.header, file);
    let json = json!({ "file": file.to_string_lossy(), "changes": set.header });
    if args.dry_run {
        return Ok(Answer::new(text, json!({ "dry_run": true, "set": json })));
    }
    text.lines().for_each(|line| run.events.note(line));
    if asks {
        ask::consent("restore", format!("Change these rows on {}?", server.name()), run).await?;
    }
    let applied = set.apply(server, run).await?;
    let count = human::counted(applied.statements, "statement", "statements");
    let text = format!(
        "{count} applied on {} in one transaction, in {}: {} changed\n",
        server.name(),
        human::duration(applied.took),
        human::counted(set.header.rows(), "row", "rows")
    );
    Ok(Answer::new(
        text,
        json!({ "set": json, "applied": applied.statements, "millis": crate::backup::millis(applied.took) }),
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn a_change_set_is_of_the_moment_that_was_asked_for() {
        let file = Some(Path::new("shop.sql"));
        assert!(refuse_short(file, true).is_err_and(|failure| failure.exit == Exit::Usage));
        assert!(refuse_short(file, false).is_ok());
        assert!(refuse_short(None, true).is_ok(), "a copy overwrites nothing");
    }

    #[test]
    fn one_shops_rows_never_go_over_all_shops_tables() {
        let args =
            ["bkp", "restore", "mall", "--to-mysql", "mysql://a@db", "--point-in-time", "latest", "--tables", "m.o"];
        let parse = |more: &[&str]| Cli::try_parse_from(args.iter().chain(more)).map(drop);
        assert!(parse(&["--where", "shop_id=3"]).is_ok());
        assert!(parse(&["--overwrite"]).is_ok());
        assert!(
            parse(&["--where", "shop_id=3", "--overwrite"])
                .is_err_and(|error| error.to_string().contains("--overwrite"))
        );
    }

    #[test]
    fn a_reviewed_set_is_applied_whole() {
        let parse = |more: &[&str]| {
            let args = ["bkp", "restore", "mall", "--to-mysql", "mysql://a@db", "--changes", "shop.sql", "--apply"];
            Cli::try_parse_from(args.iter().chain(more)).map(drop)
        };
        assert!(parse(&[]).is_ok());
        for more in [["--where", "shop_id=3"], ["--tables", "m.o"], ["--point-in-time", "latest"], ["--binlogs", "/b"]]
        {
            assert!(parse(&more).is_err(), "{more:?}");
        }
    }
}
