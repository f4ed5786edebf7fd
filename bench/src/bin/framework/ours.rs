//! Our side of each row.
//!
//! **Owns:** filling a store with histories, and executing commands. **Does not know:** peers.
//! **Invariants:** commands go through the public interface; only histories are appended in one go.

use std::time::Instant;

use leftfold::{
    Event, Repository, Store,
    model::{Append, EventType, ExpectedRevision, NewEvent, StreamName},
};

use crate::{
    bank::{Account, AccountEvent, account_of},
    bare::STREAMS_EACH,
};

/// Gives accounts histories of deposits.
pub(crate) async fn fill(store: &Store, accounts: &[(&str, u64)]) -> anyhow::Result<()> {
    for (account, events) in accounts {
        let stream = StreamName::new(format!("account-{account}"))?;
        let deposit = |_| {
            let event = AccountEvent::Deposited { cents: 1 };
            let event_type = EventType::new(event.event_type())?;
            anyhow::Ok(NewEvent::json(event_type, event.encode()?.data))
        };
        let history = (0..*events).map(deposit).collect::<Result<_, _>>()?;
        let append = Append::to(stream, ExpectedRevision::NoStream, history)?;
        store.event_store().append(append).await?;
    }
    Ok(())
}

/// Gives each account of the bank its history.
pub(crate) async fn fill_bank(store: &Store, histories: &[u64]) -> anyhow::Result<()> {
    for (account, events) in histories.iter().enumerate() {
        fill(store, &[(&account.to_string(), *events)]).await?;
    }
    Ok(())
}

/// The nth command of the bank.
pub(crate) async fn deposit(accounts: &Repository<Account>, command: u64) -> anyhow::Result<()> {
    let account = account_of(command).to_string();
    accounts
        .execute(&account, |account| account.deposit(1))
        .await?;
    Ok(())
}

/// Executes commands, each caller on accounts of its own.
pub(crate) async fn executes(
    accounts: &Repository<Account>,
    callers: u64,
    seconds: f64,
) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let accounts = accounts.clone();
            tokio::spawn(async move {
                let mut count = 0;
                while begun.elapsed().as_secs_f64() < seconds {
                    let id = format!("{caller}-{}", count % STREAMS_EACH);
                    accounts.execute(&id, |account| account.deposit(1)).await?;
                    count += 1;
                }
                anyhow::Ok(count)
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
