//! `cqrs-es` with `postgres-es`.
//!
//! **Owns:** the bank in its words. **Does not know:** the other sides.
//! **Invariants:** its tables are those of its documents, without those for views.

use std::sync::Arc;

use cqrs_es::{Aggregate, DomainEvent, event_sink::EventSink};
use postgres_es::{PostgresCqrs, postgres_cqrs};
use serde::{Deserialize, Serialize};

use super::pool;
use crate::{bank::account, rate};

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum PeerEvent {
    Deposited { cents: u64 },
}

impl DomainEvent for PeerEvent {
    fn event_type(&self) -> String {
        "MoneyDeposited".to_owned()
    }
    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("refused")]
pub(crate) struct Refused;

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct PeerAccount {
    balance: u64,
}

impl Aggregate for PeerAccount {
    const TYPE: &'static str = "account";
    type Command = u64;
    type Event = PeerEvent;
    type Error = Refused;
    type Services = ();

    async fn handle(&mut self, cents: u64, _: &(), sink: &EventSink<Self>) -> Result<(), Refused> {
        sink.write(PeerEvent::Deposited { cents }, self).await;
        Ok(())
    }

    fn apply(&mut self, event: PeerEvent) {
        let PeerEvent::Deposited { cents } = event;
        self.balance += cents;
    }
}

pub(crate) type Bank = Arc<PostgresCqrs<PeerAccount>>;

pub(crate) async fn bank(address: &str) -> anyhow::Result<Bank> {
    let pool = pool(address).await?;
    sqlx::raw_sql(
        "create table events (aggregate_type text not null, aggregate_id text not null, \
         sequence bigint check (sequence >= 0) not null, event_type text not null, event_version text not null, \
         payload json not null, metadata json not null, primary key (aggregate_type, aggregate_id, sequence))",
    )
    .execute(&pool)
    .await?;
    Ok(Arc::new(postgres_cqrs(pool, Vec::new(), ())))
}

pub(crate) async fn deposits(bank: &Bank, callers: u64, seconds: f64) -> anyhow::Result<f64> {
    let bank = Arc::clone(bank);
    rate(callers, seconds, move |caller, count| {
        let bank = Arc::clone(&bank);
        async move {
            bank.execute(&account(caller, count), 1).await?;
            Ok(())
        }
    })
    .await
}
