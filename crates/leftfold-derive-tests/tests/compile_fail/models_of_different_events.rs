//! A mistake.

use leftfold::{Boundary, Event, Model, Store};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event("DepositMade")]
    DepositMade { amount: u64 },
}

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    #[event("LoanGranted")]
    LoanGranted { amount: u64 },
}

#[derive(Clone)]
struct Account;

impl Model for Account {
    type Event = AccountEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("account", 1)
    }
    fn apply(&mut self, _: &AccountEvent) {}
}

#[derive(Clone)]
struct Loan;

impl Model for Loan {
    type Event = LoanEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("loan", 1)
    }
    fn apply(&mut self, _: &LoanEvent) {}
}

fn main() {
    let _decision = Store::memory().decision((Account, Loan));
}
