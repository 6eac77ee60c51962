//! The way from a target to us, tried before hours of loading: a firewall or TLS in between shows now.

use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::replay::ReplayError;
use crate::replay::ask;
use crate::replay::channel::{self, From, Whom};
use crate::replay::cover::Cover;
use crate::replay::feed::Feed;
use crate::replay::fitness;
use crate::replay::plan::ReplayPlan;
use crate::replay::record;
use crate::replay::serve::Source;
use crate::replay::settings;
use crate::replay::status::Status;
use crate::replay::target::{POLL, Target};
use crate::run::Run;

/// A target that has not found its way to us after this long will not.
const UNREACHED_MAX: Duration = Duration::from_secs(30);

/// Two that do not agree on TLS in so long never will.
const INSECURE_MAX: Duration = Duration::from_secs(3);

impl Target {
    /// Lets a target that is prepared come to us once, as it will for its binlogs: it logs in, asks for them, is sent none, and
    /// forgets that. Where it does not come, a target that was prepared just now (`is_new`) is left as it was before.
    ///
    /// # Errors
    /// [`ReplayError::Follow`] and [`ReplayError::Insecure`] where it cannot come.
    pub async fn try_way(&self, plan: &ReplayPlan, is_new: bool, run: &Run) -> Result<(), ReplayError> {
        let Some(first) = plan.feed.segments.first() else { return Ok(()) };
        let feed = Feed { segments: vec![first.clone()], end: plan.feed.begin, ..plan.feed.clone() };
        let empty = ReplayPlan { feed, ..plan.clone() };
        let mut conn = self.connect().await?;
        ask::lock(&mut conn).await?;
        let come = self.come_once(&mut conn, &empty, run).await;
        let forgotten = self.forget(&mut conn).await;
        if come.is_err() && is_new {
            self.undo_prepare(&mut conn).await?;
        }
        conn.disconnect().await.ok();
        come.and(forgotten)
    }

    async fn come_once(&self, conn: &mut Conn, plan: &ReplayPlan, run: &Run) -> Result<(), ReplayError> {
        let source = self.open_source(plan, None, run).await?;
        let naming = !plan.has_gtids && fitness::has_gtid_mode(conn, self.product).await?;
        let from = if plan.has_gtids { From::Executed } else { From::Place { place: &plan.begin, naming } };
        let secure = Cover::of(&self.server, source.address.ip()).secure(conn, self.product).await?;
        let (user, password, secure) = (&source.user, &source.password, secure.as_ref());
        let whom = Whom { address: source.address, user, password, secure };
        self.forget(conn).await?;
        let change = channel::change(self.product, whom, from);
        conn.query_drop(change).await.map_err(ReplayError::at("name bkp to the target as its source"))?;
        let start = channel::start_receiving(self.product);
        conn.query_drop(start).await.map_err(ReplayError::at("let the target try its way to bkp"))?;
        let (began, mut reached) = (Instant::now(), Instant::now());
        loop {
            let status = self.status(conn).await?.unwrap_or_default();
            if source.has_let_in() && status.is_receiving() {
                run.events.detail(format!("the target reaches this machine at {}", source.address));
                return Ok(());
            }
            refuse_unreached(&status, &source, &mut reached)?;
            if began.elapsed() > UNREACHED_MAX {
                let text = status.receive_error().map_or("it has not come", |(text, _)| text).to_owned();
                return Err(ReplayError::Follow { text, address: source.address.to_string() });
            }
            run.cancel.run_until_cancelled(tokio::time::sleep(POLL)).await.ok_or(crate::run::Stopped)?;
        }
    }

    /// Puts back what was set before the load, of which nothing has come yet.
    async fn undo_prepare(&self, conn: &mut Conn) -> Result<(), ReplayError> {
        let Some(record) = record::read(conn).await? else { return Ok(()) };
        settings::put_back(conn, &record.settings).await?;
        record::remove(conn, &record).await
    }
}

/// Refuses to wait on for a target that does not come for its binlogs. `reached`: when nothing kept it from that the last time.
pub(super) fn refuse_unreached(status: &Status, source: &Source, reached: &mut Instant) -> Result<(), ReplayError> {
    match (status.receive_error(), source.insecure()) {
        (Some((text, _)), heard)
            if reached.elapsed() > INSECURE_MAX && (heard.is_some() || text.contains("SSL connection error")) =>
        {
            let heard = heard.unwrap_or_else(|| "it was let in, and hung up".to_owned());
            Err(ReplayError::Insecure { text: text.to_owned(), heard })
        }
        (Some((text, has_stopped)), _) if has_stopped || reached.elapsed() > UNREACHED_MAX => {
            Err(ReplayError::Follow { text: text.to_owned(), address: source.address.to_string() })
        }
        (Some(_), _) => Ok(()),
        (None, _) => {
            *reached = Instant::now();
            Ok(())
        }
    }
}
