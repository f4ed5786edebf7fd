//! The consumers of a store that keeps none.
//!
//! **Owns:** [`UnsupportedConsumers`]. **Does not know:** the store.
//! **Invariants:** every call is an error that names the store; nothing is stored.

use std::time::Duration;

use futures_core::future::BoxFuture;
use leftfold_model::{Position, Timestamp};

use super::{
    Claim, ClaimRequest, ConsumerChange, ConsumerError, ConsumerName, ConsumerStatus, Consumers,
    ListParked, ParkedEvent, Resolution, Timer,
};

/// Answers every call with [`ConsumerError::Unsupported`]: for stores that have no place for consumers.
#[derive(Debug, Clone, Copy)]
pub struct UnsupportedConsumers {
    /// The kind of store, for people.
    pub store: &'static str,
}

impl UnsupportedConsumers {
    fn refuse<T: Send + 'static>(self) -> BoxFuture<'static, Result<T, ConsumerError>> {
        let store = self.store;
        Box::pin(std::future::ready(Err(ConsumerError::Unsupported {
            store,
        })))
    }
}

impl Consumers for UnsupportedConsumers {
    fn claim<'a>(&'a self, _: &'a ClaimRequest) -> BoxFuture<'a, Result<Claim, ConsumerError>> {
        self.refuse()
    }
    fn renew<'a>(&'a self, _: &'a Claim, _: Duration) -> BoxFuture<'a, Result<(), ConsumerError>> {
        self.refuse()
    }
    fn release<'a>(&'a self, _: &'a Claim) -> BoxFuture<'a, Result<(), ConsumerError>> {
        self.refuse()
    }
    fn advance<'a>(
        &'a self,
        _: &'a mut Claim,
        _: Position,
        _: Vec<ConsumerChange>,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        self.refuse()
    }
    fn due_timers<'a>(
        &'a self,
        _: &'a ConsumerName,
        _: Timestamp,
        _: usize,
    ) -> BoxFuture<'a, Result<Vec<Timer>, ConsumerError>> {
        self.refuse()
    }
    fn parked<'a>(
        &'a self,
        _: &'a ConsumerName,
        _: &'a ListParked,
    ) -> BoxFuture<'a, Result<Vec<ParkedEvent>, ConsumerError>> {
        self.refuse()
    }
    fn resolve<'a>(
        &'a self,
        _: &'a ConsumerName,
        _: Position,
        _: Resolution,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        self.refuse()
    }
    fn status<'a>(
        &'a self,
        _: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<Option<ConsumerStatus>, ConsumerError>> {
        self.refuse()
    }
    fn list<'a>(
        &'a self,
        _: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, ConsumerError>> {
        self.refuse()
    }
    fn reset<'a>(
        &'a self,
        _: &'a ConsumerName,
        _: Position,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        self.refuse()
    }
    fn remove<'a>(&'a self, _: &'a ConsumerName) -> BoxFuture<'a, Result<(), ConsumerError>> {
        self.refuse()
    }
}
