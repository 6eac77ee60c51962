//! Captures a server's binlog: byte-exact segments, first in a spool on this machine, then in the repository.
//!
//! [`follow`] is a replica that applies nothing: it writes down what the server sends, and makes it durable before it says that it
//! has it. [`seal`] puts what is new into the repository as a snapshot that holds all segments of the window. A [`Chain`] tells what
//! there is: epochs, segments, and the gaps between them.

mod asker;
mod begin;
mod bytes;
pub mod chain;
mod due;
mod error;
mod expire;
mod facts;
mod follow;
mod followed;
mod goal;
mod scan;
mod seal;
mod semi_sync;
mod spool;
pub mod stored;
mod tail;
mod union;

use std::time::Duration;

use sha2::{Digest, Sha256};

pub use crate::capture::begin::probe;
pub use crate::capture::bytes::SegmentBytes;
pub use crate::capture::chain::Chain;
pub use crate::capture::error::CaptureError;
pub use crate::capture::facts::{Facts, facts};
pub use crate::capture::follow::follow;
pub use crate::capture::followed::{Followed, Until};
pub use crate::capture::seal::{Sealed, Sealer};
pub use crate::capture::semi_sync::{CommitsWait, SemiSync};
pub use crate::capture::spool::{Progress, Spool};

use crate::mysql::server::Server;
use crate::mysql::wire::binlog::Replica;
use crate::policy::{Ack, CapturePlan, Policy};

/// How often an idle server says that it is there; what it says also proves that nothing is outstanding.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The capture of one source.
#[derive(Debug, Clone)]
pub struct Capture {
    pub policy: String,
    pub source: String,
    pub server: Server,
    pub plan: CapturePlan,
}

impl Capture {
    /// Returns the capture of a policy's source; `None` where the policy wants none.
    ///
    /// # Errors
    /// [`CaptureError::Password`] where the account's password cannot be read.
    pub fn of(policy: &Policy, source: &str) -> Result<Option<Self>, CaptureError> {
        let Some(place) = policy.mysql.get(source) else { return Ok(None) };
        let Some(plan) = place.binlog.clone() else { return Ok(None) };
        let server = Server::of(place, &policy.network)?;
        Ok(Some(Self { policy: policy.name.clone(), source: source.to_owned(), server, plan }))
    }

    /// Returns who we are to the server. The UUID comes from the names, so that a second capture by the same policy ends the first
    /// one's stream instead of standing beside it.
    ///
    /// One that goes before long must not have commits wait for it.
    fn replica(&self, until: Until) -> Replica {
        let acknowledges = self.plan.ack == Ack::Spool && until == Until::Stopped;
        Replica { acknowledges, ..self.named("replica", self.plan.server_id) }
    }

    /// Returns who we are for a look that must not end the stream of a capture.
    fn visitor(&self) -> Replica {
        // A number beside our own may be that of a replica that someone numbered on from it.
        let digest = Sha256::digest(format!("visitor {}/{}", self.policy, self.source));
        let number = digest.iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte)) | 1 << 31;
        let is_own = number == self.plan.server_id;
        self.named("visitor", if is_own { number ^ 1 } else { number })
    }

    fn named(&self, role: &str, server_id: u32) -> Replica {
        let digest = Sha256::digest(format!("bkp {role} {}/{}", self.policy, self.source));
        let text = hex::encode(&digest[..16]);
        let uuid = format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]);
        Replica { server_id, uuid, heartbeat: HEARTBEAT, acknowledges: false }
    }
}
