//! The parked events of groups, as operators see and settle them.
//!
//! **Owns:** [`ParkedMessages`]: listing, replaying, truncating. **Does not know:** who asks; how events are delivered again.
//! **Invariants:** while a server acts for a group, an operator only writes requests, which that server carries out.

use std::{sync::Arc, time::Duration};

use leftfold_model::{EventId, Position};
use leftfold_store::{
    EventStore,
    consumers::{
        ClaimRequest, ConsumerChange, ConsumerError, ConsumerName, LIST_MAX, ListParked,
        ParkedEvent, Resolution,
    },
};

use super::{GroupDefinition, GroupError};

/// How long an operator holds a group that no server acts for.
const HELD_FOR: Duration = Duration::from_secs(10);

/// What became of parked events that an operator settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settled {
    /// So many were asked for; the server that acts for the group, or the next one that does, carries it out.
    Requested(u64),
    /// So many are gone.
    Done(u64),
}

impl Settled {
    /// How many.
    #[must_use]
    pub fn count(self) -> u64 {
        match self {
            Self::Requested(count) | Self::Done(count) => count,
        }
    }
}

/// The parked events of one group.
#[derive(Debug)]
pub struct ParkedMessages {
    store: Arc<dyn EventStore>,
    consumer: ConsumerName,
}

impl ParkedMessages {
    /// Those of a group.
    ///
    /// # Errors
    /// [`GroupError::Consumers`] if the group has no name that a consumer can have.
    pub fn new(
        store: Arc<dyn EventStore>,
        definition: &GroupDefinition,
    ) -> Result<Self, GroupError> {
        Ok(Self {
            store,
            consumer: definition.consumer()?,
        })
    }

    /// A page of them, the lowest position first: those behind `after`, at most `limit` and [`LIST_MAX`].
    ///
    /// # Errors
    /// [`GroupError::Consumers`].
    pub async fn list(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<ParkedEvent>, GroupError> {
        let list = ListParked {
            after,
            limit,
            ..ListParked::default()
        };
        Ok(self.store.consumers().parked(&self.consumer, &list).await?)
    }

    /// Asks for the oldest parked events to be delivered again: `count` of them, or all. They stay parked until a consumer
    /// acknowledges them.
    ///
    /// # Errors
    /// [`GroupError::Consumers`].
    pub async fn replay(&self, count: Option<u64>) -> Result<Settled, GroupError> {
        self.request(Resolution::Retry, count).await
    }

    /// Takes all parked events out, for good. Their events stay in the log.
    ///
    /// # Errors
    /// [`GroupError::Consumers`].
    pub async fn truncate(&self) -> Result<Settled, GroupError> {
        let consumers = self.store.consumers();
        if consumers.status(&self.consumer).await?.is_none() {
            return Ok(Settled::Done(0));
        }
        let holder = format!("operator {}", EventId::fresh());
        let request = ClaimRequest::new(self.consumer.clone(), holder, HELD_FOR);
        let mut claim = match consumers.claim(&request).await {
            Ok(claim) => claim,
            Err(ConsumerError::Held { .. }) => return self.request(Resolution::Skip, None).await,
            Err(error) => return Err(error.into()),
        };
        let mut count = 0;
        loop {
            let page = self.list(Position::START, LIST_MAX).await?;
            if page.is_empty() {
                consumers.release(&claim).await?;
                return Ok(Settled::Done(count));
            }
            count += page.len() as u64;
            let gone = page
                .iter()
                .map(|event| ConsumerChange::Unpark(event.position));
            let to = claim.position;
            consumers.advance(&mut claim, to, gone.collect()).await?;
            consumers.renew(&claim, HELD_FOR).await?;
        }
    }

    async fn request(
        &self,
        resolution: Resolution,
        count: Option<u64>,
    ) -> Result<Settled, GroupError> {
        let consumers = self.store.consumers();
        let (mut after, mut requested) = (Position::START, 0);
        let max = count.unwrap_or(u64::MAX);
        loop {
            let page = self.list(after, LIST_MAX).await?;
            for event in &page {
                if requested == max {
                    return Ok(Settled::Requested(requested));
                }
                after = event.position;
                let at = event.position;
                match consumers.resolve(&self.consumer, at, resolution).await {
                    // Somebody else settled it meanwhile.
                    Ok(()) | Err(ConsumerError::NotParked { .. }) => requested += 1,
                    Err(error) => return Err(error.into()),
                }
            }
            if page.len() < LIST_MAX {
                return Ok(Settled::Requested(requested));
            }
        }
    }
}
