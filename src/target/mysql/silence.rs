//! Tells when a chunk does not move: a lock, a full disk or a store may be waited for, for hours.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use tokio::time::Instant;

use crate::human;
use crate::target::mysql::Load;
use crate::target::mysql::feed::Counted;
use crate::target::mysql::session::answered;

/// A target takes 64 MiB in seconds, and a chunk is one at a time.
const SILENCE: Duration = Duration::from_mins(1);

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Waits for work. While none of its bytes move, `tell` is called once with how long that has been so.
pub(super) async fn watched<T, F: Future<Output = ()>>(
    counted: &Counted,
    work: impl Future<Output = T>,
    tell: impl Fn(Duration) -> F,
) -> T {
    let mut work = pin!(work);
    let (mut seen, mut since, mut is_told) = (counted.bytes(), Instant::now(), false);
    loop {
        let watch = async {
            tokio::time::sleep(LOOK).await;
            let now = counted.bytes();
            if now != seen {
                (seen, since, is_told) = (now, Instant::now(), false);
            } else if !is_told && since.elapsed() >= SILENCE {
                is_told = true;
                tell(since.elapsed()).await;
            }
        };
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = watch => {}
        }
    }
}

/// Warns that a connection of the load says nothing, with what the target says that it does.
pub(super) async fn warn(load: Arc<Load>, table: String, connection: u32, silence: Duration) {
    let doing = doing(&load, connection).await.unwrap_or_else(|| "does not say what it waits for".to_owned());
    let silence = human::duration(silence);
    load.run
        .events
        .warn(format!("no row of {table} has moved for {silence}: connection {connection} of the target {doing}"));
}

/// Asks the target, over another connection, what one of ours is at.
async fn doing(load: &Load, connection: u32) -> Option<String> {
    let mut conn = load.opener.open().await.ok()?;
    let list = "SELECT state FROM information_schema.processlist WHERE id =";
    let asked = conn.query_first(format!("{list} {connection}"));
    let state: Option<Option<String>> = answered("ask what the target does", asked).await.ok()?.ok()?;
    load.opener.close(conn).await;
    match state {
        Some(Some(state)) if !state.is_empty() => Some(format!("says `{state}`")),
        Some(_) => None,
        None => Some("is gone".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::event::{Events, Unit};

    #[tokio::test(start_paused = true)]
    async fn silence_is_told_once_until_something_moves() {
        let counted = Counted::new(Events::silent().task("rows", Unit::Bytes, 0).clone());
        let told = RefCell::new(Vec::new());
        let began = Instant::now();
        let work = async {
            tokio::time::sleep(SILENCE / 2).await;
            counted.add(7);
            tokio::time::sleep(SILENCE * 4).await;
            counted.add(7);
            tokio::time::sleep(SILENCE * 2).await;
            "done"
        };
        let tell = |silence: Duration| {
            told.borrow_mut().push((began.elapsed().as_secs(), silence.as_secs()));
            std::future::ready(())
        };
        assert_eq!(watched(&counted, work, tell).await, "done");
        assert_eq!(*told.borrow(), [(90, 60), (330, 60)]);
    }

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_while_it_is_told() {
        let counted = Counted::new(Events::silent().task("rows", Unit::Bytes, 0).clone());
        let tell = |_| std::future::pending();
        watched(&counted, tokio::time::sleep(SILENCE * 3), tell).await;
    }
}
