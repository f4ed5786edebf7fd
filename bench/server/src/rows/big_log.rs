//! Leftfold beside one peer on a log of millions of events: written, read, followed, appended to.
//!
//! **Owns:** the rows on the big log. **Does not know:** how a client asks.
//! **Invariants:** both servers hold the same events, in almost the same order; the first one is the only one of its type.

use std::sync::{Arc, atomic::AtomicU64};

use crate::{
    closed::{self, Work},
    delivery::{self, Arrivals, Pace},
    event::{Batch, EVENTS_PER_TAG, KIND_NEVER, KIND_ONCE},
    outcome::Outcome,
    plan::Plan,
    report::Report,
    server::Kind,
    wire::{Connection, Wire},
};

use super::{
    Side,
    beside::Section,
    counted, in_turn, start,
    work::{Appending, Guard, Load, Loading, ReadingAll, ReadingTags},
};

const LOADERS: u64 = 4;
/// Appends per second while someone follows: far from what any of the servers can take.
const FOLLOWED_PACE: u64 = 500;

/// The rows' names.
struct Names {
    load: String,
    tag: Vec<(u64, String)>,
    whole: String,
    never: String,
    once: String,
    arrival: String,
}

impl Names {
    fn of(section: &Section, plan: &Plan) -> Self {
        let name = |what: &str| format!("{}, big log: {what}", section.name);
        let readers = plan.choose(section.readers, 8);
        let read = |readers| {
            (
                readers,
                name(&format!("one tag, {}", counted(readers, "reader"))),
            )
        };
        Self {
            load: name("load, 4 writers x 100, 100 tags each"),
            tag: readers.into_iter().map(read).collect(),
            whole: name("whole log, 1 reader"),
            never: name("1 writer x 1, condition on a type that never happened"),
            once: name("1 writer x 1, condition on a type that happened once, before"),
            arrival: name("append to arrival, 1 writer at 500/s"),
        }
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        let tags = self.tag.iter().map(|(_, name)| name);
        tags.chain([
            &self.load,
            &self.whole,
            &self.never,
            &self.once,
            &self.arrival,
        ])
    }
}

pub(super) async fn rows(
    plan: &Plan,
    report: &mut Report,
    section: &Section,
) -> anyhow::Result<()> {
    let names = Names::of(section, plan);
    if !names.all().any(|name| plan.wants(name)) {
        return Ok(());
    }
    let mut sides = start(plan, &section.sides).await?;
    // So many events that each tag has as many as it should.
    let events = (plan.events / EVENTS_PER_TAG).max(1) * EVENTS_PER_TAG;
    let first = first_events(&sides).await?;
    let loaded = in_turn(1, &sides, async |side| load(side, events).await).await?;
    if plan.wants(&names.load) {
        report.row(&names.load, &loaded, None);
    }
    for (readers, name) in &names.tag {
        if plan.wants(name) {
            let measure = async |side: &Side| read_tags(plan, side, events, *readers).await;
            report.row(name, &in_turn(plan.runs, &sides, measure).await?, None);
        }
    }
    if plan.wants(&names.whole) {
        let measure = async |side: &Side| read_all(side, events).await;
        report.row(
            &names.whole,
            &in_turn(plan.runs, &sides, measure).await?,
            None,
        );
    }
    for (name, kind) in [(&names.never, KIND_NEVER), (&names.once, KIND_ONCE)] {
        if plan.wants(name) {
            let measure = async |side: &Side| {
                let after = (kind == KIND_ONCE).then(|| position_of(&first, side.server.kind));
                append_guarded(plan, side, Guard::Kind(kind, after)).await
            };
            report.row(name, &in_turn(plan.runs, &sides, measure).await?, None);
        }
    }
    if plan.wants(&names.arrival) {
        for (side, (_, wire)) in sides.iter_mut().zip(followers(plan, section)) {
            side.wire = wire;
        }
        let measure = async |side: &Side| arrival(plan, side).await;
        report.row(
            &names.arrival,
            &in_turn(plan.runs, &sides, measure).await?,
            None,
        );
    }
    Ok(())
}

/// The sides as they are where someone follows.
fn followers(plan: &Plan, section: &Section) -> impl Iterator<Item = (Kind, Wire)> {
    section
        .shared
        .into_iter()
        .filter(|(kind, _)| plan.has(*kind))
}

/// Appends the event whose type happens once; answers where it stands.
async fn first_events(sides: &[Side]) -> anyhow::Result<Vec<(Kind, u64)>> {
    let mut positions = Vec::new();
    for side in sides {
        let connection = side.wire.connect(side.server.port).await?;
        let first = Batch {
            kind: KIND_ONCE,
            ..Batch::new("bank", 1)
        };
        positions.push((side.server.kind, connection.append(first).await?));
    }
    Ok(positions)
}

fn position_of(first: &[(Kind, u64)], kind: Kind) -> u64 {
    let found = first.iter().find(|(of, _)| *of == kind);
    found.map_or(0, |(_, position)| *position)
}

fn boxed(works: impl Iterator<Item = impl Work>) -> Vec<Box<dyn Work>> {
    works.map(|work| Box::new(work) as Box<dyn Work>).collect()
}

async fn load(side: &Side, events: u64) -> anyhow::Result<Outcome> {
    let load = Arc::new(Load {
        events,
        next: AtomicU64::new(0),
    });
    let connections = side.wire.callers(side.server.port, LOADERS, false).await?;
    let works = connections.into_iter().map(|connection| Loading {
        connection,
        load: Arc::clone(&load),
    });
    closed::run(boxed(works), None, &side.server).await
}

async fn read_tags(plan: &Plan, side: &Side, events: u64, readers: u64) -> anyhow::Result<Outcome> {
    let load = Arc::new(Load {
        events,
        next: AtomicU64::new(events),
    });
    let connections = side.wire.callers(side.server.port, readers, false).await?;
    let works = (0..)
        .zip(connections)
        .map(|(reader, connection)| ReadingTags {
            connection,
            load: Arc::clone(&load),
            next: reader * load.tags() / readers,
        });
    closed::run(boxed(works), Some(plan.timing), &side.server).await
}

async fn read_all(side: &Side, events: u64) -> anyhow::Result<Outcome> {
    let work = ReadingAll {
        connection: side.wire.connect(side.server.port).await?,
        at_least: events,
        done: false,
    };
    closed::run(vec![Box::new(work)], None, &side.server).await
}

async fn append_guarded(plan: &Plan, side: &Side, guard: Guard) -> anyhow::Result<Outcome> {
    let work = Appending {
        connection: side.wire.connect(side.server.port).await?,
        name: format!("run-{}", plan.next_run()),
        events: 1,
        guard,
        count: 0,
        last: None,
    };
    closed::run(vec![Box::new(work)], Some(plan.timing), &side.server).await
}

async fn arrival(plan: &Plan, side: &Side) -> anyhow::Result<Outcome> {
    let connect = || side.wire.connect(side.server.port);
    let (writer, follower): (Arc<dyn Connection>, _) = (connect().await?, connect().await?);
    let arrivals = Arrivals::new();
    let moments = follower.follow(follower.head().await?).await?;
    let taking = tokio::spawn(Arc::clone(&arrivals).take_all(moments));
    let pace = Pace {
        writers: 1,
        per_second: FOLLOWED_PACE,
        followers_of_each: 1,
        timing: plan.timing,
    };
    let run = plan.next_run();
    let append = move |_, count| {
        let writer = Arc::clone(&writer);
        async move {
            let tag = format!("run-{run}-{}", count / EVENTS_PER_TAG);
            writer.append(Batch::new(&tag, 1)).await?;
            Ok(())
        }
    };
    let outcome = delivery::run(pace, &side.server, &arrivals, append).await;
    taking.abort();
    outcome
}
