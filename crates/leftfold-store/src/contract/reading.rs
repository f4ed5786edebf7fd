//! The values of reads and subscriptions.
//!
//! **Owns:** [`ReadBatch`], [`Subscription`], [`Delivery`]. **Does not know:** how a store finds events.

use leftfold_model::{ConflictToken, Position, Query, RecordedEvent, Scope};

/// A batch of a read's events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadBatch {
    /// Events in the requested order.
    pub events: Vec<RecordedEvent>,
    /// The token of what this read could see, for an append condition.
    pub token: ConflictToken,
}

/// A request to subscribe to the log.
///
/// ```
/// use futures_util::StreamExt;
/// use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Position, StreamName};
/// use leftfold_store::{EventStore, MemoryStore, Subscription};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let event = NewEvent::json(EventType::new("DepositMade")?, "{}");
/// store.append(Append::to(StreamName::new("account-1")?, ExpectedRevision::Any, vec![event])?).await?;
///
/// // Position::START is the checkpoint of a subscriber that has handled nothing yet.
/// let mut deliveries = store.subscribe(Subscription::after(Position::START));
/// let delivery = deliveries.next().await.ok_or("the store was closed")??;
/// assert_eq!(delivery.events.len(), 1);
/// // The subscriber saves this checkpoint once it has handled the events.
/// assert_eq!(delivery.through, Position::new(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subscription {
    /// The part of the log.
    pub scope: Scope,
    /// The events of that part.
    pub query: Query,
    /// The checkpoint: the position that the subscriber has handled (exclusive).
    pub after: Position,
}

impl Subscription {
    /// Subscribes to everything after a checkpoint.
    #[must_use]
    pub fn after(after: Position) -> Self {
        Self {
            after,
            ..Self::default()
        }
    }
    /// Restricts the subscription to a part of the log.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }
    /// Restricts the subscription to events that match `query`.
    #[must_use]
    pub fn matching(mut self, query: Query) -> Self {
        self.query = query;
        self
    }
}

/// A batch of a subscription's events, with its checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// Events, oldest first; may be empty when only the checkpoint moved.
    pub events: Vec<RecordedEvent>,
    /// The checkpoint after these events: everything selected up to here has been delivered.
    pub through: Position,
    /// Whether `through` was the head of the log when this delivery was created.
    pub caught_up: bool,
}
