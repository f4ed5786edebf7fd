//! A connection pool.
//!
//! **Owns:** [`Pool`], and [`Connection`] for applications. **Does not know:** what is sent over the connections.
//! **Invariants:** never more connections than the limit. A caller waits for one no longer than the time limit of a statement.
//! A connection that is closed, or whose last statement was abandoned, is never reused. Dropping a [`PooledSession`]
//! releases its permit.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_postgres::Client;

use crate::{OpenError, PostgresOptions, error::Failure, session::Session};

/// A bounded number of connections, each used by one caller at a time.
pub(crate) struct Pool {
    options: PostgresOptions,
    permits: Arc<Semaphore>,
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
            permits: Arc::new(Semaphore::new(options.connections)),
            options,
            idle: Mutex::default(),
        })
    }

    pub(crate) fn options(&self) -> &PostgresOptions {
        &self.options
    }

    /// Acquires a connection: an idle one, or a new one.
    pub(crate) async fn get(self: &Arc<Self>) -> Result<PooledSession, Failure> {
        let limit = self.options.response_limit();
        let permit = timeout(limit, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| Failure::PoolTimeout(limit))?
            .map_err(|_| Failure::Closed)?;
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
            _permit: permit,
        })
    }

    /// Drops idle connections. After one was found broken, the others probably are, too.
    pub(crate) fn clear_idle(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection of the pool, in use by one caller.
#[derive(Debug)]
pub(crate) struct PooledSession {
    session: Option<Session>,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl PooledSession {
    /// Closes the connection instead of returning it to the pool, because its response will not be read to the end.
    pub(crate) fn discard(mut self) {
        if let Some(session) = self.session.take() {
            session.discard();
        }
    }

    pub(crate) fn session(&self) -> Result<&Session, Failure> {
        // `None` only after `discard` and `drop`, which consume the value.
        self.session.as_ref().ok_or(Failure::Closed)
    }
}

impl Drop for PooledSession {
    fn drop(&mut self) {
        if let Some(session) = self.session.take().filter(Session::is_reusable) {
            self.pool.idle().push(session);
        }
    }
}

/// A connection for an application's own transactions, outside the pool. It is closed when it is dropped.
///
/// See [`crate::PostgresStore::append_in`].
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
