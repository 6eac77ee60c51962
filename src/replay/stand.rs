//! A target that goes on following, as a warm standby, until it is promoted.

use std::time::Instant;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::gtid::Executed;
use crate::mysql::manifest::{Position, Product};
use crate::mysql::server::Server;
use crate::replay::ask::{self, LOCK, gtid_executed};
use crate::replay::channel::{self, From, Whom};
use crate::replay::cover::Cover;
use crate::replay::feed::Feed;
use crate::replay::filter::Filter;
use crate::replay::fitness;
use crate::replay::plan::ReplayPlan;
use crate::replay::record::{self, Record, Standby};
use crate::replay::serve::Source;
use crate::replay::session::reached;
use crate::replay::settings;
use crate::replay::status::Status;
use crate::replay::stop::STOP_AT_END_MAX;
use crate::replay::target::{Replayed, Target, no_record, random_uuid, server_id};
use crate::replay::{Face, ReplayError};
use crate::run::Run;

/// Whoever serves a standby may wait for it to stop, behind a large transaction, and is killed only then.
const TAKE_OVER_S_MAX: u32 = 60;

/// A standby that is ours as long as the value lives: nobody else replays on it.
pub struct Standing {
    target: Target,
    conn: Conn,
    /// When the target was last seen to have found its way to us.
    reached: Instant,
}

/// What a target says of itself as a standby.
#[derive(Debug, Clone)]
pub struct Seen {
    pub record: Option<Record>,
    pub executed: Executed,
    pub is_receiving: bool,
    pub is_applying: bool,
    pub is_read_only: bool,
    /// Somebody serves it, or replays on it.
    pub is_held: bool,
    pub error: Option<String>,
}

impl Target {
    /// Asks a server which product it is.
    ///
    /// # Errors
    /// [`ReplayError`] where it cannot be asked.
    pub async fn product_of(server: &Server) -> Result<Product, ReplayError> {
        let mut conn = server.connect().await?;
        let product = ask::product(&mut conn).await;
        conn.disconnect().await.ok();
        product
    }

    /// Makes a target on which the plan's dump is loaded a standby, and tells it which transactions the dump holds. Done once; from
    /// then on the target itself knows how far it is.
    ///
    /// # Errors
    /// [`ReplayError`] where the target refuses, or another works on it.
    pub async fn make_standby(&self, plan: &ReplayPlan, source: &str, epoch: u32) -> Result<(), ReplayError> {
        let mut conn = self.connect().await?;
        ask::lock(&mut conn).await?;
        let record = record::read(&mut conn).await?.ok_or_else(no_record)?;
        // A target on which a replay has begun knows how far it is: it must not be told that it is back at the dump.
        if !record.has_begun {
            self.forget(&mut conn).await?;
            self.say_dumped(&mut conn, plan).await?;
        }
        let standby = Standby { source: source.to_owned(), epoch, server_id: server_id(plan)?, is_promoting: false };
        let record = Record { has_begun: true, standby: Some(standby), ..record };
        record::write(&mut conn, &record).await?;
        self.remove_replay().await?;
        conn.disconnect().await.ok();
        Ok(())
    }

    /// Removes the record of the replay that made a standby: in the binlog, where its beginning is there. A standby's record is not.
    async fn remove_replay(&self) -> Result<(), ReplayError> {
        let mut logged = self.connect().await?;
        record::remove_replay(&mut logged).await?;
        logged.disconnect().await.ok();
        Ok(())
    }

    /// Takes a standby for as long as the value lives.
    ///
    /// # Errors
    /// [`ReplayError::Busy`] where another has it.
    pub async fn stand(&self) -> Result<Standing, ReplayError> {
        let mut conn = self.connect().await?;
        ask::lock(&mut conn).await?;
        Ok(Standing { target: self.clone(), conn, reached: Instant::now() })
    }

    /// Takes a standby away from whoever serves it, and stops its stream.
    ///
    /// # Errors
    /// [`ReplayError`] where the target refuses.
    pub async fn take_over(&self) -> Result<Standing, ReplayError> {
        let mut conn = self.connect().await?;
        let at = || ReplayError::at("take the standby over from who serves it");
        let holder: Option<Option<u64>> =
            conn.query_first(format!("SELECT IS_USED_LOCK('{LOCK}')")).await.map_err(at())?;
        if let Some(holder) = holder.flatten() {
            match conn.query_drop(format!("KILL {holder}")).await {
                // ER_NO_SUCH_THREAD: it has gone by itself.
                Err(mysql_async::Error::Server(error)) if error.code == 1094 => {}
                killed => killed.map_err(at())?,
            }
        }
        ask::lock_within(&mut conn, TAKE_OVER_S_MAX).await?;
        self.stop().await?;
        Ok(Standing { target: self.clone(), conn, reached: Instant::now() })
    }

    /// Tells whether a standby stands on the way to a plan's end, beside whoever serves it.
    ///
    /// # Errors
    /// [`ReplayError::Unfit`] where it does not.
    pub async fn may_reach(&self, plan: &ReplayPlan) -> Result<(), ReplayError> {
        let mut conn = self.connect().await?;
        let checked = fitness::check_further(&mut conn, plan).await;
        conn.disconnect().await.ok();
        checked
    }

    /// Looks how a standby is, beside whoever serves it.
    ///
    /// # Errors
    /// [`ReplayError`] where the target cannot be asked.
    pub async fn look(&self) -> Result<Seen, ReplayError> {
        let mut conn = self.connect().await?;
        let record = record::read(&mut conn).await?;
        let status = self.status(&mut conn).await?;
        let is_read_only = settings::is_closed(&mut conn, self.product).await?;
        let asked = format!("SELECT IS_USED_LOCK('{LOCK}') IS NOT NULL");
        let is_held: Option<bool> =
            conn.query_first(asked).await.map_err(ReplayError::at("ask the target who serves it"))?;
        let executed = self.executed_on(&mut conn).await?;
        let mut error = status.as_ref().and_then(|status| status.apply_error().map(str::to_owned));
        if error.is_some() {
            error = fitness::worker_error(&mut conn, self.product).await.or(error);
        }
        conn.disconnect().await.ok();
        Ok(Seen {
            record,
            executed,
            is_receiving: status.as_ref().is_some_and(Status::is_receiving),
            is_applying: status.as_ref().is_some_and(|status| !status.has_stopped()),
            is_read_only,
            is_held: is_held.unwrap_or_default(),
            error,
        })
    }

    pub(super) async fn executed_on(&self, conn: &mut Conn) -> Result<Executed, ReplayError> {
        match self.product {
            Product::MySql => gtid_executed(conn).await.map(Executed::MySql),
            Product::MariaDb => Ok(Executed::parse(self.product, &reached::position(conn).await?)?),
        }
    }
}

impl Standing {
    /// Returns the record of the standby; `None` once somebody has promoted it, or the record is lost.
    ///
    /// # Errors
    /// [`ReplayError`] where the target cannot be asked.
    pub async fn record(&mut self) -> Result<Option<Record>, ReplayError> {
        record::read(&mut self.conn).await
    }

    /// Tells whether it follows nobody as a standby any more and everybody can write to it, as a promotion leaves it.
    ///
    /// # Errors
    /// [`ReplayError`] where the target cannot be asked.
    pub async fn is_let_go(&mut self) -> Result<bool, ReplayError> {
        Ok(self.target.status(&mut self.conn).await?.is_none() && settings::is_open(&mut self.conn).await?)
    }

    /// Returns what it has executed.
    ///
    /// # Errors
    /// [`ReplayError`] where the target cannot be asked.
    pub async fn executed(&mut self) -> Result<Executed, ReplayError> {
        self.target.executed_on(&mut self.conn).await
    }

    /// Serves a feed to it, and to nobody that comes without the number it was given.
    ///
    /// # Errors
    /// [`ReplayError::Serve`] where no address can be listened at.
    pub async fn serve(&self, feed: Feed, standby: &Standby, version: &str, run: &Run) -> Result<Source, ReplayError> {
        let face = Face {
            // Another than the standby's: those have the upper half.
            server_id: 1,
            server_uuid: random_uuid()?,
            version: version.to_owned(),
            has_gtids: true,
            replica: Some(standby.server_id),
        };
        self.target.serve(feed, face, run).await
    }

    /// Closes it to everybody's writes and makes it follow the source, from what it has executed.
    ///
    /// # Errors
    /// [`ReplayError`] where the target refuses.
    pub async fn follow(&mut self, source: &Source, standby: &Standby) -> Result<(), ReplayError> {
        self.close(standby).await?;
        let (target, conn) = (&self.target, &mut self.conn);
        let product = target.product;
        let secure = Cover::of(&target.server, source.address.ip()).secure(conn, product).await?;
        let (user, password, secure) = (&source.user, &source.password, secure.as_ref());
        let whom = Whom { address: source.address, user, password, secure };
        let change = channel::change(product, whom, From::Executed);
        conn.query_drop(change).await.map_err(ReplayError::at("name bkp to the standby as its source"))?;
        if let Some((name, value)) = target.status(conn).await?.unwrap_or_default().filter(&Filter::Everything) {
            return Err(fitness::filtered(name, value));
        }
        conn.query_drop(channel::start(product)).await.map_err(ReplayError::at("start the stream on the standby"))?;
        self.reached = Instant::now();
        Ok(())
    }

    /// Stops its stream, closes it to everybody's writes, and makes its settings anew: a restart of its server has lost them.
    async fn close(&mut self, standby: &Standby) -> Result<(), ReplayError> {
        let (product, threads) = (self.target.product, self.target.threads);
        self.stop().await?;
        settings::apply(&mut self.conn, &settings::wanted(product, threads, standby.server_id)).await?;
        // The record of a replay into the source comes by the binlog, and would meet this one.
        if record::is_replay_left(&mut self.conn).await? {
            settings::half_open(&mut self.conn, product).await?;
            self.target.remove_replay().await?;
        }
        settings::close(&mut self.conn, product).await
    }

    /// Looks how far it has applied the source's binlogs; what keeps it from going on is an error.
    ///
    /// # Errors
    /// [`ReplayError`]
    pub async fn applied(&mut self, source: &Source) -> Result<Position, ReplayError> {
        let status = self.target.status(&mut self.conn).await?.ok_or_else(no_record)?;
        self.target.refuse_failure(&mut self.conn, &status, source, &mut self.reached).await?;
        Ok(status.applied())
    }

    /// Stops its stream; it stays where it is.
    ///
    /// # Errors
    /// [`ReplayError`] where the target refuses.
    pub async fn stop(&mut self) -> Result<(), ReplayError> {
        self.target.stop().await
    }

    /// As [`Standing::stop`], for who is told to end: a standby that goes on for longer stops by itself once nobody serves it.
    ///
    /// # Errors
    /// [`ReplayError`] where the target refuses, or goes on.
    pub async fn stop_at_end(&mut self) -> Result<(), ReplayError> {
        self.target.stop_within(STOP_AT_END_MAX).await
    }

    /// Tells whether it stands on the way to the plan's end, and not past it.
    ///
    /// # Errors
    /// [`ReplayError::Unfit`] where it does not.
    pub async fn may_reach(&mut self, plan: &ReplayPlan) -> Result<(), ReplayError> {
        fitness::check_further(&mut self.conn, plan).await
    }

    /// Replays up to the plan's end, proves that it has executed what was planned, lets go of channel and record, and lets everybody
    /// write. Broken off anywhere, the next promotion goes on.
    ///
    /// # Errors
    /// [`ReplayError`]; the standby then keeps its record, and is closed to everybody's writes.
    pub async fn promote(mut self, plan: &ReplayPlan, run: &Run) -> Result<Replayed, ReplayError> {
        let record = record::read(&mut self.conn).await?.ok_or_else(no_record)?;
        let standby = record.standby.clone().ok_or_else(no_record)?;
        self.close(&standby).await?;
        settings::half_open(&mut self.conn, self.target.product).await?;
        let standby = Some(Standby { is_promoting: true, ..standby });
        record::write(&mut self.conn, &Record { end: plan.end.clone(), standby, ..record }).await?;
        let replayed = self.target.replay_on(&mut self.conn, plan, run).await;
        // Before a point that leaves something out, who serves it would bring that: it waits for the next promotion. Where giving up
        // fails, as on a lost connection, so it does.
        if replayed.is_err() && plan.first_excluded.is_none() {
            self.give_up().await.ok();
        }
        self.conn.disconnect().await.ok();
        replayed
    }

    /// Does what is left of a promotion that had reached its point and proved it, and was broken off then: neither plan nor binlogs are
    /// needed for that.
    ///
    /// # Errors
    /// [`ReplayError`]; the next promotion goes on.
    pub async fn end_promotion(mut self, record: &Record) -> Result<Replayed, ReplayError> {
        settings::half_open(&mut self.conn, self.target.product).await?;
        let mut replayed = Replayed { executed: self.executed().await?.to_string(), ..Replayed::default() };
        self.target.finish(&mut self.conn, record, &mut replayed).await?;
        self.conn.disconnect().await.ok();
        Ok(replayed)
    }

    /// Makes it a standby again that whoever serves it may go on with, unless all of the promotion's transactions are applied.
    async fn give_up(&mut self) -> Result<(), ReplayError> {
        let Some(record) = record::read(&mut self.conn).await?.filter(|record| !record.is_over) else { return Ok(()) };
        let Some(standby) = record.standby.clone() else { return Ok(()) };
        let given_up = Standby { is_promoting: false, ..standby.clone() };
        record::write(&mut self.conn, &Record { standby: Some(given_up), ..record }).await?;
        self.close(&standby).await
    }
}
