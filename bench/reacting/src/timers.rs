//! How late the timers of processes fire.
//!
//! **Owns:** a process whose timers are due evenly over time. **Does not know:** how timers are kept.
//! **Invariants:** every timer is set before the first is due, or the run fails; lateness is from when a timer is due to when
//! the command of its reaction, which is then durable, is carried out.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use leftfold::{
    Aggregate, CommandHandler, Event, HandlerError, Process, Reaction, Recorded, Seen, Sent, Store,
    model::{Append, EventType, ExpectedRevision, NewEvent, Position, StreamName, Timestamp},
};
use serde::{Deserialize, Serialize};

use crate::quantile;

/// Timers that are set per second, at the least: the first is due when all should be set.
const SET_PER_SECOND: u64 = 2_500;

#[derive(Event, Serialize, Deserialize)]
enum AlarmEvent {
    #[event("AlarmWanted")]
    Wanted { due_us: u64, nth: u64 },
}

#[derive(Event, Serialize, Deserialize)]
enum WakerEvent {
    #[event("WakerSet")]
    Set,
    #[event("WakerFired")]
    Fired,
}

#[derive(Default)]
struct Waker;

impl Aggregate for Waker {
    const CATEGORY: &'static str = "waker";
    type Event = WakerEvent;
    fn apply(&mut self, _: &WakerEvent) {}
}

struct Ring;

impl Process for Waker {
    type Sees = AlarmEvent;
    type Command = Ring;
    const NAME: &'static str = "waker";

    fn route(event: &Recorded<AlarmEvent>) -> Option<String> {
        let AlarmEvent::Wanted { due_us, nth } = event.event;
        Some(format!("{due_us}-{nth}"))
    }

    fn react(&self, seen: Seen<'_, AlarmEvent>) -> Reaction<WakerEvent, Ring> {
        match seen {
            Seen::Event(event) => {
                let AlarmEvent::Wanted { due_us, .. } = event.event;
                Reaction::remember(WakerEvent::Set).at("ring", Timestamp::from_micros(due_us))
            }
            Seen::Timer(_) => Reaction::remember(WakerEvent::Fired).send(Ring),
        }
    }
}

fn now_us() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// Notes how late each timer is, in milliseconds.
#[derive(Clone, Default)]
struct Bell(Arc<Mutex<Vec<f64>>>);

impl CommandHandler<Ring> for Bell {
    async fn carry_out(&self, _: &Ring, sent: &Sent) -> Result<(), HandlerError> {
        let due = sent
            .process_id()
            .split('-')
            .next()
            .unwrap_or_default()
            .parse::<u64>()?;
        let late = now_us().saturating_sub(due) as f64 / 1_000.0;
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(late);
        Ok(())
    }
}

async fn want(store: &Store, timers: u64, first_us: u64, per_second: u64) -> anyhow::Result<()> {
    let stream = StreamName::new("alarm-all")?;
    for batch in (0..timers).collect::<Vec<_>>().chunks(100) {
        let wanted = |nth: &u64| {
            let due_us = first_us + nth * 1_000_000 / per_second;
            let event = AlarmEvent::Wanted { due_us, nth: *nth };
            let event_type = EventType::new(event.event_type())?;
            anyhow::Ok(NewEvent::json(event_type, event.encode()?.data))
        };
        let events = batch.iter().map(wanted).collect::<Result<_, _>>()?;
        let append = Append::to(stream.clone(), ExpectedRevision::Any, events)?;
        store.event_store().append(append).await?;
    }
    Ok(())
}

/// Sets timers, and lets them fire at an even rate; how late they are in milliseconds, p99 and p50.
pub(crate) async fn lateness(
    directory: &Path,
    timers: u64,
    per_second: u64,
) -> anyhow::Result<(f64, f64)> {
    let store = Store::open(directory).await?;
    let first_us = now_us() + 1_000_000 + timers * 1_000_000 / SET_PER_SECOND;
    want(&store, timers, first_us, per_second).await?;
    let bell = Bell::default();
    let waker = store.process::<Waker, _>(bell.clone()).parallel(64).spawn();
    waker.wait_for(Position::new(timers)).await?;
    let early_us = first_us.saturating_sub(now_us());
    anyhow::ensure!(early_us > 0, "the first timer was due before all were set");
    let rung = || {
        bell.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    };
    while (rung().len() as u64) < timers {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    waker.stop().await?;
    let late = rung();
    anyhow::ensure!(
        late.len() as u64 == timers,
        "{} of {timers} timers fired",
        late.len()
    );
    store.close().await?;
    Ok((quantile(&late, 0.99), quantile(&late, 0.5)))
}
