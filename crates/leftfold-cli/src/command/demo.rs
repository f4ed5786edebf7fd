//! `leftfold demo`: a bank account, from the first deposit to a balance by replay.
//!
//! **Owns:** the example. **Does not know:** anything beyond the framework's public API.
//! **Invariants:** the last line is the balance, computed by replaying stored events.

use std::io::Write;

use futures_util::StreamExt;
use leftfold::{Aggregate, Event, ExecuteError, Store, model::Read};
use serde::{Deserialize, Serialize};

use super::output;
use crate::{
    cli, display,
    open::{self, StoreLocation},
};

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event("DepositMade")]
    DepositMade { amount: u64 },
    #[event("WithdrawalMade")]
    WithdrawalMade { amount: u64 },
}

#[derive(Debug, thiserror::Error)]
#[error("insufficient funds: balance {balance}, requested {requested}")]
struct InsufficientFunds {
    balance: u64,
    requested: u64,
}

#[derive(Default)]
struct BankAccount {
    balance: u64,
}

impl BankAccount {
    fn deposit(&self, amount: u64) -> Result<AccountEvent, InsufficientFunds> {
        Ok(AccountEvent::DepositMade { amount })
    }

    fn withdraw(&self, requested: u64) -> Result<AccountEvent, InsufficientFunds> {
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
            AccountEvent::DepositMade { amount } => {
                self.balance = self.balance.saturating_add(*amount)
            }
            AccountEvent::WithdrawalMade { amount } => {
                self.balance = self.balance.saturating_sub(*amount)
            }
        }
    }
}

const ACCOUNT: &str = "123";

pub(crate) async fn run(arguments: cli::Demo) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let is_kept = arguments.data.is_some() || arguments.url.is_some();
    let place = match (arguments.url, arguments.data) {
        (Some(url), _) => StoreLocation::Server(url),
        (None, Some(data)) => StoreLocation::at(&data)?,
        (None, None) => StoreLocation::Directory(temporary.path().to_owned()),
    };
    let store = Store::from(open::at(&place).await?);
    let accounts = store.repository::<BankAccount>();
    let mut out = output();
    let before = accounts.load(ACCOUNT).await?;
    match (is_kept, before.event_count()) {
        (false, _) => writeln!(
            out,
            "a new store in a temporary directory (keep it with --data DIR)"
        )?,
        (true, 0) => writeln!(out, "a new store in {place}")?,
        (true, events) => {
            let balance = before.state().balance;
            writeln!(
                out,
                "going on in {place}: {events} events, balance {balance}"
            )?;
        }
    }
    accounts
        .execute(ACCOUNT, |account| account.deposit(100))
        .await?;
    writeln!(out, "deposited 100")?;
    accounts
        .execute(ACCOUNT, |account| account.withdraw(30))
        .await?;
    writeln!(out, "withdrew 30")?;
    let too_much = before.state().balance.saturating_add(1_000);
    match accounts
        .execute(ACCOUNT, |account| account.withdraw(too_much))
        .await
    {
        Err(ExecuteError::Rejected(why)) => {
            writeln!(out, "withdrawing {too_much} was refused: {why}")?
        }
        Err(other) => return Err(other.into()),
        Ok(_) => anyhow::bail!("a withdrawal over the balance went through"),
    }
    writeln!(out, "\nas stored:")?;
    let mut batches = store
        .event_store()
        .read(Read::stream(accounts.stream(ACCOUNT)?));
    while let Some(batch) = batches.next().await {
        for event in batch?.events {
            writeln!(out, "{}", display::event(&event))?;
        }
    }
    store.close().await?;
    drop((accounts, batches, store));
    let store = Store::from(open::at(&place).await?);
    let account = store.repository::<BankAccount>().load(ACCOUNT).await?;
    writeln!(
        out,
        "\nclosed, opened again, replayed {} events",
        account.event_count()
    )?;
    writeln!(out, "balance: {}", account.state().balance)?;
    Ok(out.flush()?)
}
