//! Two hotels that share a store and cannot see each other.
//!
//! In memory: `cargo run -p leftfold --example tenants`. In a directory: add `-- data`.

use std::{env, error::Error};

use leftfold::{Aggregate, Event, Store};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum RoomEvent {
    #[event("RoomBooked")]
    Booked {
        #[tag("guest")]
        guest: String,
    },
}

#[derive(Default)]
struct Room {
    nights: u32,
}

impl Room {
    fn book(&self, guest: &str) -> RoomEvent {
        RoomEvent::Booked {
            guest: guest.to_owned(),
        }
    }
}

impl Aggregate for Room {
    const CATEGORY: &'static str = "room";
    type Event = RoomEvent;

    fn apply(&mut self, event: &RoomEvent) {
        let RoomEvent::Booked { .. } = event;
        self.nights += 1;
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = match env::args().nth(1) {
        Some(directory) => Store::open(directory).await?,
        None => Store::memory(),
    };
    for (hotel, guests) in [("grand", vec!["ann", "bob"]), ("grand.annex", vec!["ann"])] {
        let hotel = store.tenant(hotel)?;
        let rooms = hotel.repository::<Room>();
        for guest in guests {
            rooms.execute("101", |room| room.book(guest)).await?;
        }
    }
    for name in ["grand", "grand.annex"] {
        let hotel = store.tenant(name)?;
        let room = hotel.repository::<Room>().load("101").await?;
        println!(
            "{name}: room 101 was booked for {} nights",
            room.state().nights
        );
    }
    println!(
        "all hotels: {} bookings",
        store.events::<RoomEvent>().collect().await?.len()
    );
    store.close().await?;
    Ok(())
}
