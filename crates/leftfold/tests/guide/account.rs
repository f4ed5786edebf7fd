//! The bank account of the guide.

use AccountEvent::{Deposited, Withdrawn};
use leftfold::{Aggregate, Event, testing::Given};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum AccountEvent {
    #[event("MoneyDeposited")]
    Deposited { cents: u64 },
    #[event("MoneyWithdrawn")]
    Withdrawn { cents: u64 },
}

#[derive(Debug, PartialEq)]
pub(crate) struct InsufficientFunds {
    pub(crate) balance: u64,
}

#[derive(Default, Debug, PartialEq)]
pub(crate) struct BankAccount {
    pub(crate) balance: u64,
}

impl BankAccount {
    pub(crate) fn deposit(&self, cents: u64) -> Result<AccountEvent, InsufficientFunds> {
        Ok(Deposited { cents })
    }

    pub(crate) fn withdraw(&self, cents: u64) -> Result<AccountEvent, InsufficientFunds> {
        let balance = self.balance;
        if cents > balance {
            return Err(InsufficientFunds { balance });
        }
        Ok(Withdrawn { cents })
    }
}

impl Aggregate for BankAccount {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            Deposited { cents } => self.balance += cents,
            Withdrawn { cents } => self.balance -= cents,
        }
    }
}

#[test]
fn no_more_is_withdrawn_than_was_deposited() {
    let had = || Given::<BankAccount>::events([Deposited { cents: 100 }]);
    had().when(|a| a.withdraw(9)).then([Withdrawn { cents: 9 }]);
    had()
        .when(|a| a.withdraw(150))
        .then_err(InsufficientFunds { balance: 100 });
}
