//! Where the database is, and how the store uses it.
//!
//! **Owns:** [`PostgresOptions`] and reading them from an address. **Does not know:** how to connect.
//! **Invariants:** without a word to the contrary the connection to another machine is encrypted and the server's name
//! checked; no message and no `Debug` shows a password; what risks committed events is named `unsafe_...`.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

use crate::OpenError;

/// Connections at most, besides the one that listens.
const CONNECTIONS: usize = 8;
/// The longest a statement of the store may take; waiting for the lock of appends included.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a transaction may do nothing while it keeps everybody else from appending.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the head is asked for while somebody follows the log and no notification comes.
const POLL: Duration = Duration::from_millis(500);
/// How long a read or a subscription tries to reach a server that is gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the database is, and how the store uses it.
///
/// Read from an address as other PostgreSQL programs take it, with a few words of its own:
///
/// ```
/// use leftfold_postgres::PostgresOptions;
/// let options: PostgresOptions = "postgres://app@db.example.org/shop?sslrootcert=/etc/ca.pem&leftfold_schema=orders".parse()?;
/// assert_eq!(options.schema(), "orders");
/// # Ok::<(), leftfold_postgres::OpenError>(())
/// ```
///
/// | word | meaning | default |
/// |---|---|---|
/// | `sslmode` | `disable`, or `require`: encrypted and the server's name checked, as do `verify-ca`, `verify-full` | see below |
/// | `sslrootcert` | file of certificates to trust | those of the system |
/// | `leftfold_schema` | the schema that holds the store | `leftfold` |
/// | `leftfold_connections` | connections at most, besides one that listens | 8 |
/// | `leftfold_pooler` | `true`: a pooler in transaction mode stands in between | `false` |
/// | `leftfold_migrate` | `false`: never change the schema, refuse an older one | `true` |
/// | `leftfold_partition` | for a new store: positions per partition of the log | none |
/// | `unsafe_allow_lost_commits` | `true`: run on a server that may lose what it committed | `false` |
///
/// Without `sslmode`, a unix socket or loopback address is spoken to in clear, any other machine in cipher.
#[derive(Clone)]
pub struct PostgresOptions {
    pub(crate) config: Config,
    pub(crate) tls: bool,
    pub(crate) root_certificates: Option<PathBuf>,
    pub(crate) schema: String,
    pub(crate) connections: usize,
    pub(crate) pooler: bool,
    pub(crate) migrate: bool,
    pub(crate) partition: Option<u64>,
    pub(crate) lost_commits: bool,
    pub(crate) statement_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) poll: Duration,
    pub(crate) patience: Duration,
}

impl PostgresOptions {
    /// The schema that holds the store.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The same options with the store in this schema; several stores may share a database.
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// The same options with at most this many connections, at least 2, besides the one that listens.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(2);
        self
    }

    /// The same options for a pooler in transaction mode: nothing is kept in a session.
    ///
    /// Lost are prepared statements (a plan per read), notifications (others' appends are seen when the head is next asked
    /// for), and the limits on statements, which the role must then bring: `alter role ... set statement_timeout`.
    #[must_use]
    pub fn behind_pooler(mut self) -> Self {
        self.pooler = true;
        self
    }

    /// The same options; the server's lists of sessions show this name. Default: `leftfold`.
    #[must_use]
    pub fn with_application_name(mut self, name: &str) -> Self {
        self.config.application_name(name);
        self
    }

    /// The same options; an older schema is refused instead of migrated when the store is opened.
    #[must_use]
    pub fn without_migrating(mut self) -> Self {
        self.migrate = false;
        self
    }

    /// The same options; a store that is made with them has its log divided into partitions of so many positions.
    #[must_use]
    pub fn partitioned_by(mut self, positions: u64) -> Self {
        self.partition = Some(positions.max(1));
        self
    }

    /// The same options; a server with `fsync` or `synchronous_commit` off is used all the same.
    ///
    /// Then acknowledged events may be gone after a crash of the server, and the log may be damaged.
    #[must_use]
    pub fn unsafe_allow_lost_commits(mut self) -> Self {
        self.lost_commits = true;
        self
    }

    /// The same options; a statement, waiting for the lock included, takes so long at most. Default: 30 s.
    #[must_use]
    pub fn with_statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// The same options; a transaction that has appended may be idle so long at most, then the server ends it. Default: 60 s.
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// The same options; while somebody follows the log, its head is asked for this often. Default: 500 ms.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }

    /// The same options; reads and subscriptions try so long to reach a server that is gone. Default: 30 s.
    #[must_use]
    pub fn with_reconnect_timeout(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn take(&mut self, word: &str, value: &str) -> Result<bool, OpenError> {
        let yes = || match value {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(OpenError::address(format!(
                "{word} is neither true nor false"
            ))),
        };
        let count = || {
            value
                .parse::<u64>()
                .map_err(|_| OpenError::address(format!("{word} is no number")))
        };
        match word {
            "sslmode" => {
                self.tls = match value {
                    "disable" => false,
                    "require" | "verify-ca" | "verify-full" => true,
                    _ => {
                        return Err(OpenError::address(
                            "sslmode is not disable, require, verify-ca or verify-full",
                        ));
                    }
                };
            }
            "sslrootcert" => self.root_certificates = Some(value.into()),
            "leftfold_schema" => value.clone_into(&mut self.schema),
            "leftfold_connections" => {
                self.connections = usize::try_from(count()?).unwrap_or(usize::MAX).max(2)
            }
            "leftfold_pooler" => self.pooler = yes()?,
            "leftfold_migrate" => self.migrate = yes()?,
            "leftfold_partition" => self.partition = Some(count()?.max(1)),
            "unsafe_allow_lost_commits" => self.lost_commits = yes()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl FromStr for PostgresOptions {
    type Err = OpenError;

    fn from_str(address: &str) -> Result<Self, OpenError> {
        let (base, query) = address.split_once('?').unwrap_or((address, ""));
        let (mut own, mut drivers) = (Vec::new(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (word, value) = pair.split_once('=').unwrap_or((pair, ""));
            let ours = word.starts_with("leftfold_")
                || word.starts_with("unsafe_")
                || matches!(word, "sslmode" | "sslrootcert");
            if ours {
                own.push((word, decoded(value)?));
            } else {
                drivers.push(pair);
            }
        }
        let rest = if drivers.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", drivers.join("&"))
        };
        // The driver's message names the part that it does not understand, never its value.
        let config: Config = rest
            .parse()
            .map_err(|error: tokio_postgres::Error| OpenError::address(error.to_string()))?;
        let mut options = Self::over(config);
        for (word, value) in own {
            if !options.take(word, &value)? {
                return Err(OpenError::address(format!("{word} means nothing here")));
            }
        }
        options.ensure_schema()
    }
}

impl PostgresOptions {
    fn over(config: Config) -> Self {
        let local = config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1"),
            Host::Unix(_) => true,
        });
        Self {
            config,
            tls: !local,
            root_certificates: None,
            schema: "leftfold".to_owned(),
            connections: CONNECTIONS,
            pooler: false,
            migrate: true,
            partition: None,
            lost_commits: false,
            statement_timeout: STATEMENT_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            poll: POLL,
            patience: PATIENCE,
        }
    }

    fn ensure_schema(mut self) -> Result<Self, OpenError> {
        if self.schema.is_empty()
            || self.schema.len() > 63
            || self.schema.contains(['\0', '\'', '"', '\\'])
        {
            return Err(OpenError::address(
                "leftfold_schema is not a name of 1 to 63 bytes without quotes",
            ));
        }
        self.config.ssl_mode(if self.tls {
            SslMode::Require
        } else {
            SslMode::Disable
        });
        if self.config.get_connect_timeout().is_none() {
            self.config.connect_timeout(Duration::from_secs(10));
        }
        if self.config.get_application_name().is_none() {
            self.config.application_name("leftfold");
        }
        Ok(self)
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("hosts", &self.config.get_hosts())
            .field("database", &self.config.get_dbname())
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// A value of an address without its percent signs.
fn decoded(value: &str) -> Result<String, OpenError> {
    let refused =
        || OpenError::address("a percent sign is not followed by two hexadecimal digits of UTF-8");
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let digits = [
                rest.next().ok_or_else(refused)?,
                rest.next().ok_or_else(refused)?,
            ];
            let digits = str::from_utf8(&digits).map_err(|_| refused())?;
            u8::from_str_radix(digits, 16).map_err(|_| refused())?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(address: &str) -> PostgresOptions {
        address.parse().unwrap()
    }
    fn refused(address: &str) -> String {
        address.parse::<PostgresOptions>().unwrap_err().to_string()
    }

    #[test]
    fn other_machines_are_spoken_to_in_cipher_unless_told_otherwise() {
        assert!(parsed("postgres://app@db.example.org/shop").tls);
        assert!(!parsed("postgres://app@db.example.org/shop?sslmode=disable").tls);
        assert!(!parsed("postgres://app@localhost/shop").tls);
        assert!(parsed("postgres://app@localhost/shop?sslmode=verify-full").tls);
        assert!(!parsed("postgres://app@%2Fvar%2Frun/shop").tls);
    }

    #[test]
    fn own_words_are_taken_and_those_of_the_driver_passed_on() {
        let options = parsed(
            "postgres://a@localhost/b?leftfold_schema=my%20orders&connect_timeout=3&leftfold_pooler=true&leftfold_connections=1",
        );
        assert_eq!(
            (options.schema(), options.pooler, options.connections),
            ("my orders", true, 2)
        );
        assert_eq!(
            options.config.get_connect_timeout(),
            Some(&Duration::from_secs(3))
        );
    }

    #[test]
    fn a_word_or_value_without_meaning_is_refused_by_name() {
        assert!(refused("postgres://a@localhost/b?leftfold_shema=x").contains("leftfold_shema"));
        assert!(refused("postgres://a@localhost/b?sslmode=prefer").contains("sslmode"));
        assert!(
            refused("postgres://a@localhost/b?leftfold_pooler=maybe").contains("leftfold_pooler")
        );
        assert!(refused("postgres://a@localhost/b?leftfold_schema=%zz").contains("percent"));
    }

    #[test]
    fn a_password_is_never_shown() {
        let options = parsed("postgres://a:hunter2@localhost/b");
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
