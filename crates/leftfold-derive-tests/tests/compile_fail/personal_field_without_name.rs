//! A mistake.

use leftfold::{Event, Personal};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum RoomEvent {
    #[event("RoomBooked")]
    Booked(#[personal(subject = "guest")] Personal<String>),
}

fn main() {}
