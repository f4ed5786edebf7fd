//! Snapshots and consumers, guarded.
//!
//! **Owns:** which right their methods need. **Does not know:** how they are kept.
//! **Invariants:** a snapshot needs the rights of its stream; consumers need the right to read every stream of users, for
//! what is parked tells of events wherever they stand.

use std::time::Duration;

use futures_core::future::BoxFuture;
use leftfold_model::{Position, StreamName, Timestamp};
use leftfold_store::{
    SavedSnapshot, SnapshotError, SnapshotStore,
    consumers::{
        Claim, ClaimRequest, ConsumerChange, ConsumerError, ConsumerName, ConsumerStatus,
        Consumers, ListParked, ParkedEvent, Resolution, Timer,
    },
};

use super::{Denied, GuardedStore};
use crate::access::grant::Right;

impl From<Denied> for SnapshotError {
    fn from(Denied(reason): Denied) -> Self {
        Self::AccessDenied { reason }
    }
}

impl From<Denied> for ConsumerError {
    fn from(Denied(reason): Denied) -> Self {
        Self::AccessDenied { reason }
    }
}

/// The snapshots of a guarded store.
#[derive(Debug)]
pub(super) struct GuardedSnapshots(pub(super) GuardedStore);

impl GuardedSnapshots {
    fn check(&self, right: Right, stream: &StreamName) -> Result<(), Denied> {
        self.0.decide(|rights| self.0.needs(rights, right, stream))
    }
}

impl SnapshotStore for GuardedSnapshots {
    fn load<'a>(
        &'a self,
        stream: &'a StreamName,
    ) -> BoxFuture<'a, Result<Option<SavedSnapshot>, SnapshotError>> {
        Box::pin(async move {
            self.check(Right::Read, stream)?;
            self.0.access.store.snapshots().load(stream).await
        })
    }

    fn save<'a>(
        &'a self,
        stream: &'a StreamName,
        snapshot: SavedSnapshot,
    ) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async move {
            self.check(Right::Write, stream)?;
            self.0.access.store.snapshots().save(stream, snapshot).await
        })
    }

    fn remove<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async move {
            self.check(Right::Write, stream)?;
            self.0.access.store.snapshots().remove(stream).await
        })
    }
}

/// The consumers of a guarded store.
#[derive(Debug)]
pub(super) struct GuardedConsumers(pub(super) GuardedStore);

impl GuardedConsumers {
    fn check(&self) -> Result<(), Denied> {
        let guard = &self.0;
        guard.decide(|rights| {
            if rights.reads_all_user_streams(&guard.principal) {
                return Ok(());
            }
            Err(format!(
                "{} may not use consumers; they need the right to read every stream",
                guard.principal
            ))
        })
    }
}

/// Passes each method on after the check.
macro_rules! guarded {
    ($($method:ident($($name:ident: $type:ty),*) -> $answer:ty;)+) => {
        impl Consumers for GuardedConsumers {
            $(fn $method<'a>(&'a self, $($name: $type),*) -> BoxFuture<'a, Result<$answer, ConsumerError>> {
                Box::pin(async move {
                    self.check()?;
                    self.0.access.store.consumers().$method($($name),*).await
                })
            })+
        }
    };
}

guarded! {
    claim(request: &'a ClaimRequest) -> Claim;
    renew(claim: &'a Claim, ttl: Duration) -> ();
    release(claim: &'a Claim) -> ();
    advance(claim: &'a mut Claim, to: Position, changes: Vec<ConsumerChange>) -> ();
    due_timers(consumer: &'a ConsumerName, now: Timestamp, limit: usize) -> Vec<Timer>;
    parked(consumer: &'a ConsumerName, list: &'a ListParked) -> Vec<ParkedEvent>;
    resolve(consumer: &'a ConsumerName, position: Position, resolution: Resolution) -> ();
    status(consumer: &'a ConsumerName) -> Option<ConsumerStatus>;
    list(after: Option<&'a ConsumerName>) -> Vec<ConsumerStatus>;
    reset(consumer: &'a ConsumerName, to: Position) -> ();
    remove(consumer: &'a ConsumerName) -> ();
}
