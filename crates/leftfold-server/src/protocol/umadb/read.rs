//! Reads: the stored events, in either direction.
//!
//! **Owns:** [`Reading`]: from the request to the last message. **Does not know:** how the store evaluates a query.
//! **Invariants:** events that are not shown do not count towards the limit; a read ends at the head it began with; the first
//! message is sent even if nothing matches, because it carries the head.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::{Stream, TryStreamExt, stream};
use leftfold_model::{Direction, Position, Read};
use leftfold_proto::umadb::v1 as wire;
use leftfold_store::{EventStore, ReadBatch, ReadError};
use tonic::Status;

use super::{
    batcher::{Batch, MessageBatcher},
    event::is_shown,
    query, status,
};

/// A read in progress.
struct Reading {
    store: Arc<dyn EventStore>,
    read: Read,
    batches: BoxStream<'static, Result<ReadBatch, ReadError>>,
    /// Number of events that may still be sent; `None`: all.
    remaining: Option<u64>,
    /// Number of events that the current read of the store has returned.
    given: u64,
    last: Position,
    head: Option<Position>,
    pack: MessageBatcher,
    begun: bool,
    ended: bool,
}

/// Returns the response messages of a read.
pub(super) fn read(
    store: &Arc<dyn EventStore>,
    asked: wire::ReadRequest,
) -> Result<impl Stream<Item = Result<wire::ReadResponse, Status>> + Send + 'static, Status> {
    #[expect(deprecated, reason = "to tell clients that still use it what to use")]
    let follows = asked.subscribe.unwrap_or(false);
    if follows {
        return Err(status::invalid(
            "a read does not subscribe any more: call Subscribe instead",
        ));
    }
    let query = query::query(asked.query).map_err(|error| status::of_model(&error))?;
    let mut read = Read::query(query);
    if let Some(start) = asked.start {
        read = read.from_position(Position::new(start));
    }
    if asked.backwards.unwrap_or(false) {
        read = read.backwards();
    }
    let remaining = asked.limit.map(u64::from);
    read.limit = remaining;
    let begin = Reading {
        store: Arc::clone(store),
        batches: store.read(read.clone()),
        read,
        remaining,
        given: 0,
        last: Position::START,
        head: None,
        pack: MessageBatcher::of(asked.batch_size),
        begun: false,
        ended: false,
    };
    Ok(stream::try_unfold(begin, Reading::step))
}

/// Maximum events that [`shown_head`] skips.
const HIDDEN_MAX: u64 = 64;

/// Returns the position of the newest event that clients see, or of one of a system stream after many such.
pub(super) async fn shown_head(store: &dyn EventStore) -> Result<Position, ReadError> {
    let head = store.head().await?;
    for limit in [1, HIDDEN_MAX] {
        let newest = Read::all().from_position(head).backwards().limit(limit);
        let batches: Vec<_> = store.read(newest).try_collect().await?;
        let mut expected = head;
        for event in batches.into_iter().flat_map(|batch| batch.events) {
            // An event that was erased may be one that conditions see.
            if event.position != expected {
                return Ok(head);
            }
            if is_shown(&event) {
                return Ok(event.position);
            }
            expected = expected.previous();
        }
        if expected == Position::START {
            return Ok(Position::START);
        }
    }
    Ok(head)
}

impl Reading {
    async fn step(mut self) -> Result<Option<(wire::ReadResponse, Self)>, Status> {
        while !(self.ended || self.pack.is_full()) {
            let next = self.batches.try_next().await;
            match next.map_err(|error| status::of_read(&error))? {
                Some(batch) => self.take_in(batch),
                None => self.go_on(),
            }
        }
        if self.begun && self.pack.is_empty() {
            return Ok(None);
        }
        self.begun = true;
        let Batch { events, last } = self.pack.take();
        let head = match self.remaining {
            // A client that reads with a limit continues after the last event it got.
            Some(_) => last.map(Position::get),
            None => self.head.map(Position::get).filter(|&head| head > 0),
        };
        Ok(Some((wire::ReadResponse { events, head }, self)))
    }

    fn take_in(&mut self, batch: ReadBatch) {
        let head = *self.head.get_or_insert(batch.token.seen_through());
        for event in batch.events {
            self.given += 1;
            self.last = event.position;
            if event.position > head {
                self.ended = true;
                return;
            }
            if is_shown(&event) {
                self.pack.add(&event);
                if let Some(remaining) = &mut self.remaining {
                    *remaining = remaining.saturating_sub(1);
                }
            }
        }
    }

    /// Continues the read if the store returned its full limit and clients did not see some of it.
    fn go_on(&mut self) {
        let cut_short = self.read.limit.is_some_and(|limit| self.given >= limit);
        let Some(missing) = self.remaining.filter(|&missing| missing > 0 && cut_short) else {
            self.ended = true;
            return;
        };
        let from = match self.read.direction {
            Direction::Forwards => self.last.next(),
            Direction::Backwards => self.last.previous(),
        };
        self.read = self.read.clone().from_position(from).limit(missing);
        self.given = 0;
        self.batches = self.store.read(self.read.clone());
    }
}
