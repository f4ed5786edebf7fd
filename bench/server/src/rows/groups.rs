//! Groups of competing consumers, on KurrentDB's wire.
//!
//! **Owns:** how fast a group hands out what is stored and what is new, beside a subscription, and what idle groups take.
//! **Does not know:** the messages.
//! **Invariants:** a run ends when every event was taken and acknowledged; an event that is parked fails it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Context;
use futures_util::future::BoxFuture;
use leftfold_client::Client;
use leftfold_model::{Append, ContentType, EventType, ExpectedRevision, NewEvent, StreamName};
use leftfold_store::EventStore;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    closed::{self, Work},
    delivery::{self, Arrivals, Pace},
    event::{EVENTS_PER_TAG, KIND, moment, payload},
    machine,
    outcome::Outcome,
    plan::Plan,
    report::Report,
    server::Kind,
    wire::{
        Wire,
        kurrentdb::{
            generated::{self, Followed, From},
            groups::{Consumer, Groups},
        },
        leftfold,
    },
};

use super::{Side, in_turn, kurrentdb, start};

const SIDES: [(Kind, Wire); 1] = [(Kind::Leftfold, Wire::Leftfold)];
/// Events in flight with a consumer of the big log.
const WINDOW: i32 = 1_000;
/// Groups that take what is new, one consumer each.
const LIVE_GROUPS: u64 = 100;
/// Writers on the one connection that appends for them.
const WRITERS: u64 = 50;
const APPENDS_PER_SECOND: u64 = 5_000;
/// Groups that have a consumer and nothing to do.
const IDLE_GROUPS: u64 = 1_000;
/// Connections that consumers share; the server lets each have 1,024 calls unless set otherwise.
const CONNECTIONS: usize = 4;

const CATCH_UP: &str = "groups, big log: a catch-up subscription, for comparison";
const LIVE: &str = "groups: 100 of a stream each, 5,000 appends/s";
const IDLE: &str = "groups: 1,000 with an idle consumer each, joined; resident is what they add";

pub(crate) async fn groups(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    big_log(plan, report).await?;
    if plan.wants(LIVE) {
        let sides = start(plan, &SIDES).await?;
        let measure = async |side: &Side| live(plan, side).await;
        report.row(LIVE, &in_turn(plan.runs, &sides, measure).await?, None);
    }
    if plan.wants(IDLE) {
        // Each run has a server of its own: what one run leaves behind would count for the next.
        let mut outcomes = Vec::new();
        for _ in 0..plan.runs {
            let sides = start(plan, &SIDES).await?;
            for (_, outcome) in in_turn(1, &sides, async |side| idle(plan, side).await).await? {
                outcomes.push(outcome);
            }
        }
        report.row(IDLE, &[(Kind::Leftfold, Outcome::median(&outcomes))], None);
    }
    Ok(())
}

fn of_consumers(consumers: u64) -> String {
    let consumers = super::counted(consumers, "consumer");
    format!("groups, big log: a group with {consumers}")
}

async fn big_log(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let crowds = [1, 8];
    let wanted = crowds.iter().any(|it| plan.wants(&of_consumers(*it)));
    if !wanted && !plan.wants(CATCH_UP) {
        return Ok(());
    }
    let sides = start(plan, &SIDES).await?;
    in_turn(1, &sides, async |side| kurrentdb::load(plan, side).await).await?;
    if plan.wants(CATCH_UP) {
        let measure = async |side: &Side| catch_up(plan, side).await;
        report.row(CATCH_UP, &in_turn(plan.runs, &sides, measure).await?, None);
    }
    for consumers in crowds {
        let name = of_consumers(consumers);
        if plan.wants(&name) {
            let measure = async |side: &Side| take_all(plan, side, consumers).await;
            report.row(&name, &in_turn(plan.runs, &sides, measure).await?, None);
        }
    }
    Ok(())
}

/// Events of the big log.
fn stored(plan: &Plan) -> u64 {
    plan.events / EVENTS_PER_TAG * EVENTS_PER_TAG
}

/// Takes what a subscription brings, up to the end of the log.
struct CatchingUp {
    followed: Followed,
    left: u64,
}

impl Work for CatchingUp {
    fn once(&mut self) -> BoxFuture<'_, anyhow::Result<Option<u64>>> {
        Box::pin(async {
            let Some(left) = self.left.checked_sub(1) else {
                return Ok(None);
            };
            self.followed.next().await?;
            self.left = left;
            Ok(Some(1))
        })
    }
}

async fn catch_up(plan: &Plan, side: &Side) -> anyhow::Result<Outcome> {
    let mut streams = generated::streams(side.server.port).await?;
    let everything = From::Stream(leftfold::STREAM.to_owned());
    let work = CatchingUp {
        followed: generated::follow(&mut streams, everything).await?,
        left: stored(plan),
    };
    closed::run(vec![Box::new(work)], None, &side.server).await
}

/// What the consumers of one group have left to take together.
#[derive(Debug)]
struct Rest {
    left: AtomicU64,
    none_left: watch::Sender<bool>,
}

/// One of the consumers of a group.
struct Consuming {
    consumer: Consumer,
    rest: Arc<Rest>,
    over: watch::Receiver<bool>,
}

impl Work for Consuming {
    fn once(&mut self) -> BoxFuture<'_, anyhow::Result<Option<u64>>> {
        let Self {
            consumer,
            rest,
            over,
        } = self;
        Box::pin(async move {
            let is_over = async {
                // It fails only if the sender is gone, which this value keeps.
                let _ = over.wait_for(|over| *over).await;
            };
            tokio::select! {
                biased;
                moment = consumer.next() => { moment?; }
                () = is_over => {
                    consumer.acknowledge().await?;
                    return Ok(None);
                }
            }
            if rest.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                rest.none_left.send_replace(true);
            }
            Ok(Some(1))
        })
    }
}

async fn take_all(plan: &Plan, side: &Side, consumers: u64) -> anyhow::Result<Outcome> {
    let mut groups = Groups::connect(side.server.port).await?;
    let name = format!("run-{}", plan.next_run());
    groups.create(leftfold::STREAM, &name).await?;
    let (none_left, over) = watch::channel(false);
    let rest = Arc::new(Rest {
        left: AtomicU64::new(stored(plan)),
        none_left,
    });
    let mut works = Vec::new();
    for _ in 0..consumers {
        let mut own = Groups::connect(side.server.port).await?;
        works.push(Box::new(Consuming {
            consumer: own.join(leftfold::STREAM, &name, WINDOW).await?,
            rest: Arc::clone(&rest),
            over: over.clone(),
        }) as Box<dyn Work>);
    }
    let outcome = closed::run(works, None, &side.server).await?;
    let parked = groups.parked(leftfold::STREAM, &name).await?;
    anyhow::ensure!(parked == 0, "{parked} events are parked");
    Ok(outcome)
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

/// Creates groups of a stream each and joins each of them once.
async fn join(side: &Side, run: u64, count: u64) -> anyhow::Result<Vec<Consumer>> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Groups::connect(side.server.port).await?);
    }
    let mut joined = Vec::new();
    for number in 0..count {
        let connection = connections.get_mut(joined.len() % CONNECTIONS);
        let groups = connection.context("no connection")?;
        let stream = stream(run, number);
        groups.create(&stream, "g").await?;
        joined.push(groups.join(&stream, "g", 100).await?);
    }
    Ok(joined)
}

fn stream(run: u64, number: u64) -> String {
    format!("grouped_{run}-{number}")
}

async fn live(plan: &Plan, side: &Side) -> anyhow::Result<Outcome> {
    let run = plan.next_run();
    let arrivals = Arrivals::new();
    // They end with this value.
    let mut consuming = JoinSet::new();
    for consumer in join(side, run, LIVE_GROUPS).await? {
        consuming.spawn(take(consumer, Arc::clone(&arrivals)));
    }
    let client = leftfold::client(side.server.port).await?;
    let pace = Pace {
        writers: WRITERS,
        per_second: APPENDS_PER_SECOND,
        followers_of_each: 1,
        timing: plan.timing,
    };
    let append = move |writer, count| {
        let client = client.clone();
        // Each writer goes through the streams, from a place of its own.
        let number = (writer * (LIVE_GROUPS / WRITERS) + count) % LIVE_GROUPS;
        async move { append(&client, stream(run, number)).await }
    };
    delivery::run(pace, &side.server, &arrivals, append).await
}

async fn take(mut consumer: Consumer, arrivals: Arc<Arrivals>) {
    loop {
        match consumer.next().await {
            Ok(begun) => arrivals.took(begun),
            Err(error) => return arrivals.failed(error),
        }
    }
}

/// Joins idle groups, one after the other.
struct Joining {
    groups: Groups,
    run: u64,
    joined: Vec<Consumer>,
}

impl Work for Joining {
    fn once(&mut self) -> BoxFuture<'_, anyhow::Result<Option<u64>>> {
        Box::pin(async {
            let number = self.joined.len() as u64;
            if number == IDLE_GROUPS {
                return Ok(None);
            }
            let stream = stream(self.run, number);
            self.groups.create(&stream, "g").await?;
            let consumer = self.groups.join(&stream, "g", 100).await?;
            self.joined.push(consumer);
            Ok(Some(1))
        })
    }
}

async fn idle(plan: &Plan, side: &Side) -> anyhow::Result<Outcome> {
    let (before, _) = machine::memory(side.server.process())?;
    let work = Joining {
        groups: Groups::connect(side.server.port).await?,
        run: plan.next_run(),
        joined: Vec::new(),
    };
    let outcome = closed::run(vec![Box::new(work)], None, &side.server).await?;
    Ok(Outcome {
        resident_mib: outcome.resident_mib - before,
        ..outcome
    })
}
