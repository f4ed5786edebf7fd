//! A mistake.

use leftfold::{Event, Personal};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum RoomEvent {
    #[event("RoomBooked")]
    Booked {
        guest: String,
        #[personal(subject = "guest")]
        name: String,
        #[personal(subject = "guest")]
        card: Personal<Option<u64>>,
    },
}

fn main() {}
