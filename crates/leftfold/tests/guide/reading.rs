//! A live projection of all accounts, and the history of one: the chapter on reading.

use std::{collections::BTreeMap, time::Duration};

use futures_util::TryStreamExt;
use leftfold::{Aggregate, LiveProjection, Recorded, Store, model::Revision, testing::GivenLive};
use serde::Serialize;

use crate::account::AccountEvent::{self, Deposited, Withdrawn};

#[derive(Default)]
struct Balances {
    by_account: BTreeMap<String, u64>,
}

impl LiveProjection for Balances {
    type Event = AccountEvent;

    fn project(&mut self, event: &Recorded<AccountEvent>) {
        let id = event.aggregate_id().to_owned();
        let balance = self.by_account.entry(id).or_default();
        match event.event {
            Deposited { cents } => *balance += cents,
            Withdrawn { cents } => *balance -= cents,
        }
    }
}

#[derive(Default, Serialize)]
struct Account {
    balance: u64,
    deposits: u64,
}

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            Deposited { cents } => {
                self.balance += cents;
                self.deposits += 1;
            }
            Withdrawn { cents } => self.balance -= cents,
        }
    }
}

#[tokio::test]
async fn balances_are_read_and_the_past_is_looked_at() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::memory();
    let balances = store.live::<Balances>();
    let accounts = store.repository::<Account>();
    let deposit = |cents| move |_: &Account| Ok::<_, String>(Deposited { cents });

    let done = accounts.execute("7f3", deposit(100)).await?;
    let position = done.position.unwrap_or_default();
    balances.wait_for(position, Duration::from_secs(2)).await?;
    let rich: usize = balances.read(|b| b.by_account.values().filter(|&&c| c >= 100).count());
    assert_eq!(rich, 1);

    accounts.execute("7f3", deposit(0)).await?;
    let steps: Vec<_> = accounts.history("7f3").try_collect().await?;
    assert_eq!(steps[0].after["balance"], 100);
    assert_eq!(steps[1].changes[0].field, "/deposits");

    let cause = accounts.last_change("7f3", "/balance").await?;
    assert_eq!(cause.map(|step| step.revision), Some(Revision::new(0)));

    let changes = accounts
        .diff("7f3", Revision::new(0), Revision::new(1))
        .await?;
    assert_eq!(changes.len(), 1);
    Ok(())
}

#[test]
fn balances_are_added_up_by_account() {
    GivenLive::<Balances>::nothing()
        .and("account-7f3", Deposited { cents: 100 })
        .and("account-9a1", Deposited { cents: 20 })
        .and("account-7f3", Withdrawn { cents: 30 })
        .then(|balances| assert_eq!(balances.by_account["7f3"], 70));
}
