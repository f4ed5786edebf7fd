//! `leftfold serve`: a store for clients over the network.
//!
//! **Owns:** collecting the settings, announcing the address, stopping at a signal. **Does not know:** protocols.
//! **Invariants:** the first line on standard output is printed once clients can connect, and names the address; a first
//! signal starts a graceful shutdown, even before that line, and a second one ends the process at once.

use std::{env, fmt::Write as _, fs, io::Write, net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context;
use leftfold_server::{Server, Settings, telemetry};
use leftfold_store::{EventStore, MemoryStore};

use super::output;
use crate::{
    cli,
    exit_code::is_closed_pipe,
    open::{self, StoreLocation, StoreLocationError},
    setting_args,
    signals::Signals,
};

pub(crate) async fn run(arguments: cli::Serve) -> anyhow::Result<()> {
    if arguments.print_settings {
        let mut out = output();
        out.write_all(settings_table().as_bytes())?;
        return Ok(out.flush()?);
    }
    let location = location(&arguments)?;
    let settings = settings(&arguments)?;
    settings.check()?;
    let _flushed_at_the_end = telemetry::start(&settings)?;
    let store = store(location.as_ref()).await?;
    let advertised = settings.advertised_host.clone();
    // Before anybody can connect: who knows that there is a server can also end it in order.
    let signals = Signals::listen()?;
    let server = Server::bind(store, settings).await?;
    match announce(&server, &advertised, location.as_ref()) {
        // The server is there for its clients, with or without a reader of this output.
        Err(error) if is_closed_pipe(&error) => tracing::warn!("standard output is closed"),
        announced => announced?,
    }
    Ok(server.run(stop(signals)).await?)
}

fn settings(arguments: &cli::Serve) -> anyhow::Result<Settings> {
    let mut settings = Settings::default();
    if let Some(file) = &arguments.config {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        settings
            .set_from_toml(&text)
            .with_context(|| format!("in {}", file.display()))?;
    }
    arguments.given.apply(&mut settings)?;
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

/// The address that clients connect to: a wildcard address to listen on is none.
fn reached(listens: SocketAddr, advertised: &str) -> String {
    let port = listens.port();
    match advertised {
        "" if listens.ip().is_unspecified() => format!("localhost:{port}"),
        "" => listens.to_string(),
        host => format!("{host}:{port}"),
    }
}

fn announce(
    server: &Server,
    advertised: &str,
    location: Option<&StoreLocation>,
) -> anyhow::Result<()> {
    let listens = server.address();
    let address = reached(listens, advertised);
    let what = match location {
        Some(location) => location.to_string(),
        None => "events in memory, dropped when it ends,".to_owned(),
    };
    let mut out = output();
    writeln!(out, "leftfold serves {what} on {listens}")?;
    writeln!(out)?;
    writeln!(
        out,
        "  KurrentDB's clients:  kurrentdb://{address}?tls=false"
    )?;
    writeln!(out, "  UmaDB's clients:      http://{address}")?;
    writeln!(out, "  Leftfold's client:    leftfold://{address}")?;
    writeln!(out)?;
    writeln!(
        out,
        "  const {{ KurrentDBClient }} = require(\"@kurrent/kurrentdb-client\");"
    )?;
    writeln!(
        out,
        "  const client = KurrentDBClient.connectionString(\"kurrentdb://{address}?tls=false\");"
    )?;
    Ok(out.flush()?)
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
