//! Events with a sealed field beside events with the value in clear.
//!
//! **Owns:** two aggregates that differ in that field alone. **Does not know:** how a field is sealed.
//! **Invariants:** both sides alternate, operation by operation, on one embedded store; keys are in a file.

use std::{path::Path, time::Instant};

use leftfold::{Aggregate, Event, FileKeys, Personal, Repository, Store};
use serde::{Deserialize, Serialize};

use crate::median;

/// Operations of each side in a run.
const APPENDS: usize = 1_000;
const LOADS: usize = 200;
/// Events of the aggregate that is loaded.
const EVENTS: u64 = 1_000;
const NAME: &str = "Ann Example, 12 Long Street, Little Town";

#[derive(Event, Serialize, Deserialize)]
enum SealedEvent {
    #[event("RoomBooked")]
    Booked {
        guest: String,
        #[personal(subject = "guest")]
        name: Personal<String>,
        nights: u32,
    },
}

#[derive(Default)]
struct Sealed {
    letters: usize,
}

impl Aggregate for Sealed {
    const CATEGORY: &'static str = "sealed";
    type Event = SealedEvent;
    fn apply(&mut self, event: &SealedEvent) {
        let SealedEvent::Booked { name, .. } = event;
        self.letters += name.get().map_or(0, String::len);
    }
}

#[derive(Event, Serialize, Deserialize)]
enum ClearEvent {
    #[event("RoomBooked")]
    Booked {
        guest: String,
        name: String,
        nights: u32,
    },
}

#[derive(Default)]
struct Clear {
    letters: usize,
}

impl Aggregate for Clear {
    const CATEGORY: &'static str = "clear";
    type Event = ClearEvent;
    fn apply(&mut self, event: &ClearEvent) {
        let ClearEvent::Booked { name, .. } = event;
        self.letters += name.len();
    }
}

fn sealed(nth: u64) -> SealedEvent {
    SealedEvent::Booked {
        guest: format!("g{}", nth % 100),
        name: Personal::new(NAME.into()),
        nights: 2,
    }
}

fn clear(nth: u64) -> ClearEvent {
    ClearEvent::Booked {
        guest: format!("g{}", nth % 100),
        name: NAME.into(),
        nights: 2,
    }
}

async fn open(directory: &Path) -> anyhow::Result<(Repository<Sealed>, Repository<Clear>, Store)> {
    let plain = Store::open(directory.join("data")).await?;
    let keys = FileKeys::open(directory.join("keys")).await?;
    let store = plain.clone().with_keys(keys);
    Ok((store.repository(), plain.repository(), store))
}

/// Commands of one event each, to one aggregate of each side; medians in microseconds, sealed and in clear.
pub(crate) async fn append(directory: &Path) -> anyhow::Result<(f64, f64)> {
    std::fs::create_dir_all(directory)?;
    let (of_sealed, of_clear, store) = open(directory).await?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for nth in 0..(APPENDS + 100) as u64 {
        let begun = Instant::now();
        of_sealed.execute(&nth.to_string(), |_| sealed(nth)).await?;
        a.push(begun.elapsed().as_secs_f64() * 1e6);
        let begun = Instant::now();
        of_clear.execute(&nth.to_string(), |_| clear(nth)).await?;
        b.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    store.close().await?;
    // The first ones create the keys of their subjects.
    Ok((
        median(a.get(100..).unwrap_or_default()),
        median(b.get(100..).unwrap_or_default()),
    ))
}

/// Loads of an aggregate; medians in microseconds, sealed and in clear.
pub(crate) async fn load(directory: &Path) -> anyhow::Result<(f64, f64)> {
    std::fs::create_dir_all(directory)?;
    let (of_sealed, of_clear, store) = open(directory).await?;
    of_sealed
        .execute("1", |_| (0..EVENTS).map(sealed).collect::<Vec<_>>())
        .await?;
    of_clear
        .execute("1", |_| (0..EVENTS).map(clear).collect::<Vec<_>>())
        .await?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..LOADS {
        let begun = Instant::now();
        let loaded = of_sealed.load("1").await?;
        a.push(begun.elapsed().as_secs_f64() * 1e6);
        let begun = Instant::now();
        let other = of_clear.load("1").await?;
        b.push(begun.elapsed().as_secs_f64() * 1e6);
        let letters = NAME.len() * EVENTS as usize;
        anyhow::ensure!(loaded.state().letters == letters && other.state().letters == letters);
    }
    store.close().await?;
    Ok((median(&a), median(&b)))
}
