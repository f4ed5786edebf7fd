//! Other frameworks, each driven as its documents show.
//!
//! **Owns:** `cqrs-es` with a query, in memory; the process that runs `eventsourcing` for Python. **Does not know:** Leftfold.
//! **Invariants:** each adds deposits up in a view; the store of `cqrs-es` keeps events as values, without encoding them,
//! and that advantage is left to it.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    time::Instant,
};

use anyhow::Context;
use async_trait::async_trait;
use cqrs_es::{
    Aggregate, CqrsFramework, DomainEvent, EventEnvelope, Query, event_sink::EventSink,
    mem_store::MemStore,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
enum PeerEvent {
    Deposited { cents: u64 },
}

impl DomainEvent for PeerEvent {
    fn event_type(&self) -> String {
        "MoneyDeposited".to_owned()
    }
    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

#[derive(Default, Serialize, Deserialize)]
struct PeerAccount {
    balance: u64,
}

impl Aggregate for PeerAccount {
    const TYPE: &'static str = "account";
    type Command = u64;
    type Event = PeerEvent;
    type Error = Refused;
    type Services = ();

    async fn handle(&mut self, cents: u64, _: &(), sink: &EventSink<Self>) -> Result<(), Refused> {
        sink.write(PeerEvent::Deposited { cents }, self).await;
        Ok(())
    }

    fn apply(&mut self, event: PeerEvent) {
        let PeerEvent::Deposited { cents } = event;
        self.balance += cents;
    }
}

/// What is in each account.
struct Balances(Arc<Mutex<HashMap<String, u64>>>);

#[async_trait]
impl Query<PeerAccount> for Balances {
    async fn dispatch(&self, account: &str, events: &[EventEnvelope<PeerAccount>]) {
        let Ok(mut balances) = self.0.lock() else {
            return;
        };
        for event in events {
            let PeerEvent::Deposited { cents } = event.payload;
            *balances.entry(account.to_owned()).or_default() += cents;
        }
    }
}

/// Commands per second by one caller, each in the view when it is done.
pub(crate) async fn commands_with_query(commands: u64, accounts: u64) -> anyhow::Result<f64> {
    let balances = Arc::default();
    let query = Box::new(Balances(Arc::clone(&balances)));
    let peer = CqrsFramework::new(MemStore::<PeerAccount>::default(), vec![query], ());
    let begun = Instant::now();
    for command in 0..commands {
        let account = (command % accounts).to_string();
        peer.execute(&account, 1).await?;
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let sum = balances
        .lock()
        .map(|balances| balances.values().sum::<u64>());
    anyhow::ensure!(sum.is_ok_and(|sum| sum == commands));
    Ok(commands as f64 / elapsed)
}

/// A process application of `eventsourcing` for Python.
pub(crate) struct ProcessApplication {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl ProcessApplication {
    /// Starts it, and has it fill its database.
    pub(crate) fn start(python: &Path, directory: &Path, events: u64) -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python/process.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(directory)
            .arg(events.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start Python")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let mut started = Self {
            child,
            input,
            output,
        };
        let line = started.line()?;
        anyhow::ensure!(line == "filled", "Python said {line:?}");
        Ok(started)
    }

    /// Events per second, all of them into a new database.
    pub(crate) fn run(&mut self) -> anyhow::Result<f64> {
        writeln!(self.input)?;
        self.input.flush()?;
        self.line()?.parse().context("no rate")
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for ProcessApplication {
    fn drop(&mut self) {
        // It ends with its input; this is for one that does not.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
