//! The bank: one domain for all sides, and the work they do.
//!
//! **Owns:** our account, the lengths of histories, the order of commands. **Does not know:** stores.
//! **Invariants:** the same numbers for every side, from arithmetic alone.

use leftfold::{Aggregate, Event, Snapshot};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum AccountEvent {
    #[event("MoneyDeposited")]
    Deposited { cents: u64 },
    #[event("MoneyWithdrawn")]
    Withdrawn { cents: u64 },
}

#[derive(Default, Debug, Serialize, Deserialize, Snapshot)]
#[snapshot(every = 50)]
pub(crate) struct Account {
    pub(crate) balance: u64,
}

impl Account {
    pub(crate) fn deposit(&self, cents: u64) -> Result<AccountEvent, String> {
        Ok(AccountEvent::Deposited { cents })
    }
}

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited { cents } => self.balance += cents,
            AccountEvent::Withdrawn { cents } => self.balance -= cents,
        }
    }
}

pub(crate) const ACCOUNTS: u64 = 10_000;

/// How many events each account has: 1 to 500, most of them few, the square of a number spread evenly.
pub(crate) fn workload() -> Vec<u64> {
    let length = |n: u64| {
        let spread = n.wrapping_mul(7_919) % 1_000;
        1 + 499 * spread * spread / 998_001
    };
    (0..ACCOUNTS).map(length).collect()
}

/// The account of the nth command.
pub(crate) fn account_of(command: u64) -> u64 {
    command
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407)
        / 65_536
        % ACCOUNTS
}
