//! What the events of one transaction say of XA.

use crate::mysql::binlog::query::Query;
use crate::mysql::binlog::{Event, Kind};

#[derive(Debug, Clone, Default)]
pub(super) struct Xa {
    /// The name of the transaction, or of the one that it ends.
    pub(super) xid: Option<String>,
    /// It takes effect with a later `XA COMMIT`.
    pub(super) is_prepared: bool,
}

impl Xa {
    /// Takes the next event, and the statement that it is.
    pub(super) fn see(&mut self, event: &Event<'_>, query: Option<&Query<'_>>) {
        if let Some(xid) = query.and_then(Query::xid) {
            self.xid = Some(xid.to_owned());
        }
        if event.header.kind == Kind::XA_PREPARE {
            // The first byte says that nothing more will come: `XA COMMIT … ONE PHASE`.
            self.is_prepared = event.body().first() != Some(&1);
            self.xid = self.xid.take().filter(|_| self.is_prepared);
        }
    }
}
