//! In which way a target comes to the transactions: as a replica of bkp's, or by what bkp says in a session of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::replay::ReplayError;
use crate::replay::fitness::unfit;
use crate::replay::plan::ReplayPlan;
use crate::replay::record::Record;
use crate::replay::session::reached;
use crate::replay::target::Target;
use crate::run::Run;

/// How transactions come to a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// It follows bkp as a replica.
    #[default]
    Replica,
    /// bkp applies them one after the other, in one session of the account that restores.
    Session,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replica => "replica",
            Self::Session => "session",
        })
    }
}

impl Target {
    /// Chooses the way, notes it in the plan, and refuses a target on which the plan cannot be carried out so. Changes nothing.
    ///
    /// `None`: as a replica, or where the account lacks the rights for that, in a session; what was begun goes on as it began.
    ///
    /// # Errors
    /// [`ReplayError`] says why not, and what to do.
    pub async fn settle(
        &self,
        plan: &mut ReplayPlan,
        asked: Option<Way>,
        record: Option<&Record>,
        further: bool,
        run: &Run,
    ) -> Result<(), ReplayError> {
        let begun = match record {
            Some(record) => Some((record.way, "is in the middle of a replay")),
            None if further && self.is_left_by_session().await? => Some((Way::Session, "was recovered")),
            None => None,
        };
        if let (Some((begun, told)), Some(asked)) = (begun, asked)
            && begun != asked
        {
            return Err(unfit(
                format!("{told} with `--replay-by {begun}`"),
                format!(
                    "give the command with `--replay-by {begun}`: one way does not know how far the other has come"
                ),
            ));
        }
        let (way, why) = match (asked, begun) {
            (Some(asked), _) => (asked, "`--replay-by session` says so".to_owned()),
            (None, Some((begun, _))) => (begun, "so it was begun".to_owned()),
            (None, None) => match self.check(plan, record, further).await {
                Err(error) if error.is_denied() => {
                    let why =
                        format!("the account may not make the target a replica ({})", crate::human::chain(&error));
                    (Way::Session, why)
                }
                checked => return checked,
            },
        };
        plan.way = way;
        match way {
            Way::Replica => self.check(plan, record, further).await,
            Way::Session => {
                plan.way_why = Some(why);
                self.check_session(plan, record, further, run).await
            }
        }
    }

    /// Tells whether a replay in a session has left its target with a note of where it stands.
    async fn is_left_by_session(&self) -> Result<bool, ReplayError> {
        let mut conn = self.connect().await?;
        let reached = reached::read(&mut conn).await;
        conn.disconnect().await.ok();
        Ok(reached?.is_some())
    }
}
