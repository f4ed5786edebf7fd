//! `disintegrate` with `disintegrate-postgres`.
//!
//! **Owns:** the bank in its words. **Does not know:** the other sides.
//! **Invariants:** no snapshots, as on the other sides of these rows.

use disintegrate::{Decision, Event, NoSnapshot, StateMutate, StateQuery, serde::json::Json};
use disintegrate_postgres::{PgDecisionMaker, PgEventStore, decision_maker};
use serde::{Deserialize, Serialize};

use super::pool;
use crate::{bank::account, rate};

#[derive(Debug, Clone, PartialEq, Eq, Event, Serialize, Deserialize)]
#[stream(AccountEvent, [Deposited])]
pub(crate) enum DomainEvent {
    Deposited {
        #[id]
        account_id: String,
        cents: u64,
    },
}

#[derive(Default, StateQuery, Clone, Serialize, Deserialize)]
#[state_query(AccountEvent)]
pub(crate) struct PeerAccount {
    #[id]
    account_id: String,
    balance: u64,
}

impl StateMutate for PeerAccount {
    fn mutate(&mut self, event: Self::Event) {
        let AccountEvent::Deposited { cents, .. } = event;
        self.balance += cents;
    }
}

#[derive(Debug, thiserror::Error)]
#[error("refused")]
pub(crate) struct Refused;

struct Deposit(String);

impl Decision for Deposit {
    type Event = DomainEvent;
    type StateQuery = PeerAccount;
    type Error = Refused;

    fn state_query(&self) -> PeerAccount {
        PeerAccount {
            account_id: self.0.clone(),
            balance: 0,
        }
    }

    fn process(&self, _: &PeerAccount) -> Result<Vec<DomainEvent>, Refused> {
        Ok(vec![DomainEvent::Deposited {
            account_id: self.0.clone(),
            cents: 1,
        }])
    }
}

pub(crate) type Bank = PgDecisionMaker<DomainEvent, Json<DomainEvent>, NoSnapshot>;

pub(crate) async fn bank(address: &str) -> anyhow::Result<Bank> {
    let store = PgEventStore::try_new(pool(address).await?, Json::<DomainEvent>::default()).await?;
    Ok(decision_maker(store, NoSnapshot))
}

fn is_race(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if text.contains("could not serialize") || text.contains("oncurren") {
            return true;
        }
        cause = error.source();
    }
    false
}

pub(crate) async fn deposits(bank: &Bank, callers: u64, seconds: f64) -> anyhow::Result<f64> {
    let bank = bank.clone();
    rate(callers, seconds, move |caller, count| {
        let bank = bank.clone();
        async move {
            // Its transactions are serializable and fail under load although no two callers share an account; users retry.
            loop {
                match bank.make(Deposit(account(caller, count))).await {
                    Ok(_) => return Ok(()),
                    Err(error) if is_race(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    })
    .await
}
