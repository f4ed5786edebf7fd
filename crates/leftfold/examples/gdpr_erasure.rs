//! A guest books, stays, and is forgotten: events stay, the name does not.
//!
//! In memory: `cargo run -p leftfold --example gdpr_erasure`. In a directory: add `-- data`. The keys are then in `data-keys`,
//! because keys are kept apart from the log.

use std::{collections::BTreeMap, env, error::Error, time::Duration};

use leftfold::{
    Aggregate, Event, FileKeys, HandlerError, MemoryKeys, MemoryTransaction, MemoryView, Personal,
    Projection, Recorded, Store,
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum RoomEvent {
    #[event("RoomBooked")]
    Booked {
        guest: String,
        #[personal(subject = "guest")]
        name: Personal<String>,
        nights: u32,
    },
}

#[derive(Default)]
struct Room {
    nights: u32,
    guests: Vec<String>,
}

impl Aggregate for Room {
    const CATEGORY: &'static str = "room";
    type Event = RoomEvent;

    fn apply(&mut self, event: &RoomEvent) {
        let RoomEvent::Booked { name, nights, .. } = event;
        self.nights += nights;
        let name = name
            .get()
            .map_or("a guest who was forgotten", String::as_str);
        self.guests.push(name.to_owned());
    }
}

/// What the list of guests sees: bookings, and who was forgotten.
#[derive(Event, Serialize, Deserialize)]
#[event(unknown = "skip")]
enum Seen {
    #[event("RoomBooked")]
    Booked {
        guest: String,
        #[personal(subject = "guest")]
        name: Personal<String>,
    },
    #[event("SubjectForgotten")]
    Forgotten { subject: String, id: String },
}

/// The names of guests by their pseudonyms: a view, which deletes the names of forgotten guests.
struct GuestList;

impl Projection for GuestList {
    type Event = Seen;
    type View = MemoryView<BTreeMap<String, String>>;
    const NAME: &'static str = "guest-list";
    const VERSION: u32 = 1;

    async fn project(
        &self,
        guests: &mut MemoryTransaction<BTreeMap<String, String>>,
        event: &Recorded<Seen>,
    ) -> Result<(), HandlerError> {
        match &event.event {
            Seen::Booked { guest, name } => {
                if let Some(name) = name.get() {
                    guests.insert(guest.clone(), name.clone());
                }
            }
            Seen::Forgotten { subject, id } if subject == "guest" => {
                guests.remove(id);
            }
            Seen::Forgotten { .. } => {}
        }
        Ok(())
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = match env::args().nth(1) {
        Some(directory) => {
            let keys = FileKeys::open(format!("{directory}-keys")).await?;
            Store::open(directory).await?.with_keys(keys)
        }
        None => Store::memory().with_keys(MemoryKeys::new()),
    };
    let list = MemoryView::new();
    let projection = store.project(GuestList, list.clone()).spawn();
    let rooms = store.repository::<Room>();

    for (email, name) in [("ann@example.org", "Ann"), ("bob@example.org", "Bob")] {
        let guest = store.pseudonym("guest", email).await?;
        let book = |_: &Room| RoomEvent::Booked {
            guest: guest.clone(),
            name: Personal::new(name.to_owned()),
            nights: 2,
        };
        rooms.execute("101", book).await?;
    }
    let room = rooms.load("101").await?;
    println!("{} nights: {:?}", room.state().nights, room.state().guests);

    store.forget("guest", "ann@example.org").await?;

    let room = rooms.load("101").await?;
    println!("{} nights: {:?}", room.state().nights, room.state().guests);
    let head = store.event_store().head().await?;
    projection.wait_for(head, Duration::from_secs(5)).await?;
    list.read(|guests: &BTreeMap<String, String>| {
        println!("on the list: {:?}", guests.values().collect::<Vec<_>>());
    });
    projection.stop().await?;
    store.close().await?;
    Ok(())
}
