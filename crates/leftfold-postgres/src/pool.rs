//! A few connections, pooled one at a time.
//!
//! **Owns:** [`Pool`], and [`Connection`] for applications. **Does not know:** what is asked over them.
//! **Invariants:** never more than the bound; a connection that is broken, or that was not answered to the end, is never
//! pooled again; a borrower that is dropped gives back its place.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::Client;

use crate::{OpenError, PostgresOptions, error::Failure, session::Session};

/// Connections, pooled one at a time.
pub(crate) struct Pool {
    options: PostgresOptions,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn new(options: PostgresOptions) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(options.connections)),
            options,
            idle: Mutex::default(),
        })
    }

    pub(crate) fn options(&self) -> &PostgresOptions {
        &self.options
    }

    /// A connection: an idle one, or a new one. Waits while all are pooled.
    pub(crate) async fn get(self: &Arc<Self>) -> Result<PooledSession, Failure> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| Failure::Closed)?;
        let session = loop {
            match self.idle().pop() {
                Some(session) if session.client.is_closed() => {}
                Some(session) => break Some(session),
                None => break None,
            }
        };
        let session = match session {
            Some(session) => session,
            None => Session::open(&self.options).await?,
        };
        Ok(PooledSession {
            session: Some(session),
            pool: Arc::clone(self),
            _place: place,
        })
    }

    /// Forgets idle connections: after one was found broken the others are not better.
    pub(crate) fn forget_idle(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection on loan.
#[derive(Debug)]
pub(crate) struct PooledSession {
    session: Option<Session>,
    pool: Arc<Pool>,
    _place: OwnedSemaphorePermit,
}

impl PooledSession {
    /// Ends the connection instead of giving it back: for an answer nobody will read to its end.
    pub(crate) fn discard(mut self) {
        self.session = None;
    }

    pub(crate) fn session(&self) -> Result<&Session, Failure> {
        // Taken only by `discard` and `drop`, which consume the loan.
        self.session.as_ref().ok_or(Failure::Closed)
    }
}

impl Drop for PooledSession {
    fn drop(&mut self) {
        if let Some(session) = self
            .session
            .take()
            .filter(|session| !session.client.is_closed())
        {
            self.pool.idle().push(session);
        }
    }
}

/// A connection of an application's own, for transactions that hold its tables and events.
///
/// It is none of the store's; it ends when it is dropped. See [`crate::PostgresStore::append_in`].
#[derive(Debug)]
pub struct Connection(Session);

impl Connection {
    pub(crate) async fn open(options: &PostgresOptions) -> Result<Self, OpenError> {
        Ok(Self(Session::open(options).await?))
    }
}

impl Deref for Connection {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.0.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.0.client
    }
}
