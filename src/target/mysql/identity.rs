//! Whether two addresses lead to one server. Names lie (a socket, `127.0.0.1`, an alias, a forwarded port); a lock does not.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql::server::Server;
use crate::target::mysql::LoadError;
use crate::target::mysql::session::lock_name;

/// The source may well be what was lost: nobody waits long for it.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Tells whether two ways lead to one server: a lock that is taken on the one, under a name that nobody can guess, is seen on the
/// other. `None` where one of the two could not be asked.
pub async fn is_same(one: &Server, other: &Server) -> Option<bool> {
    tokio::time::timeout(WAIT_MAX, compare(one, other)).await.ok()?.ok()
}

async fn compare(one: &Server, other: &Server) -> Result<bool, LoadError> {
    let (mut holder, mut seer) = (one.connect().await?, other.connect().await?);
    let is_seen = is_seen(&mut holder, &mut seer).await.map_err(LoadError::at("tell the target from the source"));
    holder.disconnect().await.ok();
    seer.disconnect().await.ok();
    is_seen
}

async fn is_seen(holder: &mut Conn, seer: &mut Conn) -> Result<bool, mysql_async::Error> {
    let name = lock_name();
    let taken: Option<Option<u8>> = holder.query_first(format!("SELECT GET_LOCK('{name}', 0)")).await?;
    let seen: Option<Option<u64>> = seer.query_first(format!("SELECT IS_USED_LOCK('{name}')")).await?;
    Ok(taken.flatten() == Some(1) && seen.flatten().is_some())
}
