//! Opening the store that a command works on.
//!
//! **Owns:** the way from `--data` and `--url` to a store. **Does not know:** commands.
//! **Invariants:** commands see a store, never which one; commands that only read refuse to create one; a flag overrides the
//! environment; no message contains a password.

use std::{env, fmt, fs, io, path::Path, path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use leftfold_client::{Client, ClientOptions, Credentials};
use leftfold_log::disk::{Disk, FileKind, FileName, read_only::ReadOnlyDisk, scheme_of};
use leftfold_mongodb::{MongoOptions, MongoStore};
use leftfold_postgres::{PostgresOptions, PostgresStore};
use leftfold_store::{EmbeddedStore, EventStore, LogOptions, OpenError};

use crate::cli::Data;

/// The location of a store.
#[derive(Debug, Clone)]
pub(crate) enum StoreLocation {
    Directory(PathBuf),
    /// With its name in messages, which has no password.
    Postgres(Box<PostgresOptions>, String),
    /// With its name in messages, which has no password.
    Mongo(Box<MongoOptions>, String),
    /// At an address.
    Server(String),
}

/// Why no store can be opened: the command line does not name exactly one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreLocationError {
    #[error(
        "store not named; give --data STORE or --url leftfold://host:port, or set LEFTFOLD_DATA or LEFTFOLD_URL"
    )]
    Missing,
    #[error(
        "LEFTFOLD_DATA and LEFTFOLD_URL are both set: choose with --data STORE or --url leftfold://host:port"
    )]
    Two,
    #[error("store is on a server; this command reads files, give --data STORE")]
    NeedsFiles,
    #[error(
        "unknown scheme: {0:?}; expected a directory, postgres://... or mongodb://... for --data, leftfold://host:port for --url"
    )]
    UnknownScheme(String),
    #[error(
        "address incomplete: {0} without ://; expected {0}://..., or ./ in front of the name of a directory"
    )]
    Incomplete(String),
    #[error(
        "address of a store: {0}:...; expected the path of a file or a directory, with ./ in front of such a name"
    )]
    NoPath(String),
    #[error("--data and --memory contradict each other; give one of them")]
    DataAndMemory,
    #[error("no directory at {}; expected the directory of a store", .0.display())]
    NoDirectory(PathBuf),
    #[error(
        "{} is in the directory of a store; expected another directory, because a store does not open with a file in its \
         directory that is not its own", .0.display()
    )]
    WithinStore(PathBuf),
    #[error("store not named; give --data STORE or --memory, or set LEFTFOLD_DATA")]
    MissingToServe,
}

impl StoreLocation {
    /// Returns the location that the flags name, or else the environment.
    pub(crate) fn of(data: &Data) -> anyhow::Result<Self> {
        let named = (data.data.clone(), data.url.clone());
        let (place, url) = match named {
            (None, None) => (
                env::var_os("LEFTFOLD_DATA").map(PathBuf::from),
                env::var("LEFTFOLD_URL").ok(),
            ),
            named => named,
        };
        match (place, url) {
            (Some(_), Some(_)) => Err(StoreLocationError::Two.into()),
            (Some(place), None) => Self::at(&place),
            (None, Some(url)) => Ok(Self::Server(url)),
            (None, None) => Err(StoreLocationError::Missing.into()),
        }
    }

    /// Parses `--data`: the address of a database, or else a directory.
    pub(crate) fn at(data: &Path) -> anyhow::Result<Self> {
        let is_path = data.has_root() || data.starts_with(".") || data.starts_with("..");
        // A mistyped scheme must not become a directory of that name.
        let address = data
            .to_str()
            .filter(|_| !is_path)
            .and_then(|text| Some((text, text.split_once("://")?.0)));
        match address {
            None => match scheme_of(data) {
                Some(scheme) => Err(StoreLocationError::Incomplete(scheme.to_owned()).into()),
                None => Ok(Self::Directory(data.to_owned())),
            },
            Some((address, "postgres" | "postgresql")) => {
                let options: PostgresOptions = address.parse()?;
                let name = format!("the schema {} of the database", options.schema());
                Ok(Self::Postgres(Box::new(options), name))
            }
            Some((address, "mongodb" | "mongodb+srv")) => {
                let options: MongoOptions = address.parse()?;
                let name = format!("the MongoDB database {}", options.database());
                Ok(Self::Mongo(Box::new(options), name))
            }
            Some((_, scheme)) => Err(StoreLocationError::UnknownScheme(scheme.to_owned()).into()),
        }
    }
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => directory.display().fmt(f),
            Self::Postgres(_, name) | Self::Mongo(_, name) | Self::Server(name) => name.fmt(f),
        }
    }
}

/// Opens the store for a command that writes, creating it if it is absent.
pub(crate) async fn for_writing(data: &Data) -> anyhow::Result<Arc<dyn EventStore>> {
    at(&StoreLocation::of(data)?).await
}

/// Opens an existing store for reading only; nothing in a directory is created or changed.
pub(crate) async fn existing(data: &Data) -> anyhow::Result<Arc<dyn EventStore>> {
    match StoreLocation::of(data)? {
        StoreLocation::Directory(directory) => {
            must_exist(&directory)?;
            let store = EmbeddedStore::open_read_only(&directory, LogOptions::default()).await;
            let store = store.map_err(|error| cannot_open(&directory, error))?;
            Ok(Arc::new(store))
        }
        _ => existing_for_writing(data).await,
    }
}

/// Opens an existing store for writing.
pub(crate) async fn existing_for_writing(data: &Data) -> anyhow::Result<Arc<dyn EventStore>> {
    let place = match StoreLocation::of(data)? {
        StoreLocation::Directory(directory) => {
            must_hold_log(&directory)?;
            StoreLocation::Directory(directory)
        }
        StoreLocation::Postgres(options, name) => {
            StoreLocation::Postgres(Box::new(options.without_migrating()), name)
        }
        other @ (StoreLocation::Mongo(..) | StoreLocation::Server(_)) => other,
    };
    at(&place).await
}

/// Refuses the address of a store where a file or a directory is expected: it would become one of that name.
pub(crate) fn must_be_path(path: &Path) -> anyhow::Result<()> {
    match scheme_of(path) {
        // The rest may hold a password.
        Some(scheme) => Err(StoreLocationError::NoPath(scheme.to_owned()).into()),
        None => Ok(()),
    }
}

/// Refuses an absent directory: a typing mistake must not look like an empty store.
pub(crate) fn must_exist(directory: &Path) -> anyhow::Result<()> {
    if !directory.is_dir() {
        return Err(StoreLocationError::NoDirectory(directory.to_owned()).into());
    }
    Ok(())
}

/// Says that a file which the command line names cannot be read. An address given in its place is not repeated: it may hold a
/// password.
pub(crate) fn cannot_read(path: &Path, what: &str, error: io::Error) -> anyhow::Error {
    match must_be_path(path) {
        Ok(()) => anyhow::Error::from(error).context(format!("cannot {what} {}", path.display())),
        Err(refused) => refused,
    }
}

/// Refuses to write a file into the directory of the store, or of another: that of a server's store need not be named.
pub(crate) fn must_lie_outside(file: &Path, data: &Data) -> anyhow::Result<()> {
    let parent = file.parent().filter(|path| !path.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let is_of_store = match StoreLocation::of(data)? {
        StoreLocation::Directory(store) => {
            let (parent, store) = (fs::canonicalize(parent), fs::canonicalize(&store));
            parent.is_ok_and(|parent| store.is_ok_and(|store| parent == store))
        }
        _ => false,
    };
    // What may not be read is left to what writes the file.
    match is_of_store || holds_log(parent).unwrap_or(false) {
        true => Err(StoreLocationError::WithinStore(file.to_owned()).into()),
        false => Ok(()),
    }
}

/// Refuses to write a file into a directory that holds a log, or to make a directory in one for it.
pub(crate) fn must_be_of_no_store(file: &Path, directory: &Path) -> anyhow::Result<()> {
    let path = std::path::absolute(directory)?;
    let existing = path.ancestors().find(|parent| parent.is_dir());
    match existing.map_or(Ok(false), holds_log)? {
        true => Err(StoreLocationError::WithinStore(file.to_owned()).into()),
        false => Ok(()),
    }
}

/// Refuses a directory without a log: a command that needs a store must not make one of an empty directory.
fn must_hold_log(directory: &Path) -> anyhow::Result<()> {
    must_exist(directory)?;
    match holds_log(directory)? {
        true => Ok(()),
        false => Err(cannot_open(directory, OpenError::NoLog)),
    }
}

/// Whether a file of a log is in the directory.
fn holds_log(directory: &Path) -> anyhow::Result<bool> {
    let cannot = || format!("cannot open {}", directory.display());
    let disk = ReadOnlyDisk::at(directory).with_context(cannot)?;
    let is_of_log = |name: &FileName| {
        use FileKind::{CleanStop, Index, Locations, Segment};
        let kind = name.kind();
        let holds_log = matches!(
            kind,
            Segment { .. } | Locations { .. } | Index { .. } | CleanStop
        );
        holds_log && !name.is_temporary()
    };
    let names = disk.list().with_context(cannot)?;
    Ok(names.iter().flatten().any(is_of_log))
}

/// Builds the error for a directory that cannot be opened, with the remedies if it is damaged.
fn cannot_open(directory: &Path, error: OpenError) -> anyhow::Error {
    let is_damaged = matches!(&error, OpenError::Storage(error) if error.is_corruption());
    let directory = directory.display();
    let cannot = match is_damaged {
        true => format!(
            "cannot open {directory}. Is it a copy of a store in use? Copy again after the store was stopped, or with \
             leftfold export --url. Else leftfold salvage --data {directory} FILE saves what is sound"
        ),
        false => format!("cannot open {directory}"),
    };
    anyhow::Error::from(error).context(cannot)
}

/// Opens the store at a location, creating it if it is absent.
pub(crate) async fn at(place: &StoreLocation) -> anyhow::Result<Arc<dyn EventStore>> {
    let cannot = || format!("cannot open {place}");
    match place {
        StoreLocation::Directory(directory) => {
            let store = EmbeddedStore::open(directory, LogOptions::default()).await;
            let store = store.map_err(|error| cannot_open(directory, error))?;
            Ok(Arc::new(store))
        }
        StoreLocation::Postgres(options, _) => {
            let store = PostgresStore::open_with((**options).clone()).await;
            Ok(Arc::new(store.with_context(cannot)?))
        }
        StoreLocation::Mongo(options, _) => {
            let store = MongoStore::open_with((**options).clone()).await;
            Ok(Arc::new(store.with_context(cannot)?))
        }
        StoreLocation::Server(address) => Ok(Arc::new(
            Client::connect_with(address, client_options()?).await?,
        )),
    }
}

/// How commands connect to a server.
pub(crate) fn client_options() -> anyhow::Result<ClientOptions> {
    Ok(match credentials()? {
        Some(credentials) => ClientOptions::default().with_credentials(credentials),
        None => ClientOptions::default(),
    })
}

/// Who the command is for a server: the API key in the file that `LEFTFOLD_API_KEY_FILE` names, or the user of
/// `LEFTFOLD_USER` with the password in the file that `LEFTFOLD_PASSWORD_FILE` names.
fn credentials() -> anyhow::Result<Option<Credentials>> {
    let secret = |variable: &str| {
        let Some(file) = env::var_os(variable).map(PathBuf::from) else {
            return Ok(None);
        };
        let what = format!("read {variable}");
        let text = fs::read_to_string(&file).map_err(|error| cannot_read(&file, &what, error))?;
        anyhow::Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    };
    let key = secret("LEFTFOLD_API_KEY_FILE")?.map(Credentials::api_key);
    let password = match (
        env::var("LEFTFOLD_USER").ok(),
        secret("LEFTFOLD_PASSWORD_FILE")?,
    ) {
        (Some(login), Some(password)) => Some(Credentials::password(login, password)),
        (None, None) => None,
        (Some(_), None) => bail!(
            "LEFTFOLD_USER is set and LEFTFOLD_PASSWORD_FILE is not; expected both or neither"
        ),
        (None, Some(_)) => bail!(
            "LEFTFOLD_PASSWORD_FILE is set and LEFTFOLD_USER is not; expected both or neither"
        ),
    };
    if key.is_some() && password.is_some() {
        bail!("LEFTFOLD_API_KEY_FILE and LEFTFOLD_USER are both set; expected one of them");
    }
    Ok(key.or(password))
}
