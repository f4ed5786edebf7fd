//! The rows of the table, by the wire they are about.
//!
//! **Owns:** the sides of a row, and that they take turns; the writers that several sections have.
//! **Does not know:** what a row measures.
//! **Invariants:** the sides of a row alternate, run by run, so that both meet the machine in the same state.

mod beside;
mod big_log;
mod groups;
mod hostile;
mod kurrentdb;
mod security;
mod subscribers;
mod work;

pub(crate) use beside::{own_wires, umadb_wire};
pub(crate) use groups::groups;
pub(crate) use hostile::hostile;
pub(crate) use kurrentdb::kurrentdb_wire;
pub(crate) use security::security;
pub(crate) use subscribers::subscribers;

use std::sync::Arc;

use anyhow::Context;

use self::work::{Appending, Guard};
use crate::{
    closed::Work,
    outcome::Outcome,
    plan::Plan,
    server::{Kind, Server},
    wire::{Connection, Wire, leftfold::connect_to},
};

/// A server, and the client that asks it.
#[derive(Debug)]
struct Side {
    server: Server,
    wire: Wire,
}

/// Starts these servers, without those that are not asked for.
async fn start(plan: &Plan, sides: &[(Kind, Wire)]) -> anyhow::Result<Vec<Side>> {
    let mut started = Vec::new();
    for &(kind, wire) in sides {
        if plan.has(kind) {
            let server = Server::start(kind, &plan.programs, &plan.directory).await?;
            started.push(Side { server, wire });
        }
    }
    Ok(started)
}

/// Measures each side so often, in turn; answers the medians.
async fn in_turn(
    runs: usize,
    sides: &[Side],
    measure: impl AsyncFn(&Side) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Vec<(Kind, Outcome)>> {
    let mut outcomes = vec![Vec::new(); sides.len()];
    for _ in 0..runs {
        for (side, outcomes) in sides.iter().zip(&mut outcomes) {
            let outcome = measure(side).await;
            outcomes.push(outcome.with_context(|| side.server.state())?);
        }
    }
    let medians = sides.iter().zip(&outcomes);
    Ok(medians
        .map(|(side, outcomes)| (side.server.kind, Outcome::median(outcomes)))
        .collect())
}

/// Connections of these callers, one each.
async fn connections(side: &Side, callers: u64) -> anyhow::Result<Vec<Arc<dyn Connection>>> {
    let mut connections = Vec::new();
    for _ in 0..callers {
        connections.push(connect_to(side.server.port, side.server.access.as_ref()).await?);
    }
    Ok(connections)
}

/// Writers of single events, with a connection each.
async fn appends(plan: &Plan, side: &Side, callers: u64) -> anyhow::Result<Vec<Box<dyn Work>>> {
    let run = plan.next_run();
    let connections = connections(side, callers).await?.into_iter();
    let works = connections.enumerate().map(|(caller, connection)| {
        Box::new(Appending {
            connection,
            name: format!("run-{run}-{caller}"),
            events: 1,
            guard: Guard::None,
            count: 0,
            last: None,
        }) as Box<dyn Work>
    });
    Ok(works.collect())
}

fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
