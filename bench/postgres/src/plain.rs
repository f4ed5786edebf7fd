//! PostgreSQL without a store: one table, its own tools.
//!
//! **Owns:** that table, and driving `pgbench` and `psql`. **Does not know:** Leftfold.
//! **Invariants:** the table has what any event table has: a position, and unique stream and revision; nothing more.

use std::{fs, time::Instant};

use anyhow::Context;
use leftfold_postgres::testing::Server;

use crate::leftfold_rows::DATA;

fn name(address: &str) -> &str {
    address.rsplit('/').next().unwrap_or_default()
}

pub(crate) fn prepare(server: &Server, address: &str) {
    server.psql(
        name(address),
        "create table plain (position bigserial primary key, stream text not null, revision bigint not null, \
         type text not null, data jsonb not null, unique (stream, revision))",
    );
}

/// Single inserts by `pgbench`, each client to a stream of its own; per second.
pub(crate) fn inserts(
    server: &Server,
    address: &str,
    run: u64,
    clients: u64,
    seconds: f64,
) -> anyhow::Result<f64> {
    let script = server
        .directory()
        .join(format!("insert-{}-{run}-{clients}.sql", name(address)));
    fs::write(
        &script,
        format!(
            "\\set r :r + 1\ninsert into plain (stream, revision, type, data) \
             values ('r{run}-' || :client_id, :r, 'MoneyDeposited', '{}');\n",
            DATA.replace('\'', "''")
        ),
    )?;
    let (host, clients, seconds) = (
        server.directory().to_string_lossy().into_owned(),
        clients.to_string(),
        (seconds.ceil() as u64).max(1).to_string(),
    );
    let threads = if clients == "1" { "1" } else { "2" };
    let output = server.run(
        "pgbench",
        &[
            "-n",
            "-M",
            "prepared",
            "-D",
            "r=0",
            "-h",
            &host,
            "-U",
            "leftfold",
            "-c",
            &clients,
            "-j",
            threads,
            "-T",
            &seconds,
            "-f",
            &script.to_string_lossy(),
            name(address),
        ],
    );
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))
        .context("pgbench tells no rate")?;
    Ok(line.split(' ').next().unwrap_or_default().parse()?)
}

/// Leaves nothing for the server to do in the background.
pub(crate) fn settle(server: &Server, address: &str) {
    server.psql(name(address), "vacuum analyze");
    server.psql(name(address), "checkpoint");
}

/// All events by `copy to`, in this format; per second.
pub(crate) fn copy_out(
    server: &Server,
    address: &str,
    events: u64,
    format: &str,
) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let output = server.directory().join("copied");
    let select = "select position, revision, id, time, content_type, stream, type, data, metadata, tags \
                  from leftfold.events order by position";
    let copy = format!(
        "\\copy ({select}) to '{}' (format {format})",
        output.display()
    );
    server.psql(name(address), &copy);
    let elapsed = begun.elapsed().as_secs_f64();
    fs::remove_file(output)?;
    Ok(events as f64 / elapsed)
}
