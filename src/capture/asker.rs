//! Asks a server what it has by now, beside the stream of its binlog.
//!
//! On a thread of its own. A server that lists its binlogs waits for the lock of its binlog, and the commits that hold this lock may be
//! waiting for the very acknowledgement that the stream's thread is to give: asked there, the server would stand until its time-out.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::capture::facts::{Facts, facts};
use crate::capture::{CaptureError, HEARTBEAT};
use crate::mysql::server::Server;
use crate::mysql::wire::Wire;
use crate::run::Run;

/// How often the server is asked: what has come by the time that it told is a proof. An idle server speaks once in a heartbeat, and
/// is asked each time.
const ASK_EVERY: Duration = HEARTBEAT.saturating_sub(Duration::from_secs(1));

/// An answer comes within this, or is heard with the next event: whoever waits for an acknowledgement waits no longer than this for it.
const ANSWER_WAIT: Duration = Duration::from_millis(50);

/// What a server told, and when it was asked.
pub(super) struct Told {
    pub(super) asked: DateTime<Utc>,
    pub(super) facts: Result<Facts, CaptureError>,
}

pub(super) struct Asker {
    last: Instant,
    asking: Option<Receiver<(Told, Option<Wire>)>>,
    /// The connection by which it is asked.
    wire: Option<Wire>,
}

impl Asker {
    /// Begins with a server that has just been asked.
    pub(super) fn new() -> Self {
        Self { last: Instant::now(), asking: None, wire: None }
    }

    /// Asks where it is time to, and returns an answer that is there.
    pub(super) fn turn(&mut self, now: Instant, server: &Server, run: &Run) -> Option<Told> {
        if self.asking.is_none() && now.duration_since(self.last) >= ASK_EVERY {
            self.ask(server.clone(), run.clone());
            return self.answer(ANSWER_WAIT);
        }
        self.answer(Duration::ZERO)
    }

    fn ask(&mut self, server: Server, run: Run) {
        let (sender, receiver) = channel();
        let wire = self.wire.take();
        (self.last, self.asking) = (Instant::now(), Some(receiver));
        std::thread::spawn(move || {
            let asked = run.now();
            let opened = wire.map_or_else(|| server.open_wire(&run.cancel).map_err(CaptureError::from), Ok);
            let told = opened.and_then(|mut wire| facts(&mut wire).map(|facts| (facts, wire)));
            let answer = match told {
                Ok((facts, wire)) => (Told { asked, facts: Ok(facts) }, Some(wire)),
                Err(error) => (Told { asked, facts: Err(error) }, None),
            };
            // Whoever asked may have gone.
            sender.send(answer).ok();
        });
    }

    fn answer(&mut self, wait: Duration) -> Option<Told> {
        let answered = self.asking.as_ref()?.recv_timeout(wait);
        if let Err(RecvTimeoutError::Timeout) = answered {
            return None;
        }
        self.asking = None;
        let (told, wire) = answered.ok()?;
        self.wire = wire;
        Some(told)
    }
}
