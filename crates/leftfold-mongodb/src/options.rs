//! The options of a store, parsed from an address.
//!
//! **Owns:** [`MongoOptions`] and parsing them. **Does not know:** how to connect.
//! **Invariants:** an option that lets the server lose acknowledged events is an error, unless a parameter `unsafe_...` allows
//! it; no message and no `Debug` output contains a password.

use std::{fmt, str::FromStr, time::Duration};

use mongodb::options::{
    Acknowledgment, ClientOptions, ReadConcern, ReadConcernLevel, ReadPreference,
    SelectionCriteria, WriteConcern,
};

use crate::OpenError;

/// The database of a store whose address names none.
const DATABASE: &str = "leftfold";
/// Timeout of an operation; after it the connection is dropped and the operation counts as failed.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for which reads and appends retry to reach a server.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval at which subscriptions poll for commits of other processes.
const CACHED_STREAMS: usize = 65_536;
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Options of a store over MongoDB.
///
/// Parsed from a connection string as of other MongoDB programs, with a few parameters of its own:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), leftfold_mongodb::OpenError> {
/// use leftfold_mongodb::MongoOptions;
/// let options: MongoOptions = "mongodb://app@db.example.org/shop?tls=true&leftfold_prefix=orders_".parse()?;
/// assert_eq!((options.database(), options.prefix()), ("shop", "orders_"));
/// # Ok(()) }
/// ```
///
/// | word | meaning | default |
/// |---|---|---|
/// | the path | the database that holds the store | `leftfold` |
/// | `leftfold_prefix` | begins the names of the store's collections; several stores may share a database | none |
/// | `leftfold_poll_ms` | milliseconds between two looks for commits of other processes while there are subscriptions | 100 |
/// | `leftfold_json` | `true`: copy JSON data to a sub-document, see [`Self::with_json_documents`] | `false` |
/// | `unsafe_allow_lost_commits` | `true`: accept a write or read concern below majority, for tests | `false` |
#[derive(Clone)]
pub struct MongoOptions {
    pub(crate) address: String,
    pub(crate) database: String,
    pub(crate) prefix: String,
    pub(crate) lost_commits: bool,
    pub(crate) json_documents: bool,
    pub(crate) operation_timeout: Duration,
    pub(crate) reconnect_timeout: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) cached_streams: usize,
}

impl MongoOptions {
    /// Returns the database that holds the store.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Returns the text with which the names of the store's collections begin.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Sets the database that holds the store.
    #[must_use]
    pub fn with_database(mut self, database: impl Into<String>) -> Self {
        self.database = database.into();
        self
    }

    /// Sets the text with which the names of the store's collections begin.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the timeout of one operation. Default: 30 s.
    #[must_use]
    pub fn with_operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// Sets how long reads and appends retry to reach a server. Default: 30 s.
    #[must_use]
    pub fn with_reconnect_timeout(mut self, timeout: Duration) -> Self {
        self.reconnect_timeout = timeout;
        self
    }

    /// Sets the interval between polls for commits of other processes. Default: 100 ms.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets of how many streams a writer keeps the last revision in memory, about 150 bytes each. Default: 65,536; at least 1.
    ///
    /// An append to another stream looks its revision up. A log with at most so many events is known whole, up to 65,536.
    #[must_use]
    pub fn with_cached_streams(mut self, streams: usize) -> Self {
        self.cached_streams = streams.max(1);
        self
    }

    /// Keeps a copy of JSON data as a sub-document, `events.json` of the collection `commits`, for queries by MongoDB's own
    /// tools. The store never reads it.
    ///
    /// # Limits
    /// Data has no copy if it has more than 64 KiB, a key that is empty or has a `.` or a `$` at its start, a whole number beyond
    /// 64 bits with a sign, or more than 64 levels, or if the commit has no room for it.
    /// # Cost
    /// Such data is stored and sent twice.
    #[must_use]
    pub fn with_json_documents(mut self) -> Self {
        self.json_documents = true;
        self
    }

    /// Parses the driver's part of the address and fixes what the store relies on.
    pub(crate) async fn driver(&self) -> Result<ClientOptions, OpenError> {
        let parsed = ClientOptions::parse(&self.address).await;
        // The driver's errors may repeat the address; only the kind of the error is shown.
        let mut options =
            parsed.map_err(|error| OpenError::address(without_credentials(&error)))?;
        if !self.lost_commits {
            refuse_unsafe(&options)?;
        }
        let concern = WriteConcern::builder()
            .w(Acknowledgment::Majority)
            .journal(true)
            .build();
        options.write_concern.get_or_insert(concern);
        options.read_concern.get_or_insert(ReadConcern::majority());
        options.selection_criteria =
            Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        // The store repeats an insert itself, since only it can tell its own commit from that of another writer.
        options.retry_writes = Some(false);
        options
            .app_name
            .get_or_insert_with(|| "leftfold".to_owned());
        options
            .connect_timeout
            .get_or_insert(Duration::from_secs(10));
        let selection = self.operation_timeout.min(Duration::from_secs(10));
        options.server_selection_timeout.get_or_insert(selection);
        Ok(options)
    }
}

/// Refuses write and read concerns that let the server lose what it acknowledged, and reads from secondaries.
fn refuse_unsafe(options: &ClientOptions) -> Result<(), OpenError> {
    if let Some(concern) = &options.write_concern {
        if let Some(w) = &concern.w
            && *w != Acknowledgment::Majority
        {
            let value = match w {
                Acknowledgment::Nodes(nodes) => nodes.to_string(),
                Acknowledgment::Custom(name) => name.clone(),
                other => format!("{other:?}"),
            };
            return Err(OpenError::Unsafe {
                option: "w",
                value,
                expected: "majority",
            });
        }
        if concern.journal == Some(false) {
            return Err(OpenError::Unsafe {
                option: "journal",
                value: "false".to_owned(),
                expected: "true",
            });
        }
    }
    if let Some(concern) = &options.read_concern
        && !matches!(
            concern.level,
            ReadConcernLevel::Majority | ReadConcernLevel::Linearizable
        )
    {
        return Err(OpenError::Unsafe {
            option: "readConcernLevel",
            value: format!("{:?}", concern.level).to_lowercase(),
            expected: "majority",
        });
    }
    if let Some(criteria) = &options.selection_criteria
        && !matches!(
            criteria,
            SelectionCriteria::ReadPreference(ReadPreference::Primary)
        )
    {
        return Err(OpenError::Unsafe {
            option: "readPreference",
            value: "other than primary".to_owned(),
            expected: "primary",
        });
    }
    Ok(())
}

/// Describes an error of the driver without the address it was given.
fn without_credentials(error: &mongodb::error::Error) -> String {
    match &*error.kind {
        mongodb::error::ErrorKind::InvalidArgument { message, .. } if !message.contains('@') => {
            message.clone()
        }
        mongodb::error::ErrorKind::DnsResolve { .. } => {
            "the host name cannot be resolved".to_owned()
        }
        _ => {
            "expected mongodb://[user[:password]@]host[:port][,...]/[database][?options]".to_owned()
        }
    }
}

impl FromStr for MongoOptions {
    type Err = OpenError;

    /// Takes the parameters of the store out of the address; the driver parses the rest when the store is opened.
    fn from_str(address: &str) -> Result<Self, OpenError> {
        let scheme = ["mongodb://", "mongodb+srv://"]
            .into_iter()
            .find(|scheme| address.starts_with(scheme))
            .ok_or_else(|| OpenError::address("expected mongodb:// or mongodb+srv://"))?;
        let rest = address.get(scheme.len()..).unwrap_or_default();
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, path) = place.split_once('/').unwrap_or((place, ""));
        let database = if path.is_empty() { DATABASE } else { path };
        if database.len() > 63 || database.contains(['/', '\\', '.', '"', '$', ' ', '\0', '%']) {
            return Err(OpenError::address(
                "the database is not a name of 1 to 63 bytes without / \\ . \" $ % and spaces",
            ));
        }
        let mut options = Self {
            address: String::new(),
            database: database.to_owned(),
            prefix: String::new(),
            lost_commits: false,
            json_documents: false,
            operation_timeout: OPERATION_TIMEOUT,
            reconnect_timeout: RECONNECT_TIMEOUT,
            poll_interval: POLL_INTERVAL,
            cached_streams: CACHED_STREAMS,
        };
        let mut driver = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (word, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !options.take(word, value)? {
                driver.push(pair);
            }
        }
        options.address = format!("{scheme}{hosts}/{path}");
        if !driver.is_empty() {
            options.address.push('?');
            options.address.push_str(&driver.join("&"));
        }
        Ok(options)
    }
}

impl MongoOptions {
    /// Takes a parameter of the store's own; returns whether it is one.
    fn take(&mut self, word: &str, value: &str) -> Result<bool, OpenError> {
        match word {
            "leftfold_prefix" => {
                if value.len() > 32
                    || !value
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
                {
                    return Err(OpenError::address(format!(
                        "leftfold_prefix is {value:?}; expected at most 32 letters, digits, _ or -"
                    )));
                }
                value.clone_into(&mut self.prefix);
            }
            "leftfold_poll_ms" => {
                let millis = value
                    .parse()
                    .ok()
                    .filter(|millis| (1..=60_000).contains(millis));
                let millis = millis.ok_or_else(|| {
                    OpenError::address(format!(
                        "leftfold_poll_ms is {value:?}; expected 1 to 60000"
                    ))
                })?;
                self.poll_interval = Duration::from_millis(millis);
            }
            "leftfold_json" => self.json_documents = flag(word, value)?,
            "unsafe_allow_lost_commits" => self.lost_commits = flag(word, value)?,
            word if word.starts_with("leftfold_") || word.starts_with("unsafe_") => {
                return Err(OpenError::address(format!("unknown option {word}")));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn flag(word: &str, value: &str) -> Result<bool, OpenError> {
    value
        .parse()
        .map_err(|_| OpenError::address(format!("{word} is {value:?}; expected true or false")))
}

impl fmt::Debug for MongoOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoOptions")
            .field("database", &self.database)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str) -> String {
        address.parse::<MongoOptions>().unwrap_err().to_string()
    }

    async fn refused_by_driver(address: &str) -> String {
        let options: MongoOptions = address.parse().unwrap();
        options.driver().await.unwrap_err().to_string()
    }

    #[test]
    fn own_words_are_taken_and_those_of_the_driver_passed_on() {
        let options: MongoOptions =
            "mongodb://h/shop?leftfold_prefix=a_&replicaSet=rs0&leftfold_poll_ms=20"
                .parse()
                .unwrap();
        assert_eq!((options.database(), options.prefix()), ("shop", "a_"));
        assert_eq!(options.address, "mongodb://h/shop?replicaSet=rs0");
        assert_eq!(options.poll_interval, Duration::from_millis(20));
    }

    #[test]
    fn an_unknown_word_of_the_store_is_refused_by_name() {
        assert!(refused("mongodb://h/?leftfold_prefx=a").contains("leftfold_prefx"));
        assert!(refused("mongodb://h/?leftfold_prefix=a.b").contains("\"a.b\""));
        assert!(refused("mongodb://h/?leftfold_json=yes").contains("true or false"));
        assert!(refused("mongodb://h/?leftfold_poll_ms=0").contains("1 to 60000"));
        assert!(refused("postgres://h/").contains("mongodb://"));
        assert!(refused("mongodb://h/a%2Fb").contains("database"));
    }

    #[tokio::test]
    async fn options_that_could_lose_acknowledged_events_are_refused() {
        for (address, option) in [
            ("mongodb://h/?w=1", "w=1"),
            ("mongodb://h/?w=0", "w=0"),
            ("mongodb://h/?journal=false", "journal=false"),
            (
                "mongodb://h/?readConcernLevel=local",
                "readConcernLevel=local",
            ),
            ("mongodb://h/?readPreference=secondary", "readPreference"),
        ] {
            assert!(
                refused_by_driver(address).await.contains(option),
                "{address}"
            );
        }
        let allowed: MongoOptions = "mongodb://h/?w=1&unsafe_allow_lost_commits=true"
            .parse()
            .unwrap();
        allowed.driver().await.unwrap();
    }

    #[tokio::test]
    async fn a_password_is_never_shown() {
        let options: MongoOptions = "mongodb://a:hunter2@h/b".parse().unwrap();
        assert!(!format!("{options:?}").contains("hunter2"));
        let message = refused_by_driver("mongodb://a:hunter2@h:port/b").await;
        assert!(!message.contains("hunter2"), "{message}");
    }
}
