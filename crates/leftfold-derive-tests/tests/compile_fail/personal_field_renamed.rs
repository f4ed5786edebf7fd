//! A mistake.

use leftfold::{Event, Personal};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum RoomEvent {
    #[event("RoomBooked")]
    Booked {
        guest: String,
        #[personal(subject = "guest")]
        #[serde(rename = "n")]
        name: Personal<String>,
    },
}

fn main() {}
