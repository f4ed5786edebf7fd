//! A mistake.

use leftfold::{Event, UnknownEvent};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event(other)]
    Other(UnknownEvent),
    #[event("DepositMade")]
    DepositMade { amount: u64 },
}

fn main() {}
