//! Subscriptions: stored events, then new ones, until the client disconnects or the server stops.
//!
//! **Owns:** the messages of a subscription. **Does not know:** how the store follows the log.
//! **Invariants:** the next delivery is read only after the last one was sent, so a slow client holds one delivery; the stream
//! always ends with a status that says why.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use leftfold_model::Position;
use leftfold_proto::umadb::v1 as wire;
use leftfold_store::{Delivery, ReadError, Subscription};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{batcher::MessageBatcher, event::is_shown, query, status};
use crate::{call, state::ServerState};

/// A subscription in progress.
struct SubscriptionStream {
    deliveries: BoxStream<'static, Result<Delivery, ReadError>>,
    stopping: CancellationToken,
    pack: MessageBatcher,
}

/// Returns the response messages of a subscription.
pub(super) async fn subscribe(
    shared: &Arc<ServerState>,
    asked: wire::SubscribeRequest,
) -> Result<impl Stream<Item = Result<wire::SubscribeResponse, Status>> + Send + 'static, Status> {
    let query = query::query(asked.query).map_err(|error| status::of_model(&error))?;
    let after = Position::new(asked.after.unwrap_or_default());
    let head = call::with_timeout(
        shared,
        shared.settings.request_timeout,
        shared.store().head(),
    )
    .await;
    let head = head.map_err(status::of_query)?;
    let head = head.map_err(|error| status::of_read(&error))?;
    // In UmaDB, a subscription after a position beyond the head starts once the log gets there. The store refuses such a
    // position, so subscribe from the head.
    let deliveries = shared
        .store()
        .subscribe(Subscription::after(after.min(head)).matching(query));
    let deliveries = deliveries.map_ok(move |mut delivery| {
        delivery.events.retain(|event| event.position > after);
        delivery
    });
    let begin = SubscriptionStream {
        deliveries: deliveries.boxed(),
        stopping: shared.stopping.clone(),
        pack: MessageBatcher::of(asked.batch_size),
    };
    Ok(stream::try_unfold(begin, SubscriptionStream::step))
}

impl SubscriptionStream {
    async fn step(mut self) -> Result<Option<(wire::SubscribeResponse, Self)>, Status> {
        while self.pack.is_empty() {
            let next = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return Err(status::stopping()),
                next = self.deliveries.next() => next,
            };
            // Only a store that is closed ends the stream, and then the server is stopping.
            let delivery = next.ok_or_else(status::stopping)?;
            let delivery = delivery.map_err(|error| status::of_read(&error))?;
            let shown = delivery.events.into_iter().filter(is_shown);
            shown.for_each(|event| self.pack.add(&event));
        }
        if self.stopping.is_cancelled() {
            return Err(status::stopping());
        }
        let events = self.pack.take().events;
        Ok(Some((wire::SubscribeResponse { events }, self)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use leftfold_model::{
        Bytes, ContentType, EventId, RecordedEvent, Revision, StreamName, Timestamp,
    };

    use super::*;

    fn delivery(position: u64) -> Delivery {
        let event = |revision| RecordedEvent {
            position: Position::new(position),
            stream: StreamName::default_stream(),
            revision: Revision::new(revision),
            id: EventId::fresh(),
            event_type: "T".try_into().unwrap(),
            content_type: ContentType::Binary,
            data: Bytes::new(),
            metadata: Bytes::new(),
            tags: Vec::new(),
            time: Timestamp::default(),
        };
        Delivery {
            events: (0..3).map(event).collect(),
            through: Position::new(position),
            caught_up: false,
        }
    }

    #[tokio::test]
    async fn nothing_is_taken_from_the_store_before_what_was_taken_is_sent() {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let deliveries = stream::iter(1..=100).map(move |position| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(delivery(position))
        });
        let mut following = SubscriptionStream {
            deliveries: deliveries.boxed(),
            stopping: CancellationToken::new(),
            pack: MessageBatcher::of(Some(2)),
        };
        for (sent, deliveries) in [(2, 1), (1, 1), (2, 2), (1, 2)] {
            let (message, next) = following.step().await.unwrap().unwrap();
            assert_eq!(message.events.len(), sent);
            assert_eq!(taken.load(Ordering::SeqCst), deliveries);
            following = next;
        }
        following.stopping.cancel();
        assert!(following.step().await.is_err());
    }
}
