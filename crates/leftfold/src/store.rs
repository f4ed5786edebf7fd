//! The store of an application: opening it, and starting commands on it.
//!
//! **Owns:** [`Store`]. **Does not know:** what commands do.
//! **Invariants:** no type parameter: code written for one store runs on all of them.

use std::{fmt, path::PathBuf, sync::Arc};

use leftfold_model::{Append, EventId, StreamName};
use leftfold_store::{
    AppendError, EmbeddedStore, EventStore, InvalidTenantName, LogOptions, MemoryStore, OpenError,
    TenantName, TenantStore,
};

#[cfg(feature = "sqlx-postgres")]
use crate::project::InlineStore;
use crate::{
    Aggregate, Committed, Decision, Event, EventReader, ExecuteError, Follow, IntoDecision,
    KeyStore, Listener, Live, LiveProjection, ModelRef, Models, Participants, Project, Projection,
    Repository, UnitOfWork,
    erasure::{Erasure, SealingStore},
    load::check_category,
    stream_queue::{StreamQueues, Turn},
};

/// An event store of any kind. Cheap to clone; clones are the same store.
#[derive(Clone)]
pub struct Store {
    /// The store below tenants and sealing.
    base: Arc<dyn EventStore>,
    inner: Arc<dyn EventStore>,
    ids: Arc<dyn Fn() -> EventId + Send + Sync>,
    queues: Arc<StreamQueues>,
    /// The stored prefix of the tenant's names; empty for a store without a tenant.
    tenant: Arc<str>,
    /// The tenants that this store is within, the outermost first.
    tenants: Vec<Arc<TenantStore>>,
    /// What seals and opens personal fields; `inner` is then within it.
    erasure: Option<Arc<Erasure>>,
    /// The projections that appends through this store write; `base` is then that.
    #[cfg(feature = "sqlx-postgres")]
    inline: Option<InlineStore>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.inner).finish()
    }
}

impl Store {
    /// Creates a store in memory, for tests and experiments. Its events are gone when it is dropped.
    #[must_use]
    pub fn memory() -> Self {
        Self::new(MemoryStore::new())
    }

    /// Opens the durable store in this directory, creating it if it is absent and recovering it if necessary.
    ///
    /// Needs a tokio runtime with time enabled. One process at a time can have a directory open.
    ///
    /// # Errors
    /// [`OpenError`]: in use, damaged, of a newer format, foreign files, or refused by the system.
    pub async fn open(directory: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Ok(Self::new(
            EmbeddedStore::open(directory, LogOptions::default()).await?,
        ))
    }

    /// Opens the durable store in a PostgreSQL database, creating or migrating its schema if necessary.
    ///
    /// The address is that of other PostgreSQL programs, with a few words of its own: see
    /// [`leftfold_postgres::PostgresOptions`]. Needs a tokio runtime with time and I/O enabled. Any number of processes can
    /// have a database open.
    ///
    /// # Errors
    /// [`leftfold_postgres::OpenError`]: not reached, not safe, not suited, or of a newer version.
    #[cfg(feature = "postgres")]
    pub async fn postgres(address: &str) -> Result<Self, leftfold_postgres::OpenError> {
        let store = leftfold_postgres::PostgresStore::open(address).await?;
        Ok(Self::new(store))
    }

    /// Opens the durable store in a MongoDB database, creating its collections and indexes if necessary.
    ///
    /// The address is that of other MongoDB programs, with a few words of its own: see [`leftfold_mongodb::MongoOptions`].
    /// Needs a tokio runtime with time and I/O enabled. Any number of processes can have a database open.
    ///
    /// # Errors
    /// [`leftfold_mongodb::OpenError`]: not reached, not safe, or made by a newer program.
    #[cfg(feature = "mongodb")]
    pub async fn mongodb(address: &str) -> Result<Self, leftfold_mongodb::OpenError> {
        let store = leftfold_mongodb::MongoStore::open(address).await?;
        Ok(Self::new(store))
    }

    /// Connects to the store of a server at `leftfold://host:port`.
    ///
    /// Needs a tokio runtime with time and I/O enabled. The server must be reachable now. Later it may restart: commands wait
    /// and retry.
    ///
    /// # Errors
    /// [`leftfold_client::ConnectError`]: the address is invalid, no server answers, or the server does not speak the Leftfold
    /// protocol.
    #[cfg(feature = "client")]
    pub async fn connect(address: &str) -> Result<Self, leftfold_client::ConnectError> {
        Ok(Self::new(leftfold_client::Client::connect(address).await?))
    }

    /// Creates a store from any implementation of the contract.
    pub fn new(store: impl EventStore) -> Self {
        Self::from(Arc::new(store) as Arc<dyn EventStore>)
    }

    /// Sets the generator of event ids, for tests that need equal ids in each run. It must never return an id twice.
    #[must_use]
    pub fn with_id_generator(mut self, ids: impl Fn() -> EventId + Send + Sync + 'static) -> Self {
        self.ids = Arc::new(ids);
        self
    }

    /// Returns the repository of an aggregate.
    ///
    /// A program does not compile if [`Aggregate::CATEGORY`] is empty or contains a `-`, because a stream's category is
    /// its name up to the first one.
    ///
    /// ```compile_fail,E0080
    /// # #[derive(leftfold::Event, serde::Serialize, serde::Deserialize)]
    /// # enum RoomEvent { #[event("RoomBooked")] Booked }
    /// # #[derive(Default)]
    /// # struct Room;
    /// impl leftfold::Aggregate for Room {
    ///     const CATEGORY: &'static str = "hotel-room";
    /// #   type Event = RoomEvent;
    /// #   fn apply(&mut self, _: &RoomEvent) {}
    /// }
    /// leftfold::Store::memory().repository::<Room>();
    /// ```
    ///
    /// Nor does it if the category begins with `$$`: its streams would be the metadata of others, of which only the newest
    /// event can be read.
    ///
    /// ```compile_fail,E0080
    /// # #[derive(leftfold::Event, serde::Serialize, serde::Deserialize)]
    /// # enum RoomEvent { #[event("RoomBooked")] Booked }
    /// # #[derive(Default)]
    /// # struct Room;
    /// impl leftfold::Aggregate for Room {
    ///     const CATEGORY: &'static str = "$$room";
    /// #   type Event = RoomEvent;
    /// #   fn apply(&mut self, _: &RoomEvent) {}
    /// }
    /// leftfold::Store::memory().repository::<Room>();
    /// ```
    #[must_use]
    pub fn repository<A: Aggregate>(&self) -> Repository<A> {
        const { check_category(A::CATEGORY) };
        Repository::new(self.clone())
    }

    /// Starts a command on up to four participants, whose events are appended all or none: aggregates
    /// ([`Repository::aggregate`]), and models that the command decides on ([`Self::model`]).
    ///
    /// ```
    /// # use leftfold::{Aggregate, Event, Store};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # enum Moved { #[event("MoneyMoved")] Moved { cents: i64 } }
    /// # #[derive(Default)]
    /// # struct Account { cents: i64 }
    /// # impl Aggregate for Account {
    /// #     const CATEGORY: &'static str = "account";
    /// #     type Event = Moved;
    /// #     fn apply(&mut self, event: &Moved) { let Moved::Moved { cents } = event; self.cents += cents; }
    /// # }
    /// # impl Account { fn change(&self, cents: i64) -> Result<Moved, String> { Ok(Moved::Moved { cents }) } }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Store::memory();
    /// let accounts = store.repository::<Account>();
    /// let both = store.unit_of_work((accounts.aggregate("ann"), accounts.aggregate("bob")));
    /// both.execute(|(ann, bob)| Ok::<_, String>((ann.change(-30)?, bob.change(30)?))).await?;
    /// assert_eq!(accounts.load("bob").await?.state().cents, 30);
    /// # Ok(())
    /// # }
    /// ```
    pub fn unit_of_work<M: Participants>(&self, members: M) -> UnitOfWork<M> {
        UnitOfWork::of(self.clone(), members)
    }

    /// Decides on models, across any streams: see [`Decision::decide`].
    ///
    /// # Errors
    /// [`ExecuteError`]; the domain's own error is [`ExecuteError::Rejected`].
    pub async fn decide<M: Models, D: IntoDecision<M::Event>>(
        &self,
        models: M,
        decide: impl FnMut(&M) -> D + Send,
    ) -> Result<Committed<M::Event>, ExecuteError<D::Refusal>> {
        self.decision(models).decide(decide).await
    }

    /// Returns a model, or a tuple of models, as a participant of a [`Self::unit_of_work`].
    pub fn model<M: Models>(&self, models: M) -> ModelRef<M> {
        ModelRef::of(models)
    }

    /// Returns a decision to configure: with metadata, an idempotency key, a stream or a narrower condition.
    pub fn decision<M: Models>(&self, models: M) -> Decision<M> {
        Decision::of(self.clone(), models)
    }

    /// Starts a projection in memory, which follows the log: see [`LiveProjection`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with time enabled.
    pub fn live<P: LiveProjection>(&self) -> Live<P> {
        Live::spawn(self.clone())
    }

    /// Configures a projection, which writes a read model into a view: see [`Projection`].
    pub fn project<P: Projection>(&self, projection: P, view: P::View) -> Project<P> {
        Project::new(self.clone(), projection, view)
    }

    /// Configures a listener, which acts on committed events: see [`Listener`].
    pub fn follow<L: Listener>(&self, listener: L) -> Follow<L> {
        Follow::new(self.clone(), listener)
    }

    /// Selects stored events, to be read as values of `E`: see [`EventReader`].
    pub fn events<E: Event>(&self) -> EventReader<E> {
        EventReader::new(self.clone())
    }

    /// Returns the store of a tenant within this store. Aggregates, queries, idempotency keys, listeners, consumers and
    /// snapshots of two tenants never meet, and each tenant may use any names: see [`TenantStore`].
    ///
    /// Costs no access to the store, so call it for each request. Values of one tenant share what this process knows of it.
    ///
    /// A view is not part of the store: give each tenant's projection a view of its own.
    ///
    /// ```
    /// # use leftfold::{Aggregate, Event, Store};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize, Debug)]
    /// # enum Counted { #[event("Counted")] Counted }
    /// # #[derive(Default)]
    /// # struct Counter(u32);
    /// # impl Aggregate for Counter {
    /// #     const CATEGORY: &'static str = "counter";
    /// #     type Event = Counted;
    /// #     fn apply(&mut self, _: &Counted) { self.0 += 1 }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Store::memory();
    /// let (acme, other) = (store.tenant("acme")?, store.tenant("other")?);
    /// acme.repository::<Counter>().execute("1", |_| Counted::Counted).await?;
    /// assert_eq!(other.repository::<Counter>().load("1").await?.state().0, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidTenantName`]: it is empty or too long.
    pub fn tenant(&self, name: &str) -> Result<Self, InvalidTenantName> {
        let name = TenantName::new(name)?;
        let prefix = format!("{}{}", self.tenant, name.stored_prefix());
        let below: Option<Arc<dyn EventStore>> =
            self.tenants.last().map(|outer| Arc::clone(outer) as _);
        let below = below.unwrap_or_else(|| Arc::clone(&self.base));
        let tenant = Arc::new(TenantStore::new(below, name));
        let inner: Arc<dyn EventStore> = Arc::clone(&tenant) as _;
        let outer = self.tenants.iter().cloned();
        let within = Self {
            tenant: prefix.into(),
            tenants: outer.chain([tenant]).collect(),
            inner,
            erasure: None,
            ..self.clone()
        };
        Ok(match &self.erasure {
            Some(erasure) => within.with_shared_keys(erasure.keys()),
            None => within,
        })
    }

    /// Seals personal fields of events ([`crate::Personal`]) under keys of their subjects, which are kept in `keys`.
    ///
    /// Give every process that uses the store the keys, and keep them apart from the log. Tenants of the store have
    /// keys of their own
    /// in it.
    #[must_use]
    pub fn with_keys(self, keys: impl KeyStore) -> Self {
        self.with_shared_keys(Arc::new(keys))
    }

    pub(crate) fn with_shared_keys(self, keys: Arc<dyn KeyStore>) -> Self {
        let erasure = Arc::new(Erasure::new(keys, Arc::clone(&self.tenant)));
        let unsealed: Arc<dyn EventStore> = match self.tenants.last() {
            Some(tenant) => Arc::clone(tenant) as _,
            None => Arc::clone(&self.base),
        };
        let sealing = SealingStore {
            inner: unsealed,
            erasure: Arc::clone(&erasure),
        };
        Self {
            inner: Arc::new(sealing),
            erasure: Some(erasure),
            ..self
        }
    }

    /// Returns this store with appends that write projections.
    #[cfg(feature = "sqlx-postgres")]
    pub(crate) fn with_inline(&self, inline: InlineStore) -> Self {
        let store: Arc<dyn EventStore> = Arc::new(inline.clone());
        Self {
            base: Arc::clone(&store),
            inner: store,
            inline: Some(inline),
            ..self.clone()
        }
    }

    /// Returns what writes projections with the appends through this store.
    #[cfg(feature = "sqlx-postgres")]
    pub(crate) fn inline(&self) -> Option<&InlineStore> {
        self.inline.as_ref()
    }

    /// Returns the store below tenants and sealing.
    #[cfg(feature = "sqlx-postgres")]
    pub(crate) fn unsealed(&self) -> &Arc<dyn EventStore> {
        &self.base
    }

    /// Returns whether this is the store of a tenant.
    #[cfg(feature = "sqlx-postgres")]
    pub(crate) fn has_tenant(&self) -> bool {
        !self.tenants.is_empty()
    }

    pub(crate) fn erasure(&self) -> Option<&Arc<Erasure>> {
        self.erasure.as_ref()
    }

    /// Returns the underlying store, for reads and appends without types.
    #[must_use]
    pub fn event_store(&self) -> &Arc<dyn EventStore> {
        &self.inner
    }

    /// Stops accepting appends and finishes the accepted ones. Dropping a store closes it too, without reporting errors.
    ///
    /// # Errors
    /// [`AppendError::Unavailable`] if it could not close cleanly; acknowledged events are safe in any case.
    pub async fn close(&self) -> Result<(), AppendError> {
        self.inner.close().await
    }

    /// Returns an append as the store below all tenants gets it.
    pub(crate) fn stored_append(&self, append: Append) -> Result<Append, AppendError> {
        let mut tenants = self.tenants.iter().rev();
        tenants.try_fold(append, |append, tenant| tenant.stored_append(append))
    }

    /// Waits for a turn on a stream: commands of this process on one aggregate run one after another.
    pub(crate) async fn turn(&self, stream: &StreamName) -> Turn {
        self.queues.turn(&self.tenant, stream.as_str()).await
    }

    /// Waits for turns on events that decisions rest on, in the order of their texts, so that two commands never wait for each
    /// other.
    pub(crate) async fn turns(&self, mut items: Vec<String>) -> Vec<Turn> {
        items.sort_unstable();
        items.dedup();
        let mut turns = Vec::with_capacity(items.len());
        for item in items.iter().take(TURNS_MAX) {
            turns.push(self.queues.turn(&self.tenant, item).await);
        }
        turns
    }

    pub(crate) fn next_id(&self) -> EventId {
        (self.ids)()
    }
}

/// Turns that a command waits for, at most: one that rests on more may conflict with others.
const TURNS_MAX: usize = 16;

impl From<Arc<dyn EventStore>> for Store {
    fn from(inner: Arc<dyn EventStore>) -> Self {
        Self {
            base: Arc::clone(&inner),
            inner,
            ids: Arc::new(EventId::fresh),
            queues: Arc::default(),
            tenant: Arc::default(),
            tenants: Vec::new(),
            erasure: None,
            #[cfg(feature = "sqlx-postgres")]
            inline: None,
        }
    }
}
