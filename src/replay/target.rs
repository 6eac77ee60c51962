//! The restored server: made fit to follow, watched while it applies, and left as it was.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::event::Unit;
use crate::mysql::gtid::{Executed, Uuid};
use crate::mysql::manifest::{Position, Product};
use crate::mysql::server::Server;
use crate::mysql::sql;
use crate::net;
use crate::policy::MysqlAddress;
use crate::replay::ReplayError;
use crate::replay::ask::{self, gtid_executed, slave_pos};
use crate::replay::channel::{self, From, Whom};
use crate::replay::cover::Cover;
use crate::replay::feed::Feed;
use crate::replay::fitness;
use crate::replay::plan::ReplayPlan;
use crate::replay::record::{self, Record, Standby};
use crate::replay::segments::reaches;
use crate::replay::serve::{Face, Source};
use crate::replay::session::reached;
use crate::replay::settings;
use crate::replay::status::{self, Status};
use crate::replay::stop::{STOP_AT_END_MAX, STOP_MAX};
use crate::replay::trial;
use crate::replay::way::Way;
use crate::run::Run;

/// How often the target is asked how far it is.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// What keeps a table or the whole target locked for as long (`LOCK TABLES`, `FLUSH TABLES WITH READ LOCK`) is a person's to see to.
const LOCK_MAX: Duration = Duration::from_mins(1);

/// A server to replay on.
#[derive(Debug, Clone)]
pub struct Target {
    pub server: Server,
    pub product: Product,
    /// Threads that apply.
    pub threads: usize,
    /// Where to listen for it; `None`: at the address by which this machine goes to the target.
    pub listen: Option<SocketAddr>,
    /// Keep the record of the replay out of the target's binlog.
    pub skip_binlog: bool,
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replayed {
    pub transactions: u64,
    pub bytes: u64,
    pub took: Duration,
    /// What the target says that it has executed.
    pub executed: String,
    /// Transactions that were prepared (XA) and neither committed nor rolled back at the point.
    pub prepared: u64,
    /// Events that came by the binlogs: a replica switches them off.
    pub events_off: Vec<String>,
}

impl Target {
    /// Reads the record of a replay that was begun on this target and is not over.
    ///
    /// # Errors
    /// [`ReplayError`] where the target cannot be asked.
    pub async fn record(&self) -> Result<Option<Record>, ReplayError> {
        let mut conn = self.connect().await?;
        let record = record::read(&mut conn).await;
        conn.disconnect().await.ok();
        record
    }

    /// Returns what the target has executed of its source's transactions, and on MySQL of its own.
    ///
    /// # Errors
    /// [`ReplayError`] where the target cannot be asked.
    pub async fn executed(&self) -> Result<Executed, ReplayError> {
        let mut conn = self.connect().await?;
        let executed = self.executed_on(&mut conn).await;
        conn.disconnect().await.ok();
        executed
    }

    /// Returns the name under which the target numbers its own transactions; `None` on MariaDB.
    ///
    /// # Errors
    /// [`ReplayError`] where the target cannot be asked.
    pub async fn own_uuid(&self) -> Result<Option<Uuid>, ReplayError> {
        let mut conn = self.connect().await?;
        let own = ask::own_uuid(&mut conn, self.product).await;
        conn.disconnect().await.ok();
        own
    }

    /// Refuses a target that binlogs cannot be served to; changes nothing.
    ///
    /// # Errors
    /// [`ReplayError::Unfit`] says why, and what to do.
    pub async fn may_be_served(&self) -> Result<(), ReplayError> {
        self.serves_at().await.map(drop)
    }

    /// Refuses a target on which the plan cannot be carried out; changes nothing.
    ///
    /// # Errors
    /// [`ReplayError::Unfit`] says why, and what to do.
    pub async fn check(&self, plan: &ReplayPlan, record: Option<&Record>, further: bool) -> Result<(), ReplayError> {
        let listen = self.serves_at().await?;
        let mut conn = self.connect().await?;
        Cover::of(&self.server, listen.ip()).secure(&mut conn, self.product).await?;
        let checked = fitness::check(&mut conn, plan, record, further).await;
        conn.disconnect().await.ok();
        checked
    }

    /// Makes the target fit, before anything is loaded: no event may fire between. `was_empty`: it holds nothing yet. Returns whether
    /// this is the begin of it.
    ///
    /// # Errors
    /// [`ReplayError`] where a setting cannot be made.
    pub async fn prepare(
        &self,
        plan: &ReplayPlan,
        snapshot: &str,
        was_empty: bool,
        further: bool,
    ) -> Result<bool, ReplayError> {
        let mut conn = self.connect().await?;
        let wanted = match plan.way {
            Way::Replica => settings::wanted(self.product, self.threads, server_id(plan)?),
            Way::Session => settings::wanted_in_session(&mut conn).await?,
        };
        if !further {
            reached::forget(&mut conn).await?;
        }
        let (begin, end, way) = (plan.begin.clone(), plan.end.clone(), plan.way);
        let begun = record::read(&mut conn).await?;
        let is_new = begun.is_none();
        let record = if let Some(record) = begun {
            // What the settings were before stands in the record.
            let is_over = record.is_over && record.end == end;
            Record { end, is_over, ..record }
        } else {
            let settings = settings::read(&mut conn, &wanted).await?;
            // What an earlier recovery has told the target of its dump holds.
            let (is_loaded, has_begun, started) = (further, further, 0);
            let (snapshot, is_over) = (snapshot.to_owned(), false);
            let (standby, lacking) = (None, Vec::new());
            Record {
                snapshot,
                begin,
                end,
                way,
                is_loaded,
                lacking,
                was_empty,
                has_begun,
                is_over,
                started,
                settings,
                standby,
            }
        };
        record::write(&mut conn, &record).await?;
        if plan.way == Way::Replica {
            self.stop().await?;
        }
        settings::apply(&mut conn, &wanted).await?;
        conn.disconnect().await.ok();
        Ok(is_new)
    }

    /// Notes that the dump is loaded: all tables of it, and the rest but for `lacking`.
    ///
    /// # Errors
    /// [`ReplayError`] where the record cannot be written.
    pub async fn note_loaded(&self, lacking: Vec<String>) -> Result<(), ReplayError> {
        let mut conn = self.connect().await?;
        let record = record::read(&mut conn).await?.ok_or_else(no_record)?;
        record::write(&mut conn, &Record { is_loaded: true, lacking, ..record }).await?;
        conn.disconnect().await.ok();
        Ok(())
    }

    /// Replays on a target that is prepared and loaded. Started again after an interruption, it goes on.
    ///
    /// # Errors
    /// [`ReplayError`]; the target then keeps the record and what has been applied.
    pub async fn replay(&self, plan: &ReplayPlan, run: &Run) -> Result<Replayed, ReplayError> {
        let mut conn = self.connect().await?;
        ask::lock(&mut conn).await?;
        let replayed = match plan.way {
            Way::Replica => self.replay_on(&mut conn, plan, run).await,
            Way::Session => self.replay_in_session(&mut conn, plan, run).await,
        };
        conn.disconnect().await.ok();
        replayed
    }

    /// Replays on a connection that has the lock.
    pub(super) async fn replay_on(
        &self,
        conn: &mut Conn,
        plan: &ReplayPlan,
        run: &Run,
    ) -> Result<Replayed, ReplayError> {
        let began = run.clock.instant();
        let record = record::read(conn).await?.ok_or_else(no_record)?;
        let mut replayed = Replayed { transactions: plan.transactions, bytes: plan.bytes, ..Replayed::default() };
        if record.is_over {
            run.events.note("the replay is over already: what is left is to tidy up");
        } else if record.standby.is_some() && self.is_done(conn, plan, &Status::default()).await? {
            run.events.detail("the standby has applied all of it already");
        } else if plan.transactions > 0 {
            let source = self.open_source(plan, record.standby.as_ref(), run).await?;
            self.follow(conn, plan, &source, record.clone()).await?;
            self.wait(conn, plan, &source, run).await?;
        } else if !record.has_begun {
            self.say_dumped(conn, plan).await?;
        }
        replayed.executed = self.compare(conn, plan).await?;
        self.finish(conn, &record, &mut replayed).await?;
        replayed.took = run.clock.instant().duration_since(began);
        Ok(replayed)
    }

    pub(super) async fn connect(&self) -> Result<Conn, ReplayError> {
        let mut conn = self.server.connect().await?;
        if self.skip_binlog {
            // Who may not keeps the record in the binlog, as the load keeps its rows there.
            conn.query_drop("SET SESSION sql_log_bin = 0").await.ok();
        }
        let bound = format!("SET SESSION lock_wait_timeout = {}", LOCK_MAX.as_secs());
        conn.query_drop(bound).await.map_err(ReplayError::at("set how long the target waits for locks"))?;
        Ok(conn)
    }

    /// Returns where to listen: on this machine's side of the way to the target. Port 0: any that is free.
    ///
    /// # Errors
    /// [`ReplayError`] where nobody can say.
    pub async fn serves_at(&self) -> Result<SocketAddr, ReplayError> {
        let (host, port) = match (&self.listen, &self.server.address) {
            (Some(listen), _) => return Ok(*listen),
            (None, MysqlAddress::Socket(_)) => return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            (None, MysqlAddress::Tcp { host, port }) => (host.clone(), *port),
        };
        let network = self.server.network.clone();
        let cancel = tokio_util::sync::CancellationToken::new();
        let ways = tokio::task::spawn_blocking(move || net::ways(&network, &host, port, &cancel));
        let ways = ways.await.map_err(|error| ReplayError::Thread(error.to_string()))?;
        let local = ways.ok().and_then(|ways| ways.first().map(|way| way.local));
        Ok(SocketAddr::new(local.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), 0))
    }

    pub(super) async fn open_source(
        &self,
        plan: &ReplayPlan,
        standby: Option<&Standby>,
        run: &Run,
    ) -> Result<Source, ReplayError> {
        let face = Face {
            server_id: plan.server_ids.first().copied().unwrap_or(1),
            server_uuid: random_uuid()?,
            version: plan.version.clone(),
            has_gtids: plan.has_gtids,
            replica: standby.map(|standby| standby.server_id),
        };
        self.serve(plan.feed.clone(), face, run).await
    }

    /// Serves a feed where the target can reach it.
    pub(super) async fn serve(&self, feed: Feed, face: Face, run: &Run) -> Result<Source, ReplayError> {
        let listen = self.serves_at().await?;
        let guard = Cover::of(&self.server, listen.ip()).guard(listen.ip())?;
        let (events, cancel) = (run.events.clone(), run.cancel.clone());
        let opened = tokio::task::spawn_blocking(move || Source::open(feed, face, listen, guard, events, &cancel));
        let opened = opened.await.map_err(|error| ReplayError::Thread(error.to_string()))?;
        opened.map_err(|error| ReplayError::Serve { address: listen.to_string(), error })
    }

    /// Makes the target follow us, from where it is.
    async fn follow(
        &self,
        conn: &mut Conn,
        plan: &ReplayPlan,
        source: &Source,
        mut record: Record,
    ) -> Result<(), ReplayError> {
        let at = ReplayError::at;
        let started = ask::started(conn).await?;
        let place = match (record.has_begun, plan.has_gtids) {
            (false, _) => {
                self.forget(conn).await?;
                self.say_dumped(conn, plan).await?;
                plan.begin.clone()
            }
            (true, true) => {
                self.stop().await?;
                plan.begin.clone()
            }
            (true, false) => {
                fitness::same_process(&record, started)?;
                self.stop().await?;
                self.status(conn).await?.ok_or_else(no_record)?.applied()
            }
        };
        let naming = !plan.has_gtids && fitness::has_gtid_mode(conn, self.product).await?;
        let from = if plan.has_gtids { From::Executed } else { From::Place { place: &place, naming } };
        let secure = Cover::of(&self.server, source.address.ip()).secure(conn, self.product).await?;
        let (user, password, secure) = (&source.user, &source.password, secure.as_ref());
        let whom = Whom { address: source.address, user, password, secure };
        let change = channel::change(self.product, whom, from);
        conn.query_drop(change).await.map_err(at("name bkp to the target as its source"))?;
        for statement in channel::filter(self.product, &plan.filter) {
            conn.query_drop(statement).await.map_err(at("let the target pass over what the dump has not"))?;
        }
        if let Some((name, value)) = self.status(conn).await?.unwrap_or_default().filter(&plan.filter) {
            return Err(fitness::filtered(name, value));
        }
        (record.has_begun, record.started) = (true, started);
        record::write(conn, &record).await?;
        conn.query_drop(channel::start(self.product)).await.map_err(at("start the replay on the target"))
    }

    /// Tells the target which transactions the dump holds.
    pub(super) async fn say_dumped(&self, conn: &mut Conn, plan: &ReplayPlan) -> Result<(), ReplayError> {
        if !plan.has_gtids {
            return Ok(());
        }
        let at = || ReplayError::at("tell the target which transactions the dump holds");
        match (self.product, Executed::parse(self.product, &plan.dumped)?) {
            (Product::MariaDb, _) => {
                let set = format!("SET GLOBAL gtid_slave_pos = {}", sql::string(&plan.dumped));
                conn.query_drop(set).await.map_err(at())
            }
            (Product::MySql, Executed::MySql(dumped)) => {
                let executed = gtid_executed(conn).await?;
                if let Executed::MySql(planned) = &plan.executed {
                    fitness::refuse_ahead(&executed, planned, &dumped)?;
                }
                let rest = dumped.subtract(&executed);
                if rest.is_empty() {
                    return Ok(());
                }
                conn.query_drop(format!("SET GLOBAL gtid_purged = '+{rest}'")).await.map_err(at())
            }
            (Product::MySql, Executed::MariaDb(_)) => Ok(()),
        }
    }

    pub(super) async fn stop(&self) -> Result<(), ReplayError> {
        self.stop_within(STOP_MAX).await
    }

    pub(super) async fn forget(&self, conn: &mut Conn) -> Result<(), ReplayError> {
        self.stop().await?;
        match conn.query_drop(channel::forget(self.product)).await {
            Err(mysql_async::Error::Server(error)) if channel::is_absent(error.code) => Ok(()),
            done => done.map_err(ReplayError::at("let the target forget the replay")),
        }
    }

    /// Takes the filter back: a MariaDB keeps that of a name for whoever comes by the name again.
    async fn unfilter(&self, conn: &mut Conn) -> Result<(), ReplayError> {
        if self.status(conn).await?.is_some() {
            self.stop().await?;
            for statement in channel::unfilter(self.product) {
                conn.query_drop(statement)
                    .await
                    .map_err(ReplayError::at("take the target's replication filter back"))?;
            }
        }
        Ok(())
    }

    /// Returns the status of our channel.
    pub(super) async fn status(&self, conn: &mut Conn) -> Result<Option<Status>, ReplayError> {
        let all = status::read(conn, self.product).await?;
        Ok(all.into_iter().find(|(name, _)| channel::is_ours(name)).map(|(_, status)| status))
    }

    /// Waits until the target has applied everything.
    async fn wait(&self, conn: &mut Conn, plan: &ReplayPlan, source: &Source, run: &Run) -> Result<(), ReplayError> {
        let task = run.events.task("replay", Unit::Bytes, plan.bytes);
        let mut reached = Instant::now();
        loop {
            let status = self.status(conn).await?.unwrap_or_default();
            let done = plan.feed.bytes_until(&status.applied()).unwrap_or_default();
            task.add(done.saturating_sub(task.done()));
            if self.is_done(conn, plan, &status).await? {
                return Ok(());
            }
            if let Some((name, value)) = status.filter(&plan.filter) {
                self.stop().await?;
                return Err(fitness::filtered(name, value));
            }
            self.refuse_failure(conn, &status, source, &mut reached).await?;
            tokio::select! {
                () = run.cancel.cancelled() => return Err(self.interrupted().await),
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    async fn interrupted(&self) -> ReplayError {
        // Where that fails the target stops by itself once we are gone.
        self.stop_within(STOP_AT_END_MAX).await.ok();
        ReplayError::Stopped(crate::run::Stopped)
    }

    async fn is_done(&self, conn: &mut Conn, plan: &ReplayPlan, status: &Status) -> Result<bool, ReplayError> {
        match &plan.executed {
            Executed::MySql(planned) if plan.has_gtids => Ok(planned.is_subset(&gtid_executed(conn).await?)),
            Executed::MariaDb(_) if plan.has_gtids => Ok(plan.is_end(&slave_pos(conn).await?)),
            _ => Ok(reaches(&status.applied(), &plan.end)),
        }
    }

    pub(super) async fn refuse_failure(
        &self,
        conn: &mut Conn,
        status: &Status,
        source: &Source,
        reached: &mut Instant,
    ) -> Result<(), ReplayError> {
        if let Some(text) = status.apply_error() {
            let Position { file, offset } = status.applied();
            let text = fitness::worker_error(conn, self.product).await.unwrap_or_else(|| text.to_owned());
            return Err(ReplayError::Apply { at: format!("{file}:{offset}"), text });
        }
        if status.has_stopped() {
            let Position { file, offset } = status.applied();
            let text = "no error did that: somebody has, or its server ends".to_owned();
            return Err(ReplayError::Apply { at: format!("{file}:{offset}"), text });
        }
        if let Some(text) = source.failure() {
            return Err(ReplayError::Served(text));
        }
        trial::refuse_unreached(status, source, reached)
    }

    /// Sets what the target has executed beside the plan, and returns it.
    pub(super) async fn compare(&self, conn: &mut Conn, plan: &ReplayPlan) -> Result<String, ReplayError> {
        let mismatch = |found: String| ReplayError::Mismatch { found, planned: plan.executed.to_string() };
        if !plan.has_gtids {
            return Ok(format!("{}:{}", plan.end.file, plan.end.offset));
        }
        match &plan.executed {
            Executed::MySql(planned) => {
                let executed = gtid_executed(conn).await?;
                let (text, is_whole) = (executed.to_string(), planned.is_subset(&executed));
                let own = ask::own_uuid(conn, self.product).await?;
                let is_end = is_whole && !plan.is_exceeded_by(&Executed::MySql(executed), own);
                if is_end { Ok(text) } else { Err(mismatch(text)) }
            }
            Executed::MariaDb(_) => {
                let position = slave_pos(conn).await?;
                if plan.is_end(&position) { Ok(position) } else { Err(mismatch(position)) }
            }
        }
    }

    /// Leaves the target as it was: no channel, its own settings, no record.
    pub(super) async fn finish(
        &self,
        conn: &mut Conn,
        record: &Record,
        replayed: &mut Replayed,
    ) -> Result<(), ReplayError> {
        record::write(conn, &Record { is_over: true, has_begun: true, ..record.clone() }).await?;
        self.unfilter(conn).await?;
        self.forget(conn).await?;
        replayed.prepared = ask::prepared(conn).await?;
        let off = "SELECT CONCAT(event_schema, '.', event_name) FROM information_schema.events \
            WHERE status IN ('SLAVESIDE_DISABLED', 'REPLICA_SIDE_DISABLED')";
        replayed.events_off = conn.query(off).await.map_err(ReplayError::at("list the target's events"))?;
        settings::put_back(conn, &record.settings).await?;
        if record.standby.is_some() {
            settings::open(conn).await?;
        }
        record::remove(conn, record).await
    }
}

pub(super) fn no_record() -> ReplayError {
    ReplayError::Unfit {
        why: "keeps no record of the replay any more".to_owned(),
        hint: "somebody has dropped the schema `bkp_restore`, or a standby's `bkp_standby`: restore anew".to_owned(),
    }
}

/// Returns a number for the target that no transaction's server bears.
pub(super) fn server_id(plan: &ReplayPlan) -> Result<u32, ReplayError> {
    loop {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| ReplayError::Thread(error.to_string()))?;
        let id = u32::from_le_bytes(random) | 1 << 31;
        if !plan.server_ids.contains(&id) {
            return Ok(id);
        }
    }
}

pub(super) fn random_uuid() -> Result<String, ReplayError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| ReplayError::Thread(error.to_string()))?;
    Ok(crate::mysql::gtid::Uuid::from_bytes(random).to_string())
}
