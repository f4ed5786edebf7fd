//! A mistake.

use leftfold::{Event, Store};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event("DepositMade")]
    DepositMade { amount: u64 },
}

fn main() {
    let _accounts = Store::memory().repository::<AccountEvent>();
}
