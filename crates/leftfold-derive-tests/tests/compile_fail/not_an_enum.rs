//! A mistake.

use leftfold::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct DepositMade {
    amount: u64,
}

fn main() {}
