//! The store over PostgreSQL beside plain SQL and other frameworks, on one server, in one run.
//!
//! **Owns:** the rows and their medians. **Does not know:** how a peer is driven.
//! **Invariants:** both sides of a row alternate, run by run, on the same server, in databases of their own.

mod bank;
mod leftfold_rows;
mod peers;
mod plain;
mod searches;
mod tag_index;

use std::{future::Future, time::Instant};

use clap::Parser;
use leftfold_postgres::testing::Server;

/// Measures the store over PostgreSQL beside plain SQL and other frameworks.
#[derive(Parser, Debug)]
struct Arguments {
    /// How often each row is measured on each side.
    #[arg(long, default_value_t = 5)]
    runs: u64,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Events of the catch-up read, and of the log that is searched.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Only rows whose name holds this text.
    #[arg(long)]
    only: Option<String>,
}

/// Rates of both sides, per second.
#[derive(Debug, Default)]
struct Row {
    leftfold: Vec<f64>,
    peer: Vec<f64>,
}

impl Row {
    fn show(&self, name: &str, peer_name: &str) {
        let (leftfold, peer) = (median(&self.leftfold), median(&self.peer));
        println!(
            "| {name} | {leftfold:.0} | {peer_name} | {peer:.0} | {:.2} |",
            leftfold / peer
        );
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// How many operations per second so many callers get done at the same time, over about so many seconds.
///
/// `operation` gets the caller and how many it has done before.
async fn rate<F>(
    callers: u64,
    seconds: f64,
    operation: impl Fn(u64, u64) -> F + Clone + Send + 'static,
) -> anyhow::Result<f64>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let begun = Instant::now();
    let caller = |caller: u64| {
        let operation = operation.clone();
        tokio::spawn(async move {
            let mut count = 0_u64;
            while begun.elapsed().as_secs_f64() < seconds {
                operation(caller, count).await?;
                count += 1;
            }
            anyhow::Ok(count)
        })
    };
    let callers: Vec<_> = (0..callers).map(caller).collect();
    let mut count = 0;
    for caller in callers {
        count += caller.await??;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let only = arguments.only.clone().unwrap_or_default();
    let wants = |name: &str| name.contains(&only);
    let server = Server::start();
    println!("| row | leftfold per second | beside | per second | ratio |");
    println!("|---|---|---|---|---|");
    for clients in [1, 8, 64] {
        let name = format!("append, {clients} clients");
        if wants(&name) {
            appends(&server, &arguments, clients)
                .await?
                .show(&name, "pgbench, plain insert");
        }
    }
    for subscriptions in [20, 100, 400] {
        let name = format!("append, 1 client, {subscriptions} idle subscriptions");
        if wants(&name) {
            idle_subscriptions(&server, &arguments, subscriptions)
                .await?
                .show(&name, "no subscription");
        }
    }
    for callers in [1, 8, 64] {
        let name = format!("bank, {callers} callers");
        if wants(&name) {
            bank_rows(&server, &arguments, callers, &name).await?;
        }
    }
    for tags in [false, true] {
        tag_index::rows(&server, &arguments, tags, &wants).await?;
    }
    let name = "catch up";
    if wants(name) {
        catch_up(&server, &arguments, name).await?;
    }
    searches::rows(&server, &arguments, &wants).await
}

async fn appends(server: &Server, arguments: &Arguments, clients: u64) -> anyhow::Result<Row> {
    let plain = server.database();
    let store = leftfold_rows::open(&server.database()).await?;
    plain::prepare(server, &plain);
    let mut row = Row::default();
    for run in 0..arguments.runs {
        row.leftfold
            .push(leftfold_rows::appends(&store, run, clients, arguments.seconds).await?);
        row.peer.push(plain::inserts(
            server,
            &plain,
            run,
            clients,
            arguments.seconds,
        )?);
    }
    Ok(row)
}

/// Appends of one client beside subscriptions that nothing matches, and without them.
async fn idle_subscriptions(
    server: &Server,
    arguments: &Arguments,
    subscriptions: u64,
) -> anyhow::Result<Row> {
    let store = leftfold_rows::open(&server.database()).await?;
    let mut row = Row::default();
    for run in 0..arguments.runs {
        let idle = leftfold_rows::subscribe(&store, subscriptions).await?;
        let rate = leftfold_rows::appends(&store, 2 * run, 1, arguments.seconds).await?;
        row.leftfold.push(rate);
        drop(idle);
        let rate = leftfold_rows::appends(&store, 2 * run + 1, 1, arguments.seconds).await?;
        row.peer.push(rate);
    }
    Ok(row)
}

async fn bank_rows(
    server: &Server,
    arguments: &Arguments,
    callers: u64,
    name: &str,
) -> anyhow::Result<()> {
    let (mut es, mut disintegrate) = (Row::default(), Row::default());
    let accounts = leftfold_rows::bank(&server.database()).await?;
    let es_bank = peers::es::bank(&server.database()).await?;
    let disintegrate_bank = peers::disintegrate::bank(&server.database()).await?;
    for _ in 0..arguments.runs {
        let rate = leftfold_rows::deposits(&accounts, callers, arguments.seconds).await?;
        es.leftfold.push(rate);
        disintegrate.leftfold.push(rate);
        es.peer
            .push(peers::es::deposits(&es_bank, callers, arguments.seconds).await?);
        disintegrate.peer.push(
            peers::disintegrate::deposits(&disintegrate_bank, callers, arguments.seconds).await?,
        );
    }
    es.show(name, "postgres-es 0.5");
    disintegrate.show(name, "disintegrate-postgres 4");
    Ok(())
}

async fn catch_up(server: &Server, arguments: &Arguments, name: &str) -> anyhow::Result<()> {
    let address = server.database();
    let store = leftfold_rows::open(&address).await?;
    leftfold_rows::fill(&store, arguments.events).await?;
    plain::settle(server, &address);
    let (mut text, mut binary) = (Row::default(), Row::default());
    for _ in 0..arguments.runs {
        let rate = leftfold_rows::read_all(&store, arguments.events).await?;
        for (row, format) in [(&mut text, "text"), (&mut binary, "binary")] {
            row.leftfold.push(rate);
            let copied = plain::copy_out(server, &address, arguments.events, format)?;
            row.peer.push(copied);
        }
    }
    text.show(name, "psql, copy to, text");
    binary.show(name, "psql, copy to, binary");
    Ok(())
}
