//! A listener that thanks for deposits, and a live projection beside it.
//!
//! Each run goes on where the one before it ended.
//!
//! In memory: `cargo run -p leftfold --example listener`. In a directory: add `-- data`.

use std::{collections::BTreeMap, env, error::Error, time::Duration};

use leftfold::{Aggregate, Event, HandlerError, Listener, LiveProjection, Recorded, Store};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event("DepositMade")]
    DepositMade { cents: u64 },
}
use AccountEvent::DepositMade;

#[derive(Default)]
struct Account;

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, _: &AccountEvent) {}
}

/// Would send mails; prints them.
struct Mailer;

impl Listener for Mailer {
    type Event = AccountEvent;
    const NAME: &'static str = "mailer";

    #[expect(clippy::print_stdout, reason = "an example shows what it does")]
    async fn on(&self, deposit: &Recorded<AccountEvent>) -> Result<(), HandlerError> {
        let DepositMade { cents } = deposit.event;
        println!("{}: thank you for {cents} cents", deposit.aggregate_id());
        Ok(())
    }
}

/// What is in each account.
#[derive(Default)]
struct Balances(BTreeMap<String, u64>);

impl LiveProjection for Balances {
    type Event = AccountEvent;

    fn project(&mut self, deposit: &Recorded<AccountEvent>) {
        let DepositMade { cents } = deposit.event;
        *self.0.entry(deposit.aggregate_id().to_owned()).or_default() += cents;
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = match env::args().nth(1) {
        Some(directory) => Store::open(directory).await?,
        None => Store::memory(),
    };
    let mailer = store.follow(Mailer).parallel(8).spawn();
    let balances = store.live::<Balances>();
    let accounts = store.repository::<Account>();
    let mut last = None;
    for (id, cents) in [("ann", 100), ("bob", 250), ("ann", 50)] {
        let deposit = |_: &Account| Ok::<_, String>(DepositMade { cents });
        last = accounts.execute(id, deposit).await?.position;
    }
    let last = last.unwrap_or_default();
    mailer.wait_for(last).await?;
    balances.wait_for(last, Duration::from_secs(5)).await?;
    println!(
        "balances: {:?}",
        balances.read(|balances| balances.0.clone())
    );
    mailer.stop().await?;
    store.close().await?;
    Ok(())
}
