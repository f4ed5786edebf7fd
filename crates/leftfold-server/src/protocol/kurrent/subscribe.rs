//! Subscriptions: stored events, then new ones.
//!
//! **Owns:** the messages around the events: confirmed, caught up, checkpoint. **Does not know:** reads that end.
//! **Invariants:** the first message is the confirmation; checkpoints come only with a filter, and everything up to one has
//! been delivered.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use leftfold_model::{Position, Read, RecordedEvent, Revision, Scope, StreamName};
use leftfold_proto::event_store::client::streams::{
    ReadResp,
    read_resp::{CaughtUp, Checkpoint, Content, SubscriptionConfirmation},
};
use leftfold_store::{Delivery, EventStore, ReadError, StreamStatus, Subscription};
use tonic::Status;
use uuid::Uuid;

use super::{
    event,
    filter::Filter,
    first_event,
    link_resolver::LinkResolver,
    request::{Answers, ReadOptions, StartFrom},
    status, unsupported,
};
use crate::{clock, state::ServerState, system_index::SystemIndex};

/// Number of events in one delivery from which on a caught-up subscriber counts as having fallen behind.
const BEHIND: usize = 32;

type Deliveries = BoxStream<'static, Result<Delivery, ReadError>>;

/// Subscribes to one stream.
pub(super) async fn stream(
    shared: &ServerState,
    name: StreamName,
    after: StartFrom<Revision>,
    form: ReadOptions,
) -> Result<Answers, Status> {
    let store = &shared.store();
    let state = store.stream_state(name.clone()).await;
    let state = state.map_err(status::of_read)?;
    if state.status == StreamStatus::Tombstoned {
        return Err(status::stream_deleted(&name));
    }
    if state.status == StreamStatus::Absent {
        if let Some(index) = SystemIndex::named(&name) {
            return follow_index(shared, index, after, form).await;
        }
        unsupported::refuse(&name)?;
    }
    let (checkpoint, behind) = match after {
        StartFrom::Start => (Position::START, None),
        StartFrom::End => (store.head().await.map_err(status::of_read)?, None),
        StartFrom::At(revision) => {
            let position = position_of(&**store, &name, revision).await;
            (position.map_err(status::of_read)?, Some(revision))
        }
    };
    let deliveries = store.subscribe(Subscription::after(checkpoint).scope(Scope::Stream(name)));
    let deliveries = deliveries.map_ok(move |mut delivery| {
        let is_new = |event: &RecordedEvent| behind.is_none_or(|behind| event.revision > behind);
        delivery.events.retain(is_new);
        delivery
    });
    let following = SubscriptionStream {
        scope: CaughtUpScope::Stream(state.last),
        ..SubscriptionStream::new(shared, form)
    };
    Ok(following.answers(deliveries.boxed(), None))
}

/// Follows an index. The revision of an entry is the position of its event.
async fn follow_index(
    shared: &ServerState,
    index: SystemIndex,
    after: StartFrom<Revision>,
    form: ReadOptions,
) -> Result<Answers, Status> {
    let store = &shared.store();
    let head = store.head().await.map_err(status::of_read)?;
    let checkpoint = match after {
        StartFrom::Start => Position::START,
        StartFrom::At(revision) => Position::new(revision.get()).min(head),
        StartFrom::End => head,
    };
    let index = Arc::new(index);
    let newest = index.first(store, Read::all().backwards()).await;
    let newest = newest.map_err(status::of_read)?;
    let subscription = Subscription::after(checkpoint)
        .scope(index.scope())
        .matching(index.query());
    let deliveries = store.subscribe(subscription);
    let following = SubscriptionStream {
        scope: CaughtUpScope::Stream(newest.map(|newest| newest.link.revision)),
        index: Some((Arc::clone(store), index)),
        ..SubscriptionStream::new(shared, form)
    };
    Ok(following.answers(deliveries, None))
}

/// Returns the position after which a subscription of a stream starts that has handled everything up to a revision.
async fn position_of(
    store: &dyn EventStore,
    stream: &StreamName,
    revision: Revision,
) -> Result<Position, ReadError> {
    let newest = Read::stream(stream.clone())
        .from_revision(revision)
        .backwards()
        .limit(1);
    let batch = store.read(newest).try_next().await?;
    let event = batch.and_then(|batch| batch.events.into_iter().next());
    Ok(event.map_or(Position::START, |event| event.position))
}

/// Subscribes to everything.
pub(super) async fn all(
    shared: &ServerState,
    after: StartFrom<Position>,
    filter: Option<Filter>,
    form: ReadOptions,
) -> Result<Answers, Status> {
    let store = &shared.store();
    let checkpoint = match after {
        StartFrom::Start => Position::START,
        StartFrom::At(position) => position,
        StartFrom::End => store.head().await.map_err(status::of_read)?,
    };
    let scope = filter.as_ref().map(Filter::scope).unwrap_or_default();
    let query = filter.as_ref().map(Filter::query).unwrap_or_default();
    let subscription = Subscription::after(checkpoint).scope(scope).matching(query);
    let deliveries = store.subscribe(subscription);
    let origin = match after {
        StartFrom::Start => Some(first_event::event().map_err(|error| status::invalid(&error))?),
        StartFrom::At(_) | StartFrom::End => None,
    };
    let following = SubscriptionStream {
        scope: CaughtUpScope::All,
        checkpointed: checkpoint,
        filter,
        ..SubscriptionStream::new(shared, form)
    };
    Ok(following.answers(deliveries, origin))
}

/// A subscription in progress.
struct SubscriptionStream {
    showing: LinkResolver,
    filter: Option<Filter>,
    /// What is followed instead of the events themselves.
    index: Option<(Arc<dyn EventStore>, Arc<SystemIndex>)>,
    scope: CaughtUpScope,
    live: bool,
    /// The newest checkpoint sent, or the start of the subscription.
    checkpointed: Position,
}

/// What a "caught up" message refers to.
enum CaughtUpScope {
    All,
    /// The revision of the newest event of the stream.
    Stream(Option<Revision>),
}

impl SubscriptionStream {
    fn new(shared: &ServerState, form: ReadOptions) -> Self {
        Self {
            showing: LinkResolver::new(&shared.store(), form),
            filter: None,
            index: None,
            scope: CaughtUpScope::All,
            live: false,
            checkpointed: Position::START,
        }
    }

    fn answers(self, deliveries: Deliveries, origin: Option<RecordedEvent>) -> Answers {
        let confirmed = event::content(Content::Confirmation(SubscriptionConfirmation {
            subscription_id: Uuid::new_v4().to_string(),
        }));
        let first = origin.map(|origin| {
            Ok(Delivery {
                events: vec![origin],
                through: Position::START,
                caught_up: false,
            })
        });
        let deliveries = stream::iter(first).chain(deliveries).boxed();
        let messages = stream::try_unfold((self, deliveries), Self::step)
            .map_ok(|messages| stream::iter(messages.into_iter().map(Ok)))
            .try_flatten();
        // A store that closes ends its subscriptions; to clients the server is not there any more.
        let ended = stream::once(future::ready(Err(status::stopping())));
        stream::once(future::ready(Ok(confirmed)))
            .chain(messages)
            .chain(ended)
            .boxed()
    }

    /// Returns the messages of the next delivery.
    async fn step(
        (mut this, mut deliveries): (Self, Deliveries),
    ) -> Result<Option<(Vec<ReadResp>, (Self, Deliveries))>, Status> {
        let Some(delivery) = deliveries.try_next().await.map_err(status::of_read)? else {
            return Ok(None);
        };
        let messages = this.messages(delivery).await?;
        Ok(Some((messages, (this, deliveries))))
    }

    /// Adds the entries of an index to the messages.
    async fn add_entries(
        &mut self,
        mut events: Vec<RecordedEvent>,
        messages: &mut Vec<ReadResp>,
    ) -> Result<(), Status> {
        let Some((store, index)) = &self.index else {
            return Ok(());
        };
        events.retain(|event| index.holds(event));
        let entries = index.entries(&**store, events).await;
        for entry in entries.map_err(status::of_read)? {
            if let CaughtUpScope::Stream(last) = &mut self.scope {
                *last = Some(entry.link.revision);
            }
            messages.push(self.showing.entry(&entry));
        }
        Ok(())
    }

    async fn messages(&mut self, mut delivery: Delivery) -> Result<Vec<ReadResp>, Status> {
        let mut messages = Vec::with_capacity(delivery.events.len() + 2);
        if self.live && !delivery.caught_up && delivery.events.len() >= BEHIND {
            self.live = false;
        }
        if self.index.is_some() {
            let events = std::mem::take(&mut delivery.events);
            self.add_entries(events, &mut messages).await?;
        }
        let passes = match &self.filter {
            Some(filter) => filter.passes(&delivery.events).await?,
            None => vec![true; delivery.events.len()],
        };
        for (event, passes) in delivery.events.into_iter().zip(passes) {
            if let CaughtUpScope::Stream(last) = &mut self.scope {
                *last = Some(event.revision);
            }
            let position = event.position;
            if passes {
                messages.push(self.showing.one(&event).await?);
            }
            self.checkpoint(position, &mut messages);
        }
        self.checkpoint(delivery.through, &mut messages);
        if delivery.caught_up && !self.live {
            self.live = true;
            if self.filter.is_some() && self.checkpointed < delivery.through {
                self.tell_checkpoint(delivery.through, &mut messages);
            }
            messages.push(event::content(self.caught_up(delivery.through)));
        }
        Ok(messages)
    }

    /// Adds a checkpoint, if the subscription has moved far enough since the last one.
    fn checkpoint(&mut self, through: Position, messages: &mut Vec<ReadResp>) {
        let due = self.filter.as_ref().is_some_and(|filter| {
            through.get().saturating_sub(self.checkpointed.get()) >= filter.checkpoint_every
        });
        if due {
            self.tell_checkpoint(through, messages);
        }
    }

    fn tell_checkpoint(&mut self, through: Position, messages: &mut Vec<ReadResp>) {
        self.checkpointed = through;
        messages.push(event::content(Content::Checkpoint(Checkpoint {
            commit_position: through.get(),
            prepare_position: through.get(),
            timestamp: Some(clock::now().into()),
        })));
    }

    fn caught_up(&self, through: Position) -> Content {
        let (stream_revision, position) = match self.scope {
            CaughtUpScope::All => (None, Some(event::read_position(through))),
            CaughtUpScope::Stream(last) => {
                let revision = last.map(|last| i64::try_from(last.get()).unwrap_or(i64::MAX));
                (revision, None)
            }
        };
        Content::CaughtUp(CaughtUp {
            timestamp: Some(clock::now().into()),
            stream_revision,
            position,
        })
    }
}
