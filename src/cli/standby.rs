//! The commands on a warm standby: start, status, promote.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli::args::{Global, StandbyArgs, StandbyCommand, StandbyPromoteArgs, StandbyStartArgs, StandbyStatusArgs};
use crate::cli::envelope::{Answer, Answered, wait};
use crate::cli::recorded::recorded;
use crate::cli::restore::{self, Access};
use crate::cli::{policies, render};
use crate::daemon::notify::Notifier;
use crate::exit::{Exit, Failure};
use crate::policy::Policy;
use crate::replay::Point;
use crate::run::Run;
use crate::standby::{Ended, Standby, Status};

pub(super) fn standby(global: &Global, command: &StandbyCommand) -> Answered {
    match command {
        StandbyCommand::Start(args) => start(global, args),
        StandbyCommand::Status(args) => status(global, args),
        StandbyCommand::Promote(args) => promote(global, args),
    }
}

/// Returns the standby that is meant.
fn of<'a>(policy: &'a Policy, args: &'a StandbyArgs, delay: Option<Duration>) -> Result<Standby<'a>, Failure> {
    let Some(source) = policy.mysql.get(&args.source) else {
        return Err(Failure::new(Exit::Usage, format!("`{}` is no database of policy `{}`", args.source, policy.name)));
    };
    let (password_file, ca) = (args.to_mysql_password_file.as_deref(), args.to_mysql_ca.as_deref());
    let access = Access { password_file, ca, plain: args.to_mysql_plain };
    Ok(Standby {
        policy,
        source: &args.source,
        server: restore::server(policy, &args.to_mysql, access)?,
        delay: delay.unwrap_or(source.standby_delay),
        connections: usize::from(args.connections),
        listen: args.replay_listen,
        skip_binlog: args.no_binlog,
    })
}

fn start(global: &Global, args: &StandbyStartArgs) -> Answered {
    let policy = policies::one(global, &args.standby.policy.policy)?;
    let standby = of(&policy, &args.standby, args.delay)?;
    wait(global, |run| async move {
        let notifier = Notifier::from_environment();
        let ready = || {
            notifier.ready();
            run.events.note(format!("{}: the standby streams", standby.source));
        };
        let ended = tokio::select! {
            ended = standby.start(args.from.as_deref(), &ready, &run) => ended,
            never = notifier.watch() => match never {},
        };
        notifier.stopping();
        let text = match ended? {
            Ended::Stopped => "the stream has stopped, and the standby stays where it is",
            Ended::Promoted => "the standby was promoted: nothing is left to serve",
        };
        Ok(Answer::new(text, json!({ "ended": text })))
    })
}

fn status(global: &Global, args: &StandbyStatusArgs) -> Answered {
    let policy = &policies::one(global, &args.standby.policy.policy)?;
    let standby = of(policy, &args.standby, None)?;
    wait(global, |run| async move {
        let status = standby.status(&run).await?;
        let exit = exit_of(policy, &status);
        let mut json = json!(status);
        json["exit"] = exit.code().into();
        Ok(Answer::new(render::standby(policy, &status), json).with(exit))
    })
}

/// Judges as `bkp status` does: a breached objective, or anything else that is bad.
fn exit_of(policy: &Policy, status: &Status) -> Exit {
    let rpo = policy.objectives.rpo.and_then(|rpo| u64::try_from(rpo.as_millis()).ok());
    match status.late_ms() {
        Some(late) if rpo.is_some_and(|rpo| late > rpo) => Exit::Breached,
        // That nobody knows the lag does not show that the objective holds.
        None if rpo.is_some() => Exit::Failed,
        _ if !status.is_streaming || !status.is_read_only => Exit::Failed,
        _ => Exit::Ok,
    }
}

fn promote(global: &Global, args: &StandbyPromoteArgs) -> Answered {
    let began = Instant::now();
    let policy = &policies::one(global, &args.standby.policy.policy)?;
    let standby = of(policy, &args.standby, None)?;
    let point = restore::point(&args.point_in_time, policy.timezone)?;
    wait(global, |run| async move {
        if args.dry_run {
            if standby.has_arrived().await? {
                let text = "a promotion that was broken off has reached its point: what is left is to open the standby";
                return Ok(Answer::new(text, json!({ "dry_run": true, "has_arrived": true })));
            }
            let promotion = standby.plan_promotion(&point, args.up_to_gap, &run).await?;
            restore::refuse_many_later(promotion.plan.later)?;
            promotion.may_reach().await?;
            let text = render::promotion(policy, standby.source, &promotion, run.now());
            return Ok(Answer::new(text, json!({ "dry_run": true, "plan": render::promotion_json(&promotion) })));
        }
        let promoted = Box::pin(promote_to(policy, &standby, &point, args.up_to_gap, began, &run));
        recorded(policy, "promote", &run, promoted).await
    })
}

async fn promote_to(
    policy: &Policy,
    standby: &Standby<'_>,
    point: &Point,
    up_to_gap: bool,
    began: Instant,
    run: &Run,
) -> Answered {
    if let Some(promoted) = standby.end_promotion(began).await? {
        let json = json!({ "promoted": render::promoted_json(&promoted), "exit": Exit::Ok.code() });
        return Ok(Answer::new(render::promoted(policy, standby.source, &promoted), json));
    }
    let promotion = standby.plan_promotion(point, up_to_gap, run).await?;
    render::promotion(policy, standby.source, &promotion, run.now()).lines().for_each(|line| run.events.note(line));
    restore::refuse_many_later(promotion.plan.later)?;
    let plan = render::promotion_json(&promotion);
    let promoted = standby.carry_out(promotion, point, up_to_gap, began, run).await?;
    let json = json!({ "plan": plan, "promoted": render::promoted_json(&promoted), "exit": Exit::Ok.code() });
    Ok(Answer::new(render::promoted(policy, standby.source, &promoted), json))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_lag_that_nobody_knows_keeps_no_objective() {
        let mut policy = Policy::parse(include_str!("../../policies/full.toml"), Path::new("full.toml")).unwrap();
        policy.objectives.rpo = Some(Duration::from_mins(1));
        let mut status = Status {
            source: "db1".to_owned(),
            target: "10.0.30.21:3306".to_owned(),
            executed: "0-1-7".to_owned(),
            as_of: None,
            lag_ms: None,
            delay_ms: 0,
            is_streaming: true,
            is_read_only: true,
            is_promoting: false,
            error: None,
        };
        assert_eq!(exit_of(&policy, &status), Exit::Failed);
        status.lag_ms = Some(60_000);
        assert_eq!(exit_of(&policy, &status), Exit::Ok);
        status.lag_ms = Some(60_001);
        assert_eq!(exit_of(&policy, &status), Exit::Breached);
        (status.lag_ms, policy.objectives.rpo) = (None, None);
        assert_eq!(exit_of(&policy, &status), Exit::Ok, "nothing is asked of it");
    }
}
