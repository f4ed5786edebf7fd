//! Snapshots and consumers of a tenant.
//!
//! **Owns:** the translation of their names. **Does not know:** how they are stored.
//! **Invariants:** no call reaches a snapshot or a consumer of another tenant, listings included.

use std::{sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use leftfold_model::{Position, StreamName, Timestamp};

use super::name::Names;
use crate::{
    SavedSnapshot, SnapshotError, SnapshotStore,
    consumers::{
        Claim, ClaimRequest, ConsumerChange, ConsumerError, ConsumerName, ConsumerStatus,
        Consumers, ListParked, ParkedEvent, Resolution, Timer,
    },
};

/// The snapshots of a tenant.
#[derive(Debug)]
pub(super) struct TenantSnapshots {
    pub(super) inner: Arc<dyn SnapshotStore>,
    pub(super) names: Arc<Names>,
}

impl TenantSnapshots {
    fn stream(&self, stream: &StreamName) -> Result<StreamName, SnapshotError> {
        self.names
            .stream(stream)
            .map_err(|error| SnapshotError::Unavailable {
                cause: Arc::new(error),
            })
    }

    fn own<T>(&self, result: Result<T, SnapshotError>) -> Result<T, SnapshotError> {
        result.map_err(|error| match error {
            SnapshotError::Damaged { stream } => SnapshotError::Damaged {
                stream: self.names.own_stream(&stream).unwrap_or(stream),
            },
            SnapshotError::AccessDenied { reason } => SnapshotError::AccessDenied {
                reason: self.names.own_text(&reason),
            },
            other => other,
        })
    }
}

impl SnapshotStore for TenantSnapshots {
    fn load<'a>(
        &'a self,
        stream: &'a StreamName,
    ) -> BoxFuture<'a, Result<Option<SavedSnapshot>, SnapshotError>> {
        Box::pin(async move {
            let stored = self.stream(stream)?;
            self.own(self.inner.load(&stored).await)
        })
    }

    fn save<'a>(
        &'a self,
        stream: &'a StreamName,
        snapshot: SavedSnapshot,
    ) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async move {
            let stored = self.stream(stream)?;
            self.own(self.inner.save(&stored, snapshot).await)
        })
    }

    fn remove<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async move {
            let stored = self.stream(stream)?;
            self.own(self.inner.remove(&stored).await)
        })
    }
}

/// The consumers of a tenant.
#[derive(Debug)]
pub(super) struct TenantConsumers {
    pub(super) inner: Arc<dyn Consumers>,
    pub(super) names: Arc<Names>,
}

impl TenantConsumers {
    fn stored(&self, own: &ConsumerName) -> Result<ConsumerName, ConsumerError> {
        let refused = |error: super::name::Unstorable| ConsumerError::Invalid {
            what: "consumer name",
            value: format!("{own:?}, of {} bytes", own.as_str().len()),
            expected: error.0,
        };
        self.names.consumer(own).map_err(refused)
    }

    fn stored_claim(&self, claim: &Claim) -> Result<Claim, ConsumerError> {
        let consumer = self.stored(&claim.consumer)?;
        Ok(Claim {
            consumer,
            ..claim.clone()
        })
    }

    fn shown(&self, stored: ConsumerName) -> ConsumerName {
        self.names.own_consumer(&stored).unwrap_or(stored)
    }

    fn own<T>(&self, result: Result<T, ConsumerError>) -> Result<T, ConsumerError> {
        use ConsumerError as E;
        result.map_err(|mut error| {
            match &mut error {
                E::Held { consumer, .. }
                | E::Lost { consumer, .. }
                | E::Moved { consumer, .. }
                | E::Full { consumer, .. }
                | E::NotFound { consumer }
                | E::NotParked { consumer, .. } => *consumer = self.shown(consumer.clone()),
                E::AccessDenied { reason } => *reason = self.names.own_text(reason),
                _ => {}
            }
            error
        })
    }

    fn status_of(&self, status: ConsumerStatus) -> Option<ConsumerStatus> {
        let consumer = self.names.own_consumer(&status.consumer)?;
        Some(ConsumerStatus { consumer, ..status })
    }
}

impl Consumers for TenantConsumers {
    fn claim<'a>(
        &'a self,
        request: &'a ClaimRequest,
    ) -> BoxFuture<'a, Result<Claim, ConsumerError>> {
        Box::pin(async move {
            let stored = ClaimRequest {
                consumer: self.stored(&request.consumer)?,
                ..request.clone()
            };
            let claim = self.own(self.inner.claim(&stored).await)?;
            Ok(Claim {
                consumer: request.consumer.clone(),
                ..claim
            })
        })
    }

    fn renew<'a>(
        &'a self,
        claim: &'a Claim,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let stored = self.stored_claim(claim)?;
            self.own(self.inner.renew(&stored, ttl).await)
        })
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let stored = self.stored_claim(claim)?;
            self.own(self.inner.release(&stored).await)
        })
    }

    fn advance<'a>(
        &'a self,
        claim: &'a mut Claim,
        to: Position,
        changes: Vec<ConsumerChange>,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let mut stored = self.stored_claim(claim)?;
            let advanced = self.inner.advance(&mut stored, to, changes).await;
            claim.position = stored.position;
            self.own(advanced)
        })
    }

    fn due_timers<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Timer>, ConsumerError>> {
        Box::pin(async move {
            let stored = self.stored(consumer)?;
            self.own(self.inner.due_timers(&stored, now, limit).await)
        })
    }

    fn parked<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        list: &'a ListParked,
    ) -> BoxFuture<'a, Result<Vec<ParkedEvent>, ConsumerError>> {
        Box::pin(async move {
            let stored = self.stored(consumer)?;
            self.own(self.inner.parked(&stored, list).await)
        })
    }

    fn resolve<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        position: Position,
        resolution: Resolution,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let stored = self.stored(consumer)?;
            self.own(self.inner.resolve(&stored, position, resolution).await)
        })
    }

    fn status<'a>(
        &'a self,
        consumer: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<Option<ConsumerStatus>, ConsumerError>> {
        Box::pin(async move {
            let stored = self.stored(consumer)?;
            let status = self.own(self.inner.status(&stored).await)?;
            Ok(status.and_then(|status| self.status_of(status)))
        })
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, ConsumerError>> {
        Box::pin(async move {
            let after = match after {
                Some(after) => self.stored(after)?,
                // A consumer has a name behind the prefix, so the prefix itself is before all of them.
                None => ConsumerName::new(&self.names.prefix)?,
            };
            let listed = self.own(self.inner.list(Some(&after)).await)?;
            let own = listed
                .into_iter()
                .map_while(|status| self.status_of(status));
            Ok(own.collect())
        })
    }

    fn reset<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        to: Position,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let stored = self.stored(consumer)?;
            self.own(self.inner.reset(&stored, to).await)
        })
    }

    fn remove<'a>(
        &'a self,
        consumer: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let stored = self.stored(consumer)?;
            self.own(self.inner.remove(&stored).await)
        })
    }
}
