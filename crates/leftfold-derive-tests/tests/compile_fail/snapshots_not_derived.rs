//! A mistake.

use leftfold::{Aggregate, Event, Store};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event("DepositMade")]
    DepositMade { amount: u64 },
}

#[derive(Default)]
struct BankAccount;

impl Aggregate for BankAccount {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, _: &AccountEvent) {}
}

fn main() {
    let _accounts = Store::memory().repository::<BankAccount>().with_snapshots();
}
