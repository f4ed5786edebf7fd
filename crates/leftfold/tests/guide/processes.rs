//! A process that notices accounts nobody uses: the chapter on process managers.

use std::time::Duration;

use leftfold::{
    Aggregate, CommandHandler, Event, HandlerError, Process, Reaction, Recorded, Seen, Sent, Store,
    testing::GivenProcess,
};
use serde::{Deserialize, Serialize};

use crate::account::{AccountEvent, BankAccount};

const DAYS_30: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
enum DormancyEvent {
    #[event("AccountUsed")]
    Used,
    #[event("AccountDormant")]
    Dormant,
}

#[derive(Default)]
struct Dormancy;

impl Aggregate for Dormancy {
    const CATEGORY: &'static str = "dormancy";
    type Event = DormancyEvent;

    fn apply(&mut self, _: &DormancyEvent) {}
}

#[derive(Debug, PartialEq)]
enum Command {
    SendLetter,
}

impl Process for Dormancy {
    type Sees = AccountEvent;
    type Command = Command;
    const NAME: &'static str = "dormancy"; // checkpoint and timers are stored under it

    fn route(event: &Recorded<AccountEvent>) -> Option<String> {
        Some(event.aggregate_id().to_owned())
    }

    fn react(&self, seen: Seen<'_, AccountEvent>) -> Reaction<DormancyEvent, Command> {
        match seen {
            Seen::Event(_) => Reaction::remember(DormancyEvent::Used).after("dormant", DAYS_30),
            Seen::Timer(_) => Reaction::remember(DormancyEvent::Dormant).send(Command::SendLetter),
        }
    }
}

#[derive(Event, Serialize, Deserialize)]
enum LetterEvent {
    #[event("LetterSent")]
    Sent,
}

#[derive(Default)]
struct Letters;

impl Aggregate for Letters {
    const CATEGORY: &'static str = "letters";
    type Event = LetterEvent;

    fn apply(&mut self, _: &LetterEvent) {}
}

struct PostOffice;

impl CommandHandler<Command> for PostOffice {
    async fn carry_out(&self, command: &Command, sent: &Sent) -> Result<(), HandlerError> {
        let Command::SendLetter = command;
        let letters = sent.repository::<Letters>();
        letters
            .execute(sent.process_id(), |_| LetterEvent::Sent)
            .await?;
        Ok(())
    }
}

#[tokio::test]
async fn an_account_that_is_used_is_noticed() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    let dormancy = store.process::<Dormancy, _>(PostOffice).parallel(8).spawn();
    let done = accounts.execute("7f3", |a| a.deposit(100)).await?;
    dormancy.wait_for(done.position.unwrap_or_default()).await?;
    let used = store.repository::<Dormancy>().load("7f3").await?;
    assert_eq!(used.event_count(), 1);
    dormancy.stop().await?;
    Ok(())
}

#[test]
fn a_letter_is_sent_when_the_timer_is_due() {
    GivenProcess::<Dormancy>::nothing()
        .when_seeing("account-7f3", AccountEvent::Deposited { cents: 100 })
        .then([DormancyEvent::Used])
        .then_timer("dormant", DAYS_30);
    GivenProcess::<Dormancy>::nothing()
        .sees("account-7f3", AccountEvent::Deposited { cents: 100 })
        .when_due("dormant")
        .then_sends([Command::SendLetter]);
}
