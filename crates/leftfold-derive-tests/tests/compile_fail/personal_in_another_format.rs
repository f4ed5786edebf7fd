//! A mistake.

use leftfold::{Event, Personal};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(format = "cbor")]
enum RoomEvent {
    #[event("RoomBooked")]
    Booked {
        guest: String,
        #[personal(subject = "guest")]
        name: Personal<String>,
    },
}

fn main() {}
