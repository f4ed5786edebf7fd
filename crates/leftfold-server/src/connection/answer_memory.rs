//! The memory of responses that clients have not received yet.
//!
//! **Owns:** [`AnswerMemory`], one per server; [`ConnectionAnswers`], the unsent bytes of one connection.
//! **Does not know:** what responses say.
//! **Invariants:**
//! - No body is polled while all unsent responses together use up the memory, or those of its connection a quarter of it; but
//!   a connection that holds little always gets its next frame, so that small responses wait for nobody's large ones.
//! - Pages are produced while there is memory for them, or one at a time.
//! - While memory is short, connections whose clients read nothing are closed.
//! - HTTP/1.1 connections whose clients read nothing for `write_timeout` are always closed, because nothing else limits how
//!   long such a client may pause.

mod charged_body;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub(crate) use self::charged_body::ChargedBody;
use super::guarded_bytes::with_guard;

/// What is charged for a call, beside its frame, until the connection asks for the next one.
const UNSENT_BYTES: usize = 3 * 1024;
/// What a connection may hold although memory is short: less than what a connection takes otherwise.
const ALWAYS_BYTES: usize = 16 * 1024;
/// What is charged for a frame beside its bytes: its place in the queue of its connection.
const FRAME_BYTES: usize = 256;
/// Interval at which bodies that wait for memory, and all connections, are checked.
const POLL: Duration = Duration::from_millis(10);
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// Time without progress after which a connection is closed while memory is short.
const STALL_WHILE_SHORT: Duration = Duration::from_secs(1);
/// Time of short memory after which the connection that holds most of it is closed, even if it makes progress.
const SHORT_MAX: Duration = Duration::from_secs(5);
/// Maximum memory of one page while it is produced: its largest event, and that as JSON.
const PAGE_BYTES: usize = 32 * 1024 * 1024;

/// The memory of one server for responses.
#[derive(Debug, Clone)]
pub(crate) struct AnswerMemory(Arc<Answers>);

#[derive(Debug)]
struct Answers {
    bytes_max: usize,
    used: AtomicUsize,
    connections: Mutex<Vec<Weak<ConnectionAnswers>>>,
    pages: Arc<Semaphore>,
    /// How many pages are being produced.
    producing: AtomicUsize,
    started: Instant,
}

/// The permit to produce a page, until it is dropped.
#[derive(Debug)]
pub(crate) struct PagePermit {
    answers: AnswerMemory,
    _permit: OwnedSemaphorePermit,
}

impl Drop for PagePermit {
    fn drop(&mut self) {
        self.answers.0.producing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The unsent responses of one connection.
#[derive(Debug)]
pub(super) struct ConnectionAnswers {
    all: AnswerMemory,
    held: AtomicUsize,
    /// The time of the last progress, in milliseconds since the server started.
    progress: AtomicU64,
    /// Whether the connection speaks HTTP/1.1, where only the socket limits the client's pace.
    is_http1: AtomicBool,
    end: CancellationToken,
}

impl AnswerMemory {
    /// Creates a memory of this many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Answers {
            bytes_max,
            used: AtomicUsize::new(0),
            connections: Mutex::default(),
            pages: Arc::new(Semaphore::new((bytes_max / PAGE_BYTES).clamp(1, 64))),
            producing: AtomicUsize::new(0),
            started: Instant::now(),
        }))
    }

    /// Waits for the permit to produce a page.
    pub(crate) async fn page(&self) -> Option<PagePermit> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.0.pages).acquire_owned().await.ok()?;
        while !self.begin_page() {
            tokio::time::sleep(POLL).await;
        }
        Some(PagePermit {
            answers: self.clone(),
            _permit: permit,
        })
    }

    /// Begins a page if there is memory for it beside those that are being produced. One at a time begins while memory is not
    /// short: less than a page may be allowed in all, and no page must wait for responses that need not end.
    fn begin_page(&self) -> bool {
        let used = self.0.used.load(Ordering::Relaxed);
        let begin = |producing: usize| {
            let pages = (producing + 1).saturating_mul(PAGE_BYTES);
            let fits = used.saturating_add(pages) <= self.0.bytes_max;
            (fits || producing == 0 && used < self.0.bytes_max).then_some(producing + 1)
        };
        let begun = self
            .0
            .producing
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, begin);
        begun.is_ok()
    }

    /// Registers a connection, which `end` closes.
    pub(super) fn connection(&self, end: CancellationToken) -> Arc<ConnectionAnswers> {
        let connection = Arc::new(ConnectionAnswers {
            all: self.clone(),
            held: AtomicUsize::new(0),
            progress: AtomicU64::new(0),
            is_http1: AtomicBool::new(false),
            end,
        });
        self.connections().push(Arc::downgrade(&connection));
        connection
    }

    /// Closes connections without progress, until the handle is dropped.
    pub(super) fn sweep(&self, write_timeout: Duration) -> AbortOnDropHandle<()> {
        let answers = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut short_since = None;
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                answers.end_stalled(write_timeout, &mut short_since);
            }
        }))
    }

    fn end_stalled(&self, write_timeout: Duration, short_since: &mut Option<Instant>) {
        let is_short = self.is_short();
        let since = short_since.take().unwrap_or_else(Instant::now);
        let mut largest: Option<Arc<ConnectionAnswers>> = None;
        let mut ended = 0;
        self.connections().retain(|connection| {
            let Some(connection) = connection.upgrade() else {
                return false;
            };
            let held = connection.held.load(Ordering::Relaxed);
            let stalled = connection.stalled();
            let limit = match connection.is_http1.load(Ordering::Relaxed) {
                true => Some(write_timeout),
                false => None,
            };
            let limit = if is_short {
                Some(STALL_WHILE_SHORT)
            } else {
                limit
            };
            if held > 0 && limit.is_some_and(|limit| stalled >= limit) {
                connection.end.cancel();
                ended += 1;
            }
            let most = largest
                .as_ref()
                .map_or(0, |it| it.held.load(Ordering::Relaxed));
            if held > most {
                largest = Some(connection);
            }
            true
        });
        if is_short
            && ended == 0
            && since.elapsed() >= SHORT_MAX
            && let Some(largest) = largest
        {
            largest.end.cancel();
            ended += 1;
        }
        if ended > 0 {
            tracing::warn!(ended, is_short, "connections ended: answers not taken");
        }
        *short_since = is_short.then_some(since);
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Weak<ConnectionAnswers>>> {
        let connections = self.0.connections.lock();
        connections.unwrap_or_else(PoisonError::into_inner)
    }

    fn is_short(&self) -> bool {
        self.0.used.load(Ordering::Relaxed) >= self.0.bytes_max
    }
}

impl ConnectionAnswers {
    /// Records that the connection speaks HTTP/1.1.
    pub(super) fn is_http1(&self) {
        self.is_http1.store(true, Ordering::Relaxed);
    }

    fn note_progress(&self) {
        let now = u64::try_from(self.all.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress.store(now, Ordering::Relaxed);
    }

    fn stalled(&self) -> Duration {
        let last = Duration::from_millis(self.progress.load(Ordering::Relaxed));
        self.all.0.started.elapsed().saturating_sub(last)
    }

    fn may_grow(&self) -> bool {
        let held = self.held.load(Ordering::Relaxed);
        let share = (self.all.0.bytes_max / 4).max(1);
        held < ALWAYS_BYTES.min(share) || held < share && !self.all.is_short()
    }

    fn hold(&self, bytes: usize) {
        if self.held.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.note_progress();
        }
        self.all.0.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.all.0.used.fetch_sub(bytes, Ordering::Relaxed);
        self.note_progress();
    }

    /// Charges bytes until the returned value is dropped.
    fn held(self: &Arc<Self>, bytes: usize) -> Held {
        self.hold(bytes);
        let connection = Arc::clone(self);
        Held { connection, bytes }
    }

    /// Charges a frame until the last piece of it is sent. The connection queues many of them if its client lets it.
    fn charge(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let held = self.held(bytes.len() + FRAME_BYTES);
        with_guard(bytes, held)
    }

    /// Charges a response that is headers alone until they are sent: the connection asks for nothing more of it.
    fn charge_headers(self: &Arc<Self>, headers: &mut HeaderMap) {
        let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        let bytes: usize = headers.iter().map(field).sum();
        let Some(value) = headers.values_mut().next() else {
            return;
        };
        let text = Bytes::copy_from_slice(value.as_bytes());
        let charged = with_guard(text, self.held(UNSENT_BYTES + bytes));
        // The same text, so it is valid.
        if let Ok(mut same) = HeaderValue::from_maybe_shared(charged) {
            // The encoder of headers keeps what it may send again by a number, and this must be gone when it is sent.
            same.set_sensitive(true);
            *value = same;
        }
    }
}

/// Bytes that are charged until this is dropped.
struct Held {
    connection: Arc<ConnectionAnswers>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connection.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, pin::Pin};

    use http::Response;
    use http_body::{Body, Frame};
    use http_body_util::{BodyExt, Full};

    use super::{charged_body::PIECE, *};

    const MIB: usize = 1024 * 1024;

    fn body(connection: &Arc<ConnectionAnswers>, bytes: usize) -> ChargedBody<Full<Bytes>> {
        ChargedBody::new(Full::new(vec![7; bytes].into()), Arc::clone(connection))
    }

    type Frames = Pin<Box<dyn Body<Data = Bytes, Error = Infallible>>>;

    /// Returns a body of `count` frames of `bytes` each. It makes a frame when it is polled.
    fn frames(
        connection: &Arc<ConnectionAnswers>,
        count: usize,
        bytes: usize,
    ) -> ChargedBody<Frames> {
        let frame = move |_| Ok(Frame::data(vec![7; bytes].into()));
        let frames = futures_util::stream::iter((0..count).map(frame));
        let body: Frames = Box::pin(http_body_util::StreamBody::new(frames));
        ChargedBody::new(body, Arc::clone(connection))
    }

    #[tokio::test]
    async fn bytes_are_charged_until_their_last_piece_is_gone_and_arrive_as_they_were() {
        let answers = AnswerMemory::new(16 * MIB);
        let connection = answers.connection(CancellationToken::new());
        let mut large = body(&connection, MIB + 1);
        let first = large.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len(), PIECE);
        assert!(answers.0.used.load(Ordering::Relaxed) > MIB);
        let rest = large.collect().await.unwrap().to_bytes();
        assert_eq!(first.len() + rest.len(), MIB + 1);
        assert!(rest.iter().all(|byte| *byte == 7));
        drop((first, rest));
        assert_eq!(answers.0.used.load(Ordering::Relaxed), 0);
        assert_eq!(connection.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_more_is_made_while_memory_is_short_and_a_connection_that_takes_nothing_ends() {
        let answers = AnswerMemory::new(2 * MIB);
        let (ends, other) = (CancellationToken::new(), CancellationToken::new());
        let silent = answers.connection(ends.clone());
        let mut stalled = body(&silent, 3 * MIB);
        let piece = stalled.frame().await.unwrap().unwrap();
        let honest = answers.connection(other.clone());
        let mut waiting = frames(&honest, 2, ALWAYS_BYTES);
        let first = waiting.frame().await.unwrap().unwrap();
        assert!(answers.0.used.load(Ordering::Relaxed) >= 3 * MIB);
        assert!(futures_util::poll!(waiting.frame()).is_pending());
        let _sweeper = answers.sweep(Duration::from_secs(30));
        // Takes what it got, so it makes progress.
        drop(first);
        ends.cancelled().await;
        drop((stalled, piece));
        waiting.frame().await.unwrap().unwrap();
        assert!(!other.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn small_responses_do_not_wait_for_large_ones_of_others() {
        let answers = AnswerMemory::new(2 * MIB);
        let silent = answers.connection(CancellationToken::new());
        let mut stalled = body(&silent, 3 * MIB);
        let _piece = stalled.frame().await.unwrap().unwrap();
        assert!(answers.is_short());
        let honest = answers.connection(CancellationToken::new());
        for _ in 0..100 {
            let mut small = body(&honest, 100);
            let sent = futures_util::poll!(small.frame());
            assert!(sent.is_ready());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pages_are_produced_while_there_is_memory_for_them_or_one_at_a_time() {
        let answers = AnswerMemory::new(4 * PAGE_BYTES);
        let end = CancellationToken::new();
        let silent = answers.connection(end.clone());
        let mut stalled = body(&silent, 2 * PAGE_BYTES);
        let piece = stalled.frame().await.unwrap().unwrap();
        let first = answers.page().await.unwrap();
        let mut second = Box::pin(answers.page());
        assert!(futures_util::poll!(&mut second).is_pending());
        // A page that waits for another one ends nobody.
        let _sweeper = answers.sweep(Duration::from_secs(30));
        let waited = tokio::time::timeout(2 * SHORT_MAX, &mut second);
        assert!(waited.await.is_err());
        assert!(!end.is_cancelled());
        drop(first);
        let second = second.await.unwrap();
        drop((second, stalled, piece));
        assert_eq!(answers.0.producing.load(Ordering::Relaxed), 0);
        let small = AnswerMemory::new(MIB);
        let one = small.page().await.unwrap();
        assert!(!small.begin_page());
        drop(one);
        assert!(small.begin_page());
    }

    #[tokio::test(start_paused = true)]
    async fn responses_that_nobody_takes_are_charged_however_small_they_are() {
        let answers = AnswerMemory::new(MIB);
        let end = CancellationToken::new();
        let mut untaken = Vec::new();
        for _ in 0..4 {
            let silent = answers.connection(end.clone());
            while silent.may_grow() {
                let mut small = body(&silent, 1);
                drop(small.frame().await.unwrap().unwrap());
                untaken.push(small);
            }
        }
        assert!(answers.is_short());
        let _sweeper = answers.sweep(Duration::from_secs(30));
        end.cancelled().await;
        drop(untaken);
        assert_eq!(answers.0.used.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn small_frames_of_one_response_are_charged_until_they_are_sent() {
        let answers = AnswerMemory::new(64 * MIB);
        let connection = answers.connection(CancellationToken::new());
        let mut body = frames(&connection, 100, 1_000);
        let mut queued = Vec::new();
        while let Some(frame) = body.frame().await {
            queued.push(frame.unwrap());
        }
        drop(body);
        assert!(connection.held.load(Ordering::Relaxed) >= 100 * 1_000);
        drop(queued);
        assert_eq!(connection.held.load(Ordering::Relaxed), 0);
        assert_eq!(answers.0.used.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_response_without_a_body_is_charged_until_its_headers_are_gone() {
        let answers = AnswerMemory::new(64 * MIB);
        let connection = answers.connection(CancellationToken::new());
        let answer = Response::builder()
            .header("a", "7")
            .header("b", "x".repeat(10_000));
        let answer = answer.body(Full::<Bytes>::default()).unwrap();
        let answer = ChargedBody::answer(answer, Arc::clone(&connection));
        let (parts, body) = answer.into_parts();
        drop(body);
        assert!(connection.held.load(Ordering::Relaxed) > 10_000);
        assert_eq!(parts.headers["a"], "7");
        drop(parts);
        assert_eq!(connection.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn only_http1_is_ended_for_taking_nothing_while_there_is_memory() {
        let answers = AnswerMemory::new(64 * MIB);
        let (first, second) = (CancellationToken::new(), CancellationToken::new());
        let (one, two) = (
            answers.connection(first.clone()),
            answers.connection(second.clone()),
        );
        one.is_http1();
        let (mut a, mut b) = (body(&one, MIB), body(&two, MIB));
        let _pieces = (a.frame().await.unwrap(), b.frame().await.unwrap());
        let _sweeper = answers.sweep(Duration::from_secs(30));
        first.cancelled().await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!second.is_cancelled());
    }
}
