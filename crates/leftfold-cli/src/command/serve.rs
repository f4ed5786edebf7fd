//! `leftfold serve`: a store for clients over the network.
//!
//! **Owns:** collecting the settings, announcing the address, stopping at a signal. **Does not know:** protocols.
//! **Invariants:** the first line on standard output is printed once clients can connect, and names the address; a first
//! signal starts a graceful shutdown, even before that line, and ends the process at once while the store is being opened, as a
//! second one does at any time.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use leftfold_server::{Server, Settings, access::FIRST_ADMINISTRATOR, telemetry};
use leftfold_store::{EventStore, MemoryStore};
#[cfg(unix)]
use tokio_util::task::AbortOnDropHandle;

use super::output;
use crate::{
    cli,
    exit_code::is_closed_pipe,
    open::{self, StoreLocation, StoreLocationError},
    setting_args::{self, SettingArgs},
    signals::{Hangups, Signals},
};

pub(crate) async fn run(arguments: cli::Serve) -> anyhow::Result<()> {
    if arguments.print_settings {
        let mut out = output();
        out.write_all(settings_table().as_bytes())?;
        return Ok(out.flush()?);
    }
    let location = location(&arguments)?;
    let settings = settings(arguments.config.as_deref(), &arguments.given)?;
    settings.check()?;
    let flushed_at_the_end = telemetry::start(&settings)?;
    let texts = ConnectionTexts::new(&settings);
    // Before anybody can connect: who knows that there is a server can also end it in order, or replace its certificate.
    let (mut signals, hangups) = (Signals::listen()?, Hangups::listen()?);
    // Probes are answered while the store is opened, which takes long after an unclean stop.
    let starting = Server::start(settings).await?;
    for variable in setting_args::unknown_variables() {
        tracing::warn!(variable, "unknown environment variable; it sets nothing");
    }
    let store = tokio::select! {
        opened = store(location.as_ref()) => opened?,
        () = signals.next() => end_while_opening(flushed_at_the_end),
    };
    let server = starting.open(store).await?;
    let _reloads_until_the_end = reload_on_hangup(&server, hangups);
    match announce(&server, &texts, location.as_ref()) {
        // The server is there for its clients, with or without a reader of this output.
        Err(error) if is_closed_pipe(&error) => tracing::warn!("standard output is closed"),
        announced => announced?,
    }
    Ok(server.run(stop(signals)).await?)
}

/// Returns the settings that a file, the environment and flags give.
pub(super) fn settings(config: Option<&Path>, given: &SettingArgs) -> anyhow::Result<Settings> {
    let mut settings = Settings::default();
    if let Some(file) = config {
        let text = fs::read_to_string(file);
        let text = text.map_err(|error| open::cannot_read(file, "read", error))?;
        settings
            .set_from_toml(&text)
            .with_context(|| format!("in {}", file.display()))?;
    }
    setting_args::check_environment()?;
    given.apply(&mut settings)?;
    Ok(settings)
}

/// Returns the location of the store to serve; `None`: memory. A flag takes precedence over the environment.
fn location(arguments: &cli::Serve) -> anyhow::Result<Option<StoreLocation>> {
    match (&arguments.data, arguments.memory) {
        (Some(_), true) => Err(StoreLocationError::DataAndMemory.into()),
        (Some(data), false) => StoreLocation::at(data).map(Some),
        (None, true) => Ok(None),
        (None, false) => match env::var_os("LEFTFOLD_DATA") {
            Some(data) => StoreLocation::at(Path::new(&data)).map(Some),
            None => Err(StoreLocationError::MissingToServe.into()),
        },
    }
}

async fn store(location: Option<&StoreLocation>) -> anyhow::Result<Arc<dyn EventStore>> {
    match location {
        Some(location) => open::at(location).await,
        None => Ok(Arc::new(MemoryStore::new())),
    }
}

/// What the addresses that are printed are made of.
struct ConnectionTexts {
    advertised: String,
    /// The certificate of the authority beside that of the server, as `leftfold certs` writes it.
    ca_file: Option<PathBuf>,
}

impl ConnectionTexts {
    fn new(settings: &Settings) -> Self {
        let beside = Path::new(&settings.tls_certificate_file).parent();
        let ca_file = beside.map(|directory| directory.join("ca.crt"));
        Self {
            advertised: settings.advertised_host.as_str().to_owned(),
            ca_file: ca_file.and_then(|file| file.canonicalize().ok()),
        }
    }

    /// What follows the address of an encrypted server.
    fn tls(&self) -> String {
        match &self.ca_file {
            Some(file) => format!("?tls=true&tlsCaFile={}", file.display()),
            None => "?tls=true".to_owned(),
        }
    }

    /// Where clients reach a server: nobody can connect to "every address".
    fn reached(&self, listens: SocketAddr, has_tls: bool) -> String {
        let port = listens.port();
        match self.advertised.as_str() {
            // The name that certificates for development have.
            "" if listens.ip().is_unspecified() || has_tls && listens.ip().is_loopback() => {
                format!("localhost:{port}")
            }
            "" => listens.to_string(),
            host => format!("{host}:{port}"),
        }
    }
}

/// Reads certificates again on SIGHUP, until the handle is dropped.
fn reload_on_hangup(server: &Server, mut hangups: Hangups) -> AbortOnDropHandle<()> {
    let handle = server.reload_handle();
    let reloads = tokio::spawn(async move {
        while hangups.next().await.is_some() {
            let handle = handle.clone();
            // A file may be on a slow disk.
            let _ = tokio::task::spawn_blocking(move || handle.reload()).await;
        }
    });
    AbortOnDropHandle::new(reloads)
}

fn announce(
    server: &Server,
    texts: &ConnectionTexts,
    location: Option<&StoreLocation>,
) -> anyhow::Result<()> {
    const PLAIN: &str = "?tls=false";
    let listens = server.address();
    let address = texts.reached(listens, server.has_tls());
    let (scheme, kurrent, own) = match (server.has_tls(), server.authenticates()) {
        (true, _) => ("https", texts.tls(), texts.tls()),
        // Without it, the client sends no credentials to another machine.
        (false, true) => ("http", PLAIN.to_owned(), PLAIN.to_owned()),
        (false, false) => ("http", PLAIN.to_owned(), String::new()),
    };
    let user = if server.authenticates() {
        "USER:PASSWORD@"
    } else {
        ""
    };
    let what = match location {
        Some(location) => location.to_string(),
        None => "events in memory, dropped when it ends,".to_owned(),
    };
    let mut out = output();
    writeln!(out, "leftfold serves {what} on {listens}")?;
    writeln!(out)?;
    writeln!(
        out,
        "  KurrentDB's clients:  kurrentdb://{user}{address}{kurrent}"
    )?;
    writeln!(out, "  UmaDB's clients:      {scheme}://{address}")?;
    writeln!(out, "  Leftfold's client:    leftfold://{address}{own}")?;
    if let Some(password) = server.first_password() {
        writeln!(out)?;
        writeln!(
            out,
            "  First administrator:  {FIRST_ADMINISTRATOR}, password {password} (printed this once)"
        )?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "  const {{ KurrentDBClient }} = require(\"@kurrent/kurrentdb-client\");"
    )?;
    writeln!(
        out,
        "  const client = KurrentDBClient.connectionString(\"kurrentdb://{user}{address}{kurrent}\");"
    )?;
    Ok(out.flush()?)
}

/// Ends the process without waiting for the store: opening is made to be interrupted, and may take minutes.
#[expect(
    clippy::exit,
    reason = "a store that is being opened cannot be told to stop"
)]
fn end_while_opening(flushed_at_the_end: telemetry::Telemetry) -> ! {
    tracing::info!("stopping: the store was still being opened");
    drop(flushed_at_the_end);
    std::process::exit(0);
}

/// Resolves at the first signal to end. From then on, a second signal ends the process at once.
#[expect(clippy::exit, reason = "a second signal means: do not wait")]
async fn stop(mut signals: Signals) {
    signals.next().await;
    tracing::info!("stopping: calls under way may finish");
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(130);
    });
}

/// All settings as a table for the documentation.
fn settings_table() -> String {
    let mut table = String::from(
        "| setting | flag | environment | default | meaning |\n|---|---|---|---|---|\n",
    );
    for setting in Settings::ALL {
        let (flag, variable) = (setting_args::flag(setting), setting_args::variable(setting));
        let help = setting.help.trim();
        let default = match setting.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "| `{}` | `--{flag}` | `{variable}` | {default} | {help} |",
            setting.name
        );
    }
    table
}
