//! A mistake.

use leftfold::Snapshot;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Money {
    cents: i64,
}

#[derive(Default, Serialize, Deserialize, Snapshot)]
struct BankAccount {
    balance: Money,
}

fn main() {}
