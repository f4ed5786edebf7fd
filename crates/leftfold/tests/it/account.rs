//! The bank account that the tests tell their stories with.

use leftfold::{Aggregate, Event, Snapshot};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum AccountEvent {
    #[event("DepositMade")]
    DepositMade { amount: u64 },
    #[event("WithdrawalMade")]
    WithdrawalMade { amount: u64 },
}

#[derive(Debug, PartialEq)]
pub(crate) struct InsufficientFunds {
    pub(crate) balance: u64,
    pub(crate) requested: u64,
}

#[derive(Default, Debug, PartialEq, Serialize, Deserialize, Snapshot)]
#[snapshot(every = 5)]
pub(crate) struct BankAccount {
    pub(crate) balance: u64,
}

impl BankAccount {
    pub(crate) fn deposit(&self, amount: u64) -> Result<AccountEvent, InsufficientFunds> {
        Ok(AccountEvent::DepositMade { amount })
    }

    pub(crate) fn withdraw(&self, requested: u64) -> Result<AccountEvent, InsufficientFunds> {
        let balance = self.balance;
        if requested > balance {
            return Err(InsufficientFunds { balance, requested });
        }
        Ok(AccountEvent::WithdrawalMade { amount: requested })
    }
}

impl Aggregate for BankAccount {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::DepositMade { amount } => self.balance += amount,
            AccountEvent::WithdrawalMade { amount } => self.balance -= amount,
        }
    }
}
