//! A mistake.

use leftfold::{Event, RawEvent};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event(other)]
    Other(RawEvent),
    #[event("DepositMade")]
    DepositMade { amount: u64 },
}

fn main() {}
