//! `BatchAppend`: many appends on one call, answered as they finish.
//!
//! **Owns:** collecting the chunks of a batch by its id, deadlines, responses. **Does not know:** what an append does.
//! **Invariants:**
//! - Appends begin in the order in which their last chunks arrive, and every append that began finishes.
//! - A refused batch takes no further chunks; a batch that is incomplete at its deadline is dropped.
//! - The batches that wait on one call are bounded in number and bytes.
//! - An error of one append is its response and does not end the call. An error of the call itself follows the responses of
//!   all appends that began.

use std::{
    collections::HashMap,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt, poll, stream, stream::FuturesUnordered};
use leftfold_model::{CurrentRevision, ExpectedRevision, Revision, limits};
use leftfold_proto::{
    event_store::client::{
        AccessDenied, AllStreamPosition, BadRequest, MaximumAppendEventSizeExceeded,
        MaximumAppendSizeExceeded, StreamDeleted, StreamIdentifier, Timeout, Unknown, Uuid,
        WrongExpectedVersion,
        streams::{
            BatchAppendReq, BatchAppendResp,
            batch_append_req::{
                Options,
                options::{DeadlineOption, ExpectedStreamPosition as Expected},
            },
            batch_append_resp::{
                self, ExpectedStreamPosition, Success,
                success::{CurrentRevisionOption as Current, PositionOption},
            },
        },
        uuid::Value,
        wrong_expected_version as wrong,
    },
    google::rpc::Status as Refusal,
    prost::{Message, Name},
    prost_types::Any,
};
use leftfold_store::AppendError;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Code, Status, Streaming};

use super::{
    append::{AppendBuffer, Outcome, RejectedEvent},
    event::{self, Proposed},
    status,
};
use crate::{clock, state::ServerState};

/// Maximum appends in flight on one call; then the client waits.
const UNDER_WAY_MAX: usize = 1_024;
/// Maximum bytes of them, one append more or less.
const UNDER_WAY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Maximum bytes of a correlation id as text: a UUID in its longest form.
const ID_BYTES_MAX: usize = 64;
/// Maximum incomplete batches on one call.
const BEGUN_MAX: usize = 1_024;

/// Returns the responses to the batches of one call.
pub(super) fn answers(
    shared: Arc<ServerState>,
    requests: Streaming<BatchAppendReq>,
) -> impl Stream<Item = Result<BatchAppendResp, Status>> + Send {
    let call = Call {
        shared,
        requests: Some(requests),
        ended: None,
        begun: HashMap::new(),
        under_way: FuturesUnordered::new(),
        under_way_bytes: 0,
    };
    stream::unfold(call, |mut call| async move {
        let answer = call.next().await?;
        Some((answer, call))
    })
}

/// One call.
struct Call {
    shared: Arc<ServerState>,
    /// `None` if nothing more is read from the client.
    requests: Option<Streaming<BatchAppendReq>>,
    /// Why, if not because the client is done.
    ended: Option<Status>,
    begun: HashMap<Bytes, PendingBatch>,
    under_way: FuturesUnordered<UnderWay>,
    under_way_bytes: usize,
}

/// An append in flight; its response comes with the bytes it had.
type UnderWay = BoxFuture<'static, (BatchAppendResp, usize)>;

/// An incomplete batch.
struct PendingBatch {
    head: BatchHeader,
    wanted: Result<AppendBuffer, Refusal>,
    deadline: Instant,
}

/// The fields that every response about a batch repeats.
#[derive(Clone, PartialEq)]
struct BatchHeader {
    id: Option<Uuid>,
    stream: Option<StreamIdentifier>,
    expected: Option<Expected>,
}

/// What happens next on a call.
enum Next {
    Answer(BatchAppendResp, usize),
    Request(BatchAppendReq),
    /// The client is done, or disconnected.
    End(Option<Status>),
    /// A batch was not completed in time.
    Late,
}

impl Call {
    /// Returns the next response; `None` at the end of the call.
    async fn next(&mut self) -> Option<Result<BatchAppendResp, Status>> {
        loop {
            if self.requests.is_none() && self.under_way.is_empty() {
                return self.ended.take().map(Err);
            }
            match self.wait().await {
                Next::Answer(answer, bytes) => {
                    self.under_way_bytes -= bytes;
                    return Some(Ok(answer));
                }
                Next::Request(request) => {
                    if let Err(refused) = check_id(request.correlation_id.as_ref()) {
                        self.end(Some(refused));
                    } else if let Some(answer) = self.take(request).await {
                        return Some(Ok(answer));
                    }
                }
                Next::End(why) => self.end(why),
                Next::Late => {
                    if let Some(answer) = self.give_up() {
                        return Some(Ok(answer));
                    }
                }
            }
        }
    }

    /// Takes nothing more from the client.
    fn end(&mut self, why: Option<Status>) {
        self.requests = None;
        self.ended = why;
        self.begun.clear();
    }

    async fn wait(&mut self) -> Next {
        let has_room =
            self.under_way.len() < UNDER_WAY_MAX && self.under_way_bytes < UNDER_WAY_BYTES_MAX;
        let first_deadline = self.begun.values().map(|begun| begun.deadline).min();
        let listening = self.requests.is_some();
        let request = async {
            match &mut self.requests {
                Some(requests) if has_room => requests.message().await,
                _ => std::future::pending().await,
            }
        };
        let late = async {
            match first_deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((answer, bytes)) = self.under_way.next() => Next::Answer(answer, bytes),
            () = self.shared.stopping.cancelled(), if listening => Next::End(Some(status::stopping())),
            () = late => Next::Late,
            request = request => match request {
                Ok(Some(request)) => Next::Request(request),
                Ok(None) => Next::End(None),
                Err(status) => Next::End(Some(status)),
            },
        }
    }

    /// Adds a chunk, and begins the append if it was the last. Returns a response, if it is available at once.
    async fn take(&mut self, request: BatchAppendReq) -> Option<BatchAppendResp> {
        let id = request.correlation_id.clone().unwrap_or_default();
        let key = Bytes::from(id.encode_to_vec());
        let is_final = request.is_final;
        if let Some(options) = request.options.clone()
            && let Some(refused) = self.open(&key, &request, options)
        {
            return Some(refused);
        }
        let Some(begun) = self.begun.get_mut(&key) else {
            let head = BatchHeader::of(&request);
            return Some(head.refused(bad_request(
                "the first part of a batch has to hold its options",
            )));
        };
        begun.add(request);
        if !is_final {
            return None;
        }
        let begun = self.begun.remove(&key)?;
        if let Ok(wanted) = &begun.wanted {
            self.shared.store().prepare(&wanted.stream).await;
        }
        self.begin(begun).await
    }

    /// Opens the batch that these options begin, or returns the response that refuses it. Options that come again with a later
    /// chunk must be those of the first.
    fn open(
        &mut self,
        key: &Bytes,
        request: &BatchAppendReq,
        options: Options,
    ) -> Option<BatchAppendResp> {
        let head = BatchHeader::of(request);
        if let Some(begun) = self.begun.get_mut(key) {
            if begun.head != head {
                let reason = "options of a batch changed before its last part, nothing was written";
                begun.wanted = Err(bad_request(reason));
            }
            return None;
        }
        if self.begun.len() >= BEGUN_MAX {
            let reason = format!("more than {BEGUN_MAX} batches are begun and not finished");
            return Some(head.refused(bad_request(reason)));
        }
        let begun = PendingBatch::from_wire(&self.shared, request, options);
        self.begun.insert(key.clone(), begun);
        None
    }

    /// Begins an append at once, so that appends begin in the order of their arrival.
    async fn begin(&mut self, begun: PendingBatch) -> Option<BatchAppendResp> {
        let bytes = begun.wanted.as_ref().map_or(0, AppendBuffer::size);
        let answer = answer(Arc::clone(&self.shared), begun);
        let mut append = answer.map(move |answer| (answer, bytes)).boxed();
        match poll!(append.as_mut()) {
            Poll::Ready((answer, _)) => Some(answer),
            Poll::Pending => {
                self.under_way_bytes += bytes;
                self.under_way.push(append);
                None
            }
        }
    }

    /// Drops a batch that was not complete at its deadline.
    fn give_up(&mut self) -> Option<BatchAppendResp> {
        let now = Instant::now();
        let mut begun = self.begun.iter();
        let key = begun.find_map(|(key, begun)| (begun.deadline <= now).then(|| key.clone()))?;
        let begun = self.begun.remove(&key)?;
        Some(begun.head.refused(late()))
    }
}

/// Refuses an id that no client gives: batches keep their ids until they are answered.
fn check_id(id: Option<&Uuid>) -> Result<(), Status> {
    match id.and_then(|id| id.value.as_ref()) {
        Some(Value::String(text)) if text.len() > ID_BYTES_MAX => {
            Err(Status::invalid_argument(format!(
                "correlation id too long: {} bytes; expected a UUID of {ID_BYTES_MAX} bytes at most",
                text.len()
            )))
        }
        _ => Ok(()),
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // The client is gone; what it began is finished all the same.
        let rest = std::mem::take(&mut self.under_way);
        if !rest.is_empty() {
            self.shared
                .tasks
                .spawn(rest.for_each(|_| std::future::ready(())));
        }
    }
}

impl PendingBatch {
    fn from_wire(shared: &ServerState, request: &BatchAppendReq, options: Options) -> Self {
        let head = BatchHeader::of(request);
        let longest = shared.settings.request_timeout;
        let deadline = Instant::now() + allowed(options.deadline_option.as_ref(), longest);
        let expected = match options.expected_stream_position {
            Some(Expected::StreamPosition(at)) => Ok(ExpectedRevision::Exact(Revision::new(at))),
            Some(Expected::NoStream(())) => Ok(ExpectedRevision::NoStream),
            Some(Expected::StreamExists(())) => Ok(ExpectedRevision::StreamExists),
            Some(Expected::Any(())) => Ok(ExpectedRevision::Any),
            None => Err(bad_request("expected_stream_position is missing")),
        };
        let stream = event::stream(options.stream_identifier).map_err(|status| refusal(&status));
        Self {
            head,
            wanted: stream.and_then(|stream| Ok(AppendBuffer::new(shared, stream, expected?))),
            deadline,
        }
    }

    /// Adds a chunk, unless the batch is refused already.
    ///
    /// Events that wait for further chunks get bytes of their own: those of the message may be many more than theirs.
    fn add(&mut self, request: BatchAppendReq) {
        let waits = !request.is_final;
        for message in request.proposed_messages {
            let Ok(wanted) = &mut self.wanted else {
                return;
            };
            let proposed = Proposed {
                id: message.id,
                metadata: message.metadata,
                custom_metadata: message.custom_metadata,
                data: message.data,
            };
            let proposed = if waits { proposed.owned() } else { proposed };
            if let Err(unfit) = wanted.add(proposed) {
                // What was gathered goes at once.
                self.wanted = Err(match unfit {
                    RejectedEvent::Event(status) => refusal(&status),
                    RejectedEvent::Append(status) if status.metadata().is_empty() => {
                        refusal(&status)
                    }
                    RejectedEvent::Append(_) => too_large(),
                    RejectedEvent::Crowded(full) => {
                        let text = status::too_busy(full).message().to_owned();
                        refusal_with_detail(Code::Unavailable, text, &Unknown {})
                    }
                });
            }
        }
    }
}

/// Returns the timeout of an append: the client's, capped to the server's.
fn allowed(asked: Option<&DeadlineOption>, longest: Duration) -> Duration {
    let asked = match asked {
        Some(DeadlineOption::Deadline21100(at)) => {
            let at = SystemTime::try_from(*at).unwrap_or(SystemTime::UNIX_EPOCH);
            at.duration_since(clock::now()).unwrap_or_default()
        }
        // A negative time is over.
        Some(DeadlineOption::Deadline(within)) => Duration::try_from(*within).unwrap_or_default(),
        None => longest,
    };
    asked.min(longest)
}

/// Appends a batch that is complete.
async fn answer(shared: Arc<ServerState>, begun: PendingBatch) -> BatchAppendResp {
    let PendingBatch {
        head,
        wanted,
        deadline,
        ..
    } = begun;
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(refused) => return head.refused(refused),
    };
    if deadline <= Instant::now() {
        return head.refused(late());
    }
    let expected = wanted.expected;
    let mut work = {
        let shared = Arc::clone(&shared);
        async move { wanted.execute(&shared).await }.boxed()
    };
    match timeout_at(deadline, work.as_mut()).await {
        Ok(Ok(Outcome::Done(revision, position))) => {
            let current = match revision {
                Some(revision) => Current::CurrentRevision(revision.get()),
                None => Current::NoStream(()),
            };
            let position = match position {
                Some(position) => PositionOption::Position(AllStreamPosition {
                    commit_position: position.get(),
                    prepare_position: position.get(),
                }),
                None => PositionOption::NoPosition(()),
            };
            head.answer(batch_append_resp::Result::Success(Success {
                current_revision_option: Some(current),
                position_option: Some(position),
            }))
        }
        Ok(Ok(Outcome::Wrong(actual))) => head.refused(wrong_version(expected, actual)),
        Ok(Ok(Outcome::Deleted)) => {
            let stream_identifier = head.stream.clone();
            head.refused(refusal_with_detail(
                Code::NotFound,
                "Event stream is deleted.",
                &StreamDeleted { stream_identifier },
            ))
        }
        Ok(Err(error)) => head.refused(failed(&error)),
        Err(_) => {
            // It goes on: what was begun is finished.
            drop(shared.tasks.spawn(work));
            head.refused(late())
        }
    }
}

/// Returns the stream that a request names, in bytes of its own; `None` if no stream can have that name.
fn short(stream: &StreamIdentifier) -> Option<StreamIdentifier> {
    let name = &stream.stream_name;
    (name.len() <= limits::STREAM_NAME_BYTES_MAX).then(|| StreamIdentifier {
        stream_name: Bytes::copy_from_slice(name),
    })
}

impl BatchHeader {
    fn of(request: &BatchAppendReq) -> Self {
        let options = request.options.as_ref();
        Self {
            id: request.correlation_id.clone(),
            stream: options.and_then(|options| short(options.stream_identifier.as_ref()?)),
            expected: options.and_then(|options| options.expected_stream_position),
        }
    }

    fn refused(self, refusal: Refusal) -> BatchAppendResp {
        self.answer(batch_append_resp::Result::Error(refusal))
    }

    fn answer(self, result: batch_append_resp::Result) -> BatchAppendResp {
        let expected = self.expected.map(|expected| match expected {
            Expected::StreamPosition(at) => ExpectedStreamPosition::StreamPosition(at),
            Expected::NoStream(()) => ExpectedStreamPosition::NoStream(()),
            Expected::Any(()) => ExpectedStreamPosition::Any(()),
            Expected::StreamExists(()) => ExpectedStreamPosition::StreamExists(()),
        });
        BatchAppendResp {
            correlation_id: self.id,
            stream_identifier: self.stream,
            expected_stream_position: expected,
            result: Some(result),
        }
    }
}

/// Returns an error within a response.
fn refusal_with_detail<M: Message + Name>(
    code: Code,
    message: impl Into<String>,
    detail: &M,
) -> Refusal {
    let name = M::full_name();
    Refusal {
        code: code as i32,
        message: message.into(),
        details: vec![Any {
            type_url: format!("type.googleapis.com/{name}"),
            value: detail.encode_to_vec(),
        }],
    }
}

fn bad_request(message: impl Into<String>) -> Refusal {
    let message = message.into();
    let detail = BadRequest {
        message: message.clone(),
    };
    refusal_with_detail(Code::InvalidArgument, message, &detail)
}

fn late() -> Refusal {
    refusal_with_detail(Code::DeadlineExceeded, "Timeout", &Timeout {})
}

fn too_large() -> Refusal {
    let max = limits::APPEND_BYTES_MAX;
    let detail = MaximumAppendSizeExceeded {
        max_append_size: u32::try_from(max).unwrap_or(u32::MAX),
    };
    refusal_with_detail(
        Code::InvalidArgument,
        status::append_too_large(max).message(),
        &detail,
    )
}

/// Converts the error of a chunk to an error within a response.
fn refusal(status: &Status) -> Refusal {
    let trailer = |name: &str| {
        let value = status.metadata().get(name)?;
        value.to_str().ok()
    };
    let number = |name: &str| {
        trailer(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(u32::MAX)
    };
    match trailer("event-id") {
        Some(id) => {
            let detail = MaximumAppendEventSizeExceeded {
                event_id: id.to_owned(),
                proposed_event_size: number("proposed-append-event-size"),
                max_append_event_size: number("maximum-append-event-size"),
            };
            refusal_with_detail(Code::InvalidArgument, status.message(), &detail)
        }
        None => bad_request(status.message()),
    }
}

fn failed(error: &AppendError) -> Refusal {
    match error {
        AppendError::Invalid { reason } => bad_request(reason.clone()),
        // Whether it happened is not known: that is what a timeout means to clients.
        AppendError::OutcomeUnknown { .. } => late(),
        AppendError::AccessDenied { reason } => {
            refusal_with_detail(Code::PermissionDenied, reason.clone(), &AccessDenied {})
        }
        error => refusal_with_detail(Code::Unknown, error.to_string(), &Unknown {}),
    }
}

fn wrong_version(expected: ExpectedRevision, actual: CurrentRevision) -> Refusal {
    use wrong::{CurrentStreamRevisionOption as Current, ExpectedStreamPositionOption as Expected};
    let current = match actual.0 {
        Some(at) => Current::CurrentStreamRevision(at.get()),
        None => Current::CurrentNoStream(()),
    };
    let expected = match expected {
        ExpectedRevision::Exact(at) => Expected::ExpectedStreamPosition(at.get()),
        ExpectedRevision::Any => Expected::ExpectedAny(()),
        ExpectedRevision::StreamExists => Expected::ExpectedStreamExists(()),
        ExpectedRevision::NoStream => Expected::ExpectedNoStream(()),
    };
    let detail = WrongExpectedVersion {
        current_stream_revision_option: Some(current),
        expected_stream_position_option: Some(expected),
    };
    refusal_with_detail(Code::AlreadyExists, "WrongExpectedVersion", &detail)
}

#[cfg(test)]
mod tests {
    use leftfold_proto::prost_types;

    use super::*;

    #[test]
    fn deadlines_are_cut_to_what_the_server_grants() {
        let longest = Duration::from_secs(30);
        let within = |seconds: i64| {
            let duration = prost_types::Duration { seconds, nanos: 0 };
            allowed(Some(&DeadlineOption::Deadline(duration)), longest)
        };
        assert_eq!(within(315_576_000_000), longest);
        assert_eq!(within(5), Duration::from_secs(5));
        assert_eq!(within(-5), Duration::ZERO);
        assert_eq!(allowed(None, longest), longest);
        let at = prost_types::Timestamp {
            seconds: 1,
            nanos: 0,
        };
        assert_eq!(
            allowed(Some(&DeadlineOption::Deadline21100(at)), longest),
            Duration::ZERO
        );
        let far = prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        };
        let granted = allowed(Some(&DeadlineOption::Deadline21100(far)), longest);
        assert!(granted == longest || granted == Duration::ZERO);
    }
}
