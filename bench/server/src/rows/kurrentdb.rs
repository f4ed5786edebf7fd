//! KurrentDB's wire: many appends under way on one call, and the whole log.
//!
//! **Owns:** its rows, each with the published client and with the generated one. **Does not know:** how they ask.
//! **Invariants:** no peer stands beside Leftfold here; the second client shows how much of a figure is the first one's doing.

use std::sync::{Arc, atomic::AtomicU64};

use futures_util::future::BoxFuture;

use crate::{
    closed::{self, Work},
    event::EVENTS_PER_TAG,
    outcome::Outcome,
    plan::Plan,
    report::Report,
    server::Kind,
    wire::{
        Wire,
        kurrentdb::{Call, generated, published},
    },
};

use super::{
    Side, in_turn, start,
    work::{Load, Loading},
};

/// Appends that are under way at once.
const UNDER_WAY: u64 = 64;
const LOADERS: u64 = 4;
const SIDES: [(Kind, Wire); 1] = [(Kind::Leftfold, Wire::Leftfold)];

#[derive(Clone, Copy, Debug)]
enum Client {
    Published,
    Generated,
}

const CLIENTS: [(Client, &str); 2] = [
    (Client::Published, "published client"),
    (Client::Generated, "generated client"),
];

impl Client {
    async fn connect(self, side: &Side) -> anyhow::Result<Arc<dyn Call>> {
        let port = side.server.port;
        Ok(match self {
            Self::Published => Arc::new(published::connect(port).await?),
            Self::Generated => Arc::new(generated::connect(port).await?),
        })
    }
}

pub(crate) async fn kurrentdb_wire(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    for events in plan.choose(&[1, 10, 100], 10) {
        for (client, who) in CLIENTS {
            let name = format!("kurrentdb wire: {UNDER_WAY} under way x {events}, {who}");
            if plan.wants(&name) {
                let sides = start(plan, &SIDES).await?;
                let measure = async |side: &Side| appends(plan, side, client, events).await;
                report.row(&name, &in_turn(plan.runs, &sides, measure).await?, None);
            }
        }
    }
    whole_log(plan, report).await
}

async fn whole_log(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let name = |who: &str| format!("kurrentdb wire, big log: whole log, {who}");
    if !CLIENTS.iter().any(|(_, who)| plan.wants(&name(who))) {
        return Ok(());
    }
    let sides = start(plan, &SIDES).await?;
    in_turn(1, &sides, async |side| load(plan, side).await).await?;
    for (client, who) in CLIENTS {
        if plan.wants(&name(who)) {
            let measure = async |side: &Side| read_all(plan, side, client).await;
            report.row(
                &name(who),
                &in_turn(plan.runs, &sides, measure).await?,
                None,
            );
        }
    }
    Ok(())
}

/// One of those who append on the same call.
struct Appending {
    call: Arc<dyn Call>,
    caller: u64,
    events: usize,
}

impl Work for Appending {
    fn once(&mut self) -> BoxFuture<'_, anyhow::Result<Option<u64>>> {
        Box::pin(async {
            self.call.append(self.caller, self.events).await?;
            Ok(Some(self.events as u64))
        })
    }
}

async fn appends(
    plan: &Plan,
    side: &Side,
    client: Client,
    events: usize,
) -> anyhow::Result<Outcome> {
    let call = client.connect(side).await?;
    let works = (0..UNDER_WAY).map(|caller| {
        Box::new(Appending {
            call: Arc::clone(&call),
            caller,
            events,
        }) as Box<dyn Work>
    });
    closed::run(works.collect(), Some(plan.timing), &side.server).await
}

/// The one who reads everything, once.
struct Reading {
    call: Arc<dyn Call>,
    at_least: u64,
    done: bool,
}

impl Work for Reading {
    fn once(&mut self) -> BoxFuture<'_, anyhow::Result<Option<u64>>> {
        Box::pin(async {
            if self.done {
                return Ok(None);
            }
            self.done = true;
            let (events, expected) = (self.call.read_all().await?, self.at_least);
            anyhow::ensure!(events >= expected, "{events} of {expected} events");
            Ok(Some(events))
        })
    }
}

async fn read_all(plan: &Plan, side: &Side, client: Client) -> anyhow::Result<Outcome> {
    let work = Reading {
        call: client.connect(side).await?,
        at_least: plan.events / EVENTS_PER_TAG * EVENTS_PER_TAG,
        done: false,
    };
    closed::run(vec![Box::new(work)], None, &side.server).await
}

pub(super) async fn load(plan: &Plan, side: &Side) -> anyhow::Result<Outcome> {
    let load = Arc::new(Load {
        events: plan.events,
        next: AtomicU64::new(0),
    });
    let connections = side.wire.callers(side.server.port, LOADERS, false).await?;
    let works = connections.into_iter().map(|connection| {
        Box::new(Loading {
            connection,
            load: Arc::clone(&load),
        }) as Box<dyn Work>
    });
    closed::run(works.collect(), None, &side.server).await
}
