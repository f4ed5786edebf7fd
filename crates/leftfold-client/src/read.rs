//! Reads, and resuming one whose connection was lost.
//!
//! **Owns:** which reads resume, and where. **Does not know:** connections; subscriptions are in `subscribe`.
//! **Invariants:** all batches of a read carry its first token and hold the log as it was at that token; a read that cannot
//! keep that ends with an error.
//!
//! **Which reads resume.** A read that has returned nothing restarts. A read of the log, a category or a query resumes after
//! the last event it returned, and leaves out what was committed after its token. What it selects never changes, so the
//! result equals that of an uninterrupted read. A read of one stream does not resume once it has returned events, because the
//! stream's metadata may have changed and the rest would not fit.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::stream;
use leftfold_model::{ConflictToken, Direction, Position, Read, ReadFrom, RecordedEvent, Scope};
use leftfold_proto::leftfold::v1 as wire;
use leftfold_store::{ReadBatch, ReadError};
use tonic::Streaming;

use crate::{
    backoff::Backoff,
    call::ConnectionPool,
    connection::StoreStub,
    decode, encode,
    status::{self, StatusKind},
};

/// Maximum attempts of a read in a row that return no batch.
const ATTEMPTS_MAX: u32 = 16;

/// Reads events from the server.
pub(crate) fn read(
    pool: Arc<ConnectionPool>,
    read: Read,
) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
    let reading = Reading {
        backoff: Backoff::of(&pool.options),
        pool,
        read,
        incoming: None,
        token: None,
        is_done: false,
    };
    Box::pin(stream::unfold(reading, |mut reading| async move {
        if reading.is_done {
            return None;
        }
        let next = reading.next().await.transpose()?;
        reading.is_done |= next.is_err();
        Some((next, reading))
    }))
}

/// A read in progress.
struct Reading {
    pool: Arc<ConnectionPool>,
    /// The rest of the request.
    read: Read,
    incoming: Option<Streaming<wire::ReadBatch>>,
    /// The token of the first batch.
    token: Option<ConflictToken>,
    backoff: Backoff,
    is_done: bool,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<ReadBatch>, ReadError> {
        loop {
            let mut incoming = match self.incoming.take() {
                Some(incoming) => incoming,
                None => self.open().await?,
            };
            match incoming.message().await {
                Ok(None) => return Ok(None),
                Ok(Some(message)) => {
                    self.incoming = Some(incoming);
                    self.backoff.reset();
                    let batch = decode::read_batch(message).map_err(status::unreadable)?;
                    if let Some(batch) = self.within(batch) {
                        return Ok(Some(batch));
                    }
                    if self.is_done {
                        return Ok(None);
                    }
                }
                Err(status) => {
                    self.lost(StatusKind::of(status, &self.pool.address))
                        .await?
                }
            }
        }
    }

    async fn open(&mut self) -> Result<Streaming<wire::ReadBatch>, ReadError> {
        if let Some(token) = self.token {
            self.pool.check_log(token.seen_through()).await?;
        }
        let request = encode::read(&self.read).ok_or_else(|| ReadError::Invalid {
            reason: "this client cannot ask for that part of the log".into(),
        })?;
        let ask = |mut calls: StoreStub| {
            let request = request.clone();
            async move { calls.read(request).await }
        };
        self.pool.read_with_retry(ask).await
    }

    /// Decides whether to resume after the connection was lost.
    async fn lost(&mut self, said: StatusKind) -> Result<(), ReadError> {
        let is_final = matches!(said, StatusKind::Store(_) | StatusKind::Rejected(_));
        let error = status::to_read_error(said);
        let is_resumable = self.token.is_none() || !matches!(self.read.scope, Scope::Stream(_));
        if is_final || !is_resumable || self.backoff.attempts() >= ATTEMPTS_MAX {
            return Err(error);
        }
        tracing::debug!(error = &error as &dyn std::error::Error, "read goes on");
        self.backoff.wait().await;
        Ok(())
    }

    /// Restricts a batch to the read that began; `None` if nothing of it remains.
    fn within(&mut self, mut batch: ReadBatch) -> Option<ReadBatch> {
        let is_first = self.token.is_none();
        let token = *self.token.get_or_insert(batch.token);
        let seen = token.seen_through();
        if batch.token != token {
            // The first batch after a new connection sees more than the read may.
            let before = batch.events.len();
            batch.events.retain(|event| event.position <= seen);
            self.is_done |= batch.events.len() < before;
            batch.token = token;
        }
        self.advance(&batch.events);
        (is_first || !batch.events.is_empty()).then_some(batch)
    }

    /// Removes delivered events from the request.
    fn advance(&mut self, events: &[RecordedEvent]) {
        let Some(last) = events.last() else {
            return;
        };
        if let Some(limit) = &mut self.read.limit {
            *limit = limit.saturating_sub(events.len() as u64);
        }
        let next = match self.read.direction {
            Direction::Forwards => last.position.next(),
            Direction::Backwards => last.position.previous(),
        };
        if !matches!(self.read.scope, Scope::Stream(_)) {
            self.read.from = ReadFrom::Position(next);
            self.is_done |= next == Position::START || self.read.limit == Some(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use leftfold_model::{Category, EventId, EventType, Revision, StreamName, Timestamp};

    use super::*;
    use crate::ClientOptions;

    fn reading(read: Read) -> Reading {
        let options = ClientOptions::default();
        Reading {
            backoff: Backoff::of(&options),
            pool: Arc::new(ConnectionPool::new(
                "nowhere".into(),
                options,
                Vec::new(),
                tokio_util::sync::CancellationToken::new(),
            )),
            read,
            incoming: None,
            token: None,
            is_done: false,
        }
    }

    fn batch(positions: &[u64], token: u64) -> ReadBatch {
        let event = |&position: &u64| RecordedEvent {
            position: Position::new(position),
            stream: StreamName::new("a").unwrap(),
            revision: Revision::new(position),
            id: EventId::fresh(),
            event_type: EventType::new("T").unwrap(),
            content_type: leftfold_model::ContentType::Json,
            data: bytes::Bytes::new(),
            metadata: bytes::Bytes::new(),
            tags: Vec::new(),
            time: Timestamp::from_micros(0),
        };
        ReadBatch {
            events: positions.iter().map(event).collect(),
            token: Position::new(token).into(),
        }
    }

    fn positions(batch: Option<ReadBatch>) -> Vec<u64> {
        let events = batch.map(|batch| batch.events).unwrap_or_default();
        events.iter().map(|event| event.position.get()).collect()
    }

    #[test]
    fn what_is_left_begins_behind_the_last_event_and_within_the_limit() {
        let mut reading = reading(Read::all().limit(5));
        assert_eq!(positions(reading.within(batch(&[1, 2, 4], 9))), [1, 2, 4]);
        assert_eq!(reading.read.from, ReadFrom::Position(Position::new(5)));
        assert_eq!(reading.read.limit, Some(2));
        assert!(!reading.is_done);
    }

    #[test]
    fn what_was_committed_after_the_token_is_left_out_after_a_new_connection() {
        let mut reading = reading(Read::category(Category::new("a").unwrap()));
        reading.within(batch(&[1, 2], 4));
        let resumed = reading.within(batch(&[3, 4, 5, 6], 8)).unwrap();
        assert_eq!(resumed.token.seen_through(), Position::new(4));
        assert_eq!(positions(Some(resumed)), [3, 4]);
        assert!(reading.is_done);
    }

    #[test]
    fn a_resumed_batch_of_newer_events_only_ends_the_read() {
        let mut reading = reading(Read::all());
        reading.within(batch(&[1, 2], 2));
        assert_eq!(reading.within(batch(&[3], 3)), None);
        assert!(reading.is_done);
    }

    #[test]
    fn backwards_the_rest_ends_at_the_first_event() {
        let mut reading = reading(Read::all().backwards());
        reading.within(batch(&[3, 2], 3));
        assert_eq!(reading.read.from, ReadFrom::Position(Position::new(1)));
        reading.within(batch(&[1], 3));
        assert!(reading.is_done);
    }

    #[tokio::test]
    async fn a_read_of_one_stream_is_not_resumed_once_it_gave_something() {
        let lost = || StatusKind::NoResponse(crate::RpcError::ShuttingDown.cause());
        let mut fresh = reading(Read::stream(StreamName::new("a").unwrap()));
        assert!(fresh.lost(lost()).await.is_ok());
        fresh.within(batch(&[1], 1));
        assert!(matches!(
            fresh.lost(lost()).await,
            Err(ReadError::Unavailable { .. })
        ));
        let mut all = reading(Read::all());
        all.within(batch(&[1], 1));
        assert!(all.lost(lost()).await.is_ok());
    }
}
