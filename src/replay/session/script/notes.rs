//! What a script tells the target of itself: GTIDs, and how far it is.

use crate::mysql::gtid::Gtid;
use crate::mysql::manifest::{Position, Product};
use crate::replay::session::dialect::Dialect;
use crate::replay::session::progress::{self, Doing};
use crate::replay::session::script::{Done, Open, Script};

impl Script<'_> {
    /// Gives what comes the GTID of the transaction at hand.
    pub(super) fn name(&mut self) -> Done {
        let Some(gtid) = self.open.as_ref().and_then(|open| open.named.gtid.clone()) else { return Ok(()) };
        match gtid {
            _ if !self.dialect.names => Ok(()),
            Gtid::MySql(gtid) => self.own(&format!("SET @@session.gtid_next = '{gtid}'")),
            Gtid::MariaDb(gtid) => self.identity(gtid.domain, gtid.server, gtid.sequence),
        }
    }

    pub(super) fn identity(&mut self, domain: u32, server: u32, sequence: u64) -> Done {
        self.own(&format!(
            "SET @@session.gtid_domain_id = {domain}, @@session.server_id = {server}, @@session.gtid_seq_no = {sequence}"
        ))
    }

    /// Notes that something comes which cannot be taken back and is no part of a transaction.
    pub(super) fn note_doing(&mut self, end: Option<&Position>) -> Done {
        // A MySQL's table that is made with its rows is of their transaction.
        let is_part = |open: &Open| open.is_begun && self.dialect.product == Product::MySql;
        let Some(open) = self.open.as_mut().filter(|open| !open.is_noted && !is_part(open)) else { return Ok(()) };
        open.is_noted = true;
        let doing = Doing::of(open.named.gtid.as_ref(), &open.named.begin, end.cloned());
        self.note(&progress::begin(&self.place, &doing))
    }

    /// Writes progress that is no part of a transaction.
    pub(super) fn note(&mut self, note: &str) -> Done {
        let Dialect { product, names, own: (domain, server), is_hidden, may_hide, .. } = *self.dialect;
        if self.dialect.goes_by_names() {
            return Ok(());
        }
        if is_hidden {
            return self.own(note);
        }
        if may_hide {
            self.own("SET @@session.sql_log_bin = 0")?;
            self.own(note)?;
            return self.own("SET @@session.sql_log_bin = 1");
        }
        if product == Product::MariaDb && names {
            self.identity(domain, server, 0)?;
            self.own(note)?;
            return self.name();
        }
        self.own(note)
    }

    /// Counts the transaction at hand as done, whatever of it was one to the target.
    pub(super) fn done(&mut self, end: &Position) -> Done {
        if self.dialect.goes_by_names() {
            // One that the target has executed already is passed over.
            self.name()?;
            self.own("START TRANSACTION")?;
            return self.own("COMMIT");
        }
        self.note(&progress::reach(end))
    }
}
