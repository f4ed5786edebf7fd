//! A session of the server: a connection that was checked.
//!
//! **Owns:** [`Session`]: the connection, its prepared statements, its time limits, and the notices of the server.
//! **Does not know:** who uses it.
//! **Invariants:** the server of an open session keeps what it commits, unless the options waive that. No call waits longer
//! than its limit. A session whose statement was abandoned is not reusable; its statement is cancelled when it is dropped,
//! and so is one that an application left on a connection of its own.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
    sync::oneshot,
    task::AbortHandle,
    time::timeout,
};
use tokio_postgres::{
    AsyncMessage, CancelToken, Client, Connection, NoTls, Row, RowStream, Statement,
    error::{DbError, SqlState},
    types::Type,
};

use crate::{OpenError, PostgresOptions, error::Failure, statements::Params, tls::Tls};

/// Maximum number of prepared statements per connection, because queries have any number of shapes.
const STATEMENTS_MAX: usize = 64;
/// The oldest supported version of the server.
const SERVER_VERSION_MIN: i32 = 130_000;

/// Time limit of a statement that may read or rewrite the whole log: migrations, verification and vacuuming.
pub(crate) const MAINTENANCE_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a connection may take to end after it was dropped, before the statement that still runs is cancelled.
const ENDING_GRACE: Duration = Duration::from_millis(100);

/// A function that is called for each notification.
pub(crate) type OnNotification = Box<dyn Fn() + Send + Sync>;

/// A connection that was checked.
pub(crate) struct Session {
    pub(crate) client: Client,
    statements: Mutex<HashMap<String, Statement>>,
    notices: Arc<Notices>,
    prepares: bool,
    response_limit: Duration,
    /// Calls that have not received their whole response.
    in_flight: AtomicUsize,
    cancel: Cancel,
    /// The task that drives the connection.
    task: AbortHandle,
    /// Resolves when that task ends.
    ended: Option<oneshot::Receiver<()>>,
}

/// Notices and notifications of the server.
#[derive(Default)]
struct Notices {
    /// The last warning that the server may not have replicated a commit.
    commit_warning: Mutex<Option<String>>,
    on_notification: Option<OnNotification>,
}

impl Notices {
    fn take(&self, message: AsyncMessage) {
        match message {
            AsyncMessage::Notice(notice) if is_commit_warning(&notice) => {
                let text = notice.detail().unwrap_or_else(|| notice.message());
                *self
                    .commit_warning
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
            }
            AsyncMessage::Notification(_) => {
                if let Some(notify) = &self.on_notification {
                    notify();
                }
            }
            _ => {}
        }
    }
}

/// Returns whether a notice says that a commit may not be on the synchronous standby.
///
/// The server sends it as a warning of the code 01000, or 57P01 if the session ends. The code 01000 is also that of every
/// warning a function raises, and texts are translated, so the routine that raised it tells them apart.
fn is_commit_warning(notice: &DbError) -> bool {
    let of_replication = notice
        .routine()
        .is_none_or(|routine| routine == "SyncRepWaitForLSN");
    notice.severity() == "WARNING"
        && (*notice.code() == SqlState::ADMIN_SHUTDOWN
            || *notice.code() == SqlState::WARNING && of_replication)
}

/// What cancelling a statement needs.
#[derive(Clone)]
struct Cancel {
    token: CancelToken,
    tls: Option<Tls>,
    limit: Duration,
}

impl Cancel {
    /// Cancels the statement that runs, over a connection of its own. The server ends it anyway after its own time limit.
    async fn run(self) {
        let cancelled = match self.tls {
            Some(tls) => timeout(self.limit, self.token.cancel_query(tls)).await,
            None => timeout(self.limit, self.token.cancel_query(NoTls)).await,
        };
        if !matches!(cancelled, Ok(Ok(()))) {
            tracing::debug!("cancelling an abandoned statement failed");
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("closed", &self.client.is_closed())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Connects and checks the server, within the time limit of connecting.
    pub(crate) async fn open(options: &PostgresOptions) -> Result<Self, OpenError> {
        Self::open_listening(options, None).await
    }

    /// Connects and checks the server. Calls `on_notification` for each notification.
    pub(crate) async fn open_listening(
        options: &PostgresOptions,
        on_notification: Option<OnNotification>,
    ) -> Result<Self, OpenError> {
        let limit = options.connect_limit();
        let opened = timeout(limit, Box::pin(Self::connect(options, on_notification))).await;
        opened.unwrap_or_else(|_| {
            let reason = format!("no response within {limit:?}");
            Err(OpenError::connect(io::Error::new(
                io::ErrorKind::TimedOut,
                reason,
            )))
        })
    }

    async fn connect(
        options: &PostgresOptions,
        on_notification: Option<OnNotification>,
    ) -> Result<Self, OpenError> {
        let mut config = options.config.clone();
        if !options.pooler {
            let mut settings = config.get_options().unwrap_or_default().to_owned();
            for (name, limit) in [
                ("statement_timeout", options.statement_timeout),
                ("idle_in_transaction_session_timeout", options.idle_timeout),
            ] {
                settings.push_str(&format!(" -c {name}={}", limit.as_millis()));
            }
            config.options(settings.trim().to_owned() + " -c jit=off");
        }
        let notices = Arc::new(Notices {
            on_notification,
            ..Notices::default()
        });
        let tls = options
            .tls
            .then(|| Tls::with_roots(options.root_certificates.as_deref()));
        let tls = tls.transpose()?;
        let (ending, ended) = oneshot::channel();
        let (client, task) = if let Some(tls) = tls.clone() {
            let (client, connection) = config.connect(tls).await.map_err(OpenError::connect)?;
            (
                client,
                tokio::spawn(drive(connection, Arc::clone(&notices), ending)),
            )
        } else {
            let (client, connection) = config.connect(NoTls).await.map_err(OpenError::connect)?;
            (
                client,
                tokio::spawn(drive(connection, Arc::clone(&notices), ending)),
            )
        };
        let cancel = Cancel {
            token: client.cancel_token(),
            tls,
            limit: options.connect_limit(),
        };
        let session = Self {
            client,
            statements: Mutex::default(),
            notices,
            prepares: !options.pooler,
            response_limit: options.response_limit(),
            in_flight: AtomicUsize::new(0),
            cancel,
            task: task.abort_handle(),
            ended: Some(ended),
        };
        let checking = InFlight::start(&session.in_flight);
        session.check(options).await?;
        checking.complete();
        Ok(session)
    }

    async fn check(&self, options: &PostgresOptions) -> Result<(), OpenError> {
        let sql = "select current_setting('fsync'), current_setting('synchronous_commit'), \
                   current_setting('server_version_num')::int, current_setting('server_encoding'), \
                   (select relname::text from pg_catalog.pg_class where relkind = 'r' and relpersistence <> 'p' \
                   and relnamespace = (select oid from pg_catalog.pg_namespace where nspname = $1) \
                   order by relname limit 1)";
        let row = self
            .client
            .query_typed_one(sql, &[(&options.schema, Type::TEXT)])
            .await
            .map_err(OpenError::connect)?;
        for (index, setting) in ["fsync", "synchronous_commit"].into_iter().enumerate() {
            let value: String = row.try_get(index).map_err(OpenError::connect)?;
            if value == "off" && !options.allow_lost_commits {
                return Err(OpenError::Unsafe { setting, value });
            }
        }
        let unlogged: Option<String> = row.try_get(4).map_err(OpenError::connect)?;
        if let Some(table) = unlogged.filter(|_| !options.allow_lost_commits) {
            let schema = options.schema.clone();
            return Err(OpenError::Unlogged { schema, table });
        }
        let version: i32 = row.try_get(2).map_err(OpenError::connect)?;
        if version < SERVER_VERSION_MIN {
            let found = version.to_string();
            return Err(OpenError::Unsupported {
                what: "server_version_num",
                found,
                needed: "130000 or more",
            });
        }
        let encoding: String = row.try_get(3).map_err(OpenError::connect)?;
        if encoding != "UTF8" {
            return Err(OpenError::Unsupported {
                what: "server_encoding",
                found: encoding,
                needed: "UTF8",
            });
        }
        Ok(())
    }

    /// Returns whether another caller may use the session: it is open, and every response was received to its end.
    pub(crate) fn is_reusable(&self) -> bool {
        !self.client.is_closed() && self.in_flight.load(Ordering::Acquire) == 0
    }

    /// Closes the session, and cancels the statement that runs.
    pub(crate) fn discard(self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    /// Waits for `response` no longer than the time limit of a response. Afterwards, or if the caller drops the future
    /// before, the session is not reusable.
    pub(crate) async fn bounded<T>(
        &self,
        response: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.bounded_by(self.response_limit, response).await
    }

    /// Waits for `response` no longer than `limit`, as [`Self::bounded`].
    pub(crate) async fn bounded_by<T>(
        &self,
        limit: Duration,
        response: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let call = InFlight::start(&self.in_flight);
        let outcome = timeout(limit, response)
            .await
            .map_err(|_| Failure::Timeout(limit))?;
        call.complete();
        outcome
    }

    /// Runs a statement, prepared once per connection, or planned each time behind a pooler.
    pub(crate) async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failure> {
        self.bounded(async {
            let Some(statement) = self.prepared(sql, params).await? else {
                return Ok(self.client.query_typed(sql, params).await?);
            };
            let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
            Ok(self.client.query(&statement, &values).await?)
        })
        .await
    }

    /// Runs statements without parameters, within the given time limit.
    pub(crate) async fn batch_execute(&self, sql: &str, limit: Duration) -> Result<(), Failure> {
        self.bounded_by(limit, async { Ok(self.client.batch_execute(sql).await?) })
            .await
    }

    /// Runs a statement as [`Self::query`] and returns its rows as a stream. Must be called within [`Self::bounded`].
    pub(crate) async fn stream(&self, sql: &str, params: Params<'_>) -> Result<RowStream, Failure> {
        let Some(statement) = self.prepared(sql, params).await? else {
            let values = params.iter().map(|(value, kind)| (*value, kind.clone()));
            return Ok(self.client.query_typed_raw(sql, values).await?);
        };
        let values = params.iter().map(|(value, _)| *value);
        Ok(self.client.query_raw(&statement, values).await?)
    }

    async fn prepared(&self, sql: &str, params: Params<'_>) -> Result<Option<Statement>, Failure> {
        if !self.prepares {
            return Ok(None);
        }
        {
            let statements = self
                .statements
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(statement) = statements.get(sql) {
                return Ok(Some(statement.clone()));
            }
            if statements.len() >= STATEMENTS_MAX {
                return Ok(None);
            }
        }
        let types: Vec<_> = params.iter().map(|(_, kind)| kind.clone()).collect();
        let statement = self.client.prepare_typed(sql, &types).await?;
        let mut statements = self
            .statements
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        statements.insert(sql.to_owned(), statement.clone());
        Ok(Some(statement))
    }

    /// Takes the warning, if any, that the last commit may not have been replicated.
    pub(crate) fn take_commit_warning(&self) -> Option<String> {
        self.notices
            .commit_warning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if *self.in_flight.get_mut() == 0 {
            // The driver ends the connection in order, after the statements that the application left.
            if let (Some(ended), Ok(runtime)) = (self.ended.take(), Handle::try_current()) {
                let cancel = self.cancel.clone();
                runtime.spawn(async move {
                    if timeout(ENDING_GRACE, ended).await.is_err() {
                        cancel.run().await;
                    }
                });
            }
            return;
        }
        if !self.client.is_closed()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(self.cancel.clone().run());
        }
        // The peer may never send the rest of its response, so the task is not left to wait for it.
        self.task.abort();
    }
}

/// A call that has not received its whole response. It stays counted if it is dropped before [`Self::complete`].
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn start(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }

    fn complete(self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Moves bytes between the server and the client until either is gone. Drops `_ending` at the end.
async fn drive<S, T>(
    mut connection: Connection<S, T>,
    notices: Arc<Notices>,
    _ending: oneshot::Sender<()>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(message) => notices.take(message),
            // The client reports it to every caller that waits for a response.
            Err(error) => {
                tracing::debug!(%error, "database connection closed");
                return;
            }
        }
    }
}
