//! The values of reads and subscriptions.
//!
//! **Owns:** [`ReadBatch`], [`Subscription`], [`Delivery`]. **Does not know:** how a store finds events.

use leftfold_model::{ConflictToken, Position, Query, RecordedEvent, Scope};

/// Part of the answer to a read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadBatch {
    /// Events in the order asked for.
    pub events: Vec<RecordedEvent>,
    /// What this read could see; give it back in an append condition.
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
    /// Which part of the log.
    pub scope: Scope,
    /// Which events of that part.
    pub query: Query,
    /// The checkpoint: what the subscriber has dealt with (exclusive).
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

/// Part of a subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// Events, oldest first; may be empty when only the checkpoint moved.
    pub events: Vec<RecordedEvent>,
    /// The checkpoint after these events: everything selected up to here has been delivered.
    pub through: Position,
    /// True if `through` was the head of the log when this was made.
    pub caught_up: bool,
}
