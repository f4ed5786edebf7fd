//! An event store with a typed framework: state is the left fold of the events before it.
//!
//! Events are facts that happened and never change. An [`Aggregate`] is what they add up to; its commands are plain
//! methods that look at the state and answer with new events or a refusal. A [`Repository`] loads an aggregate by
//! replaying its events, lets a command decide, and appends what it decided, unless someone else was faster: then it
//! loads and decides again.
//!
//! ```
//! use leftfold::{Aggregate, Event, ExecuteError, Store};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, Serialize, Deserialize)]
//! enum AccountEvent {
//!     #[event("DepositMade")]
//!     DepositMade { amount: u64 },
//!     #[event("WithdrawalMade")]
//!     WithdrawalMade { amount: u64 },
//! }
//!
//! #[derive(Debug, PartialEq)]
//! struct InsufficientFunds { balance: u64, requested: u64 }
//!
//! #[derive(Default)]
//! struct BankAccount { balance: u64 }
//!
//! impl BankAccount {
//!     fn deposit(&self, amount: u64) -> AccountEvent {
//!         AccountEvent::DepositMade { amount }
//!     }
//!
//!     fn withdraw(&self, amount: u64) -> Result<AccountEvent, InsufficientFunds> {
//!         if amount > self.balance {
//!             return Err(InsufficientFunds { balance: self.balance, requested: amount });
//!         }
//!         Ok(AccountEvent::WithdrawalMade { amount })
//!     }
//! }
//!
//! impl Aggregate for BankAccount {
//!     const CATEGORY: &'static str = "account";
//!     type Event = AccountEvent;
//!
//!     fn apply(&mut self, event: &AccountEvent) {
//!         match event {
//!             AccountEvent::DepositMade { amount } => self.balance += amount,
//!             AccountEvent::WithdrawalMade { amount } => self.balance -= amount,
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::memory(); // or Store::open("data").await?, and nothing else changes
//! let accounts = store.repository::<BankAccount>();
//!
//! accounts.execute("7f3", |account| account.deposit(100)).await?;
//! accounts.execute("7f3", |account| account.withdraw(30)).await?;
//! assert_eq!(accounts.load("7f3").await?.state().balance, 70);
//!
//! let refused = accounts.execute("7f3", |account| account.withdraw(500)).await;
//! let Err(ExecuteError::Rejected(why)) = refused else { panic!("the withdrawal went through") };
//! assert_eq!(why, InsufficientFunds { balance: 70, requested: 500 });
//! assert_eq!(accounts.load("7f3").await?.event_count(), 2); // a refusal writes nothing
//! # Ok(())
//! # }
//! ```
//!
//! # Where to go from here
//!
//! | for | see |
//! |---|---|
//! | events: names, versions, tags, formats, unknown types | [`Event`], [`Upcasters`] |
//! | state without a default, created once | [`Created`], [`Repository::create`] |
//! | the past, metadata, idempotency keys | [`Repository::load_at`], [`Metadata`], [`Repository::with_idempotency_key`] |
//! | several aggregates in one append | [`Store::unit_of_work`] |
//! | rules that rest on more than one stream | [`Store::decide`], [`Model`], [`Boundary`] |
//! | what each event changed, which changed a field last | [`Repository::history`], [`Repository::last_change`] |
//! | state that depends on times, metadata or positions | [`EventContext`] |
//! | what a request set off, event by event | [`Store::causes`] |
//! | models for reading, in tables or in memory | [`Projection`], [`Store::project`] |
//! | models for reading that are not stored | [`LiveProjection`], [`Store::live`] |
//! | acting on events: mails, calls to other systems, commands | [`Listener`], [`Store::follow`] |
//! | what happens next, over days and several aggregates | [`Process`], [`Store::process`] |
//! | messages to other systems | [`Outgoing`], [`Store::deliver`] |
//! | not replaying everything each time | [`Snapshot`], [`Repository::with_snapshots`], [`Repository::with_state_cache`] |
//! | reading and subscribing to typed events, for read models | [`Store::events`], [`EventReader`], [`Recorded`] |
//! | personal data, and forgetting it | [`Personal`], [`Store::with_keys`], [`Store::forget`] |
//! | several customers in one store | [`Store::tenant`] |
//! | reads, appends and subscriptions without types | [`Store::event_store`], [`stores::EventStore`], [`model`] |
//!
//! The guide, `docs/guide` in the repository, carries one bank account through all of it.
//!
//! # Features
//!
//! | feature | gives |
//! |---|---|
//! | `testing` | the module `testing`: fixtures, a steady clock, the lock file of stored shapes; for `dev-dependencies` |
//! | `messagepack`, `cbor` | more formats of event data |
//! | `inspect` | answers about a running application as JSON: an `axum` router |
//! | `webhook` | messages to other systems by HTTP |
//! | `nats` | messages to other systems by NATS JetStream |
//! | `sqlx-sqlite`, `sqlx-postgres` | projections into SQLite, which is a C library, and PostgreSQL |
//!
//! # For those who read the code
//!
//! **Owns:** the typed framework: [`Event`], [`Aggregate`], [`Repository`], [`Model`], [`Store`].
//! **Does not know:** how any store works; all go through [`leftfold_store::EventStore`].
//! **Invariants:** domain code does no I/O, is not async and names no store; a domain error reaches the caller as it is;
//! what cannot be decoded is an error, never skipped unless the enum says so.

// The derive macro names this crate from inside of it too.
extern crate self as leftfold;

mod aggregate;
mod boundary;
mod causation;
mod causes;
mod clock;
mod command;
mod decide;
mod erasure;
mod error;
mod event;
mod event_reader;
mod execute;
mod follow;
mod forget;
mod history;
#[cfg(feature = "inspect")]
mod inspect;
mod load;
mod metadata;
mod observe;
mod outgoing;
mod panic_message;
mod process;
mod project;
mod reason;
mod repository;
mod shape;
mod snapshot;
mod state_cache;
mod store;
mod stream_queue;
#[cfg(feature = "testing")]
pub mod testing;
mod unit_of_work;

pub use aggregate::{Aggregate, Created, IntoDecision, IntoEvents};
#[cfg(feature = "nats")]
pub use async_nats;
pub use boundary::{Boundary, BoundaryError};
pub use causes::{CausedEvent, Causes};
pub use decide::{Decision, Model, Models};
pub use erasure::{Personal, PersonalField};
pub use error::{DecodeError, EncodeError, UpcastError};
pub use event::{
    Data, Encoded, Event, EventContext, EventKind, Format, Recorded, UnknownEvent,
    UnknownEventPolicy, UpcastEvent, Upcasters,
};
pub use event_reader::EventReader;
pub use execute::{Committed, ExecuteError};
pub use follow::{
    Backoff, Follow, FollowError, HandlerError, Listener, ListenerHandle, ListenerState,
    ListenerStatus, Start,
};
pub use forget::{ErasureEvent, ForgetError};
pub use history::{FieldChange, HistoryError, HistoryStep};
#[cfg(feature = "inspect")]
pub use inspect::Inspect;
pub use leftfold_derive::{Event, Shape, Snapshot};
pub use leftfold_model as model;
#[cfg(feature = "postgres")]
pub use leftfold_postgres::PostgresKeys;
pub use leftfold_store as stores;
pub use leftfold_store::keys::{
    FileKeys, KeyError, KeyId, KeyStore, MemoryKeys, Subject, SubjectKey,
};
pub use load::{AsOf, LoadError, Loaded};
pub use metadata::Metadata;
pub use outgoing::{CloudEvent, Deliver, Outgoing, Transport};
#[cfg(feature = "nats")]
pub use outgoing::{InvalidJetStream, JetStream};
#[cfg(feature = "webhook")]
pub use outgoing::{InvalidWebhook, Webhook};
pub use process::{CommandHandler, Process, ProcessListener, Reaction, Seen, Sent};
#[cfg(feature = "sqlx-sqlite")]
pub use project::SqliteView;
pub use project::{
    CatchUp, KeyValueReader, KeyValueTransaction, KeyValueView, Live, LiveProjection,
    MemoryTransaction, MemoryView, Project, Projection, ProjectionError, ProjectionHandle,
    ProjectionId, ProjectionState, ProjectionStatus, VersionStatus, View, ViewChanges,
    ViewCheckpoint, ViewError,
};
#[cfg(feature = "sqlx-postgres")]
pub use project::{InlineError, PostgresView};
#[cfg(any(feature = "sqlx-postgres", feature = "sqlx-sqlite"))]
pub use project::{SqlDatabase, SqlTransaction, SqlView};
pub use redb;
pub use repository::Repository;
pub use shape::{Shape, shape_of};
pub use snapshot::Snapshot;
#[cfg(any(feature = "sqlx-postgres", feature = "sqlx-sqlite"))]
pub use sqlx;
pub use store::Store;
pub use unit_of_work::{
    AggregateRef, CommittedUnitOfWork, IntoDecisionPerAggregate, IntoEventsPerAggregate, ModelRef,
    NoEvent, Participant, Participants, UnitOfWork,
};

/// What the code generated by the derive macros calls. Not for people.
#[doc(hidden)]
pub mod __private {
    use crate::{Data, DecodeError, EncodeError, Encoded, Event, Format};

    pub use crate::command::{CommandContext, IdempotencyKey};
    pub use crate::event::concat_kinds;
    pub use crate::load::Ground;
    pub use crate::shape::{DescribeByName, DescribeByShape, Probe, ShapeWriter};

    /// Encodes an event's data.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode<E: Event + serde::Serialize>(
        format: Format,
        event: &E,
    ) -> Result<Encoded, EncodeError> {
        crate::event::codec::encode(format, event).map_err(|source| EncodeError::Data {
            event_type: event.event_type().to_owned(),
            source,
        })
    }

    /// Returns how many values of type `Option` are there in an event.
    pub fn presences<E: serde::Serialize>(event: &E) -> usize {
        crate::event::codec::presences(&crate::event::codec::Fields(event))
    }

    /// Decodes an event from its data.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode<E: serde::de::DeserializeOwned>(
        kind: usize,
        data: Data<'_>,
    ) -> Result<E, DecodeError> {
        crate::event::codec::decode(kind, data)
    }
}
