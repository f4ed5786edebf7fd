//! The account whose events are read, and a log of them.
//!
//! **Owns:** the domain of all rows but one. **Does not know:** who reads.

use std::path::Path;

use leftfold::{
    Aggregate, Event, Store,
    model::{Append, EventType, ExpectedRevision, NewEvent, StreamName},
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
pub(crate) enum AccountEvent {
    #[event("MoneyDeposited")]
    Deposited { cents: i64 },
}

#[derive(Default)]
pub(crate) struct Account;

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, _: &AccountEvent) {}
}

/// Events of an account that are appended together.
const BATCH: u64 = 100;
/// How many accounts there are.
pub(crate) const ACCOUNTS: u64 = 1_000;

/// Opens a store with so many deposits.
pub(crate) async fn filled(directory: &Path, events: u64) -> anyhow::Result<Store> {
    let store = Store::open(directory).await?;
    deposits(&store, events).await?;
    Ok(store)
}

/// Appends so many deposits, to all accounts in turn.
pub(crate) async fn deposits(store: &Store, events: u64) -> anyhow::Result<()> {
    for batch in 0..events.div_ceil(BATCH) {
        let stream = StreamName::new(format!("account-{}", batch % ACCOUNTS))?;
        let count = BATCH.min(events - batch * BATCH);
        let deposit = |_| {
            let event = AccountEvent::Deposited { cents: 1 };
            let event_type = EventType::new(event.event_type())?;
            anyhow::Ok(NewEvent::json(event_type, event.encode()?.data))
        };
        let new = (0..count).map(deposit).collect::<Result<_, _>>()?;
        let append = Append::to(stream, ExpectedRevision::Any, new)?;
        store.event_store().append(append).await?;
    }
    Ok(())
}
