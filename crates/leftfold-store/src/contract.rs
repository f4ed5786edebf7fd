//! The contract: what every store answers, and how.
//!
//! **Owns:** [`EventStore`] and the values that only it uses.
//! **Does not know:** how any store works.
//! **Invariants:** object-safe, so that no caller carries a store type parameter; every stream is lazy and
//! holds a bounded number of bytes; dropping a future or a stream releases what it holds.

use std::{borrow::Cow, fmt::Debug, sync::Arc};

use futures_core::{future::BoxFuture, stream::BoxStream};
use leftfold_model::{
    Append, Appended, ConflictToken, Position, Query, Read, RecordedEvent, Revision, Scope,
    StreamName, Timestamp,
};

use crate::{
    AppendError, Delete, ReadError, Scavenge, ScavengeProgress, SnapshotStore, StreamState,
};

/// A store of events. Cheap to share behind an `Arc`; every method may be called from many tasks at once.
pub trait EventStore: Debug + Send + Sync + 'static {
    /// Appends all events of `append` or none, and resolves when they are durable.
    ///
    /// # Guarantees
    /// After `Ok` the events survive whatever [`Capabilities::durable`] promises, and every read that starts
    /// later sees them. Positions are dense and follow the order of commits.
    ///
    /// Repeating an append whose events (by id) already stand where it would put them answers their original
    /// places with [`Appended::repeated`]. With an exact revision or "no stream" this holds for ever; with
    /// "any" and "exists" for the newest [`Capabilities::recent_ids`] events of the store.
    ///
    /// # Errors
    /// [`AppendError`]; its [`AppendError::is_definitely_not_written`] tells whether to repeat or to decide anew.
    ///
    /// # Cancel safety
    /// Dropping the future does not take back the append.
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Looks up what appends to this stream have to know, so that they can be handed over at once.
    ///
    /// Whoever has several appends under way at the same time and wants them decided in the order in which their futures
    /// were first polled waits for this before each. It fails silently: the append tells.
    ///
    /// # Cost
    /// Nothing for a stream that was prepared lately, else about a read of one event.
    fn prepare<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, ()> {
        let _ = stream;
        Box::pin(std::future::ready(()))
    }

    /// Reads events as of the moment of the first poll.
    ///
    /// A read of one stream keeps to what its metadata leaves of it ([`crate::StreamMetadata`]); every other read gives all
    /// events that have not been reclaimed by [`Self::scavenge`].
    ///
    /// Yields at least one batch, also when nothing matches, so that the caller gets a
    /// [`ReadBatch::token`]. All batches of one read carry the same token. An error ends the stream.
    ///
    /// # Errors
    /// [`ReadError`]; never a silent end.
    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>>;

    /// Follows the log: first what is stored, then what is committed, in order, without a gap or a repetition.
    ///
    /// A subscription behind which nothing is stored begins with an empty delivery that says so: it is caught up. The stream
    /// does not end by itself; it ends after an error or when the store is closed.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::Invalid`] for a checkpoint behind the end of the log, which is that of another log or of
    /// one that lost its end: waiting for it would skip what is appended until then.
    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>>;

    /// The position of the newest committed event; [`Position::START`] if there is none.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`].
    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>>;

    /// Whether the store works: it can be read and takes appends, as far as that is known without one. For probes, so it
    /// costs little.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] with the reason: the store is closed, read-only since its disk failed, not reached.
    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async move { self.head().await.map(drop) })
    }

    /// What a stream is now: there, absent or deleted, from where it can be read, and its metadata.
    ///
    /// # Errors
    /// [`ReadError`].
    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>>;

    /// Deletes a stream, or what stands in it by now: see [`Delete`]. Resolves when that is durable.
    ///
    /// # Errors
    /// [`AppendError`]: a wrong revision if the stream is not as expected or not there at all, a deleted stream if it is
    /// deleted for good.
    ///
    /// # Cancel safety
    /// Dropping the future does not take back the deletion.
    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Reclaims the space of events that no stream read can deliver any more, while the store goes on working.
    /// Positions and revisions stay; reads of the log and queries lose these events too.
    ///
    /// Dropping the stream stops the work after the part that is under way; what is done stays done, and the next run
    /// does the rest.
    ///
    /// # Errors
    /// [`ReadError`].
    fn scavenge(
        &self,
        scavenge: Scavenge,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>>;

    /// Lists streams in the byte order of their names, without those that are deleted.
    ///
    /// # Errors
    /// [`ReadError`].
    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>>;

    /// Counts and sizes, for people and dashboards.
    ///
    /// # Errors
    /// [`ReadError`].
    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>>;

    /// What this store promises where stores may differ.
    fn capabilities(&self) -> Capabilities;

    /// Where snapshots of what streams add up to are kept: beside the log, and never part of it.
    fn snapshots(&self) -> Arc<dyn SnapshotStore>;

    /// Stops accepting appends, finishes what was accepted, and releases what the store holds.
    ///
    /// # Errors
    /// [`AppendError::Unavailable`] if the store could not stop cleanly; everything acknowledged is safe anyway.
    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>>;
}

/// Where stores may differ. Everything else is the contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// Acknowledged events survive the end of the process and a power cut.
    pub durable: bool,
    /// How many of the newest events are remembered by id for retries with "any" and "exists".
    pub recent_ids: u64,
}

impl Capabilities {
    /// The capabilities of a store.
    #[must_use]
    pub const fn new(durable: bool, recent_ids: u64) -> Self {
        Self {
            durable,
            recent_ids,
        }
    }
}

/// Part of the answer to a read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadBatch {
    /// Events in the order asked for.
    pub events: Vec<RecordedEvent>,
    /// What this read could see; give it back in an append condition.
    pub token: ConflictToken,
}

/// A request to follow the log.
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
    /// Everything after a checkpoint.
    #[must_use]
    pub fn after(after: Position) -> Self {
        Self {
            after,
            ..Self::default()
        }
    }
    /// The same subscription, of this part only.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }
    /// The same subscription, of events that match `query` only.
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

/// A request to list streams.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListStreams {
    /// Only names that begin with this text.
    pub prefix: String,
    /// Only names behind this one, in byte order; for paging.
    pub after: Option<StreamName>,
    /// How many streams at most; `None`: no bound.
    pub limit: Option<u64>,
}

/// One stream in a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamInfo {
    /// Its name.
    pub stream: StreamName,
    /// How many events it has.
    pub events: u64,
    /// The revision of its last event.
    pub revision: Revision,
    /// The position of its last event.
    pub position: Position,
    /// When its last event was committed.
    pub time: Timestamp,
}

/// Counts and sizes of a store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// How many events were ever appended, those that were reclaimed since included.
    pub events: u64,
    /// Position of the newest event.
    pub head: Position,
    /// Further figures, each with its name and unit, in a fixed order: for display.
    pub details: Vec<(Cow<'static, str>, String)>,
}
