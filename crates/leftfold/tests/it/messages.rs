//! Messages about accounts, for the tests of every transport.
//!
//! **Owns:** [`Deposits`], [`Movements`]. **Does not know:** how messages are delivered.

use leftfold::{Outgoing, Recorded};
use serde_json::{Value, json};

use crate::account::AccountEvent;

/// A message for each deposit.
pub(crate) struct Deposits;

impl Outgoing for Deposits {
    type Event = AccountEvent;
    const NAME: &'static str = "deposits";
    const SOURCE: &'static str = "/bank";

    fn message(&self, event: &Recorded<AccountEvent>) -> Option<(String, Value)> {
        match event.event {
            AccountEvent::DepositMade { amount } => {
                let data = json!({ "account": event.aggregate_id(), "amount": amount });
                Some(("bank.deposit".to_owned(), data))
            }
            AccountEvent::WithdrawalMade { .. } => None,
        }
    }
}

/// Another message for each event, for the same receiver.
pub(crate) struct Movements;

impl Outgoing for Movements {
    type Event = AccountEvent;
    const NAME: &'static str = "movements";
    const SOURCE: &'static str = Deposits::SOURCE;

    fn message(&self, event: &Recorded<AccountEvent>) -> Option<(String, Value)> {
        let data = json!({ "account": event.aggregate_id() });
        Some(("bank.movement".to_owned(), data))
    }
}
