//! The account, some years later: the chapter on versions.

use leftfold::{Aggregate, Event, Store, UpcastEvent, Upcasters, testing::EventsLock};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::account::BankAccount;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(upcast = history)]
enum AccountEvent {
    #[event("MoneyDeposited", version = 2)]
    Deposited { cents: u64, currency: String },
    #[event("MoneyPaidOut")]
    PaidOut { cents: u64 },
    #[event("FeeCharged")]
    FeeCharged { cents: u64 },
}

fn history() -> Upcasters {
    Upcasters::new()
        // A field was added.
        .change("MoneyDeposited", 1, |data| data["currency"] = "EUR".into())
        // What was one event is two now.
        .split("MoneyWithdrawn", 1, |old| {
            let cents = old.data["cents"].as_u64().ok_or("cents is not a number")?;
            Ok(vec![
                UpcastEvent::new("MoneyPaidOut", 1, json!({ "cents": cents - 1 })),
                UpcastEvent::new("FeeCharged", 1, json!({ "cents": 1 })),
            ])
        })
        // No reader needs this event.
        .drop("StatementPrinted", 1)
}

#[derive(Default)]
struct Account {
    balance: u64,
    fees: u64,
}

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited { cents, .. } => self.balance += cents,
            AccountEvent::PaidOut { cents } => self.balance -= cents,
            AccountEvent::FeeCharged { cents } => {
                self.balance -= cents;
                self.fees += cents;
            }
        }
    }
}

#[tokio::test]
async fn the_newer_program_reads_what_the_older_one_wrote() -> Result<(), Box<dyn std::error::Error>>
{
    let store = Store::memory();
    let older = store.repository::<BankAccount>();
    older.execute("7f3", |account| account.deposit(100)).await?;
    older.execute("7f3", |account| account.withdraw(30)).await?;

    let account = store.repository::<Account>().load("7f3").await?;
    assert_eq!((account.state().balance, account.state().fees), (70, 1));
    assert_eq!(account.event_count(), 2); // what is stored is as it was
    Ok(())
}

#[test]
fn stored_shapes_stay_as_they_are() {
    EventsLock::at("tests/guide/events.lock")
        .with::<AccountEvent>()
        .check();
}
