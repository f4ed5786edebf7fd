//! The bank account over MongoDB: one line differs from `bank_account.rs`.
//!
//! `cargo run --features mongodb --example bank_account_mongodb -- mongodb://localhost/bank`

use std::{env, error::Error};

use leftfold::{Aggregate, Event, Store};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event("DepositMade")]
    DepositMade { amount: u64 },
    #[event("WithdrawalMade")]
    WithdrawalMade { amount: u64 },
}

#[derive(Default)]
struct BankAccount {
    balance: u64,
}

impl BankAccount {
    fn deposit(&self, amount: u64) -> Result<AccountEvent, String> {
        Ok(AccountEvent::DepositMade { amount })
    }

    fn withdraw(&self, amount: u64) -> Result<AccountEvent, String> {
        if amount > self.balance {
            return Err(format!(
                "insufficient funds: balance {}, requested {amount}",
                self.balance
            ));
        }
        Ok(AccountEvent::WithdrawalMade { amount })
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

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = match env::args().nth(1) {
        Some(address) => Store::mongodb(&address).await?,
        None => Store::memory(),
    };
    println!("balance: {}", run(&store).await?);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
pub(crate) async fn run(store: &Store) -> Result<u64, Box<dyn Error>> {
    let accounts = store.repository::<BankAccount>();
    accounts
        .execute("7f3", |account| account.deposit(100))
        .await?;
    accounts
        .execute("7f3", |account| account.withdraw(30))
        .await?;
    if let Err(refused) = accounts
        .execute("7f3", |account| account.withdraw(1_000_000))
        .await
    {
        println!("{refused:?}");
    }
    Ok(accounts.load("7f3").await?.state().balance)
}
