//! A variant that is written and never read.

use serde::{Deserialize, Serialize};

#[derive(leftfold::Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event("DepositMade")]
    #[serde(skip_deserializing)]
    DepositMade { amount: u64 },
    #[event("WithdrawalMade")]
    WithdrawalMade { amount: u64 },
}

fn main() {}
