//! Calls: their deadlines, and the memory they hold.
//!
//! **Owns:** [`RequestScope`], the deadline and the memory of a request from its arrival; [`run_to_completion`] for calls that
//! write, [`with_timeout`] for those that only read; [`until_shutdown`] for streams that would not end by themselves.
//! **Does not know:** what is written or read.
//! **Invariants:**
//! - Each call has one deadline, counted from the arrival of its headers.
//! - A write that began finishes, even if its client is gone or timed out, and holds the memory of its request until then.
//! - A write whose deadline passed before it arrived does not begin.
//! - A read is dropped when its client no longer waits for it.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};

use futures_core::{future::BoxFuture, stream::Stream};
use futures_util::{FutureExt, StreamExt, stream};
use http::HeaderMap;
use leftfold_store::EventStore;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};
use tonic::Status;

use crate::{
    access::Principal,
    connection::{BudgetExhausted, CallMemory, ConnectionMemory, Reservation},
    state::ServerState,
};

/// The header of a client's timeout: digits and a unit.
const TIMEOUT: &str = "grpc-timeout";
/// Maximum digits of a timeout.
const TIMEOUT_DIGITS_MAX: usize = 8;

tokio::task_local! {
    /// The current request of this task.
    static REQUEST: RequestScope;
}

/// The deadline and memory of a request, from its arrival until it is executed.
///
/// Code of any protocol finds the scope of its request through the task: see [`deadline`] and
/// [`reservation`].
#[derive(Debug, Clone)]
pub(crate) struct RequestScope(Arc<Request>);

#[derive(Debug)]
struct Request {
    deadline: Instant,
    memory: Arc<Mutex<Reservation>>,
    /// Bytes of `memory` that are those of the headers, which go when the response begins.
    head_bytes: AtomicUsize,
    /// What the call keeps for as long as it is open.
    open: Mutex<Reservation>,
    connection: CallMemory,
    principal: Principal,
}

impl RequestScope {
    /// Creates the scope of a request that arrives now with these headers.
    ///
    /// # Errors
    /// The client's own timeout is malformed, or over already.
    #[cfg(test)]
    pub(crate) fn arriving(
        shared: &ServerState,
        connection: CallMemory,
        principal: Principal,
        headers: &HeaderMap,
    ) -> Result<Self, Status> {
        Self::arrived(Instant::now(), shared, connection, principal, headers)
    }

    /// Creates the scope of a request that arrived at this time with these headers.
    ///
    /// # Errors
    /// The client's own timeout is malformed; or the request is late already.
    pub(crate) fn arrived(
        at: Instant,
        shared: &ServerState,
        connection: CallMemory,
        principal: Principal,
        headers: &HeaderMap,
    ) -> Result<Self, Status> {
        let deadline = at + timeout_of(shared.settings.request_timeout, headers)?;
        if deadline < Instant::now() {
            return Err(Status::deadline_exceeded(
                "deadline exceeded before the call began; nothing was done",
            ));
        }
        let open = connection.open_calls.begin();
        Ok(Self::new(deadline, connection, principal, open))
    }

    fn new(
        deadline: Instant,
        connection: CallMemory,
        principal: Principal,
        open: Reservation,
    ) -> Self {
        Self(Arc::new(Request {
            deadline,
            memory: Arc::new(Mutex::new(connection.requests.begin())),
            head_bytes: AtomicUsize::new(0),
            open: Mutex::new(open),
            connection,
            principal,
        }))
    }

    /// Who it is from.
    pub(crate) fn principal(&self) -> Principal {
        self.0.principal.clone()
    }

    /// Returns when the client's or the server's timeout elapses.
    pub(crate) fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// Returns the reservation that the bytes of the request are charged to.
    pub(crate) fn memory(&self) -> Arc<Mutex<Reservation>> {
        Arc::clone(&self.0.memory)
    }

    /// Returns the scope of a request whose messages are handled: it holds no memory of them, and what the open call keeps.
    pub(crate) fn for_answers(&self) -> Self {
        let connection = self.0.connection.clone();
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = std::mem::replace(&mut *open, connection.open_calls.begin());
        Self::new(self.0.deadline, connection, self.principal(), kept)
    }

    /// Charges the headers of the request, which are held while its body is awaited.
    pub(crate) fn charge_head(&self, bytes: usize) -> Result<(), BudgetExhausted> {
        self.0.head_bytes.store(bytes, Ordering::Relaxed);
        self.charge(bytes)
    }

    /// Charges bytes until the request is executed.
    fn charge(&self, bytes: usize) -> Result<(), BudgetExhausted> {
        let memory = self.0.memory.lock();
        memory.unwrap_or_else(PoisonError::into_inner).grow(bytes)
    }

    /// Charges bytes that the call keeps until it ends, beyond the execution of its request.
    pub(crate) fn keep(&self, bytes: usize) -> Result<(), BudgetExhausted> {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.grow(bytes)
    }

    /// Charges what the request holds now to what the call keeps until it ends: it is a part of what the call goes on with.
    pub(crate) fn keep_request(&self) -> Result<(), BudgetExhausted> {
        let mut memory = self.0.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let head = self.0.head_bytes.load(Ordering::Relaxed);
        self.keep(memory.used().saturating_sub(head))?;
        memory.clear();
        Ok(())
    }

    /// Runs code within this scope.
    pub(crate) fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        REQUEST.sync_scope(self.clone(), work)
    }
}

impl ServerState {
    /// The store as the principal of the request at hand may use it.
    ///
    /// Outside of a request it is the store of nobody, who has no right at all.
    pub(crate) fn store(&self) -> Arc<dyn EventStore> {
        match &self.access {
            Some(access) => access.guard(principal()),
            None => Arc::clone(self.unguarded_store()),
        }
    }
}

/// Returns this work such that it finds the scope of the current request on any thread.
pub(crate) fn in_scope<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let request = REQUEST.try_with(Clone::clone).ok();
    move || match request {
        Some(request) => request.enter(work),
        None => work(),
    }
}

/// Who the request at hand is from.
pub(crate) fn principal() -> Principal {
    REQUEST
        .try_with(RequestScope::principal)
        .unwrap_or(Principal::Anonymous)
}

/// Returns the deadline of the current request; without one, a deadline that starts now.
pub(crate) fn deadline(shared: &ServerState) -> Instant {
    REQUEST
        .try_with(RequestScope::deadline)
        .unwrap_or_else(|_| Instant::now() + shared.settings.request_timeout)
}

/// Charges bytes that the current request's call keeps until it ends; without a request, nothing.
pub(crate) fn keep_while_open(bytes: usize) -> Result<(), BudgetExhausted> {
    REQUEST
        .try_with(|request| request.keep(bytes))
        .unwrap_or(Ok(()))
}

/// Charges bytes that the current request takes beyond its own until it is executed; without a request, nothing.
pub(crate) fn charge(bytes: usize) -> Result<(), BudgetExhausted> {
    REQUEST
        .try_with(|request| request.charge(bytes))
        .unwrap_or(Ok(()))
}

/// Reserves bytes for as long as the reservation is kept; without a request, none.
pub(crate) fn reserve(bytes: usize) -> Result<Option<Reservation>, BudgetExhausted> {
    let reserve = |request: &RequestScope| {
        let mut memory = request.0.connection.open_calls.begin();
        memory.grow(bytes).map(|()| Some(memory))
    };
    REQUEST.try_with(reserve).unwrap_or(Ok(None))
}

/// Returns the memory share of the current request's connection.
pub(crate) fn connection_memory(shared: &ServerState) -> ConnectionMemory {
    REQUEST
        .try_with(|request| request.0.connection.requests.clone())
        .unwrap_or_else(|_| shared.request_memory.without_connection())
}

/// Returns a reservation for messages that the current request collects.
pub(crate) fn reservation(shared: &ServerState) -> Reservation {
    connection_memory(shared).begin()
}

/// Returns the timeout of a call: the client's, capped to the server's.
fn timeout_of(allowed: Duration, headers: &HeaderMap) -> Result<Duration, Status> {
    let asked = match headers.get(TIMEOUT) {
        None => allowed,
        Some(value) => value.to_str().ok().and_then(read_timeout).ok_or_else(|| {
            Status::invalid_argument(format!(
                "invalid {TIMEOUT} {value:?}; expected 1 to {TIMEOUT_DIGITS_MAX} digits and one of H M S m u n"
            ))
        })?,
    };
    if asked.is_zero() {
        return Err(Status::deadline_exceeded(
            "deadline exceeded before the call arrived; nothing was done",
        ));
    }
    Ok(asked.min(allowed))
}

fn read_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let well_formed = (1..=TIMEOUT_DIGITS_MAX).contains(&digits.len())
        && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| well_formed)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Why the outcome of a call that began is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutcomeUnknown {
    /// It panicked.
    #[error("the request handler panicked; the outcome is unknown")]
    Panicked,
    /// Its timeout elapsed, and it is still running.
    #[error("deadline exceeded; the request is still running and its outcome is unknown")]
    TimedOut,
}

impl From<OutcomeUnknown> for Status {
    fn from(unfinished: OutcomeUnknown) -> Self {
        let text = unfinished.to_string();
        match unfinished {
            OutcomeUnknown::Panicked => Self::internal(text),
            OutcomeUnknown::TimedOut => Self::deadline_exceeded(text),
        }
    }
}

/// Runs a call to completion, and waits for it until `deadline`.
///
/// Polls the call inline in the caller's task, avoiding a thread hop. If the caller goes away, the call is spawned and runs to
/// completion.
pub(crate) async fn run_to_completion<T: Send + 'static>(
    shared: &ServerState,
    deadline: Instant,
    call: impl Future<Output = T> + Send + 'static,
) -> Result<T, OutcomeUnknown> {
    let begun = DetachOnDrop {
        request: REQUEST.try_with(Clone::clone).ok(),
        rest: Some(Box::pin(
            AssertUnwindSafe(call).catch_unwind().map(outcome_of),
        )),
        token: Some(shared.tasks.token()),
        runtime: Handle::current(),
    };
    timeout_at(deadline, begun)
        .await
        .unwrap_or(Err(OutcomeUnknown::TimedOut))
}

/// Converts a panic of a call into an error, and logs it.
fn outcome_of<T>(ended: thread::Result<T>) -> Result<T, OutcomeUnknown> {
    ended.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(panic = text, "a call panicked");
        OutcomeUnknown::Panicked
    })
}

/// A call that finishes even if this is dropped.
struct DetachOnDrop<T: Send + 'static> {
    /// `None`: it is finished.
    rest: Option<BoxFuture<'static, Result<T, OutcomeUnknown>>>,
    /// Keeps the store open until then.
    token: Option<TaskTrackerToken>,
    runtime: Handle,
    /// Keeps the memory of the request charged until then.
    request: Option<RequestScope>,
}

impl<T: Send + 'static> Future for DetachOnDrop<T> {
    type Output = Result<T, OutcomeUnknown>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(rest) = &mut self.rest else {
            return Poll::Pending;
        };
        let outcome = ready!(rest.as_mut().poll(context));
        self.rest = None;
        self.token = None;
        Poll::Ready(outcome)
    }
}

impl<T: Send + 'static> Drop for DetachOnDrop<T> {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            let (token, request) = (self.token.take(), self.request.take());
            drop(self.runtime.spawn(async move {
                // The caller is gone, so nothing needs the outcome.
                let _ = match request {
                    Some(request) => REQUEST.scope(request, rest).await,
                    None => rest.await,
                };
                drop(token);
            }));
        }
    }
}

/// Why a read was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    /// The server is shutting down.
    #[error("server is shutting down")]
    ShuttingDown,
    /// This timeout elapsed.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// Runs a read until `patience` or the request's deadline elapses, or the server shuts down.
pub(crate) async fn with_timeout<T>(
    shared: &ServerState,
    patience: Duration,
    question: impl Future<Output = T>,
) -> Result<T, QueryError> {
    let until = deadline(shared).min(Instant::now() + patience);
    tokio::select! {
        biased;
        () = shared.stopping.cancelled() => Err(QueryError::ShuttingDown),
        answered = timeout_at(until, question) => answered.map_err(|_| QueryError::TimedOut(patience)),
    }
}

/// Returns a stream that ends at shutdown, with `last()` as its last item.
pub(crate) fn until_shutdown<S: Stream + Send + Unpin + 'static>(
    stopping: CancellationToken,
    items: S,
    last: impl FnOnce() -> S::Item + Send + 'static,
) -> impl Stream<Item = S::Item> + Send
where
    S::Item: Send,
{
    stream::unfold(Some((stopping, items, last)), |running| async move {
        let (stopping, mut items, last) = running?;
        tokio::select! {
            biased;
            () = stopping.cancelled() => Some((last(), None)),
            next = items.next() => Some((next?, Some((stopping, items, last)))),
        }
    })
}

#[cfg(test)]
mod tests {
    use leftfold_store::MemoryStore;
    use tonic::Code;

    use super::*;
    use crate::Settings;

    #[tokio::test]
    async fn a_call_may_take_as_long_as_both_sides_allow_and_is_not_begun_too_late() {
        let mut settings = Settings::default();
        settings.set("request_timeout", "10s").unwrap();
        let address = settings.listen;
        let shared = ServerState::new(Arc::new(MemoryStore::new()), settings, address);
        let until = |timeout: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(timeout) = timeout {
                headers.insert(TIMEOUT, timeout.parse().unwrap());
            }
            let connection = shared.call_memory_without_connection();
            let scope = RequestScope::arriving(&shared, connection, Principal::Anonymous, &headers);
            let deadline = scope.map(|scope| scope.enter(|| deadline(&shared)));
            deadline.map_err(|refused| refused.code())
        };
        // Time stands still, so that what is allowed can be told.
        tokio::time::pause();
        let now = Instant::now();
        assert_eq!(until(None), Ok(now + Duration::from_secs(10)));
        assert_eq!(until(Some("1H")), Ok(now + Duration::from_secs(10)));
        assert_eq!(until(Some("3S")), Ok(now + Duration::from_secs(3)));
        assert_eq!(until(Some("0n")), Err(Code::DeadlineExceeded));
        assert_eq!(until(Some("soon")), Err(Code::InvalidArgument));
        // One that was held up until its principal was known.
        let mut headers = HeaderMap::new();
        headers.insert(TIMEOUT, "3S".parse().unwrap());
        for (before, deadline) in [(2, Ok(1)), (4, Err(Code::DeadlineExceeded))] {
            let at = now - Duration::from_secs(before);
            let connection = shared.call_memory_without_connection();
            let scope =
                RequestScope::arrived(at, &shared, connection, Principal::Anonymous, &headers);
            let left = scope.map(|scope| (scope.deadline() - now).as_secs());
            assert_eq!(left.map_err(|refused| refused.code()), deadline);
        }
        let never = run_to_completion(&shared, now, std::future::pending::<()>()).await;
        assert_eq!(never, Err(OutcomeUnknown::TimedOut));
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_any_longer_is_finished_before_the_tasks_are() {
        let shared = ServerState::over_memory();
        let (go, gone) = tokio::sync::oneshot::channel();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let call = async move {
            gone.await.unwrap();
            sender.send("finished").unwrap();
        };
        let late = run_to_completion(&shared, Instant::now(), call).await;
        assert_eq!(late, Err(OutcomeUnknown::TimedOut));
        shared.tasks.close();
        assert!(shared.tasks.wait().now_or_never().is_none());
        go.send(()).unwrap();
        shared.tasks.wait().await;
        assert_eq!(receiver.await, Ok("finished"));
    }

    #[tokio::test]
    async fn a_call_whose_client_hangs_up_in_the_middle_is_finished() {
        let shared = ServerState::over_memory();
        let (go, gone) = tokio::sync::oneshot::channel();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let call = async move {
            gone.await.unwrap();
            sender.send("finished").unwrap();
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut waiting = Box::pin(run_to_completion(&shared, deadline, call));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(waiting);
        go.send(()).unwrap();
        assert_eq!(receiver.await, Ok("finished"));
        shared.tasks.close();
        shared.tasks.wait().await;
    }

    #[tokio::test]
    async fn a_write_holds_the_memory_of_its_request_until_it_is_done() {
        let shared = ServerState::over_memory();
        let connection = shared.call_memory_without_connection();
        let principal = Principal::Anonymous;
        let scope =
            RequestScope::arriving(&shared, connection, principal, &HeaderMap::new()).unwrap();
        scope.memory().lock().unwrap().grow(10_000).unwrap();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let call = async move { gone.await.unwrap() };
        let mut waiting = Box::pin(run_to_completion(&shared, scope.deadline(), call));
        assert!(scope.enter(|| waiting.as_mut().now_or_never().is_none()));
        drop((waiting, scope));
        assert!(shared.request_memory.used() >= 10_000, "it goes on");
        go.send(()).unwrap();
        shared.tasks.close();
        shared.tasks.wait().await;
        tokio::task::yield_now().await;
        assert_eq!(shared.request_memory.used(), 0);
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_last_item_when_the_server_stops() {
        let stopping = CancellationToken::new();
        let items = stream::iter([1, 2]).chain(stream::pending());
        let mut items = Box::pin(until_shutdown(stopping.clone(), items, || 9));
        assert_eq!((items.next().await, items.next().await), (Some(1), Some(2)));
        stopping.cancel();
        assert_eq!((items.next().await, items.next().await), (Some(9), None));
    }

    #[tokio::test]
    async fn a_call_that_panics_is_told_as_broken_off() {
        let shared = ServerState::over_memory();
        let deadline = Instant::now() + Duration::from_secs(60);
        let broken = run_to_completion(&shared, deadline, async { panic!("planted") });
        assert_eq!(broken.await, Err::<(), _>(OutcomeUnknown::Panicked));
        shared.tasks.close();
        shared.tasks.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_given_up_in_time_and_when_the_server_stops() {
        let shared = ServerState::over_memory();
        let patience = Duration::from_secs(3);
        let ask = |question| with_timeout(&shared, patience, question);
        let never = std::future::pending::<()>;
        assert_eq!(ask(never()).await, Err(QueryError::TimedOut(patience)));
        shared.stopping.cancel();
        assert_eq!(ask(never()).await, Err(QueryError::ShuttingDown));
    }

    #[test]
    fn timeouts_are_read_in_every_unit_and_nothing_else_is() {
        let read = |text| read_timeout(text).map(|timeout| timeout.as_nanos());
        assert_eq!(read("2H"), Some(7_200_000_000_000));
        assert_eq!(read("2M"), Some(120_000_000_000));
        assert_eq!(read("2S"), Some(2_000_000_000));
        assert_eq!(read("2m"), Some(2_000_000));
        assert_eq!(read("2u"), Some(2_000));
        assert_eq!(read("99999999n"), Some(99_999_999));
        for wrong in ["", "S", "-1S", "+1S", "1s", "100000000S", "1.5S", "1\u{fc}"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
