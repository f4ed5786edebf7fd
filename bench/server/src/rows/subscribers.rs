//! Many subscribers of one server, on KurrentDB's wire.
//!
//! **Owns:** how many follow what, and who appends for them. **Does not know:** the messages.
//! **Invariants:** a subscriber to whom nothing may come fails the run if something does.

use std::sync::Arc;

use leftfold_client::Client;
use leftfold_model::{Append, ContentType, EventType, ExpectedRevision, NewEvent, StreamName};
use leftfold_store::EventStore;
use tokio::task::JoinSet;

use crate::{
    delivery::{self, Arrivals, Pace},
    event::{KIND, moment, payload},
    outcome::Outcome,
    plan::Plan,
    report::Report,
    server::Kind,
    wire::{
        Wire,
        kurrentdb::generated::{self, Followed, From},
        leftfold,
    },
};

use super::{Side, in_turn, start};

/// Connections that the subscribers share; the server lets each have 1,024 calls unless set otherwise.
const CONNECTIONS: usize = 4;
/// Subscribers to whom something comes.
const ACTIVE: u64 = 200;
/// Writers on the one connection that appends.
const WRITERS: u64 = 50;

/// Who follows, and how fast is appended.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    /// Subscribers of streams in which nothing happens.
    idle: u64,
    /// Whether the active ones follow the whole log, instead of a stream of their own each.
    whole_log: bool,
    appends_per_second: u64,
}

pub(crate) async fn subscribers(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let streams = Crowd {
        idle: 1_000,
        whole_log: false,
        appends_per_second: 5_000,
    };
    let everything = Crowd {
        idle: 0,
        whole_log: true,
        appends_per_second: 200,
    };
    let rows = [
        (
            "subscribers: 1,000 idle and 200 active, of a stream each, 5,000 appends/s",
            streams,
        ),
        (
            "subscribers: 200 of the whole log, 200 appends/s",
            everything,
        ),
    ];
    for (name, crowd) in rows {
        if plan.wants(name) {
            let sides = start(plan, &[(Kind::Leftfold, Wire::Leftfold)]).await?;
            let measure = async |side: &Side| measure(plan, side, crowd).await;
            report.row(name, &in_turn(plan.runs, &sides, measure).await?, None);
        }
    }
    Ok(())
}

async fn measure(plan: &Plan, side: &Side, crowd: Crowd) -> anyhow::Result<Outcome> {
    let run = plan.next_run();
    let arrivals = Arrivals::new();
    // They end with this value.
    let _following = follow(side, crowd, run, &arrivals).await?;
    let client = leftfold::client(side.server.port).await?;
    let pace = Pace {
        writers: WRITERS,
        per_second: crowd.appends_per_second,
        followers_of_each: if crowd.whole_log { ACTIVE } else { 1 },
        timing: plan.timing,
    };
    let append = move |writer, count| {
        let client = client.clone();
        // Each writer goes through the streams, from a place of its own.
        let stream = (writer * (ACTIVE / WRITERS) + count) % ACTIVE;
        async move { append(&client, active(run, stream)).await }
    };
    delivery::run(pace, &side.server, &arrivals, append).await
}

fn active(run: u64, stream: u64) -> String {
    format!("active_{run}-{stream}")
}

async fn append(client: &Client, stream: String) -> anyhow::Result<()> {
    let event = NewEvent::new(
        EventType::new(KIND)?,
        ContentType::Binary,
        payload(moment()),
    );
    let append = Append::to(StreamName::new(stream)?, ExpectedRevision::Any, vec![event])?;
    client.append(append).await?;
    Ok(())
}

async fn follow(
    side: &Side,
    crowd: Crowd,
    run: u64,
    arrivals: &Arc<Arrivals>,
) -> anyhow::Result<JoinSet<()>> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(generated::streams(side.server.port).await?);
    }
    let mut following = JoinSet::new();
    let idle = (0..crowd.idle).map(|stream| (false, From::Stream(format!("idle_{run}-{stream}"))));
    let busy = (0..ACTIVE).map(|stream| {
        let from = if crowd.whole_log {
            From::EndOfAll
        } else {
            From::Stream(active(run, stream))
        };
        (true, from)
    });
    for (number, (expects, from)) in idle.chain(busy).enumerate() {
        let Some(connection) = connections.get_mut(number % CONNECTIONS) else {
            continue;
        };
        let followed = generated::follow(connection, from).await?;
        following.spawn(take(followed, expects, Arc::clone(arrivals)));
    }
    Ok(following)
}

async fn take(mut followed: Followed, expects: bool, arrivals: Arc<Arrivals>) {
    loop {
        match followed.next().await {
            Ok(begun) if expects => arrivals.took(begun),
            Ok(_) => {
                return arrivals.failed(anyhow::anyhow!("an event came to an idle subscriber"));
            }
            Err(error) => return arrivals.failed(error),
        }
    }
}
