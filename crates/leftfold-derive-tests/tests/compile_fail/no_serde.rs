//! A mistake.

use leftfold::Event;

#[derive(Event)]
enum AccountEvent {
    #[event("DepositMade")]
    DepositMade { amount: u64 },
}

fn main() {}
