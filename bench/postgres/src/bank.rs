//! The bank: one domain for all sides.
//!
//! **Owns:** our account, and which accounts there are. **Does not know:** stores.
//! **Invariants:** the same numbers for every side.

use leftfold::{Aggregate, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum AccountEvent {
    #[event("MoneyDeposited")]
    Deposited { cents: u64 },
}

#[derive(Default, Debug)]
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
        let AccountEvent::Deposited { cents } = event;
        self.balance += cents;
    }
}

/// Accounts of each caller; each caller has its own, so that no command meets a conflict.
pub(crate) const ACCOUNTS_EACH: u64 = 50;

/// The account of a caller's nth command.
pub(crate) fn account(caller: u64, command: u64) -> String {
    format!("{caller}-{}", command % ACCOUNTS_EACH)
}
