//! One subscription: it reads the log until it has caught up, and waits at the tail from then on.
//!
//! **Owns:** [`subscribe`]. **Does not know:** other subscriptions.
//! **Invariants:** a delivery ends at the head that was read before its events, so a checkpoint has one meaning. A head
//! before the checkpoint is an error.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::stream;
use leftfold_model::{Position, RecordedEvent, Scope};
use leftfold_store::{Delivery, ReadError, Subscription};

use super::{
    recent::Found,
    tail::{Attached, Tail},
};
use crate::{
    error::Failure,
    listing,
    pool::Pool,
    read::{PageRequest, Place, fetch, with_retry},
    value::to_bigint,
};

/// Maximum number of events of a delivery.
const DELIVERY_EVENTS_MAX: i64 = 1_024;

/// Starts a subscription at its first poll.
pub(crate) fn subscribe(
    pool: Arc<Pool>,
    tail: Arc<Tail>,
    subscription: Subscription,
) -> BoxStream<'static, Result<Delivery, ReadError>> {
    let subscriber = Subscriber {
        pool,
        tail,
        attached: None,
        after: subscription.after,
        revision: 0,
        last: None,
        subscription,
        limit: DELIVERY_EVENTS_MAX,
    };
    Box::pin(stream::try_unfold(subscriber, Subscriber::step))
}

struct Subscriber {
    pool: Arc<Pool>,
    tail: Arc<Tail>,
    subscription: Subscription,
    /// The place at the tail, if the subscription has caught up.
    attached: Option<Attached>,
    /// The checkpoint.
    after: Position,
    /// The first revision to read, if the scope is a stream.
    revision: i64,
    /// The last event that was read, by which a log that lost its end is recognised.
    last: Option<Place>,
    limit: i64,
}

impl Subscriber {
    async fn step(mut self) -> Result<Option<(Delivery, Self)>, ReadError> {
        loop {
            let Some(attached) = &self.attached else {
                if self.tail.is_closed() {
                    return Ok(None);
                }
                if let Some(delivery) = self.catch_up().await? {
                    if delivery.caught_up {
                        self.attach();
                    }
                    return Ok(Some((delivery, self)));
                }
                self.attach();
                continue;
            };
            match attached.next(self.after).await {
                Ok(Some(Found::Delivery(delivery))) => {
                    self.advance(&delivery.events, delivery.through);
                    return Ok(Some((delivery, self)));
                }
                Ok(Some(Found::Behind)) => self.attached = None,
                Ok(Some(Found::Nothing)) => {}
                Ok(None) => return Ok(None),
                Err(failure) => return Err(failure.into_read_error()),
            }
        }
    }

    fn attach(&mut self) {
        let attached = self.tail.attach(self.subscription.clone(), self.after);
        self.attached = Some(attached);
    }

    /// Reads the log after the checkpoint. Returns `None` if it ends there.
    async fn catch_up(&mut self) -> Result<Option<Delivery>, ReadError> {
        let last_revision = self.last_revision().await?;
        let (scope, query) = (
            self.subscription.scope.clone(),
            self.subscription.query.clone(),
        );
        let mut request = PageRequest::after(self.after, scope, query, self.limit);
        request.bounds.revisions.0 = self.revision;
        request.with_head = true;
        request.last = self.last;
        let page = fetch(&self.pool, &request).await?;
        let newest = page.head;
        let head = newest.map(|head| head.position).unwrap_or_default();
        if head < self.after {
            let failure = Failure::HeadWentBack {
                known: self.after,
                found: head,
            };
            return Err(failure.into_read_error());
        }
        let fetched = i64::try_from(page.events.len()).unwrap_or(DELIVERY_EVENTS_MAX);
        let mut events = page.events;
        // Events after the head that was read first belong to the next delivery.
        events.retain(|event| event.position <= head);
        let all = !page.more || i64::try_from(events.len()).is_ok_and(|count| count < fetched);
        let through = match events.last() {
            Some(last) if !all => last.position,
            _ => head,
        };
        self.limit = if page.more && fetched < self.limit {
            fetched.max(1)
        } else {
            DELIVERY_EVENTS_MAX
        };
        if let Some(last_revision) = last_revision.filter(|_| through == head) {
            // Nothing up to this revision is left to read.
            self.revision = self.revision.max(last_revision + 1);
        }
        if through == head {
            self.last = newest;
        }
        if through <= self.after {
            return Ok(None);
        }
        self.advance(&events, through);
        Ok(Some(Delivery {
            events,
            through,
            caught_up: through == head,
        }))
    }

    /// Returns the newest revision of the stream that is the scope.
    async fn last_revision(&self) -> Result<Option<i64>, ReadError> {
        let Scope::Stream(stream) = &self.subscription.scope else {
            return Ok(None);
        };
        let current = with_retry(&self.pool, || async {
            let pooled = self.pool.get().await?;
            listing::current_in(pooled.session()?, self.pool.options(), stream).await
        });
        let current = current.await?;
        Ok(current.0.map(|revision| to_bigint(revision.get())))
    }

    fn advance(&mut self, events: &[RecordedEvent], through: Position) {
        self.after = through;
        if let Some(last) = events.last().filter(|last| last.position == through) {
            self.last = Some(Place {
                position: last.position,
                id: last.id,
            });
        }
        if let (Scope::Stream(_), Some(last)) = (&self.subscription.scope, events.last()) {
            self.revision = to_bigint(last.revision.get()).saturating_add(1);
        }
    }
}
