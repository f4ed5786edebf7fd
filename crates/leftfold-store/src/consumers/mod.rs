//! Consumers: programs that read the log, act on its events, and save their checkpoint.
//!
//! **Owns:** the contract [`Consumers`]: claims, checkpoints, parked events and timers.
//! **Does not know:** handlers, retries, what an event means.
//! **Invariants:** a checkpoint moves only from exactly the claimed position, under the newest term; parked events and timers
//! change in the same transaction; an operator writes requests, the holder alone changes the rest.
//! **Reading order:** [`Claim`], [`Consumers`], [`ConsumerChange`], [`ConsumerError`].

mod error;
#[cfg(feature = "engine")]
mod file;
mod lease;
mod memory;
mod name;
mod unsupported;
mod value;

use std::{fmt::Debug, time::Duration};

use futures_core::future::BoxFuture;
use leftfold_model::{Position, Timestamp};

pub use error::ConsumerError;
#[cfg(feature = "engine")]
pub(crate) use file::FileConsumers;
pub use memory::MemoryConsumers;
pub use name::{ConsumerName, InvalidConsumerName};
pub use unsupported::UnsupportedConsumers;
pub use value::{
    CHANGES_BYTES_MAX, CHANGES_MAX, Claim, ClaimRequest, ConsumerChange, ConsumerStatus,
    HOLDER_BYTES_MAX, KEY_BYTES_MAX, LIST_MAX, ListParked, PARKED_MAX, ParkedEvent,
    REASON_BYTES_MAX, Resolution, TIMER_DATA_BYTES_MAX, TIMER_ID_BYTES_MAX, TTL_MAX, Timer,
    check_ttl,
};

/// The consumers of a store, beside the log and never part of it. Every store returns them:
/// [`EventStore::consumers`](crate::EventStore::consumers).
///
/// A consumer has a checkpoint. One holder at a time acts as the consumer, under a [`Claim`]. Each new holder has a higher
/// term, and a change with an older term is refused. So a holder that was suspended for longer than its claim lasts
/// cannot undo what its successor did.
///
/// # Cancel safety
/// Dropping a future does not cancel a change. Each change may be repeated: see the methods.
///
/// ```
/// # use std::time::Duration;
/// # use leftfold_model::Position;
/// # use leftfold_store::consumers::{ClaimRequest, ConsumerError, ConsumerName};
/// # use leftfold_store::{EventStore, MemoryStore};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ConsumerError> {
/// let consumers = MemoryStore::new().consumers();
/// let request = ClaimRequest::new(ConsumerName::new("mailer")?, "host-1", Duration::from_secs(10));
/// let mut claim = consumers.claim(&request).await?;
/// consumers.advance(&mut claim, Position::new(7), Vec::new()).await?;
///
/// let other = ClaimRequest { holder: "host-2".into(), ..request };
/// let refused = consumers.claim(&other).await;
/// assert!(matches!(refused, Err(ConsumerError::Held { .. })));
/// consumers.release(&claim).await?;
/// assert_eq!(consumers.claim(&other).await?.position, Position::new(7));
/// # Ok(())
/// # }
/// ```
pub trait Consumers: Debug + Send + Sync + 'static {
    /// Claims a consumer for a holder. A consumer that is not known yet is created, with its checkpoint at
    /// [`ClaimRequest::start`].
    ///
    /// A claim of the current holder is prolonged and keeps its term, so that the call may be repeated. Every other claim
    /// has a higher term than all before it. The store's clock counts.
    ///
    /// # Errors
    /// [`ConsumerError::Held`] while another holder's claim lasts; [`ConsumerError::Invalid`].
    fn claim<'a>(
        &'a self,
        request: &'a ClaimRequest,
    ) -> BoxFuture<'a, Result<Claim, ConsumerError>>;

    /// Prolongs a claim: it lasts for `ttl` from now. A claim that ran out can be renewed while no other holder took it.
    ///
    /// # Errors
    /// [`ConsumerError::Lost`]: stop acting as the consumer.
    fn renew<'a>(
        &'a self,
        claim: &'a Claim,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), ConsumerError>>;

    /// Ends a claim, so that another holder need not wait until it runs out. A claim that was lost is no error.
    ///
    /// # Errors
    /// [`ConsumerError::Unavailable`].
    fn release<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<(), ConsumerError>>;

    /// Moves the checkpoint from exactly `claim.position` to `to` and makes `changes`, all in one durable transaction.
    /// After `Ok`, `claim.position` is `to`. A checkpoint that stays where it is, is allowed.
    ///
    /// The term alone decides whether the claim is valid. A claim that expired stays valid until another holder takes it.
    ///
    /// # Guarantees
    /// Repeating a call that already took effect returns `Ok` and changes nothing further.
    ///
    /// # Limits
    /// [`CHANGES_MAX`] changes of [`CHANGES_BYTES_MAX`] bytes together in a call; [`PARKED_MAX`] parked events of a consumer.
    /// [`ConsumerChange::count_within_limits`] tells how many fit.
    ///
    /// # Errors
    /// [`ConsumerError::Lost`]: stop acting as the consumer. [`ConsumerError::Moved`] if the checkpoint is elsewhere.
    /// [`ConsumerError::Full`] if too much is parked. Nothing was changed then.
    fn advance<'a>(
        &'a self,
        claim: &'a mut Claim,
        to: Position,
        changes: Vec<ConsumerChange>,
    ) -> BoxFuture<'a, Result<(), ConsumerError>>;

    /// Returns the timers of a consumer that are due at `now`, the earliest first, at most `limit` and [`LIST_MAX`]. The holder
    /// acts on them and cancels them by [`Self::advance`]. A server returns at most 64, so call again until none is due.
    ///
    /// # Errors
    /// [`ConsumerError::Unavailable`]. A consumer that is not known has no timers.
    fn due_timers<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Timer>, ConsumerError>>;

    /// Returns the parked events of a consumer, the lowest position first.
    ///
    /// # Errors
    /// [`ConsumerError::Unavailable`]. A consumer that is not known has none.
    fn parked<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        list: &'a ListParked,
    ) -> BoxFuture<'a, Result<Vec<ParkedEvent>, ConsumerError>>;

    /// Stores an operator's request about a parked event. The holder of the consumer acts on it, at once or when
    /// there is a holder again. A later request replaces an earlier one.
    ///
    /// # Errors
    /// [`ConsumerError::NotParked`], [`ConsumerError::NotFound`].
    fn resolve<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        position: Position,
        resolution: Resolution,
    ) -> BoxFuture<'a, Result<(), ConsumerError>>;

    /// Returns the checkpoint, holder and counts of a consumer; `None` if it is not known.
    ///
    /// # Errors
    /// [`ConsumerError::Unavailable`].
    fn status<'a>(
        &'a self,
        consumer: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<Option<ConsumerStatus>, ConsumerError>>;

    /// Returns the consumers after `after`, by the bytes of their names, at most [`LIST_MAX`].
    ///
    /// # Errors
    /// [`ConsumerError::Unavailable`].
    fn list<'a>(
        &'a self,
        after: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, ConsumerError>>;

    /// Moves the checkpoint of a consumer and ends its claim. Events parked after `to` are forgotten, because the consumer
    /// reads them again; events parked up to `to` and all timers stay. For operators.
    ///
    /// # Errors
    /// [`ConsumerError::NotFound`].
    fn reset<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        to: Position,
    ) -> BoxFuture<'a, Result<(), ConsumerError>>;

    /// Removes a consumer with its parked events and timers; an unknown one is no error. Its terms continue to rise if
    /// it is ever claimed again.
    ///
    /// # Errors
    /// [`ConsumerError::Held`] while a claim lasts.
    fn remove<'a>(&'a self, consumer: &'a ConsumerName)
    -> BoxFuture<'a, Result<(), ConsumerError>>;
}
