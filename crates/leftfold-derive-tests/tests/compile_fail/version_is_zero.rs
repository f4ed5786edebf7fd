//! A mistake.

use leftfold::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event("DepositMade", version = 0)]
    DepositMade { amount: u64 },
}

fn main() {}
