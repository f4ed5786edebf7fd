//! A mistake.

use leftfold::{Event, Personal};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum RoomEvent {
    #[event("RoomBooked")]
    Booked {
        guest: String,
        owner: String,
        #[personal(subject = "guest")]
        #[personal(subject = "owner")]
        name: Personal<String>,
    },
}

fn main() {}
