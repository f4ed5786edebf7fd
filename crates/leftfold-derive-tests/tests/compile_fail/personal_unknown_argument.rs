//! A mistake.

use leftfold::{Event, Personal};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum RoomEvent {
    #[event("RoomBooked")]
    Booked {
        guest: String,
        #[personal(of = "guest")]
        card: Personal<u64>,
    },
}

fn main() {}
