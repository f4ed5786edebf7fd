//! A mistake.

use leftfold::{Aggregate, Event, Store};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event("DepositMade")]
    DepositMade { amount: u64 },
}

#[derive(Default)]
struct BankAccount {
    balance: u64,
}

impl Aggregate for BankAccount {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        let AccountEvent::DepositMade { amount } = event;
        self.balance += amount;
    }
}

async fn deposit(store: &Store) {
    let accounts = store.repository::<BankAccount>();
    let _ = accounts.execute("1", |account| Ok::<_, String>(account.balance + 5)).await;
}

fn main() {}
