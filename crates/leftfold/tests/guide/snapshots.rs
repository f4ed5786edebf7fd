//! The account with snapshots: the chapter on snapshots.

use leftfold::{Aggregate, Shape, Snapshot, Store};
use serde::{Deserialize, Serialize};

use crate::account::{AccountEvent, InsufficientFunds};

#[derive(Default, Serialize, Deserialize, Shape)]
struct Totals {
    deposited: u64,
    withdrawn: u64,
}

#[derive(Default, Serialize, Deserialize, Snapshot)]
#[snapshot(version = 1, every = 100)]
struct BusyAccount {
    balance: u64,
    totals: Totals,
}

impl Aggregate for BusyAccount {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited { cents } => {
                self.balance += cents;
                self.totals.deposited += cents;
            }
            AccountEvent::Withdrawn { cents } => {
                self.balance -= cents;
                self.totals.withdrawn += cents;
            }
        }
    }
}

#[tokio::test]
async fn a_load_begins_with_the_snapshot() -> Result<(), Box<dyn std::error::Error>> {
    let accounts = Store::memory().repository::<BusyAccount>().with_snapshots();
    for _ in 0..99 {
        accounts
            .execute("7f3", |_| {
                Ok::<_, InsufficientFunds>(AccountEvent::Deposited { cents: 1 })
            })
            .await?;
    }
    assert_eq!(accounts.load("7f3").await?.events_replayed(), 99); // not yet
    accounts.snapshot("7f3").await?; // now, instead of after the hundredth event
    let loaded = accounts.load("7f3").await?;
    assert_eq!((loaded.state().balance, loaded.events_replayed()), (99, 0));
    assert_eq!(loaded.state().totals.deposited, 99);
    Ok(())
}
