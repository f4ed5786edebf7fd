//! One connection to the server, from the first byte to the checked session.
//!
//! **Owns:** [`Session`]: a connection with its statements and the server's warnings. **Does not know:** who uses it.
//! **Invariants:** a session that is handed out belongs to a server that keeps what it commits, unless that was waived; a
//! warning of the server is notices before the statement that caused it ends.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::{
    AsyncMessage, Client, Connection, NoTls, Row, RowStream, Statement,
    error::SqlState,
    types::{ToSql, Type},
};

use crate::{OpenError, PostgresOptions, error::Failure, tls::Tls};

/// Statements that are kept prepared per connection; the shapes of queries are without number.
const STATEMENTS_MAX: usize = 64;
/// The oldest server with what the schema needs.
const SERVER_MIN: i32 = 130_000;

/// Parameters with their types, so that no round trip is spent on asking for them.
pub(crate) type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// A connection that was checked.
pub(crate) struct Session {
    pub(crate) client: Client,
    statements: Mutex<HashMap<String, Statement>>,
    notices: Arc<Notices>,
    prepares: bool,
}

/// What the server said without being asked.
#[derive(Default)]
pub(crate) struct Notices {
    /// The last warning that leaves a commit in commit_warning.
    commit_warning: Mutex<Option<String>>,
    /// Called for each notification.
    on_notification: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Notices {
    fn take(&self, message: AsyncMessage) {
        match message {
            AsyncMessage::Notice(notice) => {
                // 01000 is "committed locally, but might not have been replicated to the standby"; 57P01 the same at the
                // end of a session.
                let doubtful =
                    [SqlState::WARNING, SqlState::ADMIN_SHUTDOWN].contains(notice.code());
                if doubtful && notice.severity() == "WARNING" {
                    let text = notice
                        .detail()
                        .unwrap_or_else(|| notice.message())
                        .to_owned();
                    *self
                        .commit_warning
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner) = Some(text);
                }
            }
            AsyncMessage::Notification(_) => {
                if let Some(wake) = &self.on_notification {
                    wake();
                }
            }
            _ => {}
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("closed", &self.client.is_closed())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Connects and checks the server.
    pub(crate) async fn open(options: &PostgresOptions) -> Result<Self, OpenError> {
        Self::open_listening(options, None).await
    }

    /// The same; each notification calls `on_notification`.
    pub(crate) async fn open_listening(
        options: &PostgresOptions,
        on_notification: Option<Box<dyn Fn() + Send + Sync>>,
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
        let client = if options.tls {
            let tls = Tls::with_roots(options.root_certificates.as_deref())?;
            let (client, connection) = config.connect(tls).await.map_err(OpenError::connect)?;
            tokio::spawn(drive(connection, Arc::clone(&notices)));
            client
        } else {
            let (client, connection) = config.connect(NoTls).await.map_err(OpenError::connect)?;
            tokio::spawn(drive(connection, Arc::clone(&notices)));
            client
        };
        let session = Self {
            client,
            statements: Mutex::default(),
            notices,
            prepares: !options.pooler,
        };
        session.check(options).await?;
        Ok(session)
    }

    async fn check(&self, options: &PostgresOptions) -> Result<(), OpenError> {
        let sql = "select current_setting('fsync'), current_setting('synchronous_commit'), \
                   current_setting('server_version_num')::int, current_setting('server_encoding')";
        let row = self
            .client
            .query_typed_one(sql, &[])
            .await
            .map_err(OpenError::connect)?;
        for (index, setting) in ["fsync", "synchronous_commit"].into_iter().enumerate() {
            let value: String = row.try_get(index).map_err(OpenError::connect)?;
            if value == "off" && !options.allow_lost_commits {
                return Err(OpenError::Unsafe { setting, value });
            }
        }
        let version: i32 = row.try_get(2).map_err(OpenError::connect)?;
        if version < SERVER_MIN {
            let found = version.to_string();
            return Err(OpenError::Unsuited {
                what: "server_version_num",
                found,
                needed: "130000 or more",
            });
        }
        let encoding: String = row.try_get(3).map_err(OpenError::connect)?;
        if encoding != "UTF8" {
            return Err(OpenError::Unsuited {
                what: "server_encoding",
                found: encoding,
                needed: "UTF8",
            });
        }
        Ok(())
    }

    /// Runs a statement: prepared once per connection where sessions are ours, else planned anew.
    pub(crate) async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failure> {
        let Some(statement) = self.prepared(sql, params).await? else {
            return Ok(self.client.query_typed(sql, params).await?);
        };
        let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
        Ok(self.client.query(&statement, &values).await?)
    }

    /// The same, row after row.
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

    /// The warning, if any, that leaves the last commit in commit_warning; asked once.
    pub(crate) fn commit_warning(&self) -> Option<String> {
        self.notices
            .commit_warning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Moves bytes between the server and the client until either is gone.
async fn drive<S, T>(mut connection: Connection<S, T>, notices: Arc<Notices>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(message) => notices.take(message),
            // Whoever waits for an answer is told by the client.
            Err(error) => {
                tracing::debug!(%error, "connection to the database ended");
                return;
            }
        }
    }
}
