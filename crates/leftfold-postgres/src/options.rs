//! The options of a store, parsed from an address.
//!
//! **Owns:** [`PostgresOptions`], their defaults and their limits. **Does not know:** how to connect.
//! **Invariants:** a connection to another machine is encrypted and the server's name verified, unless the address disables
//! it. No message and no `Debug` output contains a password. An option that risks committed events is named `unsafe_...`.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

use crate::OpenError;

/// Default of [`PostgresOptions::with_connections`].
const CONNECTIONS: usize = 8;
/// Maximum length of a name in PostgreSQL, which truncates longer ones.
const SCHEMA_BYTES_MAX: usize = 63;
/// The quotes of the bodies of functions in migrations.
const BODY_QUOTE: &str = "$body$";
/// Default of `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the client waits beyond the time limit of the server, which reports its own limit with more certainty.
const RESPONSE_GRACE: Duration = Duration::from_secs(2);
/// Default of [`PostgresOptions::with_statement_timeout`].
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Default of [`PostgresOptions::with_idle_timeout`].
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Default of [`PostgresOptions::with_poll_interval`].
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Default of [`PostgresOptions::with_reconnect_timeout`].
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The address of a database, and how a store uses it.
///
/// Parsed from an address of the form that other PostgreSQL programs take, with parameters of its own:
///
/// ```
/// use leftfold_postgres::PostgresOptions;
/// let options: PostgresOptions = "postgres://app@db.example.org/shop?sslrootcert=/etc/ca.pem&leftfold_schema=orders".parse()?;
/// assert_eq!(options.schema(), "orders");
/// # Ok::<(), leftfold_postgres::OpenError>(())
/// ```
///
/// | parameter | meaning | default |
/// |---|---|---|
/// | `sslmode` | `disable`, or `require`, `verify-ca`, `verify-full`: encrypted, certificate and name verified | see below |
/// | `sslrootcert` | file of trusted certificates | those of the system |
/// | `leftfold_schema` | the schema that holds the store | `leftfold` |
/// | `leftfold_connections` | maximum number of pooled connections | 8 |
/// | `leftfold_pooler` | `true`: connections go through a pooler in transaction mode | `false` |
/// | `leftfold_migrate` | `false`: do not migrate; an older schema is an error | `true` |
/// | `unsafe_allow_lost_commits` | `true`: accept a server that may lose committed events | `false` |
///
/// Without `sslmode`, connections to a Unix socket or a loopback address are in clear text; all others are encrypted.
#[derive(Clone)]
pub struct PostgresOptions {
    pub(crate) config: Config,
    pub(crate) tls: bool,
    pub(crate) root_certificates: Option<PathBuf>,
    pub(crate) schema: String,
    pub(crate) connections: usize,
    pub(crate) pooler: bool,
    pub(crate) migrate: bool,
    pub(crate) allow_lost_commits: bool,
    pub(crate) statement_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) reconnect_timeout: Duration,
    /// Whether groups search for cheap conditions. Otherwise each condition that needs a search has one outside of its group.
    pub(crate) searches_in_groups: bool,
}

impl PostgresOptions {
    /// The schema that holds the store.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Sets the schema that holds the store: 1 to 63 bytes without quotes and ends of lines, checked when the store is opened.
    ///
    /// Several stores may share a database. Default: `leftfold`.
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Sets the maximum number of pooled connections, at least 2. Default: 8.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(2);
        self
    }

    /// Enables use through a pooler in transaction mode, so the store keeps no session state.
    ///
    /// Statements are then not prepared, appends of other processes are noticed by polling only, and the time limits of the
    /// server must be set for the role: `alter role ... set statement_timeout`.
    #[must_use]
    pub fn behind_pooler(mut self) -> Self {
        self.pooler = true;
        self
    }

    /// Sets the name that `pg_stat_activity` shows. Default: `leftfold`.
    #[must_use]
    pub fn with_application_name(mut self, name: &str) -> Self {
        self.config.application_name(name);
        self
    }

    /// Disables migrating when the store is opened. An older schema is then an error.
    #[must_use]
    pub fn without_migrating(mut self) -> Self {
        self.migrate = false;
        self
    }

    /// Accepts a server with `fsync` or `synchronous_commit` off.
    ///
    /// A crash of such a server may lose acknowledged events and damage the log.
    #[must_use]
    pub fn unsafe_allow_lost_commits(mut self) -> Self {
        self.allow_lost_commits = true;
        self
    }

    /// Sets the time limit of a statement, including its wait for the lock of appends, at least 1 ms. Default: 30 s.
    ///
    /// The client waits 2 s longer than the server. It then discards the connection, and the outcome of an append is unknown.
    /// It also limits how long a call waits for a connection of the pool.
    #[must_use]
    pub fn with_statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// Sets how long a transaction that has appended may stay idle before the server ends it. Default: 60 s.
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets the interval at which the head of the log is polled while there are subscriptions. Default: 500 ms.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets how long reads and subscriptions retry while the server is unreachable. Default: 30 s.
    #[must_use]
    pub fn with_reconnect_timeout(mut self, reconnect_timeout: Duration) -> Self {
        self.reconnect_timeout = reconnect_timeout;
        self
    }

    /// Searches for each condition as for a costly one: outside of the group of its append. For tests.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn searching_outside_of_groups(mut self) -> Self {
        self.searches_in_groups = false;
        self
    }

    /// How long the client waits for a response: the time limit of the server, and some time for it to arrive.
    pub(crate) fn response_limit(&self) -> Duration {
        self.statement_timeout.saturating_add(RESPONSE_GRACE)
    }

    /// How long connecting may take, handshake and checks included.
    pub(crate) fn connect_limit(&self) -> Duration {
        let hosts = self
            .config
            .get_hosts()
            .len()
            .max(self.config.get_hostaddrs().len());
        let limit = self.config.get_connect_timeout().copied();
        limit.unwrap_or(CONNECT_TIMEOUT) * u32::try_from(hosts.max(1)).unwrap_or(u32::MAX)
    }

    fn set(&mut self, parameter: &str, value: &str) -> Result<bool, OpenError> {
        let boolean = || match value {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(OpenError::address(format!(
                "{parameter} is invalid: expected true or false"
            ))),
        };
        let count = || {
            value.parse::<u64>().map_err(|_| {
                OpenError::address(format!("{parameter} is invalid: expected a number"))
            })
        };
        match parameter {
            "sslmode" => {
                self.tls = match value {
                    "disable" => false,
                    "require" | "verify-ca" | "verify-full" => true,
                    _ => {
                        return Err(OpenError::address(
                            "sslmode is invalid: expected disable, require, verify-ca or verify-full",
                        ));
                    }
                };
            }
            "sslrootcert" => self.root_certificates = Some(value.into()),
            "leftfold_schema" => value.clone_into(&mut self.schema),
            "leftfold_connections" => {
                self.connections = usize::try_from(count()?).unwrap_or(usize::MAX).max(2)
            }
            "leftfold_pooler" => self.pooler = boolean()?,
            "leftfold_migrate" => self.migrate = boolean()?,
            "unsafe_allow_lost_commits" => self.allow_lost_commits = boolean()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl FromStr for PostgresOptions {
    type Err = OpenError;

    fn from_str(address: &str) -> Result<Self, OpenError> {
        // Only a URL has parameters; an address of keywords may have a question mark in any value.
        let mut schemes = ["postgres://", "postgresql://"].iter();
        let is_url = schemes.any(|scheme| address.starts_with(scheme));
        let parts = is_url.then(|| address.split_once('?')).flatten();
        let (base, query) = parts.unwrap_or((address, ""));
        let (mut own, mut rest) = (Vec::new(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (parameter, value) = pair.split_once('=').unwrap_or((pair, ""));
            let is_own = parameter.starts_with("leftfold_")
                || parameter.starts_with("unsafe_")
                || matches!(parameter, "sslmode" | "sslrootcert");
            if is_own {
                own.push((parameter, percent_decode(value)?));
            } else {
                rest.push(pair);
            }
        }
        let driver_address = if rest.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", rest.join("&"))
        };
        // The message of the driver names the invalid part, never its value.
        let config: Config = driver_address
            .parse()
            .map_err(|error: tokio_postgres::Error| OpenError::address(error.to_string()))?;
        let mut options = Self::new(config);
        // The driver has read the mode where it is a keyword, or its name is in percent-encoding.
        match options.config.get_ssl_mode() {
            SslMode::Require => options.tls = true,
            SslMode::Disable => options.tls = false,
            _ => {}
        }
        for (parameter, value) in own {
            if !options.set(parameter, &value)? {
                return Err(OpenError::address(format!("unknown parameter {parameter}")));
            }
        }
        options.validate()
    }
}

impl PostgresOptions {
    fn new(config: Config) -> Self {
        let local_hosts = config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => {
                name == "localhost" || name.parse().is_ok_and(|it: IpAddr| it.is_loopback())
            }
            Host::Unix(_) => true,
        });
        // The driver connects to these, whatever the names of the hosts are.
        let local = local_hosts && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
        Self {
            config,
            tls: !local,
            root_certificates: None,
            schema: "leftfold".to_owned(),
            connections: CONNECTIONS,
            pooler: false,
            migrate: true,
            allow_lost_commits: false,
            statement_timeout: STATEMENT_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            poll_interval: POLL_INTERVAL,
            reconnect_timeout: RECONNECT_TIMEOUT,
            searches_in_groups: true,
        }
    }

    /// Checks the name of the schema: PostgreSQL would truncate a long one, and others would end a comment or a function's
    /// body of the migrations, so that the rest of the name would be executed.
    pub(crate) fn check_schema(&self) -> Result<(), OpenError> {
        let length = self.schema.len();
        if (1..=SCHEMA_BYTES_MAX).contains(&length)
            && !self.schema.contains(['\0', '\'', '"', '\\', '\n', '\r'])
            && !self.schema.contains(BODY_QUOTE)
        {
            return Ok(());
        }
        Err(OpenError::address(format!(
            "leftfold_schema is invalid: {length} bytes; expected 1 to {SCHEMA_BYTES_MAX} bytes without quotes, {BODY_QUOTE} \
             and ends of lines"
        )))
    }

    fn validate(mut self) -> Result<Self, OpenError> {
        self.check_schema()?;
        self.config.ssl_mode(if self.tls {
            SslMode::Require
        } else {
            SslMode::Disable
        });
        if self.config.get_connect_timeout().is_none() {
            self.config.connect_timeout(CONNECT_TIMEOUT);
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

/// Decodes the percent escapes of a parameter value.
fn percent_decode(value: &str) -> Result<String, OpenError> {
    let refused =
        || OpenError::address("invalid percent escape: expected two hexadecimal digits of UTF-8");
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
    fn connections_to_other_machines_are_encrypted_unless_the_address_disables_it() {
        assert!(parsed("postgres://app@db.example.org/shop").tls);
        assert!(!parsed("postgres://app@db.example.org/shop?sslmode=disable").tls);
        assert!(!parsed("postgres://app@localhost/shop").tls);
        assert!(parsed("postgres://app@localhost/shop?sslmode=verify-full").tls);
        assert!(!parsed("postgres://app@%2Fvar%2Frun/shop").tls);
    }

    #[test]
    fn own_parameters_are_parsed_and_others_passed_to_the_driver() {
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
    fn an_unknown_parameter_or_value_is_refused_by_name() {
        assert!(refused("postgres://a@localhost/b?leftfold_shema=x").contains("leftfold_shema"));
        assert!(refused("postgres://a@localhost/b?sslmode=prefer").contains("sslmode"));
        assert!(
            refused("postgres://a@localhost/b?leftfold_pooler=maybe").contains("leftfold_pooler")
        );
        assert!(refused("postgres://a@localhost/b?leftfold_schema=%zz").contains("percent"));
    }

    #[test]
    fn an_address_beside_the_name_of_a_host_counts_as_a_machine() {
        assert!(parsed("postgres://app@localhost/shop?hostaddr=192.0.2.7").tls);
        assert!(parsed("postgres:///shop?hostaddr=192.0.2.7").tls);
        assert!(!parsed("postgres://app@localhost/shop?hostaddr=127.0.0.1").tls);
        assert!(!parsed("postgres://app@127.0.0.2/shop").tls);
    }

    #[test]
    fn an_address_of_keywords_is_encrypted_as_one_with_parameters_is() {
        assert!(parsed("host=db.example.org dbname=shop").tls);
        assert!(!parsed("host=db.example.org sslmode=disable").tls);
        assert!(!parsed("host=localhost user=app").tls);
        assert!(parsed("host=localhost sslmode=require").tls);
        assert!(parsed("postgres://app@localhost/shop?%73slmode=require").tls);
        let options = parsed("host=localhost password=a?sslmode=disable&b");
        let password = options.config.get_password().unwrap();
        assert_eq!(password, b"a?sslmode=disable&b");
    }

    #[test]
    fn a_password_is_never_shown() {
        let options = parsed("postgres://a:hunter2@localhost/b");
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
