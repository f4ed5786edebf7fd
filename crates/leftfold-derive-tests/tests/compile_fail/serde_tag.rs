//! An enum of events whose type would stand within its data.

use serde::{Deserialize, Serialize};

#[derive(leftfold::Event, Serialize, Deserialize)]
#[serde(tag = "type")]
enum AccountEvent {
    #[event("DepositMade")]
    DepositMade { amount: u64 },
}

fn main() {}
