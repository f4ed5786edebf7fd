//! Enums of enums: one type for the events of several aggregates.
//!
//! **Owns:** the tests of `#[event(transparent)]`. **Does not know:** the generated code.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use leftfold::{
    Aggregate, Boundary, CommandHandler, DecodeError, Event, HandlerError, Listener, Model,
    Process, Reaction, Recorded, Seen, Sent, Store, UnknownEventPolicy, Upcasters,
    model::{Append, ContentType, EventType, ExpectedRevision, NewEvent, StreamName},
    testing::{EventsLock, GivenLive, GivenProcess},
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::account::{AccountEvent, BankAccount};

#[derive(Event, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[event(upcast = history)]
enum CardEvent {
    #[event("CardIssued", version = 2)]
    Issued {
        #[tag("account")]
        account: String,
        limit: u64,
    },
    #[event("CardBlocked")]
    Blocked,
}

fn history() -> Upcasters {
    Upcasters::new()
        .rename("CardStopped", "CardBlocked")
        .change("CardIssued", 1, |data| data["limit"] = 500.into())
}

#[derive(Default)]
struct Card;

impl Aggregate for Card {
    const CATEGORY: &'static str = "card";
    type Event = CardEvent;
    fn apply(&mut self, _: &CardEvent) {}
}

#[derive(Event, Debug, Clone, PartialEq)]
enum BankEvent {
    #[event(transparent)]
    Account(AccountEvent),
    #[event(transparent)]
    Card(CardEvent),
}

/// One more level.
#[derive(Event, Debug, PartialEq)]
#[event(unknown = "skip")]
enum AnyEvent {
    #[event(transparent)]
    Bank(BankEvent),
}

fn issued(limit: u64) -> CardEvent {
    CardEvent::Issued {
        account: "ann".into(),
        limit,
    }
}

async fn bank() -> Store {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    accounts.execute("ann", |a| a.deposit(5)).await.unwrap();
    let cards = store.repository::<Card>();
    cards.execute("c1", |_| issued(9)).await.unwrap();
    let old = [
        ("CardIssued", r#"{"account":"bob"}"#),
        ("CardStopped", "null"),
    ];
    for (name, data) in old {
        let event = NewEvent::new(EventType::new(name).unwrap(), ContentType::Json, data);
        let stream = StreamName::new("card-c2").unwrap();
        let append = Append::to(stream, ExpectedRevision::Any, vec![event]).unwrap();
        store.event_store().append(append).await.unwrap();
    }
    accounts.execute("ann", |a| a.withdraw(2)).await.unwrap();
    store
}

fn all() -> Vec<BankEvent> {
    let old = CardEvent::Issued {
        account: "bob".into(),
        limit: 500,
    };
    vec![
        BankEvent::Account(AccountEvent::DepositMade { amount: 5 }),
        BankEvent::Card(issued(9)),
        BankEvent::Card(old),
        BankEvent::Card(CardEvent::Blocked),
        BankEvent::Account(AccountEvent::WithdrawalMade { amount: 2 }),
    ]
}

#[tokio::test]
async fn events_of_several_enums_are_read_in_the_order_of_the_log_and_upcast_by_their_own() {
    let store = bank().await;
    let events = store.events::<BankEvent>().collect().await.unwrap();
    let events: Vec<_> = events.into_iter().map(|read| read.event).collect();
    assert_eq!(events, all());
    let events = store.events::<AnyEvent>().collect().await.unwrap();
    let events: Vec<_> = events.into_iter().map(|read| read.event).collect();
    assert_eq!(
        events,
        all().into_iter().map(AnyEvent::Bank).collect::<Vec<_>>()
    );
}

#[test]
fn an_enum_of_enums_is_stored_as_the_enums_are() {
    for event in all() {
        let (encoded, name, version, tags) = match &event {
            BankEvent::Account(event) => (
                event.encode().unwrap(),
                event.event_type(),
                event.version(),
                event.tags(),
            ),
            BankEvent::Card(event) => (
                event.encode().unwrap(),
                event.event_type(),
                event.version(),
                event.tags(),
            ),
        };
        assert_eq!(event.encode().unwrap(), encoded);
        assert_eq!((event.event_type(), event.version()), (name, version));
        assert_eq!(event.tags(), tags);
    }
    let names: Vec<_> = BankEvent::KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(
        names,
        ["DepositMade", "WithdrawalMade", "CardIssued", "CardBlocked"]
    );
    for (kind, of_card) in [(2, 0), (3, 1)] {
        assert_eq!(BankEvent::shape(kind), CardEvent::shape(of_card));
    }
    assert_eq!(BankEvent::UNKNOWN, UnknownEventPolicy::Error);
    assert_eq!(AnyEvent::UNKNOWN, UnknownEventPolicy::Skip);
    let none = BankEvent::decode(9, leftfold::Data::Stored(ContentType::Json, b"{}"));
    assert!(
        matches!(none, Err(DecodeError::UnknownType { .. })),
        "{none:?}"
    );
    let directory = tempfile::tempdir().unwrap();
    let locked = directory.path().join("events.lock");
    std::fs::write(&locked, "").unwrap();
    let missing = std::panic::catch_unwind(|| {
        EventsLock::at(&locked).with::<BankEvent>().check();
    });
    let missing = missing.unwrap_err();
    let text = missing.downcast_ref::<String>().unwrap();
    assert!(text.contains("CardIssued 2"), "{text}");
}

struct Teller(Arc<Mutex<Vec<BankEvent>>>);

impl Listener for Teller {
    type Event = BankEvent;
    const NAME: &'static str = "teller";

    async fn on(&self, event: &Recorded<BankEvent>) -> Result<(), HandlerError> {
        let mut seen = self.0.lock().map_err(|_| "broken")?;
        seen.push(event.event.clone());
        Ok(())
    }
}

#[tokio::test]
async fn a_listener_acts_on_the_events_of_several_enums_in_one_order() {
    let store = bank().await;
    let seen = Arc::default();
    let teller = store.follow(Teller(Arc::clone(&seen))).spawn();
    let head = store.event_store().head().await.unwrap();
    let reached = timeout(Duration::from_secs(60), teller.wait_for(head)).await;
    reached.unwrap().unwrap();
    teller.stop().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), all());
}

/// How much an account may still spend by card.
#[derive(Clone, Debug, PartialEq)]
struct Cards {
    account: &'static str,
    limits: u64,
}

impl Model for Cards {
    type Event = BankEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("account", self.account)
    }

    fn apply(&mut self, event: &BankEvent) {
        if let BankEvent::Card(CardEvent::Issued { limit, .. }) = event {
            self.limits += limit;
        }
    }
}

#[tokio::test]
async fn a_decision_on_several_enums_appends_events_of_any() {
    let store = bank().await;
    let model = || Cards {
        account: "ann",
        limits: 0,
    };
    let issue = |cards: &Cards| BankEvent::Card(issued(cards.limits + 1));
    store.decision(model()).decide(issue).await.unwrap();
    let second = |cards: &Cards| match cards.limits {
        19 => Ok(BankEvent::Card(issued(1))),
        limits => Err(limits),
    };
    store.decision(model()).decide(second).await.unwrap();
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
enum WatchEvent {
    #[event("WatchNoted")]
    Noted { of_card: bool },
}

#[derive(Default)]
struct Watch;

impl Aggregate for Watch {
    const CATEGORY: &'static str = "watch";
    type Event = WatchEvent;
    fn apply(&mut self, _: &WatchEvent) {}
}

struct Nothing;

impl CommandHandler<()> for Nothing {
    async fn carry_out(&self, (): &(), _: &Sent) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl Process for Watch {
    type Sees = BankEvent;
    type Command = ();
    const NAME: &'static str = "watch";

    fn route(event: &Recorded<BankEvent>) -> Option<String> {
        Some(event.aggregate_id().to_owned())
    }

    fn react(&self, seen: Seen<'_, BankEvent>) -> Reaction<WatchEvent, ()> {
        match seen {
            Seen::Event(event) => {
                let of_card = matches!(event.event, BankEvent::Card(_));
                Reaction::remember(WatchEvent::Noted { of_card })
            }
            Seen::Timer(_) => Reaction::ignore(),
        }
    }
}

#[tokio::test]
async fn a_process_sees_the_events_of_several_enums() {
    GivenProcess::<Watch>::nothing()
        .when_seeing("card-c1", BankEvent::Card(CardEvent::Blocked))
        .then([WatchEvent::Noted { of_card: true }]);
    let store = bank().await;
    let watch = store.process::<Watch, _>(Nothing).spawn();
    let head = store.event_store().head().await.unwrap();
    let reached = timeout(Duration::from_secs(60), watch.wait_for(head)).await;
    reached.unwrap().unwrap();
    watch.stop().await.unwrap();
    let noted = store.events::<WatchEvent>().collect().await.unwrap();
    let noted: Vec<_> = noted.into_iter().map(|read| read.event).collect();
    let expected = [false, true, true, true, false].map(|of_card| WatchEvent::Noted { of_card });
    assert_eq!(noted, expected);
}

#[derive(Default, Debug)]
struct Counts {
    accounts: u32,
    cards: u32,
}

impl leftfold::LiveProjection for Counts {
    type Event = BankEvent;

    fn project(&mut self, event: &Recorded<BankEvent>) {
        match event.event {
            BankEvent::Account(_) => self.accounts += 1,
            BankEvent::Card(_) => self.cards += 1,
        }
    }
}

#[test]
fn a_live_projection_is_tested_without_a_store() {
    let given = all()
        .into_iter()
        .fold(GivenLive::<Counts>::nothing(), |given, event| {
            given.and("any-1", event)
        });
    let counts = given.then(|counts| (counts.accounts, counts.cards));
    assert_eq!(counts, (2, 3));
}
