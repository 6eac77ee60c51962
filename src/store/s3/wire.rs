//! The bytes on their way: paced as they leave and arrive, and given up where none moves any more.
//!
//! It stands round the connector, below signing: the SDK has a body's bytes and its checksum in a header before the first is paced.
//! No time-out of the SDK's own is left but that of connecting: they count from the start of a request, and a pack on a slow line
//! takes as long as it takes. What counts here is silence. Waiting for the policy's own bandwidth is none.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::pace::Pace;

/// So long no byte moves, one way or the other, before a connection is given up. A failover of the server or of a switch takes up
/// to some 20 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// So long the answer may take after the last byte of a body went to the kernel, which holds up to 4 MiB of it still: a minute
/// at 64 KiB/s, and as much again for the server.
const ANSWER_MAX: Duration = Duration::from_mins(2);
/// The slowest line that is waited for; below it an operation is given up, however steadily it drips.
const BYTES_PER_SECOND_MIN: u64 = 16 << 10;
/// What an operation of no bytes may take in all.
const OPERATION_MIN: Duration = Duration::from_mins(5);
/// Without a pace bytes go in pieces as well: the next is asked for when the socket has taken the one before, which is how it shows
/// that they move.
const GRAIN_BYTES: usize = 64 << 10;
/// A body so small is not kept waiting, only paid for: a lock must not go stale behind packs.
const SMALL_BYTES: u64 = 4 << 10;

/// The bandwidth of one store, each way, and how much silence is borne on it.
#[derive(Debug, Clone)]
pub struct Line {
    up: Option<Arc<Pace>>,
    down: Option<Arc<Pace>>,
    patience: Patience,
}

/// How much silence is borne.
#[derive(Debug, Clone, Copy)]
struct Patience {
    moving: Duration,
    answer: Duration,
}

impl Patience {
    const USUAL: Self = Self { moving: SILENCE_MAX, answer: ANSWER_MAX };
}

impl Default for Line {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Line {
    /// Each way has the whole rate. `None`: as fast as it goes.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        let pace = || bytes_per_second.map(Pace::new).map(Arc::new);
        Self { up: pace(), down: pace(), patience: Patience::USUAL }
    }

    /// Returns a line on which less silence is borne, for those who have no time.
    #[must_use]
    pub fn impatient(silence_max: Duration) -> Self {
        let patience = Patience { moving: silence_max, answer: silence_max };
        Self { patience, ..Self::new(None) }
    }
}

/// A connector whose bodies keep to a line.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) inner: SharedHttpConnector,
    pub(super) line: Line,
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (inner, line) = (self.inner.clone(), self.line.clone());
        HttpConnectorFuture::new(async move {
            let watch = Watch::new(length(request.body()), line.patience);
            let request = request.map(|body| paced(body, line.up.clone(), watch.clone()));
            let answer = tokio::select! {
                answer = inner.call(request) => answer?,
                why = watch.silence() => return Err(ConnectorError::timeout(why.into())),
            };
            let watch = Watch::new(length(answer.body()), line.patience);
            Ok(answer.map(|body| paced(body, line.down.clone(), watch.clone())))
        })
    }
}

fn length(body: &SdkBody) -> u64 {
    body.content_length().unwrap_or(0)
}

/// Returns a body that moves at a pace, if there is one, and is watched. A request without a body stays as it is: one that is
/// wrapped would be sent with a length of its own.
fn paced(body: SdkBody, pace: Option<Arc<Pace>>, watch: Watch) -> SdkBody {
    if body.content_length() == Some(0) {
        watch.all_moved();
        return body;
    }
    let sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
    SdkBody::from_body_1_x(Paced { inner: body, rest: Bytes::new(), pace, sleep, is_due: None, watch })
}

/// Nothing moved for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Silence {
    #[error("no byte moved for {0:?}")]
    Moving(Duration),
    #[error("no answer for {0:?}")]
    Answer(Duration),
    #[error("slower than {} KiB/s", BYTES_PER_SECOND_MIN >> 10)]
    Slow,
}

/// When one body last moved, and until when it must be through.
#[derive(Clone)]
struct Watch(Arc<Mutex<Watched>>);

struct Watched {
    silent_since: Instant,
    patience: Patience,
    /// The whole must be done by then. Waits for our own pace move it.
    end: Instant,
    has_all_moved: bool,
}

impl Watch {
    fn new(bytes: u64, patience: Patience) -> Self {
        let now = Instant::now();
        let end = now + OPERATION_MIN + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
        Self(Arc::new(Mutex::new(Watched { silent_since: now, patience, end, has_all_moved: false })))
    }

    fn change(&self, change: impl FnOnce(&mut Watched)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn moved(&self) {
        self.change(|watched| watched.silent_since = Instant::now());
    }

    fn all_moved(&self) {
        self.change(|watched| {
            watched.silent_since = Instant::now();
            watched.has_all_moved = true;
        });
    }

    /// Notes that nothing moves until then because the policy says so.
    fn waits_until(&self, until: Instant) {
        self.change(|watched| {
            watched.end += until.saturating_duration_since(Instant::now());
            watched.silent_since = until;
        });
    }

    /// Returns until when to wait, and why not longer.
    fn limit(&self) -> (Instant, Silence) {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Patience { moving, answer } = watched.patience;
        let (limit, why) =
            if watched.has_all_moved { (answer, Silence::Answer(answer)) } else { (moving, Silence::Moving(moving)) };
        let silent = watched.silent_since + limit;
        if watched.end < silent { (watched.end, Silence::Slow) } else { (silent, why) }
    }

    /// Waits until there was silence for too long.
    async fn silence(&self) -> Silence {
        loop {
            let (limit, why) = self.limit();
            if limit <= Instant::now() {
                return why;
            }
            tokio::time::sleep_until(limit).await;
        }
    }
}

/// A body that hands out a grain at a time, each when its slot on the line begins.
struct Paced {
    inner: SdkBody,
    /// What came of the inner body and has not been handed out.
    rest: Bytes,
    pace: Option<Arc<Pace>>,
    sleep: Pin<Box<Sleep>>,
    /// What the sleep is for; `None`: for the silence to be too long.
    is_due: Option<usize>,
    watch: Watch,
}

impl fmt::Debug for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paced").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Paced {
    /// Pays for the next grain of what is there, and returns its length once its slot has begun.
    fn poll_slot(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        let Some(pace) = &self.pace else { return Poll::Ready(self.rest.len().min(GRAIN_BYTES)) };
        let grain = self.is_due.unwrap_or_else(|| self.rest.len().min(pace.grain()));
        if self.is_due.replace(grain).is_none() {
            let start = pace.reserve(grain as u64, Instant::now());
            self.watch.waits_until(start);
            self.sleep.as_mut().reset(start);
        }
        ready!(self.sleep.as_mut().poll(context));
        self.is_due = None;
        Poll::Ready(grain)
    }

    /// Waits for the inner body, but not for ever.
    fn poll_inner(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            self.watch.moved();
            return Poll::Ready(frame);
        }
        loop {
            let (limit, why) = self.watch.limit();
            if limit <= Instant::now() {
                return Poll::Ready(Some(Err(why.into())));
            }
            self.sleep.as_mut().reset(limit);
            ready!(self.sleep.as_mut().poll(context));
        }
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

impl Body for Paced {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let Some(frame) = ready!(this.poll_inner(context)) else {
                this.watch.all_moved();
                return Poll::Ready(None);
            };
            match frame?.into_data() {
                Ok(data) => this.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
            if (this.rest.len() as u64) < SMALL_BYTES
                && let Some(pace) = &this.pace
            {
                pace.reserve(this.rest.len() as u64, Instant::now());
                this.watch.moved();
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))));
            }
        }
        let grain = ready!(this.poll_slot(context));
        let data = this.rest.split_to(grain);
        this.watch.moved();
        // The last grain is handed out as the last: who counts the bytes does not ask for another.
        if this.rest.is_empty() && this.inner.is_end_stream() {
            this.watch.all_moved();
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.size_hint();
        let rest = self.rest.len() as u64;
        match inner.upper() {
            Some(upper) if upper == inner.lower() => SizeHint::with_exact(rest + upper),
            _ => {
                let mut hint = SizeHint::new();
                hint.set_lower(rest + inner.lower());
                hint
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http_body_util::BodyExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn body(bytes: u64, rate: Option<u64>) -> (SdkBody, Watch) {
        let watch = Watch::new(bytes, Patience::USUAL);
        let bytes = vec![7; usize::try_from(bytes).unwrap()];
        (paced(SdkBody::from(bytes), rate.map(Pace::new).map(Arc::new), watch.clone()), watch)
    }

    #[tokio::test(start_paused = true)]
    async fn a_pack_at_a_mebibyte_a_second_leaves_evenly_and_is_never_taken_for_silent() {
        let (mut body, watch) = body(16 * MIB, Some(MIB));
        assert_eq!(body.size_hint().exact(), Some(16 * MIB));
        let start = Instant::now();
        let mut left = Vec::new();
        let sending = async {
            let mut sent = 0;
            while let Some(frame) = body.frame().await {
                sent += frame.unwrap().into_data().unwrap().len() as u64;
                left.push((start.elapsed(), sent));
            }
        };
        tokio::select! {
            () = sending => {}
            why = watch.silence() => panic!("{why}"),
        }
        assert_eq!(left.last().unwrap().1, 16 * MIB);
        for (at, sent) in &left {
            let due = at.as_secs_f64() * 1_048_576.0;
            #[expect(clippy::cast_precision_loss)]
            let ahead = *sent as f64 - due;
            assert!((-60_000.0..60_000.0).contains(&ahead), "{ahead} after {at:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn uploads_at_once_share_the_line() {
        let pace = Arc::new(Pace::new(MIB));
        let start = Instant::now();
        let send = |n: u8| {
            let bytes = vec![n; 4 << 20];
            let body = paced(SdkBody::from(bytes), Some(pace.clone()), Watch::new(4 * MIB, Patience::USUAL));
            async move { body.collect().await.unwrap().to_bytes().len() }
        };
        let sent = futures_util::future::join_all((0..4).map(send)).await;
        assert_eq!(sent, [4 << 20; 4]);
        let seconds = start.elapsed().as_secs_f64();
        assert!((15.5..16.1).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_line_of_its_own_outlasts_every_limit_on_silence() {
        let (body, watch) = body(MIB, Some(512));
        let start = Instant::now();
        tokio::select! {
            whole = body.collect() => assert_eq!(whole.unwrap().to_bytes().len() as u64, MIB),
            why = watch.silence() => panic!("{why}"),
        }
        assert!(start.elapsed() > Duration::from_mins(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_no_more_is_given_up_and_so_is_one_that_never_answers() {
        let (mut body, watch) = body(MIB, None);
        let start = Instant::now();
        assert_eq!(watch.silence().await, Silence::Moving(SILENCE_MAX));
        assert_eq!(start.elapsed(), SILENCE_MAX);
        while body.frame().await.is_some() {}
        let start = Instant::now();
        assert_eq!(watch.silence().await, Silence::Answer(ANSWER_MAX));
        assert_eq!(start.elapsed(), ANSWER_MAX);
    }

    /// A body of which nothing ever comes.
    struct Silent;

    impl Body for Silent {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_stands_still_ends_in_an_error() {
        let body = paced(SdkBody::from_body_1_x(Silent), None, Watch::new(MIB, Patience::USUAL));
        let start = Instant::now();
        let error = body.collect().await.unwrap_err();
        assert_eq!(error.to_string(), "no byte moved for 45s");
        assert_eq!(start.elapsed(), SILENCE_MAX);
    }

    /// A body of one byte a second.
    struct Drip(Pin<Box<Sleep>>);

    impl Body for Drip {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            ready!(self.0.as_mut().poll(context));
            self.0.as_mut().reset(Instant::now() + Duration::from_secs(1));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_drips_for_ever_ends_too() {
        let drip = Drip(Box::pin(tokio::time::sleep(Duration::from_secs(1))));
        let mut body = paced(SdkBody::from_body_1_x(drip), None, Watch::new(MIB, Patience::USUAL));
        let start = Instant::now();
        let mut last = None;
        while let Some(frame) = body.frame().await {
            last = frame.err();
            if last.is_some() || start.elapsed() > Duration::from_hours(1) {
                break;
            }
        }
        assert_eq!(last.unwrap().to_string(), "slower than 16 KiB/s");
    }
}
