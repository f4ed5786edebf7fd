//! A mistake.

use leftfold::{Event, Personal};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum RoomEvent {
    #[event("RoomBooked")]
    Booked {
        booked_by: String,
        #[personal(subject = "guest")]
        name: Personal<String>,
    },
}

fn main() {}
