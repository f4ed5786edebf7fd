//! A listener on the account: the chapter on listeners.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use leftfold::{
    Backoff, Event, HandlerError, Listener, Metadata, Recorded, Start, Store, model::Position,
};
use serde::{Deserialize, Serialize};

use crate::account::{AccountEvent, BankAccount};

struct Mailer {
    outbox: Arc<Mutex<Vec<String>>>,
}

impl Listener for Mailer {
    type Event = AccountEvent;
    const NAME: &'static str = "mailer"; // the checkpoint is kept under it

    async fn on(&self, event: &Recorded<AccountEvent>) -> Result<(), HandlerError> {
        let account = event.aggregate_id();
        let mail = match &event.event {
            AccountEvent::Deposited { cents } => format!("{account}: {cents} came in"),
            AccountEvent::Withdrawn { cents } => format!("{account}: {cents} went out"),
        };
        if account == "no-address" {
            return Err("mail address is missing".into());
        }
        self.outbox
            .lock()
            .map_err(|_| "outbox is broken")?
            .push(mail);
        Ok(())
    }
}

#[tokio::test]
async fn a_mailer_sends_what_happened() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    let outbox = Arc::new(Mutex::new(Vec::new()));
    let listener = Mailer {
        outbox: outbox.clone(),
    };

    let mailer = store
        .follow(listener)
        .from(Start::Beginning)
        .parallel(8)
        .retry(Backoff::default().initial(Duration::from_millis(1)))
        .spawn();

    let done = accounts
        .execute("7f3", |account| account.deposit(100))
        .await?;
    mailer.wait_for(done.position.unwrap_or_default()).await?;
    assert_eq!(*outbox.lock().unwrap(), ["7f3: 100 came in"]);

    let done = accounts
        .execute("no-address", |account| account.deposit(5))
        .await?;
    mailer.wait_for(done.position.unwrap_or_default()).await?;
    let parked = mailer.parked(Position::START).await?.remove(0);
    assert_eq!(parked.reason, "mail address is missing");

    let failed_again = mailer.retry_and_wait(parked.position).await?;
    assert_eq!(failed_again.unwrap().attempts, 5);
    mailer.skip(parked.position).await?;
    mailer.stop().await?;
    Ok(())
}

#[derive(Event, Serialize, Deserialize)]
enum CardEvent {
    #[event("CardOrdered")]
    Issued,
}

#[derive(Event)]
enum BankEvent {
    #[event(transparent)]
    Account(AccountEvent),
    #[event(transparent)]
    Card(CardEvent),
}

struct CardMailer {
    outbox: Arc<Mutex<Vec<String>>>,
}

impl Listener for CardMailer {
    type Event = BankEvent;
    const NAME: &'static str = "card-mailer";

    async fn on(&self, event: &Recorded<BankEvent>) -> Result<(), HandlerError> {
        let mail = match &event.event {
            BankEvent::Account(_) => return Ok(()),
            BankEvent::Card(CardEvent::Issued) => "your card is on its way",
        };
        let mail = format!("{}: {mail}", event.aggregate_id());
        self.outbox
            .lock()
            .map_err(|_| "outbox is broken")?
            .push(mail);
        Ok(())
    }
}

#[derive(Default)]
struct Card;

impl leftfold::Aggregate for Card {
    const CATEGORY: &'static str = "card";
    type Event = CardEvent;
    fn apply(&mut self, _: &CardEvent) {}
}

#[tokio::test]
async fn a_listener_on_several_aggregates_and_the_causes_of_a_visit()
-> Result<(), Box<dyn std::error::Error>> {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();

    let visit = Metadata::new().correlation("visit-7");
    accounts
        .with_metadata(visit)
        .execute("7f3", |account| account.deposit(100))
        .await?;
    let causes = store.causes("visit-7").await?;
    print!("{causes}"); // MoneyDeposited in account-7f3, position 1
    assert_eq!(
        causes.to_string(),
        "MoneyDeposited in account-7f3, position 1\n"
    );

    let cards = store.repository::<Card>();
    let issued = cards.execute("c1", |_| CardEvent::Issued).await?;
    let outbox = Arc::new(Mutex::new(Vec::new()));
    let listener = CardMailer {
        outbox: outbox.clone(),
    };
    let mailer = store.follow(listener).spawn();
    mailer.wait_for(issued.position.unwrap_or_default()).await?;
    assert_eq!(*outbox.lock().unwrap(), ["c1: your card is on its way"]);
    Ok(())
}
